"""A message with an end of its own: shown by nothing from its instant on, and gone soon after."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from app_work import receive, work
from mail_platform import about

from mailyard.app import Application
from mailyard.core.errors import InvalidInput, NotFound
from mailyard.core.ids import uuid7
from mailyard.fleet.sweep import drop_lines
from mailyard.mailbox.ending import END
from mailyard.mailbox.inbox_value import Inbox, NewInbox
from mailyard.mailbox.mailbox_value import Wanted
from mailyard.queue.job import CLEANUP, NewJob
from mailyard.receiving.accept import Acceptor
from mailyard.settings import Settings


@pytest.fixture
async def app(database_url: str, tmp_path: Path) -> AsyncIterator[Application]:
    application = Application(
        Settings(data=tmp_path, database_url=database_url, inbox_domain="inbox.test")
    )
    await application.open()
    yield application
    await application.close()


async def _two_mails(app: Application) -> tuple[UUID, Inbox, Inbox, UUID, UUID]:
    """A workspace, two inboxes of it, a mail that both have, and one that the first has."""
    workspace = uuid7()
    await app.database.pool.execute("INSERT INTO workspace VALUES ($1, 'Shop')", workspace)
    one, other = await app.inboxes.create(workspace, [NewInbox("one"), NewInbox("other")])
    acceptor = Acceptor(database=app.database, engine=app.engine, hostname="mx.test")
    ending = await receive(acceptor, one.address, other.address, content=about("xylophone"))
    staying = await receive(acceptor, one.address, content=about("metronome"))
    await work(app)
    await acceptor.close()
    return workspace, one, other, ending, staying


async def _end(app: Application, workspace: UUID, message: UUID, at: datetime | None) -> None:
    async with app.database.transaction() as tx:
        await app.endings.set(workspace, message, at, tx)


async def _shown(app: Application, workspace: UUID, inbox: Inbox) -> list[set[UUID]]:
    """What every way of looking into the inbox shows: all have to agree."""
    folder = await app.mailboxes.list(workspace, inbox.id, Wanted())
    threads = await app.mailboxes.list(workspace, inbox.id, Wanted(threads=True))
    found = await app.search.find(workspace, "subject:xylophone or subject:metronome")
    batch = await app.messages.read_inboxes(workspace, [inbox.id])
    listed = {one.id for one in (await app.messages.list(workspace, inbox.id)).items}
    ways = [
        listed,
        {line.summary.id for line in folder.items},
        {line.summary.id for line in threads.items},
        {hit.summary.id for hit in found.hits},
        {one.summary.id for one in batch},
    ]
    first = await app.messages.first(workspace, inbox.id, subject="xylophone")
    pieces = [piece async for piece in await app.mail_files.export(workspace, inbox.id, "mbox")]
    count = await app.messages.count(workspace, "")
    assert (first is not None) is (b"xylophone" in b"".join(pieces)) is (count == 3)
    return ways


async def test_from_its_instant_on_nothing_shows_it_whatever_runs(app: Application) -> None:
    workspace, one, other, ending, staying = await _two_mails(app)
    assert all(seen == {ending, staying} for seen in await _shown(app, workspace, one))
    later = datetime.now(UTC) + timedelta(hours=1)
    await _end(app, workspace, ending, later)
    listed = (await app.messages.list(workspace, one.id)).items
    assert [line.expires_at for line in listed] == [None, later]
    assert all(seen == {ending, staying} for seen in await _shown(app, workspace, one))
    at = datetime.now(UTC) + timedelta(seconds=0.3)
    await _end(app, workspace, ending, at)
    while datetime.now(UTC) <= at:
        await app.messages.list(workspace, one.id)  # into the cache, until the last moment
    # No job has run: the instant is enough, and what was cached before it is no excuse.
    assert all(seen == {staying} for seen in await _shown(app, workspace, one))
    assert (await app.messages.list(workspace, other.id)).items == []
    for reads in (app.messages.read(workspace, ending), app.messages.raw(workspace, ending)):
        with pytest.raises(NotFound):
            await reads
    with pytest.raises(NotFound):
        await _end(app, workspace, ending, None)


async def test_mail_past_the_life_that_its_inbox_allows_is_shown_by_nothing(
    app: Application,
) -> None:
    """It lies there until its partition leaves; the other inbox has its own rule."""
    workspace, one, other, ending, _ = await _two_mails(app)
    asked = (workspace, one.id)
    assert (await app.mailboxes.overview(*asked)).unseen["inbox"] == 2
    await app.inboxes.limit(*asked, message_ttl_s=1.0, messages_max=None, bytes_max=None)
    await app.database.pool.execute("SELECT pg_sleep(1.1)")
    for text in ("metronome", "xylophone", "subject:metronome", "is:unread", "*metronom*"):
        assert (await app.search.find(workspace, text, inbox_id=one.id)).hits == []
    assert (await app.search.find(workspace, "metronome")).hits == []
    found = await app.search.find(workspace, "xylophone")
    assert [(hit.summary.id, hit.summary.inbox_id) for hit in found.hits] == [(ending, other.id)]
    assert (await app.mailboxes.list(*asked, Wanted())).items == []
    assert (await app.mailboxes.overview(*asked)).unseen["inbox"] == 0
    assert await app.mailboxes.people(*asked) == []
    pieces = [piece async for piece in await app.mail_files.export(*asked, "mbox")]
    assert b"".join(pieces) == b""
    with pytest.raises(NotFound):
        await app.messages.read(workspace, ending, one.id)


async def test_its_bytes_leave_and_the_mailboxes_tell_of_it(app: Application) -> None:
    workspace, one, other, ending, staying = await _two_mails(app)
    pool = app.database.pool
    await app.meanings.of(workspace, ending)
    await _end(app, workspace, ending, datetime.now(UTC) + timedelta(hours=1))
    await work(app)
    assert await pool.fetchval("SELECT count(*) FROM message") == 2, "its time has not come"
    assert (await app.mailboxes.overview(workspace, one.id)).unseen["inbox"] == 2
    for inbox in (one, other):
        seq = (await app.mailboxes.overview(workspace, inbox.id)).seq
        await pool.execute(
            "UPDATE inbox_message SET deleted_at = now() - interval '1 s' "
            "WHERE message_id = $1 AND inbox_id = $2",
            ending,
            inbox.id,
        )
        await app.endings.sweep()
        told = await app.mailboxes.events(workspace, inbox.id, seq)
        assert [event.kind for event in told] == ["messages.deleted"]
    assert await pool.fetchval("SELECT array_agg(id) FROM message") == [staying]
    assert (await app.mailboxes.overview(workspace, one.id)).unseen["inbox"] == 1
    await pool.execute("UPDATE inbox_message SET deleted_at = deleted_at - interval '2 hours'")
    await drop_lines(app.database)()
    for table in ("inbox_message", "line_state", "search_line", "verdict", "message_meaning"):
        left = await pool.fetchval(f"SELECT count(*) FROM {table} WHERE message_id = $1", ending)
        assert left == 0, table


async def test_an_end_can_be_put_off_and_taken_away(app: Application) -> None:
    workspace, one, _, ending, staying = await _two_mails(app)
    soon, later = (datetime.now(UTC) + timedelta(hours=hours) for hours in (1, 2))
    await _end(app, workspace, ending, soon)
    await _end(app, workspace, ending, later)
    await _end(app, workspace, staying, soon)
    await _end(app, workspace, staying, None)
    # The jobs of the first ends, at their time.
    due = [NewJob(CLEANUP, END, msgspec.json.encode(one), workspace) for one in (ending, staying)]
    await app.engine.enqueue(due)
    await work(app)
    listed = (await app.messages.list(workspace, one.id)).items
    assert [(line.id, line.expires_at) for line in listed] == [(staying, None), (ending, later)]


async def test_what_is_no_end_is_refused(app: Application) -> None:
    workspace, _, _, ending, _ = await _two_mails(app)
    for at in (timedelta(seconds=-1), timedelta(days=4_000)):
        with pytest.raises(InvalidInput):
            await _end(app, workspace, ending, datetime.now(UTC) + at)
    with pytest.raises(NotFound):
        await _end(app, uuid7(), ending, datetime.now(UTC) + timedelta(hours=1))
