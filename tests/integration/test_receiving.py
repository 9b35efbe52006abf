"""The 250 decision against a real PostgreSQL: durable, grouped, and nobody pays for a neighbour."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from mail_platform import MAIL, PEER, MailPlatform, about, envelope, mail_platform

from mailyard.core.clock import ManualClock
from mailyard.core.errors import Unavailable
from mailyard.core.ids import MESSAGE, parse_type_id, uuid7
from mailyard.mailbox.inbox_value import NewInbox
from mailyard.protocol.smtp.reply import Reply
from mailyard.queue.job import NewJob
from mailyard.receiving.accept import Acceptor
from mailyard.storage.database import Database
from mailyard.storage.queries import load


@pytest.fixture
async def platform(database: Database) -> AsyncIterator[MailPlatform]:
    async with mail_platform(database) as platform:
        yield platform


async def stored(database: Database) -> list[asyncpg.Record]:
    async with database.connection() as connection:
        return await connection.fetch("SELECT * FROM message ORDER BY id")


async def jobs(database: Database) -> int:
    async with database.connection() as connection:
        count: int = await connection.fetchval("SELECT count(*) FROM job")
        return count


class Meddling:
    """An engine that lets a test in between, just before a group is on its way."""

    def __init__(self, platform: MailPlatform) -> None:
        self._engine = platform.engine
        self.groups = 0

    async def statement(self, wanted: Sequence[NewJob]) -> str:
        self.groups += 1
        return await self.meddle() + await self._engine.statement(wanted)

    async def meddle(self) -> str:
        """What PostgreSQL does between the messages and their jobs."""
        raise NotImplementedError

    def announce(self, queues: Sequence[str]) -> None:
        self._engine.announce(queues)


def acceptor(platform: MailPlatform, engine: Any = None, **settings: Any) -> Acceptor:
    return Acceptor(
        database=platform.database,
        engine=engine or platform.engine,
        hostname="mx.inbox.test",
        **settings,
    )


async def hand_over(
    accepting: Acceptor, *recipients: str, content: bytes = MAIL, **envelope_fields: Any
) -> Reply:
    for recipient in recipients:
        answer = accepting.accept_recipient(PEER, "ada@peer.test", recipient)
        asked = answer if isinstance(answer, Reply) else await answer
        assert asked.code == 250
    answer = accepting.accept_message(envelope(*recipients, **envelope_fields), content)
    return answer if isinstance(answer, Reply) else await answer


# Recipients ----------------------------------------------------------------------------------


async def test_a_recipient_is_ours_or_550(platform: MailPlatform, workspace_id: UUID) -> None:
    await platform.inboxes.create(workspace_id, [NewInbox("ada")])
    assert (await platform.ask("ADA@Inbox.Test")).code == 250
    unknown = await platform.ask("bob@inbox.test")
    assert (unknown.code, unknown.enhanced) == (550, "5.1.1")
    assert (await platform.ask("not an address")).code == 553


async def test_an_inbox_made_a_moment_ago_takes_mail_and_a_deleted_one_stops_at_once(
    platform: MailPlatform, workspace_id: UUID
) -> None:
    assert (await platform.ask("ada@inbox.test")).code == 550
    [ada] = await platform.inboxes.create(workspace_id, [NewInbox("ada")])
    assert (await platform.ask("ada@inbox.test")).code == 250
    await platform.inboxes.delete(workspace_id, [ada.id])
    assert (await platform.ask("ada@inbox.test")).code == 550


async def test_an_expired_inbox_is_unknown(platform: MailPlatform, workspace_id: UUID) -> None:
    await platform.inboxes.create(workspace_id, [NewInbox("ada", ttl_s=1)])
    assert (await platform.ask("ada@inbox.test")).code == 250
    async with platform.database.connection() as connection:
        await connection.execute("UPDATE address SET expires_at = now()")
    assert (await platform.ask("ada@inbox.test")).code == 550


async def test_recipients_that_are_asked_together_share_a_query(
    platform: MailPlatform, workspace_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await platform.inboxes.create(workspace_id, [NewInbox() for _ in range(300)])
    asked = []
    fetch = Database.fetch

    async def counting(self: Database, query: Any, *args: Any, **more: Any) -> Any:
        asked.append(query)
        return await fetch(self, query, *args, **more)

    monkeypatch.setattr(Database, "fetch", counting)
    addresses = [inbox.address for inbox in made] + ["nobody@inbox.test"]
    replies = await asyncio.gather(*(platform.ask(address) for address in addresses * 2))
    assert [reply.code for reply in replies] == ([250] * 300 + [550]) * 2
    assert asked == [load("receiving").find_routes]


# Messages ------------------------------------------------------------------------------------


async def test_a_250_is_a_stored_message_and_a_job(
    platform: MailPlatform, workspace_id: UUID
) -> None:
    await platform.inboxes.create(workspace_id, [NewInbox("ada", ttl_s=3600)])
    reply = await hand_over(platform.acceptor, "ada@inbox.test")
    assert reply.code == 250
    [row] = await stored(platform.database)
    assert row["id"] == parse_type_id(MESSAGE, reply.text.rpartition(" ")[2])
    assert row["retention_days"] == 1
    assert row["reverse_path"] == "ada@peer.test"
    trace, _, rest = row["raw"].partition(b"From: ")
    assert b"From: " + rest == MAIL
    assert trace.startswith(
        b"Received: from peer.test ([192.0.2.1])\r\n\tby mx.inbox.test with ESMTP"
    )
    assert b"for <ada@inbox.test>;" in trace
    assert row["size_bytes"] == len(row["raw"])
    assert await jobs(platform.database) == 1


async def test_the_trace_line_says_when_in_utc(platform: MailPlatform, workspace_id: UUID) -> None:
    """RFC 5322 section 3.3: +0000 is Universal Time, -0000 would say that the zone is unknown."""
    await platform.inboxes.create(workspace_id, [NewInbox("ada")])
    clock = ManualClock(datetime.now(UTC))
    accepting = acceptor(platform, clock=clock)
    said = []
    for _ in range(2):
        assert (await hand_over(accepting, "ada@inbox.test")).code == 250
        said.append(clock.now().strftime("%a, %d %b %Y %H:%M:%S +0000"))
        clock.advance(1)
    raws = [row["raw"].decode() for row in await stored(platform.database)]
    assert [raw.partition("From: ")[0].splitlines()[-1].strip() for raw in raws] == said


async def test_a_message_for_twenty_recipients_is_stored_once(
    platform: MailPlatform, workspace_id: UUID
) -> None:
    made = await platform.inboxes.create(
        workspace_id, [NewInbox(ttl_s=3600 if n else 86_400 * 20) for n in range(20)]
    )
    await hand_over(platform.acceptor, *(inbox.address for inbox in made), made[3].address.upper())
    [row] = await stored(platform.database)
    assert sorted(row["inbox_ids"]) == sorted(inbox.id for inbox in made)
    assert len(row["recipients"]) == 20
    assert row["retention_days"] == 30
    assert b"for <" not in row["raw"].partition(b"From:")[0]  # nobody learns of the others
    await platform.run(await platform.lease())
    for inbox in made:
        [line] = (await platform.messages.list(workspace_id, inbox.id)).items
        assert line.id == row["id"]


async def test_two_workspaces_get_a_copy_each_in_one_commit(platform: MailPlatform) -> None:
    one, other = uuid7(), uuid7()
    await platform.inboxes.create(one, [NewInbox("ada")])
    await platform.inboxes.create(other, [NewInbox("bob")])
    reply = await hand_over(platform.acceptor, "ada@inbox.test", "bob@inbox.test")
    assert reply.code == 250
    rows = await stored(platform.database)
    assert {row["workspace_id"] for row in rows} == {one, other}
    assert {tuple(row["recipients"]) for row in rows} == {("ada@inbox.test",), ("bob@inbox.test",)}
    assert await jobs(platform.database) == 2


async def test_messages_that_come_together_share_commits_and_jobs(
    platform: MailPlatform, workspace_id: UUID
) -> None:
    await platform.inboxes.create(workspace_id, [NewInbox("ada")])
    await platform.ask("ada@inbox.test")
    replies = await asyncio.gather(*(platform.hand_over(("ada@inbox.test",)) for _ in range(200)))
    assert {reply.code for reply in replies} == {250}
    assert len({reply.text for reply in replies}) == 200
    assert len(await stored(platform.database)) == 200
    assert await jobs(platform.database) <= 5


async def test_mail_of_4_kb_stays_in_its_row(platform: MailPlatform, workspace_id: UUID) -> None:
    await platform.inboxes.create(workspace_id, [NewInbox("ada", ttl_s=60)])
    await hand_over(platform.acceptor, "ada@inbox.test", content=MAIL + b"x" * 7000)
    async with platform.database.connection() as connection:
        parts = await connection.fetch(
            "SELECT reltoastrelid::regclass::text AS toast FROM pg_class"
            " WHERE relname LIKE 'message\\_d1\\_%' AND relkind = 'r' AND reltoastrelid <> 0"
        )
        assert parts
        for part in parts:
            assert await connection.fetchval(f"SELECT count(*) FROM {part['toast']}") == 0


async def test_a_session_outlives_the_memory_of_its_recipients(
    platform: MailPlatform, workspace_id: UUID
) -> None:
    """Another process answers the end of DATA as well as the one that answered RCPT."""
    [ada] = await platform.inboxes.create(workspace_id, [NewInbox("ada")])
    fresh = acceptor(platform)
    answer = fresh.accept_message(envelope("ada@inbox.test", "nobody@inbox.test"), MAIL)
    assert not isinstance(answer, Reply)
    assert (await answer).code == 250
    await platform.inboxes.delete(workspace_id, [ada.id])
    answer = acceptor(platform).accept_message(envelope("ada@inbox.test"), MAIL)
    assert not isinstance(answer, Reply)
    assert (await answer).code == 554


async def test_mail_is_not_taken_for_an_inbox_that_is_known_to_be_gone(
    platform: MailPlatform, workspace_id: UUID
) -> None:
    """Its recipient had its 250; since then another session has heard that it is gone."""
    [ada] = await platform.inboxes.create(workspace_id, [NewInbox("ada")])
    accepting = acceptor(platform)
    assert (await hand_over(accepting, "ada@inbox.test")).code == 250
    await platform.inboxes.delete(workspace_id, [ada.id])
    answer = accepting.accept_recipient(PEER, "", "ada@inbox.test")
    assert not isinstance(answer, Reply)
    assert (await answer).code == 550
    late = accepting.accept_message(envelope("ada@inbox.test"), MAIL)
    assert not isinstance(late, Reply)
    assert (await late).code == 554


@pytest.mark.parametrize("hello", ["a\rb", "(x)", "", "x" * 5000, "hé", "<a>;"])
async def test_nothing_that_a_peer_says_breaks_the_trace_line(
    platform: MailPlatform, workspace_id: UUID, hello: str
) -> None:
    await platform.inboxes.create(workspace_id, [NewInbox("ada")])
    peer = type(PEER)(address="2001:db8::1", port=25, hello=hello, esmtp=False, tls=True)
    reply = await hand_over(platform.acceptor, "ada@inbox.test", peer=peer)
    assert reply.code == 250
    [row] = await stored(platform.database)
    trace = row["raw"].partition(b"From: ")[0].decode()
    lines = trace.split("\r\n")
    assert lines[0].startswith("Received: from ")
    assert lines[0].endswith("([IPv6:2001:db8::1])")
    assert len(lines) == 5
    assert all(line.startswith("\t") and len(line) < 998 for line in lines[1:-1])
    assert " with SMTP id " in trace


# Faults --------------------------------------------------------------------------------------


async def test_one_bad_row_does_not_fail_its_neighbours(
    platform: MailPlatform, workspace_id: UUID
) -> None:
    await platform.inboxes.create(workspace_id, [NewInbox("ada")])
    await platform.ask("ada@inbox.test")
    accepting = platform.acceptor
    replies = await asyncio.gather(
        *(
            hand_over(
                accepting,
                "ada@inbox.test",
                content=about(str(n)),
                reverse_path="nul\0@peer.test" if n in (7, 31) else f"{n}@peer.test",
            )
            for n in range(60)
        )
    )
    assert [n for n, reply in enumerate(replies) if reply.code != 250] == [7, 31]
    assert (replies[7].code, replies[7].enhanced) == (554, "5.6.0")
    rows = await stored(platform.database)
    assert sorted(int(row["reverse_path"].split("@")[0]) for row in rows) == [
        n for n in range(60) if n not in (7, 31)
    ]


async def test_a_missing_partition_is_for_now(platform: MailPlatform, workspace_id: UUID) -> None:
    await platform.inboxes.create(workspace_id, [NewInbox("ada")])
    async with platform.database.connection() as connection:
        await connection.execute("ALTER TABLE message DETACH PARTITION message_kept")
    assert (await hand_over(platform.acceptor, "ada@inbox.test")).code == 451


async def test_a_full_disk_is_for_now_and_everybodys(
    platform: MailPlatform, workspace_id: UUID
) -> None:
    class Full(Meddling):
        async def meddle(self) -> str:
            raise asyncpg.DiskFullError("no space left on device")

    await platform.inboxes.create(workspace_id, [NewInbox("ada")])
    accepting = acceptor(platform, Full(platform))
    replies = await asyncio.gather(*(hand_over(accepting, "ada@inbox.test") for _ in range(20)))
    assert {(reply.code, reply.enhanced) for reply in replies} == {(452, "4.3.1")}
    assert await stored(platform.database) == []


async def test_messages_whose_job_cannot_be_added_are_not_stored(
    platform: MailPlatform, workspace_id: UUID
) -> None:
    class Refusing(Meddling):
        async def meddle(self) -> str:
            return "DO $$ BEGIN RAISE EXCEPTION 'no room in the queue'; END $$;"

    await platform.inboxes.create(workspace_id, [NewInbox("ada")])
    accepting = acceptor(platform, Refusing(platform))
    replies = await asyncio.gather(*(hand_over(accepting, "ada@inbox.test") for _ in range(4)))
    assert {(reply.code, reply.enhanced) for reply in replies} == {(451, "4.3.0")}
    assert await stored(platform.database) == []
    assert await jobs(platform.database) == 0


async def test_past_the_room_for_waiting_mail_the_peer_keeps_it(
    platform: MailPlatform, workspace_id: UUID
) -> None:
    gate = asyncio.Event()

    class Slow(Meddling):
        async def meddle(self) -> str:
            await gate.wait()
            return ""

    await platform.inboxes.create(workspace_id, [NewInbox("ada")])
    accepting = acceptor(platform, Slow(platform), waiting_bytes=10 * len(MAIL))
    held = [asyncio.create_task(hand_over(accepting, "ada@inbox.test")) for _ in range(30)]
    done, pending = await asyncio.wait(held, timeout=1.0)
    assert {task.result().code for task in done} == {451}
    assert len(pending) == 10
    gate.set()
    assert {(await task).code for task in pending} == {250}
    assert len(await stored(platform.database)) == 10
    assert (await hand_over(accepting, "ada@inbox.test")).code == 250


async def test_a_message_larger_than_the_room_is_taken_when_nothing_else_waits(
    platform: MailPlatform, workspace_id: UUID
) -> None:
    await platform.inboxes.create(workspace_id, [NewInbox("ada")])
    accepting = acceptor(platform, waiting_bytes=10)
    assert (await hand_over(accepting, "ada@inbox.test")).code == 250


async def test_a_connection_lost_before_the_commit_is_tried_again(
    platform: MailPlatform, workspace_id: UUID
) -> None:
    class Cut(Meddling):
        async def meddle(self) -> str:
            cut = "SELECT pg_terminate_backend(pg_backend_pid());"
            return cut if self.groups == 1 else ""

    await platform.inboxes.create(workspace_id, [NewInbox("ada")])
    accepting = acceptor(platform, Cut(platform))
    replies = await asyncio.gather(*(hand_over(accepting, "ada@inbox.test") for _ in range(10)))
    assert {reply.code for reply in replies} == {250}
    assert len(await stored(platform.database)) == 10


async def test_a_connection_lost_while_it_takes_no_more_bytes_is_tried_again(
    platform: MailPlatform, workspace_id: UUID
) -> None:
    await platform.inboxes.create(workspace_id, [NewInbox("ada")])
    await platform.ask("ada@inbox.test")
    large = MAIL + b"x\r\n" * 500_000
    async with platform.database.transaction() as other:
        await other.execute("LOCK TABLE message IN SHARE MODE")
        storing = asyncio.gather(
            *(platform.hand_over(("ada@inbox.test",), large) for _ in range(8))
        )
        cut = 0
        while not cut:
            await asyncio.sleep(0.2)
            # Not in the transaction of `other`, which would see the first answer again and again.
            cut = await platform.database.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND query LIKE 'COPY %'"
                " AND wait_event_type = 'Lock'"
            )
    replies = await asyncio.wait_for(storing, 10)
    assert {reply.code for reply in replies} == {250}
    assert len(await stored(platform.database)) == 8


async def test_a_commit_whose_answer_was_lost_is_not_stored_twice(
    platform: MailPlatform, workspace_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit happened, its answer did not arrive: the same ids collide with themselves."""
    cut = []
    copy = asyncpg.Connection.copy_records_to_table

    async def cut_after(self: Any, *given: Any, **more: Any) -> str:
        tag = await copy(self, *given, **more)
        if not cut:
            cut.append(tag)
            raise ConnectionResetError("the answer was lost")
        return tag

    await platform.inboxes.create(workspace_id, [NewInbox("ada")])
    await platform.ask("ada@inbox.test")
    monkeypatch.setattr(asyncpg.Connection, "copy_records_to_table", cut_after)
    replies = await asyncio.gather(*(platform.hand_over(("ada@inbox.test",)) for _ in range(10)))
    assert cut == ["SELECT 1"]
    assert {reply.code for reply in replies} == {250}
    ids = {parse_type_id(MESSAGE, reply.text.rpartition(" ")[2]) for reply in replies}
    assert {row["id"] for row in await stored(platform.database)} == ids


