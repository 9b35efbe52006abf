"""The core of the queue's contract: every engine passes every case."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
from contract.conftest import Yard
from contract.queue_words import Q, add, bury, counts, depth, ids, job, payloads, take, take_one

from mailyard.core.errors import InvalidInput
from mailyard.core.limits import (
    JOB_PAYLOAD_BYTES,
    LEASE_S,
)
from mailyard.queue.job import NewJob

# Adding and taking -------------------------------------------------------------------------------


async def test_an_empty_queue_leases_nothing(yard: Yard) -> None:
    assert await take(yard.engine) == []


async def test_enqueuing_nothing_is_allowed(yard: Yard) -> None:
    assert await yard.engine.enqueue([]) == []


async def test_a_job_comes_back_as_it_was_given(yard: Yard) -> None:
    workspace_id = uuid4()
    (job_id,) = await yard.engine.enqueue(
        [NewJob(Q, "deliver", b"\x00\xff\r\n", workspace_id=workspace_id, max_attempts=7)]
    )
    leased = await take_one(yard.engine)
    assert leased.id == job_id
    assert (leased.queue, leased.kind, leased.payload) == (Q, "deliver", b"\x00\xff\r\n")
    assert leased.workspace_id == workspace_id
    assert (leased.attempt, leased.crashes, leased.max_attempts) == (1, 0, 7)
    assert leased.enqueued_at == yard.clock.now()
    assert leased.expires_at == yard.clock.now() + timedelta(seconds=LEASE_S)


async def test_ids_are_in_the_order_of_the_jobs(yard: Yard) -> None:
    given = await add(yard.engine, "a", "b", "c")
    leased = await take(yard.engine)
    assert [each.id for each in leased] == given
    assert payloads(leased) == ["a", "b", "c"]


async def test_ids_differ(yard: Yard) -> None:
    first = await add(yard.engine, *"abc")
    second = await add(yard.other, *"abc")
    assert len({*first, *second}) == 6


async def test_jobs_of_a_line_come_oldest_first(yard: Yard) -> None:
    for name in "abcde":
        await add(yard.engine, name)
    assert payloads(await take(yard.engine)) == list("abcde")


@pytest.mark.parametrize("limit", [1, 3, 10])
async def test_a_lease_takes_at_most_its_limit(yard: Yard, limit: int) -> None:
    await add(yard.engine, *"abcde")
    assert len(await take(yard.engine, limit)) == min(limit, 5)


async def test_a_leased_job_is_not_leased_again(yard: Yard) -> None:
    await add(yard.engine, "a")
    await take_one(yard.engine)
    assert await take(yard.engine) == []
    assert await take(yard.other) == []


async def test_two_workers_share_a_queue_without_overlap(yard: Yard) -> None:
    await add(yard.engine, *"abcdef")
    first = await take(yard.engine, 3)
    second = await take(yard.other, 3)
    assert len(ids(first) | ids(second)) == 6


async def test_workers_at_the_same_instant_never_get_the_same_job(yard: Yard) -> None:
    await add(yard.engine, *map(str, range(60)))
    taken = await asyncio.gather(*(take(each, 10) for each in (yard.engine, yard.other) * 5))
    everything = [leased.id for leased_jobs in taken for leased in leased_jobs]
    assert len(everything) == len(set(everything))
    everything += [leased.id for leased in await take(yard.engine, 60)]
    assert len(set(everything)) == 60


async def test_a_lease_leaves_other_queues_alone(yard: Yard) -> None:
    await add(yard.engine, "bulk", queue="email-bulk")
    assert await take(yard.engine) == []
    assert payloads(await take(yard.engine, queue="email-bulk")) == ["bulk"]


async def test_a_lease_may_ask_several_queues(yard: Yard) -> None:
    await add(yard.engine, "a", queue="webhooks")
    await add(yard.engine, "b", queue="media")
    leased = await yard.engine.lease(["webhooks", "media", "cleanup"], 10, 0.0, "worker-1")
    assert {each.queue: each.payload for each in leased} == {"webhooks": b"a", "media": b"b"}


async def test_a_large_batch_goes_in_and_out(yard: Yard) -> None:
    given = await add(yard.engine, *map(str, range(2_000)))
    leased = await take(yard.engine, 2_000)
    assert [each.id for each in leased] == given
    assert await yard.engine.complete(leased) == set(given)


async def test_an_empty_payload_is_a_payload(yard: Yard) -> None:
    await add(yard.engine, "")
    assert (await take_one(yard.engine)).payload == b""


async def test_the_largest_payload_fits(yard: Yard) -> None:
    await yard.engine.enqueue([NewJob(Q, "deliver", b"x" * JOB_PAYLOAD_BYTES)])
    assert len((await take_one(yard.engine)).payload) == JOB_PAYLOAD_BYTES


@pytest.mark.parametrize(
    "bad",
    [
        NewJob(Q, "deliver", b"x" * (JOB_PAYLOAD_BYTES + 1)),
        NewJob(Q, "deliver", b"", priority=-1),
        NewJob(Q, "deliver", b"", priority=10),
        NewJob(Q, "deliver", b"", max_attempts=0),
        NewJob("", "deliver", b""),
        NewJob(Q, "", b""),
    ],
    ids=["payload", "priority-low", "priority-high", "attempts", "queue", "kind"],
)
async def test_a_job_that_can_never_run_is_refused(yard: Yard, bad: NewJob) -> None:
    with pytest.raises(InvalidInput):
        await yard.engine.enqueue([job("good"), bad])
    assert await take(yard.engine) == []


# Waiting -----------------------------------------------------------------------------------------


async def test_a_waiting_lease_gets_a_job_that_comes(yard: Yard) -> None:
    waiting = asyncio.create_task(yard.engine.lease([Q], 10, 30.0, "worker-1"))
    await asyncio.sleep(0.05)
    await add(yard.other, "a")
    assert payloads(await asyncio.wait_for(waiting, 10)) == ["a"]


async def test_a_waiting_lease_ends_empty_after_its_time(yard: Yard) -> None:
    assert await yard.engine.lease([Q], 10, 0.05, "worker-1") == []


async def test_a_waiting_lease_returns_at_once_when_there_is_work(yard: Yard) -> None:
    await add(yard.engine, "a")
    leased = await asyncio.wait_for(yard.engine.lease([Q], 10, 3600.0, "worker-1"), 10)
    assert payloads(leased) == ["a"]


# Tokens ------------------------------------------------------------------------------------------


async def test_tokens_grow_with_every_lease(yard: Yard) -> None:
    await add(yard.engine, *"abcdef")
    tokens = [
        (await take_one(engine)).token
        for engine in (yard.engine, yard.other, yard.engine, yard.other)
    ]
    assert tokens == sorted(set(tokens))


async def test_a_job_leased_again_has_a_larger_token(yard: Yard) -> None:
    await add(yard.engine, "a")
    first = await take_one(yard.engine)
    await yard.engine.release([first])
    assert (await take_one(yard.engine)).token > first.token


STALE = ["complete", "retry", "bury", "release", "extend"]


async def settle(yard: Yard, how: str, leased: list) -> set[int]:
    """Settle by name, with whatever else the call wants."""
    if how == "retry":
        return await yard.engine.retry(leased, 0.0, "failed")
    if how == "bury":
        return await yard.engine.bury(leased, "hopeless")
    result: set[int] = await getattr(yard.engine, how)(leased)
    return result


@pytest.mark.parametrize("how", STALE)
async def test_nothing_can_be_done_under_a_token_that_was_rescued(yard: Yard, how: str) -> None:
    await add(yard.engine, "a")
    stale = await take_one(yard.engine)
    yard.clock.advance(LEASE_S + 1)
    await yard.engine.rescue()
    current = await take_one(yard.other)
    assert await settle(yard, how, [stale]) == set()
    assert await yard.other.complete([current]) == {current.id}


@pytest.mark.parametrize("how", STALE)
async def test_nothing_can_be_done_with_a_job_that_is_complete(yard: Yard, how: str) -> None:
    await add(yard.engine, "a")
    leased = await take_one(yard.engine)
    await yard.engine.complete([leased])
    assert await settle(yard, how, [leased]) == set()


@pytest.mark.parametrize("how", STALE)
async def test_nothing_can_be_done_under_a_made_up_token(yard: Yard, how: str) -> None:
    await add(yard.engine, "a")
    leased = await take_one(yard.engine)
    assert await settle(yard, how, [replace(leased, token=leased.token + 1)]) == set()
    assert await yard.engine.complete([leased]) == {leased.id}


@pytest.mark.parametrize("how", STALE)
async def test_a_job_given_back_is_no_longer_its_workers(yard: Yard, how: str) -> None:
    await add(yard.engine, "a", "b")
    first, second = await take(yard.engine)
    await yard.engine.retry([first], 0.0, "again")
    again = await take_one(yard.engine)
    assert again.id == first.id
    assert await settle(yard, how, [first]) == set()
    assert await yard.engine.complete([second, again]) == {second.id, again.id}


# Completing --------------------------------------------------------------------------------------


async def test_a_complete_job_never_comes_again(yard: Yard) -> None:
    await add(yard.engine, "a")
    leased = await take(yard.engine)
    assert await yard.engine.complete(leased) == ids(leased)
    yard.clock.advance(3600)
    await yard.engine.rescue()
    assert await take(yard.engine) == []


async def test_part_of_a_lease_may_be_completed(yard: Yard) -> None:
    await add(yard.engine, *"abcd")
    leased = await take(yard.engine)
    assert await yard.engine.complete(leased[1:3]) == ids(leased[1:3])
    assert await yard.engine.complete(leased) == ids([leased[0], leased[3]])


async def test_completing_reports_only_what_was_the_callers(yard: Yard) -> None:
    await add(yard.engine, *"ab")
    mine, lost = await take(yard.engine)
    await yard.engine.release([lost])
    await take_one(yard.other)
    assert await yard.engine.complete([mine, lost]) == {mine.id}


async def test_jobs_of_several_leases_complete_together(yard: Yard) -> None:
    await add(yard.engine, *"abc")
    leased = [await take_one(yard.engine) for _ in range(3)]
    assert await yard.engine.complete(leased) == ids(leased)


async def test_another_process_may_complete_with_the_token(yard: Yard) -> None:
    await add(yard.engine, "a")
    leased = await take(yard.engine)
    assert await yard.other.complete(leased) == ids(leased)


async def test_completing_nothing_is_allowed(yard: Yard) -> None:
    assert await yard.engine.complete([]) == set()


async def test_a_late_worker_may_complete_what_nobody_took(yard: Yard) -> None:
    await add(yard.engine, "a")
    leased = await take(yard.engine)
    yard.clock.advance(LEASE_S * 2)
    assert await yard.engine.complete(leased) == ids(leased)
    assert await yard.engine.rescue() == 0


# Giving back -------------------------------------------------------------------------------------


async def test_a_retried_job_comes_again_with_the_next_attempt(yard: Yard) -> None:
    await add(yard.engine, "a")
    first = await take_one(yard.engine)
    assert await yard.engine.retry([first], 0.0, "failed") == {first.id}
    again = await take_one(yard.engine)
    assert (again.id, again.attempt, again.crashes) == (first.id, 2, 0)


async def test_a_retried_job_waits_its_delay(yard: Yard) -> None:
    await add(yard.engine, "a")
    await yard.engine.retry([await take_one(yard.engine)], 30.0, "failed")
    yard.clock.advance(29)
    assert await take(yard.engine) == []
    yard.clock.advance(1)
    assert payloads(await take(yard.engine)) == ["a"]


async def test_a_retried_job_lets_those_that_wait_go_first(yard: Yard) -> None:
    await add(yard.engine, *"abc")
    await yard.engine.retry([await take_one(yard.engine)], 0.0, "failed")
    assert payloads(await take(yard.engine)) == ["b", "c", "a"]


async def test_the_last_attempt_is_followed_by_burial(yard: Yard) -> None:
    await add(yard.engine, "a", max_attempts=3)
    for attempt in (1, 2, 3):
        leased = await take_one(yard.engine)
        assert leased.attempt == attempt
        assert await yard.engine.retry([leased], 0.0, "no answer") == {leased.id}
    assert await take(yard.engine) == []
    (dead,) = await yard.engine.list_dead(None, None, None, 10)
    assert (dead.attempts, dead.error) == (3, "no answer")


async def test_one_batch_may_retry_some_and_bury_others(yard: Yard) -> None:
    await add(yard.engine, "short", max_attempts=1)
    await add(yard.engine, "long")
    leased = await take(yard.engine)
    assert await yard.engine.retry(leased, 0.0, "failed") == ids(leased)
    assert await counts(yard.engine) == (1, 0, 0, 1)


async def test_a_released_job_keeps_its_attempt(yard: Yard) -> None:
    await add(yard.engine, "a", max_attempts=1)
    for _ in range(3):
        leased = await take_one(yard.engine)
        assert leased.attempt == 1
        assert await yard.engine.release([leased]) == {leased.id}
    assert payloads(await take(yard.engine)) == ["a"]


async def test_releasing_and_retrying_nothing_is_allowed(yard: Yard) -> None:
    assert await yard.engine.release([]) == set()
    assert await yard.engine.retry([], 0.0, "") == set()
    assert await yard.engine.bury([], "") == set()
    assert await yard.engine.extend([]) == set()


# Depth -------------------------------------------------------------------------------------------


async def test_an_unknown_queue_has_depth_zero(yard: Yard) -> None:
    assert await counts(yard.engine, "media") == (0, 0, 0, 0)


async def test_depths_come_in_the_order_asked(yard: Yard) -> None:
    await add(yard.engine, "a", queue="webhooks")
    found = await yard.engine.depth(["media", "webhooks", Q])
    assert [(each.queue, each.ready) for each in found] == [("media", 0), ("webhooks", 1), (Q, 0)]


async def test_depth_follows_a_job_through_its_life(yard: Yard) -> None:
    (job_id,) = await add(yard.engine, "a")
    assert await counts(yard.engine) == (1, 0, 0, 0)
    leased = await take_one(yard.engine)
    assert await counts(yard.engine) == (0, 0, 1, 0)
    await yard.engine.retry([leased], 60.0, "failed")
    assert await counts(yard.engine) == (0, 1, 0, 0)
    yard.clock.advance(60)
    assert await counts(yard.engine) == (1, 0, 0, 0)
    await yard.engine.release([await take_one(yard.engine)])
    assert await counts(yard.engine) == (1, 0, 0, 0)
    await yard.engine.bury([await take_one(yard.engine)], "no")
    assert await counts(yard.engine) == (0, 0, 0, 1)
    await yard.engine.redrive(None, [job_id])
    assert await counts(yard.engine) == (1, 0, 0, 0)
    await take_one(yard.engine)
    yard.clock.advance(LEASE_S + 1)
    await yard.engine.rescue()
    assert await counts(yard.engine) == (1, 0, 0, 0)
    await yard.engine.complete([await take_one(yard.engine)])
    assert await counts(yard.engine) == (0, 0, 0, 0)


async def test_discarding_takes_a_job_off_the_count(yard: Yard) -> None:
    given = await bury(yard.engine, *"ab")
    await yard.engine.discard(None, given)
    assert await counts(yard.engine) == (0, 0, 0, 0)


async def test_a_stale_settling_does_not_move_the_counts(yard: Yard) -> None:
    await add(yard.engine, "a")
    stale = await take(yard.engine)
    await yard.engine.release(stale)
    await yard.engine.complete(stale)
    await yard.engine.retry(stale, 0.0, "late")
    await yard.engine.bury(stale, "late")
    assert await counts(yard.engine) == (1, 0, 0, 0)


async def test_every_process_sees_the_same_depth(yard: Yard) -> None:
    await add(yard.engine, *"abc")
    await take(yard.other, 1)
    assert await counts(yard.engine) == await counts(yard.other) == (2, 0, 1, 0)


async def test_the_oldest_age_is_that_of_the_first_due_job(yard: Yard) -> None:
    assert (await depth(yard.engine)).oldest_age_s == 0.0
    await add(yard.engine, "a")
    yard.clock.advance(10)
    await add(yard.engine, "b")
    yard.clock.advance(5)
    assert (await depth(yard.engine)).oldest_age_s == 15.0
    await take_one(yard.engine)
    assert (await depth(yard.engine)).oldest_age_s == 5.0
    await take_one(yard.engine)
    assert (await depth(yard.engine)).oldest_age_s == 0.0


async def test_a_job_in_a_workers_hands_is_known_by_its_payload(yard: Yard) -> None:
    workspace_id = uuid4()
    await add(yard.engine, "a", "b", workspace_id=workspace_id)
    (leased,) = await take(yard.engine, 1)
    assert payloads([leased]) == ["a"]
    held = yard.other.is_leased
    assert await held(workspace_id, Q, b"a")
    assert not await held(workspace_id, Q, b"b")
    assert not await held(uuid4(), Q, b"a")
    assert not await held(None, Q, b"a")
    assert not await held(workspace_id, "webhooks", b"a")
    yard.clock.advance(LEASE_S + 1)
    assert not await held(workspace_id, Q, b"a")
    await yard.engine.rescue()
    (again,) = await take(yard.engine, 1)
    assert await held(workspace_id, Q, b"a")
    await yard.engine.complete([again])
    assert not await held(workspace_id, Q, b"a")


MARK = bytes(range(1, 25)) + b"\x01"


async def test_a_job_carries_where_it_stands_in_a_trace_wherever_it_goes(yard: Yard) -> None:
    payload = bytes(range(256))
    workspace_id = uuid4()
    await yard.engine.enqueue([NewJob(Q, "deliver", payload, workspace_id, trace=MARK * 2)])
    one = await take_one(yard.engine)
    assert (one.payload, one.trace) == (payload, MARK * 2)
    assert await yard.engine.is_leased(workspace_id, Q, payload)
    assert not await yard.engine.is_leased(workspace_id, Q, payload[1:])
    await yard.engine.retry([one], 0.0, "again")
    again = await take_one(yard.engine)
    assert (again.payload, again.trace) == (payload, MARK * 2)
    await yard.engine.bury([again], "no")
    (dead,) = await yard.engine.list_dead(workspace_id, Q, None, 9)
    assert dead.payload == payload
    await yard.engine.redrive(workspace_id, [dead.id])
    back = await take_one(yard.engine)
    assert (back.payload, back.trace) == (payload, MARK * 2)
