"""What an engine may declare beyond the core, and then passes."""

from datetime import timedelta
from uuid import uuid4

import pytest
from contract.conftest import Yard
from contract.queue_words import Q, add, counts, ids, job, payloads, take, take_one

from mailyard.core.limits import LEASE_S
from mailyard.queue.engine import Capability
from mailyard.queue.job import KeyPolicy


@pytest.fixture(autouse=True)
def declared(request: pytest.FixtureRequest, yard: Yard) -> None:
    """Skip what the engine does not declare."""
    marker = request.node.get_closest_marker("needs")
    needed = marker.args[0] if marker else Capability(0)
    if needed not in yard.engine.capabilities:
        pytest.skip(f"the engine does not declare {needed}")


needs = pytest.mark.needs


# Transactions ------------------------------------------------------------------------------------


class Undone(Exception):
    """Raised to roll a transaction back."""


@needs(Capability.TRANSACTIONAL)
async def test_an_enqueue_commits_with_its_transaction(yard: Yard) -> None:
    async with yard.transaction() as tx:
        (job_id,) = await yard.engine.enqueue([job("a")], tx)
        assert await take(yard.other) == []
    assert (await take_one(yard.other)).id == job_id


@needs(Capability.TRANSACTIONAL)
async def test_an_enqueue_is_rolled_back_with_its_transaction(yard: Yard) -> None:
    with pytest.raises(Undone):
        async with yard.transaction() as tx:
            await yard.engine.enqueue([job("a")], tx)
            raise Undone
    assert await take(yard.engine) == []
    assert await counts(yard.engine) == (0, 0, 0, 0)


@needs(Capability.TRANSACTIONAL)
async def test_a_completion_commits_with_its_transaction(yard: Yard) -> None:
    await add(yard.engine, *"ab")
    leased = await take(yard.engine)
    async with yard.transaction() as tx:
        assert await yard.engine.complete(leased, tx) == ids(leased)
    assert await yard.engine.extend(leased) == set()


@needs(Capability.TRANSACTIONAL)
async def test_a_completion_rolled_back_leaves_the_job_with_its_worker(yard: Yard) -> None:
    await add(yard.engine, *"ab")
    leased = await take(yard.engine)
    with pytest.raises(Undone):
        async with yard.transaction() as tx:
            await yard.engine.complete(leased, tx)
            raise Undone
    assert await yard.engine.extend(leased) == ids(leased)
    assert await yard.engine.complete(leased) == ids(leased)
    assert await counts(yard.engine) == (0, 0, 0, 0)


@needs(Capability.TRANSACTIONAL)
async def test_after_a_rollback_each_job_can_be_settled_by_itself(yard: Yard) -> None:
    await add(yard.engine, *"abc")
    first, second, third = leased = await take(yard.engine)
    with pytest.raises(Undone):
        async with yard.transaction() as tx:
            await yard.engine.complete(leased, tx)
            raise Undone
    assert await yard.engine.complete([first]) == {first.id}
    assert await yard.engine.retry([second], 0.0, "failed") == {second.id}
    assert await yard.engine.complete([third]) == {third.id}
    assert payloads(await take(yard.engine)) == ["b"]


@needs(Capability.TRANSACTIONAL)
async def test_a_rollback_and_a_death_lose_nobody(yard: Yard) -> None:
    await add(yard.engine, *"ab")
    first, second = await take(yard.engine)
    with pytest.raises(Undone):
        async with yard.transaction() as tx:
            await yard.engine.complete([first], tx)
            raise Undone
    await yard.engine.complete([second])
    yard.clock.advance(LEASE_S + 1)
    assert await yard.engine.rescue() == 1
    assert payloads(await take(yard.engine)) == ["a"]


@needs(Capability.TRANSACTIONAL)
@pytest.mark.parametrize("how", ["retry", "bury"])
async def test_giving_back_is_part_of_a_transaction(yard: Yard, how: str) -> None:
    await add(yard.engine, "a")
    leased = await take(yard.engine)
    with pytest.raises(Undone):
        async with yard.transaction() as tx:
            if how == "retry":
                await yard.engine.retry(leased, 0.0, "failed", tx)
            else:
                await yard.engine.bury(leased, "failed", tx)
            raise Undone
    assert await yard.engine.complete(leased) == ids(leased)