async def test_while_the_database_stays_away_the_peer_is_asked_to_come_back(
    platform: MailPlatform, workspace_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    await platform.inboxes.create(workspace_id, [NewInbox("ada")])
    accepting = acceptor(platform, patience_s=0.5, route_patience_s=0.5)
    assert (await hand_over(accepting, "ada@inbox.test")).code == 250

    def away(self: Database) -> Any:
        raise Unavailable("PostgreSQL is away")

    with monkeypatch.context() as broken:
        broken.setattr(Database, "connection", away)
        answer = accepting.accept_message(envelope("ada@inbox.test"), MAIL)
        assert not isinstance(answer, Reply)
        assert (await answer).code == 451
        asked = accepting.accept_recipient(PEER, "", "bob@inbox.test")
        assert not isinstance(asked, Reply)
        with pytest.raises(Unavailable):
            await asked
    assert (await hand_over(accepting, "ada@inbox.test")).code == 250


async def test_a_short_absence_of_the_database_is_only_a_pause(
    platform: MailPlatform, workspace_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    await platform.inboxes.create(workspace_id, [NewInbox("ada")])

    def away(self: Database) -> Any:
        raise Unavailable("PostgreSQL is away")

    with monkeypatch.context() as broken:
        broken.setattr(Database, "connection", away)
        asking = asyncio.create_task(hand_over(platform.acceptor, "ada@inbox.test"))
        await asyncio.sleep(0.3)
        assert not asking.done()
    assert (await asyncio.wait_for(asking, 10)).code == 250
