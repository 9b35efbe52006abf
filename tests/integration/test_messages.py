"""Mail from the 250 into inboxes, and out of them again: lists, searches, reading, deleting."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
from mail_platform import MailPlatform, about, mail_platform

from mailyard.core import limits
from mailyard.core.errors import InvalidInput, NotFound, TooLarge
from mailyard.core.ids import INBOX, MESSAGE, time_of, type_id, uuid7
from mailyard.mailbox.inbox_value import Inbox, NewInbox
from mailyard.queue.job import INBOUND_EMAIL, NewJob
from mailyard.receiving.commit import INGEST
from mailyard.receiving.ingest import Arrival
from mailyard.storage.database import Connection, Database

DAY_S = 86_400.0


@pytest.fixture
async def platform(database: Database) -> AsyncIterator[MailPlatform]:
    async with mail_platform(database) as platform:
        yield platform


@pytest.fixture
async def ada(platform: MailPlatform, workspace_id: UUID) -> Inbox:
    [inbox] = await platform.inboxes.create(workspace_id, [NewInbox("ada", ttl_s=3600)])
    return inbox


async def rows(platform: MailPlatform, query: str) -> list[asyncpg.Record]:
    async with platform.database.connection() as connection:
        return await connection.fetch(query)


async def subjects(
    platform: MailPlatform, inbox: Inbox, whose: UUID, **search: object
) -> list[str]:
    page = await platform.messages.list(whose, inbox.id, **search)  # type: ignore[arg-type]
    return [line.subject for line in page.items]


# Ingest --------------------------------------------------------------------------------------


async def test_a_message_is_listed_read_and_taken_apart(
    platform: MailPlatform, workspace_id: UUID, ada: Inbox
) -> None:
    message_id = await platform.deliver("Ada@inbox.test")
    [line] = (await platform.messages.list(workspace_id, ada.id)).items
    assert line.id == message_id
    assert line.received_at == time_of(message_id)
    assert (line.from_address, line.from_name) == ("ada@peer.test", "Ada")
    assert (line.subject, line.attachments) == ("Your code is 4711", 1)

    message = await platform.messages.read(workspace_id, message_id)
    assert message.summary == line
    assert message.content.html == "<p>Hi</p>"
    assert "script" in (message.content.html_source or "")
    assert dict(message.content.headers)["Message-ID"] == "<1@peer.test>"
    assert (message.reverse_path, message.peer) == ("ada@peer.test", "192.0.2.1")
    raw = await platform.messages.raw(workspace_id, message_id)
    assert raw.startswith(b"Received: from peer.test")

    file = await platform.messages.attachment(workspace_id, message_id, 0)
    assert (file.attachment.filename, file.content) == ("a.pdf", b"PDF")
    for index in (1, -1):
        with pytest.raises(NotFound):
            await platform.messages.attachment(workspace_id, message_id, index)


async def test_ingest_tells_the_live_stream_and_counts(
    platform: MailPlatform, workspace_id: UUID, ada: Inbox
) -> None:
    message_id = await platform.deliver("ada@inbox.test", content=about("hello"))
    [event] = await platform.told()
    assert (event.kind, event.workspace_id) == ("message.received", workspace_id)
    assert event.item["message_id"] == type_id(MESSAGE, message_id)
    assert event.item["inbox_id"] == type_id(INBOX, ada.id)
    assert (event.item["from"], event.item["subject"]) == ("ada@peer.test", "hello")
    [delta] = await rows(platform, "SELECT * FROM counter_delta WHERE name = 'received'")
    assert (delta["workspace_id"], delta["amount"]) == (workspace_id, 1)


async def test_a_job_that_runs_twice_writes_once(
    platform: MailPlatform, workspace_id: UUID, ada: Inbox
) -> None:
    """The lease ran out and another worker took over: the late one writes nothing."""
    await platform.send("ada@inbox.test")
    jobs = await platform.lease()
    await platform.run(jobs)
    await platform.run(jobs)
    assert len((await platform.messages.list(workspace_id, ada.id)).items) == 1
    assert len(await platform.told()) == 1
    assert len(await rows(platform, "SELECT FROM counter_delta WHERE name = 'received'")) == 1


async def test_a_message_whose_lines_stand_already_is_not_listed_twice(
    platform: MailPlatform, workspace_id: UUID, ada: Inbox
) -> None:
    await platform.send("ada@inbox.test")
    jobs = await platform.lease()
    await platform.run(jobs)
    await platform.engine.enqueue(
        [NewJob(INBOUND_EMAIL, INGEST, job.payload, workspace_id) for job in jobs]
    )
    await platform.run(await platform.lease())
    assert len((await platform.messages.list(workspace_id, ada.id)).items) == 1


async def test_followers_see_the_lines_that_were_written_where_they_lie_now(
    database: Database, workspace_id: UUID
) -> None:
    class Watching:
        def __init__(self) -> None:
            self.seen: list[Arrival] = []

        async def follow(self, arrivals: Sequence[Arrival], tx: Connection) -> None:
            assert await tx.fetchval("SELECT count(*) FROM inbox_message") >= len(arrivals)
            self.seen += arrivals

    watching = Watching()
    async with mail_platform(database, [watching]) as platform:
        ada, bob, gone = await platform.inboxes.create(
            workspace_id, [NewInbox(name, ttl_s=3600) for name in ("ada", "bob", "gone")]
        )
        addresses = [inbox.address for inbox in (ada, bob, gone)]
        message_id = await platform.send(*addresses, content=about("one"))
        await platform.inboxes.extend(workspace_id, bob.id, 20 * DAY_S)
        await platform.inboxes.delete(workspace_id, [gone.id])
        jobs = await platform.lease()
        await platform.run(jobs)
        await platform.engine.enqueue(
            [NewJob(INBOUND_EMAIL, INGEST, job.payload, workspace_id) for job in jobs]
        )
        await platform.run(await platform.lease())  # its lines stand already
    assert {one.message_id for one in watching.seen} == {message_id}
    assert [
        (one.inbox_id, one.recipient, one.retention_days, one.message_retention_days)
        for one in sorted(watching.seen, key=lambda one: one.recipient)
    ] == [(ada.id, "ada@inbox.test", 1, 30), (bob.id, "bob@inbox.test", 30, 30)]
    assert watching.seen[0].summary.subject == "one"


async def test_an_inbox_deleted_after_the_250_gets_nothing_and_its_successor_neither(
    platform: MailPlatform, workspace_id: UUID, ada: Inbox
) -> None:
    await platform.send("ada@inbox.test")
    await platform.inboxes.delete(workspace_id, [ada.id])
    [heir] = await platform.inboxes.create(uuid7(), [NewInbox("ada")])
    await platform.run(await platform.lease())
    assert await rows(platform, "SELECT FROM inbox_message") == []
    assert heir.id != ada.id


async def test_an_inbox_that_is_gone_takes_nothing_from_the_others_of_its_message(
    platform: MailPlatform, workspace_id: UUID, ada: Inbox
) -> None:
    gone, bob = await platform.inboxes.create(workspace_id, [NewInbox("gone"), NewInbox("bob")])
    everybody = ("ada@inbox.test", "gone@inbox.test", "bob@inbox.test")
    await platform.send(*everybody, content=about("one"))
    await platform.send("bob@inbox.test", content=about("two"))
    await platform.inboxes.delete(workspace_id, [gone.id])
    await platform.run(await platform.lease())
    assert await subjects(platform, ada, workspace_id) == ["one"]
    assert sorted(await subjects(platform, bob, workspace_id)) == ["one", "two"]
    told = [(event.item["recipient"], event.item["subject"]) for event in await platform.told()]
    assert sorted(told) == [
        ("ada@inbox.test", "one"), ("bob@inbox.test", "one"), ("bob@inbox.test", "two")
    ]  # fmt: skip
    [delta] = await rows(platform, "SELECT sum(amount) FROM counter_delta WHERE name = 'received'")
    assert delta["sum"] == 3


async def test_a_payload_that_cannot_be_read_is_buried_and_its_neighbours_are_done(
    platform: MailPlatform, workspace_id: UUID, ada: Inbox
) -> None:
    await platform.engine.enqueue([NewJob(INBOUND_EMAIL, INGEST, b"{}", workspace_id)])
    await platform.deliver("ada@inbox.test")
    assert len((await platform.messages.list(workspace_id, ada.id)).items) == 1
    [depth] = await platform.engine.depth([INBOUND_EMAIL])
    assert (depth.dead, depth.ready, depth.leased) == (1, 0, 0)


async def refuse(platform: MailPlatform, subject: str) -> None:
    """From now on PostgreSQL refuses lines with this subject."""
    await rows(
        platform, f"ALTER TABLE inbox_message ADD CONSTRAINT no CHECK (subject <> '{subject}')"
    )


async def test_a_message_that_the_database_refuses_holds_up_no_neighbour(
    platform: MailPlatform, workspace_id: UUID, ada: Inbox
) -> None:
    await refuse(platform, "bad")
    for subject in ("one", "bad", "two"):
        await platform.send("ada@inbox.test", content=about(subject))
    jobs = await platform.lease()
    assert len(jobs) == 3
    await platform.run(jobs)
    assert sorted(await subjects(platform, ada, workspace_id)) == ["one", "two"]
    [left] = await rows(platform, "SELECT attempts, error FROM job")
    assert left["attempts"] == 1
    assert "CheckViolation" in left["error"]
    [delta] = await rows(platform, "SELECT sum(amount) FROM counter_delta WHERE name = 'received'")
    assert delta["sum"] == 2


async def test_a_job_of_several_messages_falls_apart_and_only_the_refused_one_is_buried(
    platform: MailPlatform, workspace_id: UUID, ada: Inbox
) -> None:
    for subject in ("one", "bad", "two"):
        await platform.send("ada@inbox.test", content=about(subject))
    singles = await platform.lease()
    payload = b"[" + b",".join(job.payload[1:-1] for job in singles) + b"]"
    await platform.engine.complete(singles)
    await refuse(platform, "bad")
    await platform.engine.enqueue(
        [NewJob(INBOUND_EMAIL, INGEST, payload, workspace_id, max_attempts=1)]
    )
    while jobs := await platform.lease():
        await platform.run(jobs)
    assert sorted(await subjects(platform, ada, workspace_id)) == ["one", "two"]
    [dead] = await platform.engine.list_dead(workspace_id, None, None, 10)
    bad = [job.payload for job in singles][1]
    assert (dead.payload, dead.kind) == (bad, INGEST)
    [depth] = await platform.engine.depth([INBOUND_EMAIL])
    assert (depth.ready, depth.scheduled, depth.leased, depth.dead) == (0, 0, 0, 1)


async def test_a_refused_message_is_ingested_when_it_is_refused_no_more(
    platform: MailPlatform, workspace_id: UUID, ada: Inbox
) -> None:
    await refuse(platform, "bad")
    await platform.send("ada@inbox.test", content=about("bad"))
    await platform.run(await platform.lease())
    assert await subjects(platform, ada, workspace_id) == []
    await rows(platform, "ALTER TABLE inbox_message DROP CONSTRAINT no")
    await rows(platform, "UPDATE job_scheduled SET run_at = now()")
    await platform.run(await platform.lease())
    assert await subjects(platform, ada, workspace_id) == ["bad"]


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0\0", b"\xff" * 500, b"Subject: " + b"x" * 100_000, b"From: " + b"<" * 5_000],
)
async def test_mail_of_any_kind_gets_its_line(
    platform: MailPlatform, workspace_id: UUID, ada: Inbox, content: bytes
) -> None:
    message_id = await platform.deliver("ada@inbox.test", content=content)
    [line] = (await platform.messages.list(workspace_id, ada.id)).items
    assert len(line.subject) <= 998
    raw = await platform.messages.raw(workspace_id, message_id)
    assert raw.endswith(content)
    await platform.messages.read(workspace_id, message_id)


# Lists and searches --------------------------------------------------------------------------


async def test_pages_are_newest_first_and_hold_every_message_once(
    platform: MailPlatform, workspace_id: UUID, ada: Inbox
) -> None:
    for n in range(7):
        await platform.send("ada@inbox.test", content=about(str(n)))
        await asyncio.sleep(0.002)  # an id's time counts milliseconds
    while jobs := await platform.lease():
        await platform.run(jobs)
    seen: list[str] = []
    before = None
    while True:
        page = await platform.messages.list(workspace_id, ada.id, before=before, limit=3)
        seen += [line.subject for line in page.items]
        before = page.next_before
        if before is None:
            break
    assert seen == ["6", "5", "4", "3", "2", "1", "0"]


async def test_search_by_from_subject_and_time(
    platform: MailPlatform, workspace_id: UUID, ada: Inbox
) -> None:
    await platform.deliver(
        "ada@inbox.test",
        content=b"From: =?utf-8?q?Ren=C3=A9?= <bob@peer.test>\r\nSubject: 100%_done\r\n\r\n",
    )
    await platform.deliver("ada@inbox.test", content=about("Your Code"))
    now = datetime.now(UTC)
    for search, found in (
        ({"from_": "RENÉ"}, ["100%_done"]),
        ({"from_": "BOB@"}, ["100%_done"]),
        ({"subject": "code"}, ["Your Code"]),
        ({"subject": "%_"}, ["100%_done"]),
        ({"subject": "100% done"}, []),
        ({"from_": "ada@", "subject": "code"}, ["Your Code"]),
        ({"since": now - timedelta(minutes=1)}, ["Your Code", "100%_done"]),
        ({"since": now + timedelta(minutes=1)}, []),
        ({"until": now - timedelta(minutes=1)}, []),
        ({"until": datetime(1, 1, 1, tzinfo=UTC)}, []),
    ):
        assert await subjects(platform, ada, workspace_id, **search) == found, search


async def test_a_search_that_can_never_work_is_refused(
    platform: MailPlatform, workspace_id: UUID, ada: Inbox
) -> None:
    with pytest.raises(InvalidInput):
        await platform.messages.list(workspace_id, ada.id, subject="x" * 201)
    with pytest.raises(InvalidInput):
        await platform.messages.list(workspace_id, ada.id, from_="a\0")


async def test_a_list_looks_into_the_partitions_of_its_class_and_time_alone(
    platform: MailPlatform, workspace_id: UUID, ada: Inbox
) -> None:
    async with platform.database.connection() as connection:
        plan = await connection.fetch(
            "EXPLAIN SELECT FROM inbox_message WHERE workspace_id = $1 AND inbox_id = $2"
            " AND retention_days = 1 AND message_id >= $2 AND message_id < $3"
            " ORDER BY message_id DESC LIMIT 10",
            workspace_id,
            ada.id,
            UUID(int=(1 << 128) - 1),
        )
    text = "\n".join(row[0] for row in plan)
    assert "inbox_message_d1_" in text
    assert "inbox_message_d7" not in text
    assert "inbox_message_kept" not in text


# The batch read ------------------------------------------------------------------------------


async def test_many_inboxes_are_read_at_once(platform: MailPlatform, workspace_id: UUID) -> None:
    made = await platform.inboxes.create(
        workspace_id, [NewInbox(ttl_s=3600 if n % 2 else None) for n in range(40)]
    )
    for inbox in made[:30]:
        await platform.send(inbox.address, content=about(inbox.address))
    await platform.send(made[0].address, made[1].address, content=about("both"))
    while jobs := await platform.lease():
        await platform.run(jobs)
    read = await platform.messages.read_inboxes(
        workspace_id, [inbox.id for inbox in made] * 2 + [uuid7()]
    )
    assert len(read) == 32
    for message in read:
        text = (message.content.text or "").strip()
        assert text == message.summary.subject
        assert text in ("both", message.summary.recipient)
    one = await platform.messages.read_inboxes(workspace_id, [made[0].id], each=1)
    assert [message.summary.subject for message in one] == ["both"]
    assert ("Subject", "both") in one[0].content.headers


async def test_a_batch_may_leave_the_headers_out(
    platform: MailPlatform, workspace_id: UUID
) -> None:
    (inbox,) = await platform.inboxes.create(workspace_id, [NewInbox()])
    await platform.send(inbox.address, content=about("short"))
    await platform.run(await platform.lease())
    (message,) = await platform.messages.read_inboxes(workspace_id, [inbox.id], headers=False)
    assert message.content.headers == ()
    assert message.summary.subject == (message.content.text or "").strip() == "short"


async def test_the_mail_of_a_labels_inboxes_is_counted(
    platform: MailPlatform, workspace_id: UUID
) -> None:
    made = await platform.inboxes.create(
        workspace_id,
        [NewInbox(ttl_s=3600 if n % 2 else None, labels=("run", f"n{n}")) for n in range(6)],
    )
    others = await platform.inboxes.create(workspace_id, [NewInbox(labels=("ran",))])
    for inbox in (*made[:4], made[1], *others):
        await platform.send(inbox.address)
    while jobs := await platform.lease():
        await platform.run(jobs)
    messages = platform.messages
    assert await messages.count(workspace_id, "run") == 5
    assert await messages.count(workspace_id, "n1") == 2
    assert await messages.count(workspace_id, "n5") == 0
    assert await messages.count(workspace_id, "runs") == 0
    assert await messages.count(uuid7(), "run") == 0
    (line,) = (await messages.list(workspace_id, made[0].id)).items
    await messages.delete(workspace_id, [line.id])
    await platform.inboxes.delete(workspace_id, [made[1].id])
    assert await messages.count(workspace_id, "run") == 2


async def test_a_batch_read_is_bounded(
    platform: MailPlatform, workspace_id: UUID, ada: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidInput):
        await platform.messages.read_inboxes(workspace_id, [uuid7() for _ in range(501)])
    await platform.deliver("ada@inbox.test")
    monkeypatch.setattr(limits, "READ_BYTES", 100)
    with pytest.raises(TooLarge):
        await platform.messages.read_inboxes(workspace_id, [ada.id])


# Who sees what, and for how long ---------------------------------------------------------------


async def nobody_sees(platform: MailPlatform, whose: UUID, inbox: Inbox, message_id: UUID) -> None:
    for question in (
        platform.messages.list(whose, inbox.id),
        platform.messages.first(whose, inbox.id),
        platform.messages.read(whose, message_id),
        platform.messages.read(whose, message_id, inbox.id),
        platform.messages.raw(whose, message_id),
        platform.messages.attachment(whose, message_id, 0),
    ):
        with pytest.raises(NotFound):
            await question
    assert await platform.messages.read_inboxes(whose, [inbox.id]) == []


async def test_another_workspace_sees_and_deletes_nothing(
    platform: MailPlatform, workspace_id: UUID, ada: Inbox
) -> None:
    message_id = await platform.deliver("ada@inbox.test")
    other = uuid7()
    await nobody_sees(platform, other, ada, message_id)
    assert await platform.messages.delete(other, [message_id]) == 0
    await platform.messages.read(workspace_id, message_id)


async def test_mail_of_an_expired_inbox_is_invisible_from_that_instant(
    platform: MailPlatform, workspace_id: UUID, ada: Inbox
) -> None:
    message_id = await platform.deliver("ada@inbox.test")
    await rows(platform, "UPDATE inbox SET expires_at = now()")
    await nobody_sees(platform, workspace_id, ada, message_id)


async def test_mail_of_a_deleted_inbox_is_gone_and_its_neighbours_is_not(
    platform: MailPlatform, workspace_id: UUID, ada: Inbox
) -> None:
    [bob] = await platform.inboxes.create(workspace_id, [NewInbox("bob")])
    message_id = await platform.deliver("ada@inbox.test", "bob@inbox.test")
    await platform.inboxes.delete(workspace_id, [ada.id])
    seen = await platform.messages.read(workspace_id, message_id)
    assert seen.summary.inbox_id == bob.id
    with pytest.raises(NotFound):
        await platform.messages.read(workspace_id, message_id, ada.id)
    await platform.inboxes.delete(workspace_id, [bob.id])
    await nobody_sees(platform, workspace_id, bob, message_id)


async def test_a_message_is_deleted_out_of_one_inbox_or_all_and_then_its_bytes(
    platform: MailPlatform, workspace_id: UUID, ada: Inbox
) -> None:
    [bob] = await platform.inboxes.create(workspace_id, [NewInbox("bob")])
    message_id = await platform.deliver("ada@inbox.test", "bob@inbox.test")
    other = await platform.deliver("ada@inbox.test", content=about("other"))
    assert await platform.messages.delete(workspace_id, [message_id], ada.id) == 1
    assert await subjects(platform, ada, workspace_id) == ["other"]
    assert len(await subjects(platform, bob, workspace_id)) == 1
    assert await platform.messages.delete(workspace_id, [message_id, uuid7()]) == 1
    assert await platform.messages.delete(workspace_id, [message_id]) == 0
    assert [row["id"] for row in await rows(platform, "SELECT id FROM message")] == [other]


# Retention classes -----------------------------------------------------------------------------


async def test_mail_follows_its_inbox_into_a_longer_class(
    platform: MailPlatform, workspace_id: UUID, ada: Inbox
) -> None:
    [bob] = await platform.inboxes.create(workspace_id, [NewInbox("bob", ttl_s=2 * DAY_S)])
    shared = await platform.deliver("ada@inbox.test", "bob@inbox.test", content=about("shared"))
    own = await platform.deliver("ada@inbox.test", content=about("own"))
    await platform.inboxes.extend(workspace_id, ada.id, 20 * DAY_S)
    found = await rows(platform, "SELECT id, retention_days FROM message")
    assert {(row["id"], row["retention_days"]) for row in found} == {(shared, 30), (own, 30)}
    assert sorted(await subjects(platform, ada, workspace_id)) == ["own", "shared"]
    assert await subjects(platform, bob, workspace_id) == ["shared"]
    read = await platform.messages.read_inboxes(workspace_id, [ada.id, bob.id])
    assert len(read) == 3

    await platform.inboxes.extend(workspace_id, bob.id, None)
    found = await rows(platform, "SELECT id, retention_days FROM message")
    assert {(row["id"], row["retention_days"]) for row in found} == {(shared, 0), (own, 30)}
    assert len(await platform.messages.read_inboxes(workspace_id, [ada.id, bob.id])) == 3
    await platform.messages.read(workspace_id, shared, ada.id)


async def test_mail_accepted_before_an_extension_and_ingested_after_it_follows_too(
    platform: MailPlatform, workspace_id: UUID, ada: Inbox
) -> None:
    message_id = await platform.send("ada@inbox.test", content=about("late"))
    await platform.inboxes.extend(workspace_id, ada.id, None)
    await platform.run(await platform.lease())
    [row] = await rows(platform, "SELECT retention_days FROM message")
    assert row["retention_days"] == 0
    assert await subjects(platform, ada, workspace_id) == ["late"]
    assert len(await platform.messages.read_inboxes(workspace_id, [ada.id])) == 1
    await platform.messages.read(workspace_id, message_id)


async def test_extending_while_mail_comes_in_loses_none(
    platform: MailPlatform, workspace_id: UUID, ada: Inbox
) -> None:
    async def work() -> None:
        for _ in range(12):
            await platform.deliver("ada@inbox.test", content=about("x"))

    async def extend() -> None:
        for days in (5, 20, 300):
            await asyncio.sleep(0.03)
            await platform.inboxes.extend(workspace_id, ada.id, days * DAY_S)

    await asyncio.gather(work(), extend())
    while jobs := await platform.lease():
        await platform.run(jobs)
    assert len(await subjects(platform, ada, workspace_id)) == 12
    assert len(await platform.messages.read_inboxes(workspace_id, [ada.id])) == 12