@needs(Capability.TRANSACTIONAL)
@pytest.mark.parametrize("how", ["redrive", "discard"])
async def test_dead_letters_go_with_their_transaction(yard: Yard, how: str) -> None:
    await add(yard.engine, "a")
    (leased,) = await take(yard.engine)
    await yard.engine.bury([leased], "failed")
    act = yard.engine.redrive if how == "redrive" else yard.engine.discard
    with pytest.raises(Undone):
        async with yard.transaction() as tx:
            assert await act(None, [leased.id], tx) == {leased.id}
            raise Undone
    assert await counts(yard.engine) == (0, 0, 0, 1)
    async with yard.transaction() as tx:
        assert await act(None, [leased.id], tx) == {leased.id}
    assert payloads(await take(yard.other)) == (["a"] if how == "redrive" else [])
    assert await act(None, [leased.id]) == set()


@needs(Capability.TRANSACTIONAL | Capability.PAUSE)
async def test_a_pause_that_is_rolled_back_stops_nobody(yard: Yard) -> None:
    await add(yard.engine, "a")
    with pytest.raises(Undone):
        async with yard.transaction() as tx:
            await yard.engine.pause(Q, tx)
            raise Undone
    assert await yard.engine.paused() == set()
    async with yard.transaction() as tx:
        await yard.engine.pause(Q, tx)
    assert await take(yard.engine) == []
    with pytest.raises(Undone):
        async with yard.transaction() as tx:
            await yard.engine.resume(Q, tx)
            raise Undone
    assert await yard.engine.paused() == {Q}


@needs(Capability.TRANSACTIONAL)
async def test_a_stale_completion_in_a_transaction_says_so(yard: Yard) -> None:
    await add(yard.engine, "a")
    stale = await take(yard.engine)
    yard.clock.advance(LEASE_S + 1)
    await yard.engine.rescue()
    async with yard.transaction() as tx:
        assert await yard.engine.complete(stale, tx) == set()
    assert len(await take(yard.engine)) == 1


@needs(Capability.TRANSACTIONAL)
async def test_a_straggler_is_found(yard: Yard) -> None:
    """A transaction that drew its place early and commits late is not passed over."""
    async with yard.transaction() as tx:
        await yard.engine.enqueue([job("late")], tx)
        await add(yard.other, "early")
        assert payloads(await take(yard.other)) == ["early"]
    assert payloads(await take(yard.other)) == ["late"]


# Priorities --------------------------------------------------------------------------------------


@needs(Capability.PRIORITIES)
async def test_priority_zero_goes_first(yard: Yard) -> None:
    for priority in (9, 5, 0, 3):
        await add(yard.engine, str(priority), priority=priority)
    assert payloads(await take(yard.engine)) == ["0", "3", "5", "9"]


@needs(Capability.PRIORITIES)
async def test_an_urgent_job_passes_a_thousand(yard: Yard) -> None:
    await add(yard.engine, *map(str, range(1000)))
    await take(yard.engine, 10)
    await add(yard.engine, "urgent", priority=0)
    assert payloads(await take(yard.engine, 1)) == ["urgent"]


@needs(Capability.PRIORITIES)
async def test_within_a_priority_the_order_stays(yard: Yard) -> None:
    await add(yard.engine, "a", "b", priority=2)
    await add(yard.engine, "c", priority=2)
    assert payloads(await take(yard.engine)) == ["a", "b", "c"]


@needs(Capability.PRIORITIES)
async def test_a_retried_job_keeps_its_priority(yard: Yard) -> None:
    await add(yard.engine, "urgent", priority=0)
    await yard.engine.retry([await take_one(yard.engine)], 0.0, "failed")
    await add(yard.engine, "usual")
    assert payloads(await take(yard.engine)) == ["urgent", "usual"]


# Turns -------------------------------------------------------------------------------------------


@needs(Capability.TENANT_TURNS)
async def test_a_large_tenant_does_not_hold_up_a_small_one(yard: Yard) -> None:
    large, small = uuid4(), uuid4()
    await add(yard.engine, *map(str, range(3000)), workspace_id=large)
    await take(yard.engine, 100)
    await add(yard.engine, "small", workspace_id=small)
    early = [await take(yard.engine, 100) for _ in range(2)]
    assert any("small" in payloads(leased) for leased in early)


