"""What a mail means, from the mail that came in to the answer that a test suite reads."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from api_platform import services
from http_script import scripted
from mail_platform import MailPlatform, mail_platform
from model_world import GOOD, ModelWorld, openai

from mailyard.analysis.analyses import Analyses
from mailyard.analysis.follow import ArrivalAnalysis
from mailyard.analysis.job import jobs_of
from mailyard.analysis.meaning import Meanings
from mailyard.bus.adapters.memory import MemoryBus
from mailyard.bus.live import ANALYSIS_DONE, START, LiveEvents, StoredEvent
from mailyard.core.errors import NotFound
from mailyard.core.ids import MESSAGE, type_id, uuid7
from mailyard.mailbox.inbox_value import NewInbox
from mailyard.protocol.meaning import read
from mailyard.queue.batch import Batch
from mailyard.queue.engines.postgres import PostgresEngine
from mailyard.queue.job import ANALYSIS
from mailyard.queue.settle import Settler
from mailyard.storage.database import Database
from mailyard.web.api.message_item import detail_of

CODE_MAIL = (
    b"From: Example <no-reply@example.org>\r\nTo: ada@inbox.test\r\nSubject: Sign in to Example\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n\r\n"
    b"Enter this code to sign in:\r\n\r\n  482 913\r\n\r\nOr use this link:\r\n"
    b"https://example.org/auth/magic?token=9fJ2kLmQ8rT4vX1z\r\n"
)


@pytest.fixture
async def mails(database: Database) -> AsyncIterator[MailPlatform]:
    async with mail_platform(database) as platform:
        yield platform


async def test_what_is_read_carries_its_codes_and_links_and_is_kept(
    mails: MailPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace_id = uuid7()
    [inbox] = await mails.inboxes.create(workspace_id, [NewInbox("ada", ttl_s=3600)])
    message_id = await mails.deliver("ada@inbox.test", content=CODE_MAIL)
    message = await mails.messages.read(workspace_id, message_id, inbox.id)
    app = services(mails.database)

    async def answer() -> dict[str, object]:
        detail = await detail_of(app, workspace_id, message)
        return msgspec.to_builtins(detail)["meaning"]  # type: ignore[no-any-return]

    first = await answer()
    assert [one["value"] for one in first["codes"]] == ["482913"]  # type: ignore[index]
    assert [one["purpose"] for one in first["links"]] == ["sign_in"]  # type: ignore[index]
    seen = first["codes"][0]["evidence"][0]  # type: ignore[index]
    assert message.content.text is not None
    assert message.content.text[seen["start"] : seen["end"]] == "482 913"

    # The second time nobody reads the mail: it is kept …
    def unread(raw: bytes) -> None:
        raise AssertionError("the mail is read again")

    monkeypatch.setattr("mailyard.analysis.meaning.findings_of", unread)
    assert await answer() == first
    # … until a rule changes.
    monkeypatch.setattr("mailyard.analysis.meaning.RULES_VERSION", read.RULES_VERSION + 1)
    with pytest.raises(AssertionError, match="read again"):
        await answer()


async def test_another_workspace_is_told_nothing_and_a_deleted_mail_leaves_nothing(
    mails: MailPlatform,
) -> None:
    workspace_id = uuid7()
    await mails.inboxes.create(workspace_id, [NewInbox("ada", ttl_s=3600)])
    message_id = await mails.deliver("ada@inbox.test", content=CODE_MAIL)
    meanings = Meanings(database=mails.database)
    assert (await meanings.of(workspace_id, message_id)).codes
    with pytest.raises(NotFound):
        await meanings.of(uuid7(), message_id)


async def test_mail_is_analysed_on_arrival_where_its_workspace_or_its_inbox_asks_for_it(
    database: Database,
) -> None:
    bus, live = MemoryBus(), LiveEvents(database=database, bus=MemoryBus())
    engine = PostgresEngine(database=database, bus=bus)
    world, workspace_id = ModelWorld(database), uuid7()
    async with database.connection() as connection:
        await connection.execute("INSERT INTO workspace (id, name) VALUES ($1, 'w')", workspace_id)
    analyses = Analyses(
        database=database, engine=engine, live=live, book=world.book, analyst=world.analyst
    )
    follower = ArrivalAnalysis(database=database, engine=engine)
    async with (
        mail_platform(database, followers=(follower,)) as mails,
        scripted(openai()) as server,
    ):
        asked, quiet = await mails.inboxes.create(
            workspace_id, [NewInbox("asked", ttl_s=3600), NewInbox("quiet", ttl_s=3600)]
        )
        await mails.deliver(asked.address)
        assert await _work(engine, analyses) == 0, "nobody has asked yet"
        async with database.transaction() as tx:
            await world.policies.set_inbox(workspace_id, asked.id, True, tx)
        await world.add(workspace_id, "m", "openai", server.url)
        text = b"Subject: x\r\n\r\nDear Ada, your invoice 4711 is due.\r\n"
        message_id = await mails.deliver(asked.address, content=text)
        await mails.deliver(quiet.address, content=text)
        assert await _work(engine, analyses) == 1
    [done] = await analyses.list(workspace_id, message_id)
    assert done.outcome is not None
    assert (done.state, done.outcome.model, done.outcome.answer) == ("done", "m", GOOD)
    # An event is settled when no older transaction of the server runs any more.
    told: list[StoredEvent] = []
    async with asyncio.timeout(30):
        while not told:
            await asyncio.sleep(0.02)
            told = [one for one in await live.read_after(START) if one.kind == ANALYSIS_DONE]
    assert [one.item["message_id"] for one in told] == [type_id(MESSAGE, message_id)]
    assert told[0].item["category"] == "invoice"
    # The same job again (its worker died before it said so) asks nobody.
    again = jobs_of(workspace_id, [message_id], done.ask, 1)
    await engine.enqueue(again)
    assert await _work(engine, analyses) == 1
    assert len(server.seen) == 1
    await world.http.close()


async def _work(engine: PostgresEngine, analyses: Analyses) -> int:
    """Do what lies on the lane; how many jobs that were."""
    jobs = list(await engine.lease([ANALYSIS], 100, 0.0, "test"))
    if jobs:
        settler = Settler(engine)
        await analyses.handle(Batch(jobs, settler, asyncio.Event()))
        await engine.complete(jobs)
    return len(jobs)
