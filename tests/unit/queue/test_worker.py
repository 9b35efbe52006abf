"""The worker, over the queue in memory: lanes, slots, settling, failures, heartbeats, drain."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mailyard.bus.adapters.memory import MemoryBus
from mailyard.core.clock import SystemClock
from mailyard.core.errors import InvalidInput, Unavailable
from mailyard.observe.metrics import JOBS
from mailyard.observe.totals import totals
from mailyard.queue import lane as lane_module
from mailyard.queue import worker as worker_module
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.engines.memory import MemoryEngine
from mailyard.queue.job import LeasedJob, NewJob
from mailyard.queue.worker import Worker

Q = "email-send"


class FlakyEngine(MemoryEngine):
    """Away whenever `away` is set."""

    away = False

    async def lease(self, *given: Any, **rest: Any) -> list[LeasedJob]:
        self._check()
        return await super().lease(*given, **rest)

    async def complete(self, jobs: Sequence[LeasedJob], tx: Any = None) -> set[int]:
        self._check()
        return await super().complete(jobs, tx)

    def _check(self) -> None:
        if self.away:
            raise Unavailable("the database is away")


@pytest.fixture
def engine() -> FlakyEngine:
    return FlakyEngine(clock=SystemClock(), bus=MemoryBus())


def jobs(*payloads: str, kind: str = "k", queue: str = Q, **rest: Any) -> list[NewJob]:
    return [NewJob(queue, kind, payload.encode(), **rest) for payload in payloads]


@asynccontextmanager
async def working(engine: MemoryEngine, *handlers: Handler) -> AsyncIterator[Worker]:
    worker = Worker(engine=engine, handlers=handlers, name="w")
    running = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.drain()
        await asyncio.wait_for(running, 20)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


async def empty(engine: MemoryEngine, queue: str = Q) -> None:
    async with asyncio.timeout(20):
        while True:
            (depth,) = await engine.depth([queue])
            if depth.ready == depth.scheduled == depth.leased == 0:
                return
            await asyncio.sleep(0.002)


def recorder(seen: list[list[str]]) -> Callable[[Batch], Awaitable[None]]:
    async def handle(batch: Batch) -> None:
        seen.append([job.payload.decode() for job in batch.jobs])

    return handle


async def test_what_a_handler_returns_from_is_complete(engine: FlakyEngine) -> None:
    seen: list[list[str]] = []
    async with working(engine, Handler("k", Q, recorder(seen))):
        await engine.enqueue(jobs("a", "b"))
        await empty(engine)
    assert seen == [["a"], ["b"]]


async def test_a_batch_handler_gets_up_to_its_batch_size(engine: FlakyEngine) -> None:
    seen: list[list[str]] = []
    await engine.enqueue(jobs(*map(str, range(10))))
    async with working(engine, Handler("k", Q, recorder(seen), batch_size=4)):
        await empty(engine)
    assert sorted((n for names in seen for n in names), key=int) == list(map(str, range(10)))
    assert max(map(len, seen)) == 4


async def test_kinds_of_a_queue_have_handlers_of_their_own(engine: FlakyEngine) -> None:
    first: list[list[str]] = []
    second: list[list[str]] = []
    await engine.enqueue(jobs("a", kind="x") + jobs("b", kind="y"))
    async with working(engine, Handler("x", Q, recorder(first)), Handler("y", Q, recorder(second))):
        await empty(engine)
    assert (first, second) == ([["a"]], [["b"]])


async def test_no_more_than_concurrency_run_at_once(engine: FlakyEngine) -> None:
    running, most = 0, 0

    async def handle(_: Batch) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1

    await engine.enqueue(jobs(*map(str, range(30))))
    async with working(engine, Handler("k", Q, handle, concurrency=3)):
        await empty(engine)
    assert most == 3


async def test_nothing_is_leased_for_the_slots_of_a_rare_kind(engine: FlakyEngine) -> None:
    done = asyncio.Event()

    async def handle(_: Batch) -> None:
        await done.wait()

    seen: list[list[str]] = []
    await engine.enqueue(jobs(*"abcde"))
    common, rare = Handler("k", Q, handle, concurrency=2), Handler("r", Q, handle, rare=True)
    async with working(engine, common, rare) as worker:
        await until(lambda: worker.held == 2)
        async with working(engine, Handler("k", Q, recorder(seen))):
            await until(lambda: len(seen) == 3)
        assert worker.held == 2
        await engine.enqueue(jobs("f", kind="r"))
        done.set()
        await empty(engine)


async def test_what_comes_while_a_lane_gathers_comes_in_one_batch_and_the_first_job_at_once(
    engine: FlakyEngine,
) -> None:
    seen: list[list[str]] = []
    handler = Handler("k", Q, recorder(seen), batch_size=100, gather_s=2.0)
    async with working(engine, handler):
        await engine.enqueue(jobs("first"))
        await until(lambda: seen == [["first"]])
        for n in range(20):
            await engine.enqueue(jobs(str(n)))
            await asyncio.sleep(0)
        await empty(engine)
    assert seen == [["first"], [str(n) for n in range(20)]]


async def test_behind_a_full_lease_nothing_is_waited_for(engine: FlakyEngine) -> None:
    seen: list[list[str]] = []
    await engine.enqueue(jobs(*map(str, range(100))))
    async with working(engine, Handler("k", Q, recorder(seen), batch_size=5, gather_s=3600)):
        await until(lambda: sum(map(len, seen)) == 100)


async def test_a_drain_does_not_wait_for_a_lane_that_gathers(engine: FlakyEngine) -> None:
    seen: list[list[str]] = []
    await engine.enqueue(jobs("a"))
    async with working(engine, Handler("k", Q, recorder(seen), batch_size=5, gather_s=3600)):
        await until(lambda: seen == [["a"]])


async def test_a_stuck_lane_does_not_hold_up_another(engine: FlakyEngine) -> None:
    release = asyncio.Event()
    seen: list[list[str]] = []

    async def stuck(_: Batch) -> None:
        await release.wait()

    await engine.enqueue(jobs(*map(str, range(100)), queue="email-bulk"))
    async with working(engine, Handler("k", "email-bulk", stuck), Handler("k", Q, recorder(seen))):
        await engine.enqueue(jobs("urgent"))
        await until(lambda: seen == [["urgent"]])
        release.set()


async def test_an_exception_gives_the_job_back_with_its_reason(engine: FlakyEngine) -> None:
    async def handle(_: Batch) -> None:
        raise ValueError("broken pipe dream")

    await engine.enqueue(jobs("a", max_attempts=1))
    async with working(engine, Handler("k", Q, handle)):
        await empty(engine)
    (dead,) = await engine.list_dead(None, None, None, 10)
    assert dead.error.startswith("ValueError in "), "what it is and where, not what it says"
    assert "dream" not in dead.error


async def test_an_exception_is_tried_again_later(
    engine: FlakyEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "RETRY", lane_module.Backoff(0.005, 0.01))
    attempts: list[int] = []

    async def handle(batch: Batch) -> None:
        attempts.append(batch.jobs[0].attempt)
        if len(attempts) < 3:
            raise ConnectionError

    await engine.enqueue(jobs("a"))
    async with working(engine, Handler("k", Q, handle)):
        await until(lambda: len(attempts) == 3)
        await empty(engine)
    assert attempts == [1, 2, 3]


async def test_what_can_never_work_is_buried_at_once(engine: FlakyEngine) -> None:
    async def handle(_: Batch) -> None:
        raise InvalidInput("no such template")

    await engine.enqueue(jobs("a"))
    async with working(engine, Handler("k", Q, handle)):
        await empty(engine)
    (dead,) = await engine.list_dead(None, None, None, 10)
    assert (dead.error, dead.attempts) == ("InvalidInput: no such template", 1)


async def test_a_handler_may_settle_each_job_its_own_way(engine: FlakyEngine) -> None:
    async def handle(batch: Batch) -> None:
        by_name = {job.payload: job for job in batch.jobs}
        assert await batch.complete([by_name[b"done"]]) == {by_name[b"done"].id}
        await batch.retry([by_name[b"later"]], 3600.0, "not yet")
        await batch.bury([by_name[b"never"]], "hopeless")

    await engine.enqueue(jobs("done", "later", "never", "rest"))
    async with working(engine, Handler("k", Q, handle, batch_size=4)):
        async with asyncio.timeout(20):
            while True:
                (depth,) = await engine.depth([Q])
                if (depth.ready, depth.leased) == (0, 0):
                    break
                await asyncio.sleep(0.002)
    assert (depth.scheduled, depth.dead) == (1, 1)


async def test_a_rolled_back_completion_is_given_back_when_the_handler_raises(
    engine: FlakyEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "RETRY", lane_module.Backoff(0.005, 0.01))
    attempts: list[int] = []

    async def handle(batch: Batch) -> None:
        attempts.append(batch.jobs[0].attempt)
        async with engine.transaction() as tx:
            await batch.complete(batch.jobs, tx)
            if len(attempts) == 1:
                raise RuntimeError("rolled back")

    await engine.enqueue(jobs("a"))
    async with working(engine, Handler("k", Q, handle)):
        await until(lambda: len(attempts) == 2)
        await empty(engine)
    assert attempts == [1, 2]


async def test_a_slow_handler_keeps_its_lease_by_heartbeats(
    engine: FlakyEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mailyard.queue.engines import memory

    monkeypatch.setattr(memory, "LEASE_S", 0.3)
    monkeypatch.setattr(worker_module, "HEARTBEAT_S", 0.05)
    crashes: list[int] = []

    async def handle(batch: Batch) -> None:
        crashes.append(batch.jobs[0].crashes)
        await asyncio.sleep(1.0)

    await engine.enqueue(jobs("a"))
    async with working(engine, Handler("k", Q, handle)):
        await empty(engine)
    assert crashes == [0]


class SlowlyHeard(FlakyEngine):
    """What is asked of it is done at once, and heard of later: as on a busy machine."""

    async def extend(self, jobs: Sequence[LeasedJob]) -> set[int]:
        await asyncio.sleep(0.02)
        return await super().extend(jobs)

    async def complete(self, jobs: Sequence[LeasedJob], tx: Any = None) -> set[int]:
        done = await super().complete(jobs, tx)
        await asyncio.sleep(0.06)
        return done


@pytest.mark.parametrize("settles", ["the worker", "the handler", "the handler's transaction"])
async def test_a_heartbeat_that_meets_a_completion_takes_no_lease_for_lost(
    monkeypatch: pytest.MonkeyPatch, settles: str
) -> None:
    engine = SlowlyHeard(clock=SystemClock(), bus=MemoryBus())
    monkeypatch.setattr(worker_module, "HEARTBEAT_S", 0.01)
    before = JOBS.labels(Q, "lost")._value.get()

    async def handle(batch: Batch) -> None:
        if settles == "the handler":
            await batch.complete(batch.jobs)
        elif settles != "the worker":
            async with engine.transaction() as tx:
                await batch.complete(batch.jobs, tx)
        await asyncio.sleep(0.05)

    await engine.enqueue(jobs(*"abcdefgh"))
    async with working(engine, Handler("k", Q, handle, concurrency=2)):
        await empty(engine)
    assert JOBS.labels(Q, "lost")._value.get() == before


async def test_a_heartbeat_says_what_another_has_taken_over(
    engine: FlakyEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "HEARTBEAT_S", 0.01)
    lost = JOBS.labels(Q, "lost")
    before = lost._value.get()

    async def handle(batch: Batch) -> None:
        if batch.jobs[0].attempt == 1:
            await engine.release(batch.jobs)  # somebody else gives it out anew
            await until(lambda: lost._value.get() > before)

    await engine.enqueue(jobs("a"))
    async with working(engine, Handler("k", Q, handle)):
        await until(lambda: lost._value.get() > before)


async def test_a_worker_survives_the_database_being_away(engine: FlakyEngine) -> None:
    seen: list[list[str]] = []
    engine.away = True
    async with working(engine, Handler("k", Q, recorder(seen))):
        await engine.enqueue(jobs("a"))
        await asyncio.sleep(0.05)
        assert seen == []
        engine.away = False
        await empty(engine)
    assert seen == [["a"]]


async def test_results_wait_while_the_database_is_away(engine: FlakyEngine) -> None:
    seen: list[list[str]] = []

    async def handle(batch: Batch) -> None:
        engine.away = True
        await recorder(seen)(batch)

    await engine.enqueue(jobs("a"))
    async with working(engine, Handler("k", Q, handle)):
        await until(lambda: bool(seen))
        await asyncio.sleep(0.05)
        engine.away = False
        await empty(engine)
    assert seen == [["a"]]


async def test_results_that_cannot_be_stored_hold_back_the_lease(
    engine: FlakyEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a quick handler runs ahead of the database until its leases run out."""
    from mailyard.queue import settle

    monkeypatch.setattr(settle, "_WAITING_JOBS", 10)
    stored = asyncio.Event()
    seen: list[list[str]] = []

    async def complete(given: Sequence[LeasedJob], tx: Any = None) -> set[int]:
        await stored.wait()
        return await MemoryEngine.complete(engine, given, tx)

    monkeypatch.setattr(engine, "complete", complete)
    await engine.enqueue(jobs(*map(str, range(200))))
    async with working(engine, Handler("k", Q, recorder(seen), batch_size=10)):
        await until(lambda: len(seen) >= 2)
        await asyncio.sleep(0.1)
        assert sum(map(len, seen)) <= 60
        stored.set()
        await empty(engine)
    assert sum(map(len, seen)) == 200