@needs(Capability.TENANT_TURNS)
async def test_tenants_with_much_work_get_alike(yard: Yard) -> None:
    tenants = [uuid4() for _ in range(4)]
    for tenant in tenants:
        await add(yard.engine, *map(str, range(200)), workspace_id=tenant)
    served = dict.fromkeys(tenants, 0)
    for _ in range(10):
        for leased in await take(yard.engine, 40):
            served[leased.workspace_id] += 1  # type: ignore[index]
    assert sum(served.values()) == 400
    assert max(served.values()) - min(served.values()) <= 40


@needs(Capability.TENANT_TURNS)
async def test_single_leases_go_round(yard: Yard) -> None:
    tenants = [uuid4() for _ in range(3)]
    for tenant in tenants:
        await add(yard.engine, *"abc", workspace_id=tenant)
    first = [(await take_one(yard.engine)).workspace_id for _ in range(3)]
    assert set(first) == set(tenants)


@needs(Capability.TENANT_TURNS)
async def test_one_tenant_alone_gets_the_whole_lease(yard: Yard) -> None:
    tenants = [uuid4() for _ in range(5)]
    for tenant in tenants:
        await add(yard.engine, "once", workspace_id=tenant)
    await take(yard.engine)
    await add(yard.engine, *map(str, range(50)), workspace_id=tenants[0])
    assert len(await take(yard.engine, 50)) == 50


@needs(Capability.TENANT_TURNS)
async def test_hundreds_of_tenants_are_all_served(yard: Yard) -> None:
    tenants = [uuid4() for _ in range(150)]
    await yard.engine.enqueue([job("a", workspace_id=tenant) for tenant in tenants])
    seen = set()
    while leased := await take(yard.other, 20):
        seen |= {each.workspace_id for each in leased}
    assert seen == set(tenants)


# Delays ------------------------------------------------------------------------------------------


@needs(Capability.DELAYS)
async def test_a_scheduled_job_waits_for_its_time(yard: Yard) -> None:
    await add(yard.engine, "later", run_at=yard.clock.now() + timedelta(hours=1))
    assert await counts(yard.engine) == (0, 1, 0, 0)
    yard.clock.advance(3599)
    assert await take(yard.engine) == []
    yard.clock.advance(1)
    assert payloads(await take(yard.engine)) == ["later"]


@needs(Capability.DELAYS)
async def test_scheduled_jobs_come_in_the_order_of_their_times(yard: Yard) -> None:
    now = yard.clock.now()
    for name, minutes in (("c", 3), ("a", 1), ("b", 2)):
        await add(yard.engine, name, run_at=now + timedelta(minutes=minutes))
    yard.clock.advance(600)
    assert payloads(await take(yard.engine)) == ["a", "b", "c"]


@needs(Capability.DELAYS)
async def test_a_time_in_the_past_is_now(yard: Yard) -> None:
    await add(yard.engine, "past", run_at=yard.clock.now() - timedelta(days=1))
    assert payloads(await take(yard.engine)) == ["past"]
    assert await counts(yard.engine) == (0, 0, 1, 0)


@needs(Capability.DELAYS)
async def test_a_delayed_job_keeps_nobody_waiting(yard: Yard) -> None:
    await add(yard.engine, "later", run_at=yard.clock.now() + timedelta(hours=1))
    await add(yard.engine, "now")
    assert payloads(await take(yard.engine)) == ["now"]


@needs(Capability.DELAYS)
async def test_a_batch_mixes_now_and_later(yard: Yard) -> None:
    later = yard.clock.now() + timedelta(seconds=10)
    await yard.engine.enqueue([job("b", run_at=later), job("a"), job("c", run_at=later)])
    assert payloads(await take(yard.engine)) == ["a"]
    yard.clock.advance(10)
    assert payloads(await take(yard.engine)) == ["b", "c"]


# Unique keys -------------------------------------------------------------------------------------


@needs(Capability.UNIQUE)
async def test_a_unique_key_stands_once(yard: Yard) -> None:
    (first,) = await yard.engine.enqueue([job("a", unique_key="sync:1")])
    assert first is not None
    assert await yard.other.enqueue([job("b", unique_key="sync:1")]) == [None]
    assert payloads(await take(yard.engine)) == ["a"]


@needs(Capability.UNIQUE)
async def test_a_unique_key_stands_once_in_a_batch(yard: Yard) -> None:
    added = await yard.engine.enqueue(
        [job("a", unique_key="x"), job("b"), job("c", unique_key="x"), job("d", unique_key="y")]
    )
    assert [each is None for each in added] == [False, False, True, False]
    assert sorted(payloads(await take(yard.engine))) == ["a", "b", "d"]


