"""A purge leaves no byte behind: every table of the catalogue is read for what was there."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from app_work import ask, receive, work
from http_script import scripted
from model_world import openai
from report_mails import DAY_S, aggregate, carried, row

from mailyard.access.audit import Actor
from mailyard.analysis.book import NewModel
from mailyard.analysis.task import EVERYTHING
from mailyard.app import Application
from mailyard.bus.live import ANALYSIS_DONE, DELIVERY_CHANGED, MESSAGE_AUTHENTICATED
from mailyard.core.errors import NotFound
from mailyard.core.ids import INBOX, MESSAGE, type_id, uuid7
from mailyard.mailbox.inbox_value import NewInbox
from mailyard.queue.job import MEDIA, NewJob
from mailyard.receiving.accept import Acceptor
from mailyard.settings import Settings
from mailyard.storage.derived import DERIVED

WORDS = ("quokkamail", "zephyrine", "marzipanic", "oblongata")
MAIL = (
    b"From: Quokkamail <quokkamail@peer.test>\r\nTo: you@inbox.test\r\nSubject: zephyrine\r\n"
    b"Message-ID: <marzipanic@peer.test>\r\nMIME-Version: 1.0\r\n"
    b'Content-Type: multipart/mixed; boundary="=b"\r\n\r\n'
    b"--=b\r\nContent-Type: text/plain\r\n\r\nYour code is 471147, says oblongata.\r\n"
    b"--=b\r\nContent-Type: text/csv; name=marzipanic.csv\r\n"
    b"Content-Disposition: attachment; filename=marzipanic.csv\r\n\r\noblongata,1\r\n--=b--\r\n"
)

# What may name a purged inbox or message afterwards, by its id alone, and for how long.
NAMES_ONLY = {
    "audit_log": "who purged what and when, as long as the log is kept",
    "cache_change": "tags with ids, for fifteen minutes",
    "job_dead": "ids of jobs that were buried, until they are discarded",
}


@pytest.fixture(params=[1_000_000, 100], ids=["in rows", "in the blob store"])
async def app(
    database_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Application]:
    application = Application(
        Settings(
            data=tmp_path,
            database_url=database_url,
            inbox_domain="inbox.test",
            blobs=f"file://{tmp_path}/blobs",
            blobs_above=request.param,
            semantic_search=True,
        )
    )
    assert application.blobs is not None
    await application.blobs.prepare()
    await application.open()
    yield application
    await application.close()


async def found_in(app: Application, *marks: str) -> dict[str, set[str]]:
    """The tables whose rows hold a mark, as text or as bytes, and which; and the blob store, whose
    names count too."""
    patterns = [f"%{mark}%" for mark in marks]
    patterns += [f"%{mark.encode().hex()}%" for mark in marks]
    tables = await app.database.pool.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
        "AND relkind IN ('r', 'p') AND NOT relispartition"
    )
    hits: dict[str, set[str]] = {}
    if app.blobs is not None:
        async for run in app.blobs.list():
            for blob in run:
                text = f"{blob.key} {(await app.blobs.get(blob.key)).decode()}".lower()
                if marked := {mark for mark in marks if mark in text}:
                    hits.setdefault("blobs", set()).update(marked)
    for (table,) in tables:
        rows = await app.database.pool.fetch(
            f'SELECT whole::text FROM "{table}" AS whole WHERE lower(whole::text) LIKE ANY($1)',
            patterns,
        )
        for (text,) in rows:
            low = text.lower()
            hits.setdefault(table, set()).update(
                mark for mark in marks if mark in low or mark.encode().hex() in low
            )
    return hits


async def test_a_purge_leaves_no_byte_behind(
    app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, pool = uuid7(), app.database.pool
    payloads, lease = [], app.engine.lease

    async def noted(*asked: Any) -> Any:
        jobs = await lease(*asked)
        payloads.extend(job.payload for job in jobs)
        return jobs

    monkeypatch.setattr(app.engine, "lease", noted)
    await pool.execute("INSERT INTO workspace VALUES ($1, 'Shop')", workspace)
    acceptor = Acceptor(
        database=app.database,
        engine=app.engine,
        hostname="mx.test",
        elsewhere=app.elsewhere,
        raw_mail=app.raw_mail,
    )
    purged, other = await app.inboxes.create(
        workspace,
        [NewInbox("platypus", name="zephyrine", labels=("oblongata",)), NewInbox("other")],
    )
    async with app.database.transaction() as tx:
        await app.indexer.change(workspace, by_meaning=True, tx=tx)
    alone = await receive(acceptor, purged.address, content=MAIL)
    shared = await receive(acceptor, "platypus+plus@inbox.test", other.address, content=MAIL)
    await work(app)
    name = type_id(INBOX, purged.id)
    async with app.database.transaction() as tx:
        actor = Actor("user", "ada@example.org", workspace)
        told = {"address": purged.address}
        await app.audit.record(actor, "inbox.create", name, after=told, tx=tx)
        await tx.execute(
            "INSERT INTO idempotency_key VALUES ($1, 'k', 'h', 201, $2, now() + interval '1 day')",
            workspace,
            f'{{"id":"{name}","address":"{purged.address}"}}'.encode(),
        )
        of_message = type_id(MESSAGE, alone)
        await tx.execute(
            "INSERT INTO idempotency_key VALUES ($1, 'm', 'h', 200, $2, now() + interval '1 day')",
            workspace,
            f'{{"message_ids":["{of_message}"]}}'.encode(),
        )
        # What names a message alone, and what names inboxes in a list.
        await app.live.publish_runs(
            [
                (workspace, MESSAGE_AUTHENTICATED, [{"message_id": of_message, "x": "zephyrine"}]),
                (workspace, ANALYSIS_DONE, [{"message_id": "", "inbox_ids": [name]}]),
                (workspace, DELIVERY_CHANGED, [{"n": 1}]),
            ],
            tx,
        )
    await app.messages.list(workspace, purged.id)  # into the caches
    before = await found_in(app, *WORDS, "platypus")
    filled = {
        one.table
        for one in DERIVED
        if await pool.fetchval(
            f"SELECT count(*) FROM {one.table} WHERE workspace_id = $1", workspace
        )
    }
    assert ("blobs" in before) is app.raw_mail.goes_outside(len(MAIL))
    # The test says something of what is there alone; what stays empty here is told.
    assert {"message", "inbox", "inbox_message", "address", "live_event", "audit_log"} <= set(
        before
    )
    assert {
        "line_state",
        "mailbox",
        "mailbox_event",
        "search_line",
        "search_vector",
    } <= filled

    async with app.database.transaction() as tx:
        await app.purges.ask(workspace, [purged.id], tx)
        await app.audit.record(actor, "inbox.purge", name, {}, None, tx=tx)
    with pytest.raises(NotFound):
        await app.inboxes.get(workspace, purged.id)
    with pytest.raises(NotFound):
        await app.messages.list(workspace, purged.id)
    assert (await ask(acceptor, purged.address)).code == 550
    await work(app)

    assert "platypus" not in str(await found_in(app, "platypus"))
    ids = (str(purged.id), name, str(alone), type_id(MESSAGE, alone))
    assert set(await found_in(app, *ids)) <= NAMES_ONLY.keys()
    # What the other inbox has of the mail that both had is whole.
    page = await app.messages.list(workspace, other.id)
    assert [item.id for item in page.items] == [shared]
    assert (await app.messages.read(workspace, shared)).content.text is not None
    async with app.database.transaction() as tx:
        await app.purges.ask(workspace, [other.id], tx)
    await work(app)
    assert await found_in(app, *WORDS) == {}
    # Kafka keeps jobs for a while: nothing of what a mail says was ever in one.
    assert len(payloads) > 5
    said = [word for word in WORDS for payload in payloads if word.encode() in payload.lower()]
    assert said == []
    with pytest.raises(NotFound):
        async with app.database.transaction() as tx:
            await app.purges.ask(workspace, [purged.id], tx)
    await acceptor.close()


async def test_mail_that_comes_while_its_inbox_is_purged_leaves_nothing(app: Application) -> None:
    workspace, pool = uuid7(), app.database.pool
    await pool.execute("INSERT INTO workspace VALUES ($1, 'Shop')", workspace)
    acceptor = Acceptor(
        database=app.database, engine=app.engine, hostname="mx.test", raw_mail=app.raw_mail
    )
    [inbox] = await app.inboxes.create(workspace, [NewInbox("late")])
    await receive(acceptor, inbox.address, content=MAIL)  # taken, and not read yet
    async with app.database.transaction() as tx:
        await app.purges.ask(workspace, [inbox.id], tx)
    await work(app)
    assert await found_in(app, *WORDS) == {}
    await acceptor.close()


async def test_a_purge_takes_what_models_said_of_a_mail_unless_another_mail_asks_the_same(
    database_url: str, tmp_path: Path
) -> None:
    settings = Settings(
        data=tmp_path,
        database_url=database_url,
        inbox_domain="inbox.test",
        analysis_networks="127.0.0.0/8",
    )
    app = Application(settings)
    await app.open()
    workspace, pool = uuid7(), app.database.pool
    await pool.execute("INSERT INTO workspace VALUES ($1, 'Shop')", workspace)
    acceptor = Acceptor(database=app.database, engine=app.engine, hostname="mx.test")
    first, second = await app.inboxes.create(workspace, [NewInbox("one"), NewInbox("two")])
    mails = [await receive(acceptor, inbox.address, content=MAIL) for inbox in (first, second)]
    async with scripted(openai()) as server:
        model = NewModel("m", "openai", {"model": "m", "base_url": server.url}, "key", 1)
        async with app.database.transaction() as tx:
            await app.models.create(workspace, model, tx)
        for mail in mails:
            async with app.database.transaction() as tx:
                await app.analyses.request(workspace, mail, EVERYTHING, tx)
        await work(app)
        assert len(server.seen) == 1, "the same was asked before"
    told = [(await app.analyses.list(workspace, mail))[0].outcome for mail in mails]
    assert [one.model for one in told if one is not None] == ["m", "m"]
    for inbox, left in ((first, 1), (second, 0)):
        async with app.database.transaction() as tx:
            await app.purges.ask(workspace, [inbox.id], tx)
        await work(app)
        assert await pool.fetchval("SELECT count(*) FROM message_analysis") == left
        assert await pool.fetchval("SELECT count(*) FROM analysis_result") == left
    assert await found_in(app, *WORDS) == {}
    await acceptor.close()
    await app.close()


async def test_a_purge_takes_what_reports_in_the_inbox_said_and_what_failures_quote(
    app: Application,
) -> None:
    """Reports are read into tables of their own, and a job that fails says why."""
    workspace, pool = uuid7(), app.database.pool
    await pool.execute("INSERT INTO workspace VALUES ($1, 'Shop')", workspace)
    acceptor = Acceptor(
        database=app.database, engine=app.engine, hostname="mx.test", raw_mail=app.raw_mail
    )
    alone, shared = await app.inboxes.create(workspace, [NewInbox("alone"), NewInbox("shared")])
    begin_s = int(app.clock.now().timestamp()) // DAY_S * DAY_S - 2 * DAY_S
    rows = row("192.0.2.1", 7, "pass", "fail").replace("ours.example", "quokkamail.example")
    for report_id, addresses in (
        ("oblongata", (alone.address,)),
        ("zephyrine", (alone.address, shared.address)),
        ("marzipanic", (alone.address,)),
        ("marzipanic", (shared.address,)),  # the same report again, elsewhere
    ):
        content = carried(aggregate(begin_s, report_id, rows), "peer.xml.gz")
        message = await receive(acceptor, *addresses, content=content)
    await work(app)
    found, _ = await app.reports.dmarc_reports(workspace, "", before=None, limit=10)
    assert {one.report_id for one in found} == {"oblongata", "zephyrine", "marzipanic"}
    assert (await app.reports.domains(workspace, 30))[0].messages == 21  # into the caches
    dead = NewJob(MEDIA, "index", msgspec.json.encode([[message, 0, 9]]), workspace)
    await app.engine.enqueue([dead])
    leased = list(await app.engine.lease([MEDIA], 9, 0.0, "test"))
    await app.engine.bury(leased, "cannot read 'zephyrine'")

    async with app.database.transaction() as tx:
        await app.purges.ask(workspace, [alone.id], tx)
    await work(app)
    found, _ = await app.reports.dmarc_reports(workspace, "", before=None, limit=10)
    assert {one.report_id for one in found} == {"zephyrine", "marzipanic"}
    assert (await app.reports.domains(workspace, 30))[0].messages == 14
    assert await pool.fetchval("SELECT error FROM job_dead") == "cannot read 'zephyrine'"
    assert "dmarc_report" not in await found_in(app, str(alone.id))
    async with app.database.transaction() as tx:
        await app.purges.ask(workspace, [shared.id], tx)
    await work(app)
    assert await found_in(app, *WORDS) == {}
    await acceptor.close()


async def test_another_workspaces_inbox_is_not_purged(app: Application) -> None:
    owner, other = uuid7(), uuid7()
    for one in (owner, other):
        await app.database.pool.execute("INSERT INTO workspace VALUES ($1, 'Shop')", one)
    [inbox] = await app.inboxes.create(owner, [NewInbox("mine")])
    with pytest.raises(NotFound):
        async with app.database.transaction() as tx:
            await app.purges.ask(other, [inbox.id], tx)
    assert (await app.inboxes.get(owner, inbox.id)).id == inbox.id


async def test_what_ended_where_nothing_is_dropped_goes_row_by_row(app: Application) -> None:
    workspace, pool = uuid7(), app.database.pool
    await pool.execute("INSERT INTO workspace VALUES ($1, 'Shop')", workspace)
    acceptor = Acceptor(
        database=app.database, engine=app.engine, hostname="mx.test", raw_mail=app.raw_mail
    )
    kept, ends, short, lives = await app.inboxes.create(
        workspace, [NewInbox("kept"), NewInbox("ends"), NewInbox("short", ttl_s=60), NewInbox("l")]
    )
    for inbox in (kept, ends, short, lives):
        await receive(acceptor, inbox.address, content=MAIL)
    await work(app)
    await app.inboxes.delete(workspace, [kept.id, short.id])
    await app.inboxes.extend(workspace, ends.id, 1.0)
    await pool.execute(
        "UPDATE inbox SET deleted_at = deleted_at - interval '2 h', "
        "expires_at = expires_at - interval '2 h'"
    )
    await app.purges.sweep()
    await app.purges.sweep()  # asked for twice, done once
    await work(app)
    left = await pool.fetch("SELECT inbox_id FROM inbox_message ORDER BY inbox_id")
    assert {row[0] for row in left} == {short.id, lives.id}, "the short one goes with its partition"
    assert await pool.fetchval("SELECT count(*) FROM message") == 2
    assert await pool.fetchval("SELECT count(*) FROM inbox") == 2
    await acceptor.close()
