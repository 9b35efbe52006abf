"""Every engine against a simple model: random operations under a clock that is moved by hand.

The model is a dictionary of jobs with a state each. It does not say which of the ready jobs a lease
brings, only that they were ready, how many they are, and what every answer and every count must be.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID, uuid5

import asyncpg
import pytest
from contract.conftest import TABLES
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mailyard.bus.adapters.memory import MemoryBus
from mailyard.core.clock import ManualClock
from mailyard.core.limits import JOB_CRASHES_BEFORE_BURIED, JOB_SECOND_CHANCES_S, LEASE_S
from mailyard.queue.engine import Engine
from mailyard.queue.engines.memory import MemoryEngine
from mailyard.queue.engines.postgres import PostgresEngine
from mailyard.queue.job import LeasedJob, NewJob
from mailyard.storage.database import Database, DatabaseAddress

Q = "email-send"
TENANTS = [uuid5(UUID(int=0), name) for name in "abc"]
READY, SCHEDULED, LEASED, DEAD, GONE = "ready", "scheduled", "leased", "dead", "gone"


@dataclass
class ModelJob:
    workspace_id: UUID
    state: str
    due_at: datetime
    max_attempts: int
    unique_key: str | None
    attempts: int = 0
    crashes: int = 0
    chances: int = 0
    again_at: datetime | None = None
    token: int = 0
    expires_at: datetime | None = None


class QueueMachine(RuleBasedStateMachine):
    """Subclasses say which engine."""

    loop: ClassVar[asyncio.AbstractEventLoop]

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.engines = self.make_engines()
        self.jobs: dict[int, ModelJob] = {}
        self.handles: list[LeasedJob] = []
        self.paused = False
        self.last_token = 0

    def make_engines(self) -> list[Engine]:
        raise NotImplementedError

    def run(self, call: Any) -> Any:
        return self.loop.run_until_complete(call)

    def current(self, handle: LeasedJob) -> bool:
        job = self.jobs[handle.id]
        return job.state == LEASED and job.token == handle.token

    def stage(self) -> None:
        for job in self.jobs.values():
            if job.state == SCHEDULED and job.due_at <= self.clock.now():
                job.state = READY

    # What callers do -------------------------------------------------------------------------

    @rule(
        count=st.integers(1, 5),
        tenant=st.sampled_from(TENANTS),
        priority=st.sampled_from([0, 5]),
        delay_s=st.sampled_from([0, 0, 7]),
        most=st.sampled_from([1, 3, 20]),
        unique=st.sampled_from([None, None, "x", "y"]),
        who=st.integers(0, 1),
    )
    def enqueue(
        self,
        count: int,
        tenant: UUID,
        priority: int,
        delay_s: int,
        most: int,
        unique: str | None,
        who: int,
    ) -> None:
        run_at = self.clock.now() + timedelta(seconds=delay_s) if delay_s else None
        new = NewJob(Q, "k", b"p", tenant, priority, run_at, unique, None, most)
        answers = self.run(self.engines[who].enqueue([new] * count))
        for job_id in answers:
            assert (job_id is None) == self.stands(unique)
            if job_id is not None:
                assert job_id not in self.jobs
                state = SCHEDULED if delay_s else READY
                due_at = run_at or self.clock.now()
                self.jobs[job_id] = ModelJob(tenant, state, due_at, most, unique)

    @rule(limit=st.integers(1, 6), suspects=st.booleans(), who=st.integers(0, 1))
    def lease(self, limit: int, suspects: bool, who: int) -> None:
        self.stage()
        leased = self.run(self.engines[who].lease([Q], limit, 0.0, f"w{who}", suspects))
        ready = [job for job in self.jobs.values() if job.state == READY]
        waiting_suspects = [job for job in ready if job.crashes]
        if self.paused:
            assert leased == []
        elif suspects and waiting_suspects:
            assert len(leased) == 1 and leased[0].crashes > 0
        else:
            assert len(leased) == min(limit, len(ready) - len(waiting_suspects))
        for handle in leased:
            job = self.jobs[handle.id]
            assert job.state == READY
            assert (handle.attempt, handle.crashes) == (job.attempts + 1, job.crashes)
            assert handle.token > self.last_token
            job.state, job.token = LEASED, handle.token
            job.expires_at = self.clock.now() + timedelta(seconds=LEASE_S)
            self.handles.append(handle)
        self.last_token = max([self.last_token, *(handle.token for handle in leased)])

    @precondition(lambda self: self.handles)
    @rule(data=st.data(), how=st.sampled_from(["complete", "retry", "bury", "release", "extend"]))
    def settle(self, data: st.DataObject, how: str) -> None:
        """Settle any handles ever given, stale ones included."""
        recent = self.handles[-12:]
        chosen = data.draw(st.lists(st.sampled_from(recent), min_size=1, max_size=4, unique=True))
        # One handle a job: what one call says of a job is one thing.
        handles = list({handle.id: handle for handle in chosen}.values())
        expected = {handle.id for handle in handles if self.current(handle)}
        engine = self.engines[data.draw(st.integers(0, 1))]
        if how == "retry":
            assert self.run(engine.retry(handles, 5.0, "failed")) == expected
        elif how == "bury":
            assert self.run(engine.bury(handles, "no")) == expected
        else:
            assert self.run(getattr(engine, how)(handles)) == expected
        for job_id in expected:
            self.settled(self.jobs[job_id], how)

    def settled(self, job: ModelJob, how: str) -> None:
        if how == "extend":
            job.expires_at = self.clock.now() + timedelta(seconds=LEASE_S)
        elif how == "complete":
            job.state = GONE
        elif how == "release":
            job.state = READY
        else:
            job.attempts += 1
            if how == "bury" or job.attempts >= job.max_attempts:
                job.state = DEAD
            else:
                job.crashes = 0
                job.state = SCHEDULED
                job.due_at = self.clock.now() + timedelta(seconds=5)

    @rule()
    def rescue(self) -> None:
        now = self.clock.now()
        late = [
            job
            for job in self.jobs.values()
            if job.state == LEASED and job.expires_at and job.expires_at < now
        ]
        for job in late:
            job.attempts += 1
            job.crashes += 1
            gone = job.crashes >= JOB_CRASHES_BEFORE_BURIED or job.attempts >= job.max_attempts
            job.state = DEAD if gone else READY
        due = sorted(
            (job for job in self.jobs.values() if job.again_at and job.again_at <= now),
            key=lambda job: job.again_at or now,
        )
        risen = [job for job in due if self.rises(job)]
        assert self.run(self.engines[0].rescue()) == len(late) + len(risen)
        self.note_promises()

    def rises(self, job: ModelJob) -> bool:
        """Its second chance has come; does it come back?"""
        job.again_at = None
        if self.stands(job.unique_key):
            return False
        job.state, job.attempts, job.crashes, job.chances = READY, 0, 1, job.chances + 1
        return True

    def note_promises(self) -> None:
        """When whoever was buried for crashes comes back, the engine says: chance has a part."""
        for tenant in TENANTS:
            for dead in self.run(self.engines[1].list_dead(tenant, None, None, 1000)):
                job = self.jobs[dead.id]
                assert dead.chances == job.chances
                if job.again_at is None and dead.again_at is not None:
                    assert job.crashes == JOB_CRASHES_BEFORE_BURIED
                    delay = timedelta(seconds=JOB_SECOND_CHANCES_S[job.chances])
                    assert delay <= dead.again_at - dead.buried_at <= 2 * delay
                assert job.again_at in (None, dead.again_at)
                job.again_at = dead.again_at

    def stands(self, unique_key: str | None) -> bool:
        return unique_key is not None and any(
            job.unique_key == unique_key and job.state in (READY, SCHEDULED, LEASED)
            for job in self.jobs.values()
        )

    @rule(tenant=st.sampled_from(TENANTS), discard=st.booleans())
    def clear_the_dead(self, tenant: UUID, discard: bool) -> None:
        dead = {i: job for i, job in self.jobs.items() if job.state == DEAD}
        own = {i for i, job in dead.items() if job.workspace_id == tenant}
        listed = self.run(self.engines[0].list_dead(tenant, None, None, 1000))
        assert {each.id for each in listed} == own
        if discard:
            assert self.run(self.engines[1].discard(tenant, list(dead))) == own
            for job_id in own:
                self.jobs[job_id].state = GONE
                self.jobs[job_id].again_at = None
            return
        # Of several dead with one unique key only one can go, so redrive one by one.
        for job_id in sorted(own):
            job = self.jobs[job_id]
            stands = self.stands(job.unique_key)
            went = self.run(self.engines[1].redrive(tenant, [job_id]))
            assert went == (set() if stands else {job_id})
            if not stands:
                job.state, job.attempts, job.crashes = READY, 0, 0
                job.chances, job.again_at = 0, None

    @rule(seconds=st.sampled_from([1, 5, 12, 21]))
    def advance(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule()
    def pause_or_resume(self) -> None:
        self.paused = not self.paused
        act = self.engines[0].pause if self.paused else self.engines[0].resume
        self.run(act(Q))

    @invariant()
    def depths_are_exact(self) -> None:
        self.stage()
        (depth,) = self.run(self.engines[1].depth([Q]))
        states = [job.state for job in self.jobs.values()]
        assert (depth.ready, depth.scheduled, depth.leased, depth.dead) == tuple(
            states.count(state) for state in (READY, SCHEDULED, LEASED, DEAD)
        )


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def test_the_memory_engine_behaves_as_the_model(loop: asyncio.AbstractEventLoop) -> None:
    class Memory(QueueMachine):
        def make_engines(self) -> list[Engine]:
            engine = MemoryEngine(clock=self.clock, bus=MemoryBus())
            return [engine, engine]

    Memory.loop = loop
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Memory, settings=settings(max_examples=60, stateful_step_count=40, deadline=None)
    )


def test_the_postgres_engine_behaves_as_the_model(
    loop: asyncio.AbstractEventLoop, shared_database_url: str
) -> None:
    address = DatabaseAddress(shared_database_url, shared_database_url, connections=2)
    database = Database(address)
    loop.run_until_complete(database.open())

    async def empty() -> None:
        connection = await asyncpg.connect(shared_database_url)
        for table in TABLES:
            await connection.execute(f"DELETE FROM {table}")
        await connection.close()

    class Postgres(QueueMachine):
        def make_engines(self) -> list[Engine]:
            self.run(empty())
            bus = MemoryBus()
            return [
                PostgresEngine(database=database, bus=bus, clock=self.clock, upkeep_s=0.0)
                for _ in range(2)
            ]

    Postgres.loop = loop
    try:
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            Postgres,
            settings=settings(
                max_examples=8,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )
    finally:
        loop.run_until_complete(database.close())