@needs(Capability.UNIQUE)
async def test_a_unique_key_stands_while_the_job_runs(yard: Yard) -> None:
    await yard.engine.enqueue([job("a", unique_key="x")])
    leased = await take(yard.engine)
    assert await yard.engine.enqueue([job("b", unique_key="x")]) == [None]
    await yard.engine.complete(leased)
    assert await yard.engine.enqueue([job("c", unique_key="x")]) != [None]


@needs(Capability.UNIQUE)
async def test_a_unique_key_stands_through_a_retry(yard: Yard) -> None:
    await yard.engine.enqueue([job("a", unique_key="x")])
    await yard.engine.retry(await take(yard.engine), 60.0, "failed")
    assert await yard.engine.enqueue([job("b", unique_key="x")]) == [None]


@needs(Capability.UNIQUE)
async def test_a_unique_key_is_free_again_after_burial(yard: Yard) -> None:
    await yard.engine.enqueue([job("a", unique_key="x")])
    await yard.engine.bury(await take(yard.engine), "no")
    assert await yard.engine.enqueue([job("b", unique_key="x")]) != [None]


@needs(Capability.UNIQUE)
async def test_a_redrive_does_not_break_a_unique_key(yard: Yard) -> None:
    (first,) = await yard.engine.enqueue([job("a", unique_key="x")])
    await yard.engine.bury(await take(yard.engine), "no")
    await yard.engine.enqueue([job("b", unique_key="x")])
    assert first is not None
    assert await yard.engine.redrive(None, [first]) == set()
    assert len(await yard.engine.list_dead(None, None, None, 10)) == 1


@needs(Capability.UNIQUE)
async def test_a_unique_key_belongs_to_its_queue(yard: Yard) -> None:
    await yard.engine.enqueue([job("a", unique_key="x")])
    assert await yard.engine.enqueue([job("b", "media", unique_key="x")]) != [None]


# Limits by key -----------------------------------------------------------------------------------


@needs(Capability.KEY_LIMITS)
async def test_a_key_runs_at_most_its_concurrency(yard: Yard) -> None:
    await yard.engine.limit_keys(Q, KeyPolicy(concurrency=2))
    await add(yard.engine, *"abcde", limit_key="gmail.com")
    first = await take(yard.engine)
    assert payloads(first) == ["a", "b"]
    assert await take(yard.other) == []
    await yard.engine.complete(first[:1])
    assert payloads(await take(yard.other)) == ["c"]


@needs(Capability.KEY_LIMITS)
async def test_a_limited_key_starves_nobody(yard: Yard) -> None:
    await yard.engine.limit_keys(Q, KeyPolicy(concurrency=1))
    await add(yard.engine, *map(str, range(500)), limit_key="slow.example")
    await add(yard.engine, "other", limit_key="quick.example")
    await add(yard.engine, "free")
    assert sorted(payloads(await take(yard.engine, 10))) == ["0", "free", "other"]


@needs(Capability.KEY_LIMITS)
async def test_a_key_starts_at_most_its_rate(yard: Yard) -> None:
    await yard.engine.limit_keys(Q, KeyPolicy(rate_per_s=2.0, burst=3))
    await add(yard.engine, *"abcdefgh", limit_key="k")
    assert payloads(await take(yard.engine)) == ["a", "b", "c"]
    assert await take(yard.engine) == []
    yard.clock.advance(0.5)
    assert payloads(await take(yard.engine)) == ["d"]
    yard.clock.advance(10)
    assert payloads(await take(yard.engine)) == ["e", "f", "g"]


@needs(Capability.KEY_LIMITS)
@pytest.mark.parametrize("how", ["retry", "release", "bury", "rescue"])
async def test_every_end_of_a_lease_frees_the_keys_place(yard: Yard, how: str) -> None:
    await yard.engine.limit_keys(Q, KeyPolicy(concurrency=1))
    await add(yard.engine, "a", "b", limit_key="k")
    leased = await take(yard.engine)
    assert len(leased) == 1
    if how == "retry":
        await yard.engine.retry(leased, 3600.0, "later")
    elif how == "release":
        await yard.engine.release(leased)
    elif how == "bury":
        await yard.engine.bury(leased, "no")
    else:
        yard.clock.advance(LEASE_S + 1)
        await yard.engine.rescue()
    assert payloads(await take(yard.engine)) == ["b"]