async def test_a_drain_lets_running_handlers_end_and_gives_back_the_rest(
    engine: FlakyEngine,
) -> None:
    began = asyncio.Event()
    finish = asyncio.Event()
    stopped: list[bool] = []

    async def handle(batch: Batch) -> None:
        began.set()
        await finish.wait()
        stopped.append(batch.stopping.is_set())

    await engine.enqueue(jobs(*map(str, range(5))))
    worker = Worker(engine=engine, handlers=[Handler("k", Q, handle)], name="w")
    running = asyncio.create_task(worker.run())
    await began.wait()
    worker.drain()
    await asyncio.sleep(0.01)
    assert not running.done()
    finish.set()
    await asyncio.wait_for(running, 20)
    (depth,) = await engine.depth([Q])
    assert (depth.ready, depth.leased, stopped) == (4, 0, [True])
    again = await engine.lease([Q], 10, 0.0, "other")
    assert {job.attempt for job in again} == {1}


async def test_a_handler_may_give_back_the_rest_when_it_is_told_to_stop(
    engine: FlakyEngine,
) -> None:
    began = asyncio.Event()

    async def handle(batch: Batch) -> None:
        began.set()
        await batch.stopping.wait()
        await batch.release(batch.jobs[1:])

    await engine.enqueue(jobs(*"abcd"))
    async with working(engine, Handler("k", Q, handle, batch_size=4)):
        await began.wait()
    (depth,) = await engine.depth([Q])
    assert (depth.ready, depth.leased) == (3, 0)


