"""Threads, numbers and events as ingest writes them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from itertools import permutations
from uuid import UUID

import msgspec
import pytest
from mail_platform import MailPlatform, mail_platform

from mailyard.core.ids import INBOX, MESSAGE, THREAD, type_id, uuid7
from mailyard.mailbox.follow import Follower
from mailyard.mailbox.inbox_value import NewInbox
from mailyard.protocol.mime.summary import Summary
from mailyard.receiving.ingest import Arrival
from mailyard.storage.database import Connection, Database


class Late:
    """The mailboxes' follower, once there is a bus."""

    inner: Follower

    async def follow(self, arrivals: Sequence[Arrival], tx: Connection) -> None:
        await self.inner.follow(arrivals, tx)


@pytest.fixture
async def platform(database: Database) -> AsyncIterator[MailPlatform]:
    late = Late()
    async with mail_platform(database, [late]) as platform:
        late.inner = Follower(database=database, live=platform.live)
        yield platform


def written(own: str, *references: str, subject: str = "Hello") -> bytes:
    """A mail of Ada's."""
    named = "".join(f" <{one}>\r\n" for one in references)
    head = f"References:{named}" if named else ""
    return (
        f"From: ada@peer.test\r\nSubject: {subject}\r\nMessage-ID: <{own}>\r\n"
        f"Date: Mon, 23 Nov 2026 12:00:00 +0000\r\n{head}\r\nHello.\r\n"
    ).encode()


def summary(own: str, *references: str, subject: str = "Hello") -> Summary:
    at = datetime(2026, 11, 23, 12, tzinfo=UTC)
    return Summary("", "ada@peer.test", subject, "", at, own, 0, "", references)


async def sets(database: Database, inbox_id: UUID) -> set[frozenset[str]]:
    """The Message-IDs of each thread."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT array_agg(header_message_id) AS ids FROM line_state"
            " JOIN inbox_message USING (inbox_id, message_id)"
            " WHERE inbox_id = $1 GROUP BY thread_id", inbox_id,
        )  # fmt: skip
    return {frozenset(row["ids"]) for row in rows}


CONVERSATION = {
    "a": summary("a"),
    "b": summary("b", "a"),
    "c": summary("c", "missing", "b"),
    "d": summary("d", subject="Re: Hello"),  # a client that names nothing
    "x": summary("x", subject="Hello again"),
}


async def test_every_order_of_arrival_gives_the_same_threads(
    database: Database, workspace_id: UUID, platform: MailPlatform
) -> None:
    follower = Follower(database=database, live=platform.live)
    orders = list(permutations(CONVERSATION))
    inboxes = [uuid7() for _ in orders]
    names: dict[UUID, str] = {}
    for place in range(len(CONVERSATION)):  # one by one in each of the inboxes
        arrivals = []
        for inbox_id, order in zip(inboxes, orders, strict=True):
            message_id = uuid7()
            names[message_id] = order[place]
            arrivals.append(
                Arrival(inbox_id, message_id, workspace_id, 7, 7, "", CONVERSATION[order[place]], 1)
            )
        async with database.transaction() as tx:
            await follower.follow(arrivals, tx)
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT inbox_id, array_agg(message_id) AS ids FROM line_state"
            " GROUP BY inbox_id, thread_id"
        )
        gaps = await connection.fetch(
            "SELECT FROM mailbox_event GROUP BY inbox_id HAVING count(*) <> max(seq)"
        )
    found: dict[UUID, set[str]] = {}
    for row in rows:
        found.setdefault(row["inbox_id"], set()).add(
            "".join(sorted(names[one] for one in row["ids"]))
        )
    assert len(found) == len(orders) == 120
    assert set(map(frozenset, found.values())) == {frozenset({"abcd", "x"})}
    assert gaps == []


async def test_mail_that_comes_in_is_threaded_numbered_and_told(
    platform: MailPlatform, workspace_id: UUID
) -> None:
    [ada] = await platform.inboxes.create(workspace_id, [NewInbox("ada", ttl_s=3600)])
    first = await platform.deliver("ada@inbox.test", content=written("a"))
    second = await platform.deliver("ada@inbox.test", content=written("b", "a"))
    async with platform.database.connection() as connection:
        events = await connection.fetch("SELECT seq, kind, item FROM mailbox_event ORDER BY seq")
    assert [(row["seq"], row["kind"], msgspec.json.decode(row["item"])) for row in events] == [
        (
            seq,
            "message.arrived",
            {
                "message_id": type_id(MESSAGE, message_id),
                "thread_id": type_id(THREAD, first),
                "folder": "inbox",
            },
        )
        for seq, message_id in ((1, first), (2, second))
    ]
    told = [event for event in await platform.told() if event.kind == "mailbox.changed"]
    assert [event.item for event in told] == [
        {"inbox_id": type_id(INBOX, ada.id), "seq": seq, "kind": "message.arrived"}
        for seq in (1, 2)
    ]


async def test_batches_that_meet_in_a_mailbox_leave_no_gap_and_one_thread(
    platform: MailPlatform, workspace_id: UUID
) -> None:
    """Workers ingest the answers of one thread at the same time, each ignorant of the others."""
    [ada] = await platform.inboxes.create(workspace_id, [NewInbox("ada")])
    for n in range(8):
        await platform.send("ada@inbox.test", content=written(f"m{n}", f"m{(n + 3) % 8}"))
    jobs = await platform.lease()
    assert len(jobs) == 8
    await asyncio.gather(*(platform.run([job]) for job in jobs))
    assert await sets(platform.database, ada.id) == {frozenset(f"m{n}" for n in range(8))}
    async with platform.database.connection() as connection:
        numbers = await connection.fetch("SELECT seq FROM mailbox_event ORDER BY seq")
    assert [row["seq"] for row in numbers] == list(range(1, len(numbers) + 1))


async def test_a_mailbox_moves_whole_into_a_longer_class_and_goes_on(
    platform: MailPlatform, workspace_id: UUID
) -> None:
    [ada] = await platform.inboxes.create(workspace_id, [NewInbox("ada", ttl_s=3600)])
    await platform.deliver("ada@inbox.test", content=written("a"))
    await platform.send("ada@inbox.test", content=written("b", "a"))  # accepted, not ingested
    await platform.inboxes.extend(workspace_id, ada.id, None)
    await platform.run(await platform.lease())
    async with platform.database.connection() as connection:
        states = await connection.fetch("SELECT DISTINCT retention_days, thread_id FROM line_state")
        [box] = await connection.fetch("SELECT seq, retention_days FROM mailbox")
    assert [row["retention_days"] for row in states] == [0]
    assert (box["seq"], box["retention_days"]) == (2, 0)