@needs(Capability.KEY_LIMITS)
async def test_a_retried_job_is_limited_again(yard: Yard) -> None:
    await yard.engine.limit_keys(Q, KeyPolicy(concurrency=1))
    await add(yard.engine, *"ab", limit_key="k")
    await yard.engine.retry(await take(yard.engine), 0.0, "failed")
    running = await take(yard.engine)
    assert len(running) == 1
    assert await take(yard.engine) == []
    await yard.engine.complete(running)
    assert len(await take(yard.engine)) == 1


@needs(Capability.KEY_LIMITS)
async def test_limited_jobs_count_as_ready(yard: Yard) -> None:
    await yard.engine.limit_keys(Q, KeyPolicy(concurrency=1))
    await add(yard.engine, *"abc", limit_key="k")
    assert await counts(yard.engine) == (3, 0, 0, 0)
    await take(yard.engine)
    assert await counts(yard.engine) == (2, 0, 1, 0)


@needs(Capability.KEY_LIMITS)
async def test_a_lifted_limit_lets_all_go(yard: Yard) -> None:
    await yard.engine.limit_keys(Q, KeyPolicy(concurrency=1))
    await add(yard.engine, *"abcd", limit_key="k")
    assert len(await take(yard.engine)) == 1
    await yard.engine.limit_keys(Q, KeyPolicy())
    assert payloads(await take(yard.engine)) == ["b", "c", "d"]


@needs(Capability.KEY_LIMITS)
async def test_a_key_without_a_policy_is_not_limited(yard: Yard) -> None:
    await add(yard.engine, *"abcd", limit_key="k")
    assert len(await take(yard.engine)) == 4


@needs(Capability.KEY_LIMITS)
async def test_a_policy_holds_for_its_queue_only(yard: Yard) -> None:
    await yard.engine.limit_keys(Q, KeyPolicy(concurrency=1))
    await add(yard.engine, *"abc", queue="webhooks", limit_key="k")
    assert len(await take(yard.engine, queue="webhooks")) == 3


# Pausing -----------------------------------------------------------------------------------------


@needs(Capability.PAUSE)
async def test_a_paused_queue_gives_nothing_to_any_process(yard: Yard) -> None:
    await add(yard.engine, "a")
    await yard.engine.pause(Q)
    assert await yard.other.paused() == {Q}
    assert await take(yard.engine) == []
    assert await take(yard.other) == []
    await yard.other.resume(Q)
    assert payloads(await take(yard.engine)) == ["a"]
    assert await yard.engine.paused() == set()


@needs(Capability.PAUSE)
async def test_a_pause_lets_running_jobs_end(yard: Yard) -> None:
    await add(yard.engine, *"ab")
    leased = await take(yard.engine, 1)
    await yard.engine.pause(Q)
    assert await yard.engine.extend(leased) == ids(leased)
    assert await yard.engine.complete(leased) == ids(leased)


@needs(Capability.PAUSE)
async def test_a_paused_queue_still_takes_jobs(yard: Yard) -> None:
    await yard.engine.pause(Q)
    await add(yard.engine, *"abc")
    assert await counts(yard.engine) == (3, 0, 0, 0)
    await yard.engine.resume(Q)
    assert len(await take(yard.engine)) == 3


@needs(Capability.PAUSE)
async def test_a_pause_stops_one_queue_only(yard: Yard) -> None:
    await yard.engine.pause(Q)
    await add(yard.engine, "a", queue="media")
    assert len(await yard.engine.lease([Q, "media"], 5, 0.0, "worker-1")) == 1


@needs(Capability.PAUSE)
async def test_a_pause_keeps_the_key_limits(yard: Yard) -> None:
    await yard.engine.limit_keys(Q, KeyPolicy(concurrency=1))
    await yard.engine.pause(Q)
    await yard.engine.resume(Q)
    await add(yard.engine, *"ab", limit_key="k")
    assert len(await take(yard.engine)) == 1


@needs(Capability.PAUSE)
async def test_suspects_of_a_paused_queue_wait_too(yard: Yard) -> None:
    await add(yard.engine, "a")
    await take(yard.engine)
    await yard.engine.pause(Q)
    yard.clock.advance(LEASE_S + 1)
    await yard.engine.rescue()
    assert await take(yard.engine) == []
