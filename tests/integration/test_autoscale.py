"""The autoscaler over real rows: slow work, slow answers, requests that wait.

Beats are written as processes write them, with the time that the test wants.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from mailyard.core.ids import uuid7
from mailyard.fleet.alerts.board import AlertBoard
from mailyard.fleet.alerts.rule import read_rules
from mailyard.fleet.autoscale.book import DecisionBook
from mailyard.fleet.autoscale.policy import Policy, read_policies
from mailyard.fleet.autoscale.scaler import Autoscaler
from mailyard.fleet.figures import figures
from mailyard.fleet.look import Look, take_look
from mailyard.fleet.registry import ProcessRegistry
from mailyard.observe.metrics import FAST_BUCKETS, QUERY_SECONDS
from mailyard.queue.job import Depth
from mailyard.storage.database import Database
from mailyard.storage.queries import load

EVERY_S = 5.0
_SLOW = [0.0] * FAST_BUCKETS.index(2.5)  # no answer was faster than the bound before


class Lines:
    """A queue's engine with nothing in it."""

    async def depth(self, queues: Sequence[str]) -> list[Depth]:
        return [Depth(name, 0, 0, 0, 0, 0.0) for name in queues]


class Hands:
    """An actuator that obeys."""

    name = "hands"

    def __init__(self, count: int) -> None:
        self.count = count

    async def instances(self, policy: Policy) -> int | None:
        return self.count

    async def set(self, policy: Policy, count: int) -> None:
        self.count = count


class World:
    """One process of a role that beats, and an autoscaler with the packed policy of the role."""

    def __init__(self, database: Database, role: str, count: int) -> None:
        self.database = database
        self.role = role
        self.hands = Hands(count)
        self.book = DecisionBook(database=database)
        self.board = AlertBoard(database=database, rules=read_rules())
        policies = [replace(one, least=1, most=8) for one in read_policies() if one.role == role]
        self.scaler = Autoscaler(
            policies=policies, actuator=self.hands, book=self.book, budget=1_000, each=10
        )
        self._id: UUID = uuid7()
        self._looks: list[Look] = []

    async def look(self, at_s: float, **stats: Any) -> None:
        """A beat at `at_s`, a look at it, and what follows."""
        await self.database.pool.execute(
            """INSERT INTO process (id, role, host, pid, stats)
               VALUES ($1, $2, 'here', 7, $3::jsonb)
               ON CONFLICT (id) DO UPDATE SET stats = excluded.stats, seen_at = now()""",
            self._id,
            self.role,
            msgspec.json.encode(stats).decode(),
        )
        now = await take_look(self.database, Lines(), None)
        now = replace(
            now,
            at_s=at_s,
            processes=[replace(one, at_s=at_s, up_s=at_s) for one in now.processes],
        )
        before = self._looks[-3] if len(self._looks) >= 3 else (self._looks or [None])[0]  # type: ignore[list-item]
        self._looks.append(now)
        found = figures(before, now, 1_000)
        await self.board.judge(found, at_s)
        await self.scaler.act(before, now, found)


def answers(count: float, **more: float) -> dict[str, Any]:
    """So many requests, each answered in 1 to 2.5 s."""
    buckets = [*_SLOW, *[count] * (len(FAST_BUCKETS) + 1 - len(_SLOW))]
    return {"http": {"count": count, "arrived": count, "buckets": buckets, **more}}


async def test_work_that_takes_over_half_a_minute_raises_an_alert_and_adds_one(
    database: Database,
) -> None:
    world = World(database, "worker", 2)
    for tick in range(80):
        done = tick * EVERY_S / 20
        jobs = {
            "analysis": {"slots": 8.0, "batches": done, "seconds": done * 31, "completed": done}
        }
        await world.look(tick * EVERY_S, memory_share=0.2, cpu_s=tick * 0.1, totals={"jobs": jobs})

    (alert,) = [one for one in await world.board.list() if one.rule == "processing-time"]
    assert (alert.subject, alert.level) == ("analysis", "warning")
    assert "31 s on average" in alert.about
    (decided,) = await world.book.list()
    assert (decided.kind, decided.was, decided.became) == ("up", 2, 3)
    assert "processing_s is 31, above 30" in decided.reason


