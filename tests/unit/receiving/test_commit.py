"""Group commit: who goes together, who goes beside, and that everybody has one reply."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from mailyard.core.clock import SystemClock
from mailyard.core.ids import uuid7
from mailyard.protocol.smtp.reply import Reply
from mailyard.queue.job import NewJob
from mailyard.receiving.commit import TRY_LATER, Arrival, GroupCommit
from mailyard.receiving.later import Later

WORKSPACE = uuid7()
CLOCK = SystemClock()
STORED = Reply(250, "2.0.0", "Ok")


class Database:
    """Connections that store when `disk` lets them, and fail when `fails` says so."""

    def __init__(self) -> None:
        self.disk = asyncio.Event()
        self.groups: list[list[Any]] = []  # as they were begun
        self.stored: list[Any] = []
        self.random: Random | None = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator["Database"]:
        await asyncio.sleep(0)
        yield self
        await asyncio.sleep(0)

    def add_termination_listener(self, _: object) -> None: ...

    def remove_termination_listener(self, _: object) -> None: ...

    async def copy_records_to_table(
        self, _: str, *, records: Sequence[tuple[Any, ...]], columns: Sequence[str], where: str
    ) -> str:
        ids = [row[0] for row in records]
        self.groups.append(ids)
        if self.random is None:
            await self.disk.wait()
        else:
            await asyncio.sleep(self.random.random() / 1000)
            if self.random.random() < 0.1:
                raise ConnectionError("gone")
        self.stored += ids
        return "SELECT 1"


class Queue:
    async def statement(self, jobs: Sequence[NewJob]) -> str:
        return f"SELECT {len(jobs)}"

    def announce(self, queues: Sequence[str]) -> None: ...


def group_commit(database: Database) -> GroupCommit:
    return GroupCommit(
        database=database,  # type: ignore[arg-type]
        engine=Queue(),
        clock=CLOCK,
        patience_s=60.0,
    )


def arrival() -> Arrival:
    row = (uuid7(), WORKSPACE, 1, "", ["a@b"], [uuid7()], "", "", 1, None, b"x")
    return Arrival(
        [row], size_bytes=1, arrived_at=CLOCK.monotonic(), when_stored=STORED, reply=Later()
    )


async def _turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_few_wait_for_the_group_on_its_way() -> None:
    database = Database()
    commit = group_commit(database)
    commit.add(arrival())
    await _turns()
    for _ in range(10):
        commit.add(arrival())
    await _turns()
    assert [len(group) for group in database.groups] == [1]
    database.disk.set()
    await commit.close()
    assert [len(group) for group in database.groups] == [1, 10]


async def test_a_crowd_goes_beside_the_group_on_its_way_and_a_third_group_waits() -> None:
    database = Database()
    commit = group_commit(database)
    commit.add(arrival())
    await _turns()
    for _ in range(100):
        commit.add(arrival())
        await _turns(1)
    assert len(database.groups) == 2
    assert len(database.groups[1]) >= 32
    database.disk.set()
    await commit.close()
    assert len(database.stored) == 101


@pytest.mark.parametrize("seed", range(20))
async def test_everybody_has_one_reply_and_is_stored_when_it_says_so(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailyard.receiving.commit._PAUSE_BETWEEN_TRIES_S", 0.001)
    database = Database()
    database.random = random = Random(seed)
    commit = group_commit(database)
    replies: dict[Any, list[Reply | Exception]] = {}
    for _ in range(30):
        for _ in range(random.choice((1, 5, 70))):
            one = arrival()
            own = replies.setdefault(one.rows[0][0], [])
            one.reply.then(own.append)
            commit.add(one)
        await asyncio.sleep(random.choice((0, 0, 0.0005)))
    await commit.close()
    assert all(own == [STORED] for own in replies.values())
    assert sorted(database.stored) == sorted(replies)
    assert (commit.held_messages, commit.held_bytes) == (0, 0)


async def test_who_is_cancelled_keeps_the_mail() -> None:
    database = Database()
    commit = group_commit(database)
    one = arrival()
    commit.add(one)
    await _turns()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await commit.close()
    assert await one.reply == TRY_LATER