async def test_a_suspect_runs_without_neighbours(engine: FlakyEngine) -> None:
    seen: list[list[str]] = []
    await engine.enqueue(jobs(*"ab"))
    leased = await engine.lease([Q], 10, 0.0, "dead")
    for job in leased:
        engine._jobs[job.id].expires_at = engine._clock.now().replace(year=2000)
    await engine.rescue()
    async with working(engine, Handler("k", Q, recorder(seen), batch_size=10)):
        await empty(engine)
    assert sorted(seen) == [["a"], ["b"]]


async def test_what_a_dead_worker_held_is_done_well_before_thirty_seconds(
    engine: FlakyEngine,
) -> None:
    seen: list[list[str]] = []
    await engine.enqueue(jobs(*(f"{n}" for n in range(60))))
    for job in await engine.lease([Q], 60, 0.0, "dead"):
        engine._jobs[job.id].expires_at = engine._clock.now().replace(year=2000)
    await engine.rescue()
    async with working(engine, Handler("k", Q, recorder(seen), batch_size=10)):
        await empty(engine)  # which gives up after 20 s
    assert len(seen) == 60


async def test_a_kind_without_a_handler_waits_for_a_worker_that_knows_it(
    engine: FlakyEngine,
) -> None:
    await engine.enqueue(jobs("a", kind="from the future"))
    async with working(engine, Handler("k", Q, recorder([]))):
        async with asyncio.timeout(20):
            while (await engine.depth([Q]))[0].scheduled == 0:
                await asyncio.sleep(0.002)
    (depth,) = await engine.depth([Q])
    assert (depth.scheduled, depth.dead) == (1, 0)


async def test_a_handler_that_never_waits_lets_others_run(engine: FlakyEngine) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    seen: list[list[str]] = []
    await engine.enqueue(jobs(*map(str, range(3000))))
    async with working(engine, Handler("k", Q, recorder(seen))):
        await empty(engine)
    counting.cancel()
    assert turns > 5


async def test_what_a_handler_settles_by_itself_is_counted_as_what_became_of_it(
    engine: FlakyEngine,
) -> None:
    """Of them the autoscaler knows how long a job takes; a completion that was rolled back and done
    again counts once."""

    def counted() -> dict[str, float]:
        told = totals()["jobs"].get(Q, {})
        return {word: told.get(word, 0.0) for word in ("completed", "retried", "buried")}

    async def handle(batch: Batch) -> None:
        await batch.complete(batch.jobs[:3])
        await batch.complete(batch.jobs[:1])
        await batch.bury(batch.jobs[3:], "never")

    before = counted()
    await engine.enqueue(jobs(*map(str, range(4))))
    async with working(engine, Handler("k", Q, handle, batch_size=4)):
        await empty(engine)
    after = counted()

    assert {word: after[word] - before[word] for word in after} == {
        "completed": 3.0,
        "retried": 0.0,
        "buried": 1.0,
    }