def counted(query: str) -> list[float]:
    """How often this process has asked it, and seconds in all."""
    series = QUERY_SECONDS.labels(query)
    samples = [one for family in series.collect() for one in family.samples]
    return [
        sum(one.value for one in samples if one.name.endswith(end)) for end in ("_count", "_sum")
    ]


async def test_slow_answers_of_idle_processors_name_the_slowest_of_our_own_queries(
    database: Database,
) -> None:
    world = World(database, "api", 2)
    before = counted("monitoring.living")
    async with database.pool.acquire() as other:
        for _ in range(4):  # a named query of ours that has to wait for a lock
            async with other.transaction():
                await other.execute("LOCK TABLE process IN ACCESS EXCLUSIVE MODE")
                waiting = asyncio.create_task(database.fetch(load("monitoring").living))
                await asyncio.sleep(1.0)
            await waiting
    slow = [now - then for now, then in zip(counted("monitoring.living"), before, strict=True)]
    for tick in range(20):
        told = {
            **answers(tick * 10.0),
            "queries": {"monitoring.living": [s * tick / 19 for s in slow]},
        }
        await world.look(tick * EVERY_S, memory_share=0.2, cpu_s=tick * 0.2, totals=told)

    (decided,) = await world.book.list()
    assert (decided.kind, decided.was, decided.became) == ("advise", 2, 2)
    assert "look at queries, not instances; most time goes to monitoring.living (" in decided.reason
    slowest = decided.inputs["slowest_queries"][0]
    assert slowest["query"] == "monitoring.living" and slowest["mean_s"] > 0.2


@pytest.mark.parametrize(("cpu", "cpu_wait"), [(0.6, 0.0), (0.3, 0.4)])
async def test_slow_answers_of_busy_processors_add_one(
    database: Database, cpu: float, cpu_wait: float
) -> None:
    """`cpu_wait`: the processes share cores with others, and are not idle though they look so."""
    world = World(database, "api", 2)
    for tick in range(15):
        at_s = tick * EVERY_S
        await world.look(
            at_s, memory_share=0.2, cpu_s=cpu * at_s, cpu_wait_s=cpu_wait * at_s,
            totals=answers(tick * 10.0),
        )  # fmt: skip

    (decided,) = await world.book.list()
    assert (decided.kind, decided.was, decided.became) == ("up", 2, 3)
    assert "p95_s is" in decided.reason


async def test_requests_that_wait_and_those_that_were_given_up_are_work(database: Database) -> None:
    """100 a second are answered, which is all that the process can; 200 came, 300 wait."""
    world = World(database, "api", 1)
    for tick in range(9):
        at_s = tick * EVERY_S
        told = answers(100 * at_s, arrived=200 * at_s, waiting=300)
        await world.look(at_s, memory_share=0.2, cpu_s=at_s, totals=told)

    (decided,) = await world.book.list()
    assert (decided.kind, decided.was, decided.became) == ("up", 1, 8)
    lane = decided.inputs["lanes"][0]
    assert lane["arrival_per_s"] == pytest.approx(200, rel=0.01)
    assert lane["backlog"] == 300


async def test_requests_that_wait_for_the_database_are_no_work_for_more_processes(
    database: Database,
) -> None:
    world = World(database, "api", 1)
    for tick in range(9):
        at_s = tick * EVERY_S
        told = answers(100 * at_s, arrived=100 * at_s, waiting=3_000)
        await world.look(at_s, memory_share=0.2, cpu_s=0.1 * at_s, totals=told)

    assert world.hands.count == 1


async def test_what_a_beat_says_of_the_processor_is_what_the_kernel_says(
    database: Database,
) -> None:
    class Told:
        stats = ""

        async def beat(self, here: Any) -> None:
            self.stats = here.stats

        async def leave(self, _id: UUID) -> None: ...

    told = Told()
    registry = ProcessRegistry(presence=told, role="api", id=uuid7(), memory_bytes=1 << 30)  # type: ignore[arg-type]
    beating = asyncio.create_task(registry.run())
    await asyncio.sleep(0.1)
    beating.cancel()
    said = msgspec.json.decode(told.stats)
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    ticks = (int(fields[11]) + int(fields[12])) / 100.0

    assert said["cpu_s"] == pytest.approx(ticks, abs=0.25)
    assert said["cpu_wait_s"] >= 0.0
