"""Of the contract's core: leases that run out, workers that die, jobs that are buried."""

from uuid import uuid4

import pytest
from contract.conftest import Yard
from contract.queue_words import Q, add, bury, counts, depth, ids, payloads, take, take_one

from mailyard.core.limits import (
    JOB_CRASHES_BEFORE_BURIED,
    JOB_SECOND_CHANCES_S,
    LEASE_S,
)

# Heartbeats and rescue ---------------------------------------------------------------------------


async def test_a_lease_holds_until_it_runs_out(yard: Yard) -> None:
    await add(yard.engine, "a")
    await take_one(yard.engine)
    yard.clock.advance(LEASE_S - 1)
    assert await yard.engine.rescue() == 0
    yard.clock.advance(2)
    assert await yard.engine.rescue() == 1


async def test_a_heartbeat_prolongs_the_lease(yard: Yard) -> None:
    await add(yard.engine, "a")
    leased = await take(yard.engine)
    for _ in range(10):
        yard.clock.advance(LEASE_S - 1)
        assert await yard.engine.extend(leased) == ids(leased)
        assert await yard.other.rescue() == 0
    assert await yard.engine.complete(leased) == ids(leased)


async def test_a_heartbeat_says_which_jobs_are_lost(yard: Yard) -> None:
    await add(yard.engine, *"abc")
    kept, done, gone = await take(yard.engine)
    await yard.engine.complete([done])
    await yard.engine.release([gone])
    assert await yard.engine.extend([kept, done, gone]) == {kept.id}


async def test_jobs_of_a_dead_worker_run_again(yard: Yard) -> None:
    await add(yard.engine, *"abc")
    leased = await take(yard.engine)
    yard.clock.advance(LEASE_S + 1)
    assert await yard.other.rescue() == 3
    again = [await take_one(yard.other) for _ in range(3)]
    assert ids(again) == ids(leased)
    assert {(each.attempt, each.crashes) for each in again} == {(2, 1)}


async def test_a_rescue_leaves_living_workers_alone(yard: Yard) -> None:
    await add(yard.engine, *"ab")
    dead = await take_one(yard.engine)
    yard.clock.advance(LEASE_S - 1)
    living = await take_one(yard.other)
    yard.clock.advance(2)
    assert await yard.engine.rescue() == 1
    assert (await take_one(yard.engine)).id == dead.id
    assert await yard.other.complete([living]) == {living.id}


async def test_only_what_was_not_settled_is_rescued(yard: Yard) -> None:
    await add(yard.engine, *"abcd")
    done, retried, buried, held = await take(yard.engine)
    await yard.engine.complete([done])
    await yard.engine.retry([retried], 3600.0, "later")
    await yard.engine.bury([buried], "no")
    yard.clock.advance(LEASE_S + 1)
    assert await yard.engine.rescue() == 1
    assert (await take_one(yard.engine)).id == held.id


async def test_a_suspect_comes_alone(yard: Yard) -> None:
    await add(yard.engine, *"ab")
    await take(yard.engine)
    yard.clock.advance(LEASE_S + 1)
    await yard.engine.rescue()
    await add(yard.engine, *"cd")
    leases = [await take(yard.engine) for _ in range(3)]
    assert sorted(map(len, leases)) == [1, 1, 2]
    assert all(len(leased) == 1 for leased in leases if leased[0].crashes)


async def test_suspects_wait_for_a_worker_that_wants_them(yard: Yard) -> None:
    await add(yard.engine, "a")
    await take(yard.engine)
    yard.clock.advance(LEASE_S + 1)
    await yard.engine.rescue()
    assert await take(yard.engine, suspects=False) == []
    assert payloads(await take(yard.engine)) == ["a"]


async def test_a_job_that_kills_its_worker_three_times_is_buried(yard: Yard) -> None:
    (job_id,) = await add(yard.engine, "killer")
    for crashes in range(JOB_CRASHES_BEFORE_BURIED):
        leased = await take_one(yard.engine)
        assert leased.crashes == crashes
        yard.clock.advance(LEASE_S + 1)
        assert await yard.engine.rescue() == 1
    assert await take(yard.engine) == []
    (dead,) = await yard.engine.list_dead(None, None, None, 10)
    assert (dead.id, dead.crashes) == (job_id, 3)
    assert "worker" in dead.error


async def test_an_exception_is_not_a_crash(yard: Yard) -> None:
    await add(yard.engine, "a")
    for _ in range(JOB_CRASHES_BEFORE_BURIED + 2):
        leased = await take_one(yard.engine)
        assert leased.crashes == 0
        await yard.engine.retry([leased], 0.0, "failed")
    assert len(await take(yard.engine)) == 1


async def die_with(yard: Yard, *names: str) -> None:
    """A worker takes all that it is given, finishes what is not among `names`, and dies."""
    while leased := await take(yard.engine):
        await yard.engine.complete([each for each in leased if each.payload.decode() not in names])
    yard.clock.advance(LEASE_S + 1)
    await yard.engine.rescue()


async def chance_comes(yard: Yard, nth: int) -> int:
    """The time of the nth second chance passes; how many jobs came back."""
    yard.clock.advance(2 * JOB_SECOND_CHANCES_S[nth] + 1)
    return await yard.other.rescue()


async def test_an_innocent_job_of_three_killed_workers_is_done_in_the_end(yard: Yard) -> None:
    (job_id,) = await add(yard.engine, "innocent")
    for _ in range(JOB_CRASHES_BEFORE_BURIED):
        await die_with(yard, "innocent")
    assert await counts(yard.engine) == (0, 0, 0, 1)
    assert await chance_comes(yard, 0) == 1
    leased = await take_one(yard.engine)
    assert (leased.id, leased.attempt, leased.payload) == (job_id, 1, b"innocent")
    assert await yard.engine.complete([leased]) == {job_id}
    assert await counts(yard.engine) == (0, 0, 0, 0)


async def test_a_killer_kills_a_bounded_number_of_workers(yard: Yard) -> None:
    await add(yard.engine, "killer")
    killed = 0
    for _ in range(50):
        if leased := await take(yard.engine):
            assert len(leased) == 1
            killed += 1
        yard.clock.advance(2 * max(JOB_SECOND_CHANCES_S) + 1)
        await yard.engine.rescue()
    chances = len(JOB_SECOND_CHANCES_S)
    assert killed == JOB_CRASHES_BEFORE_BURIED + chances * (JOB_CRASHES_BEFORE_BURIED - 1)
    (dead,) = await yard.engine.list_dead(None, None, None, 10)
    assert (dead.chances, dead.again_at) == (chances, None)


async def test_a_second_chance_comes_later_each_time_and_says_when(yard: Yard) -> None:
    await add(yard.engine, "killer")
    for nth, delay_s in enumerate(JOB_SECOND_CHANCES_S):
        while not (dead := await yard.engine.list_dead(None, None, None, 10)):
            await die_with(yard, "killer")
        assert dead[0].chances == nth
        assert dead[0].again_at is not None
        waits_s = (dead[0].again_at - yard.clock.now()).total_seconds()
        assert delay_s <= waits_s <= 2 * delay_s
        yard.clock.advance(delay_s - 1)
        assert await yard.engine.rescue() == 0
        yard.clock.advance(waits_s - delay_s + 2)
        assert await yard.engine.rescue() == 1


async def test_who_has_a_second_chance_is_a_suspect(yard: Yard) -> None:
    await add(yard.engine, "killer")
    for _ in range(JOB_CRASHES_BEFORE_BURIED):
        await die_with(yard, "killer")
    await chance_comes(yard, 0)
    await add(yard.engine, *"ab")
    assert payloads(await take(yard.engine, suspects=False)) == ["a", "b"]
    (suspect,) = await take(yard.engine)
    assert (suspect.payload, suspect.crashes) == (b"killer", 1)


@pytest.mark.parametrize("why", ["buried by its worker", "attempts used up", "a last death"])
async def test_only_who_is_buried_for_crashes_comes_back_by_itself(yard: Yard, why: str) -> None:
    await add(yard.engine, "a", max_attempts=1)
    leased = await take(yard.engine)
    if why == "buried by its worker":
        await yard.engine.bury(leased, "hopeless")
    elif why == "attempts used up":
        await yard.engine.retry(leased, 0.0, "failed")
    else:
        yard.clock.advance(LEASE_S + 1)
        await yard.engine.rescue()
    yard.clock.advance(2 * max(JOB_SECOND_CHANCES_S) + 1)
    assert await yard.engine.rescue() == 0
    (dead,) = await yard.engine.list_dead(None, None, None, 10)
    assert dead.again_at is None


async def test_a_job_given_back_by_a_living_worker_is_a_suspect_no_more(yard: Yard) -> None:
    await add(yard.engine, "a")
    for _ in range(2 * JOB_CRASHES_BEFORE_BURIED):
        await die_with(yard, "a")
        leased = await take_one(yard.engine)
        assert leased.crashes == 1
        await yard.engine.retry([leased], 0.0, "failed, and lives to say so")
        assert (await depth(yard.engine)).dead == 0
    assert [each.crashes for each in await take(yard.engine, suspects=False)] == [0]


async def test_a_suspect_given_back_unworked_stays_a_suspect(yard: Yard) -> None:
    await add(yard.engine, "a")
    await die_with(yard, "a")
    await yard.engine.release(await take(yard.engine))
    assert await take(yard.engine, suspects=False) == []
    assert (await take_one(yard.engine)).crashes == 1


async def test_redrive_takes_the_second_chances_anew(yard: Yard) -> None:
    (job_id,) = await add(yard.engine, "killer")
    for _ in range(JOB_CRASHES_BEFORE_BURIED):
        await die_with(yard, "killer")
    await chance_comes(yard, 0)
    for _ in range(JOB_CRASHES_BEFORE_BURIED - 1):
        await die_with(yard, "killer")
    await yard.engine.redrive(None, [job_id])
    for _ in range(JOB_CRASHES_BEFORE_BURIED):
        await die_with(yard, "killer")
    (dead,) = await yard.engine.list_dead(None, None, None, 10)
    assert dead.chances == 0
    assert await chance_comes(yard, 0) == 1


async def test_a_rescue_of_nothing_is_nothing(yard: Yard) -> None:
    await add(yard.engine, "a")
    yard.clock.advance(3600)
    assert await yard.engine.rescue() == 0
    assert await counts(yard.engine) == (1, 0, 0, 0)


# Dead letters ------------------------------------------------------------------------------------


async def test_a_buried_job_waits_with_its_reason(yard: Yard) -> None:
    workspace_id = uuid4()
    (job_id,) = await add(yard.engine, "a", workspace_id=workspace_id)
    leased = await take_one(yard.engine)
    assert await yard.engine.bury([leased], "no such template") == {job_id}
    (dead,) = await yard.engine.list_dead(workspace_id, None, None, 10)
    assert (dead.id, dead.queue, dead.kind, dead.payload) == (job_id, Q, "deliver", b"a")
    assert (dead.error, dead.attempts, dead.workspace_id) == ("no such template", 1, workspace_id)
    assert dead.buried_at == yard.clock.now()


async def test_dead_letters_are_listed_newest_first_in_pages(yard: Yard) -> None:
    given = await bury(yard.engine, *"abcde")
    first = await yard.engine.list_dead(None, None, None, 3)
    assert [dead.id for dead in first] == given[:1:-1]
    rest = await yard.engine.list_dead(None, None, first[-1].id, 3)
    assert [dead.id for dead in rest] == [given[1], given[0]]


async def test_dead_letters_are_listed_by_queue(yard: Yard) -> None:
    await bury(yard.engine, "a")
    (other,) = await bury(yard.engine, "b", queue="webhooks")
    assert [d.id for d in await yard.engine.list_dead(None, "webhooks", None, 9)] == [other]


async def test_a_workspace_sees_and_touches_only_its_own_dead_letters(yard: Yard) -> None:
    mine, theirs = uuid4(), uuid4()
    (job_id,) = await bury(yard.engine, "a", workspace_id=mine)
    for stranger in (theirs, None):
        assert await yard.engine.list_dead(stranger, None, None, 10) == []
        assert await yard.engine.redrive(stranger, [job_id]) == set()
        assert await yard.engine.discard(stranger, [job_id]) == set()
    assert len(await yard.engine.list_dead(mine, None, None, 10)) == 1


async def test_a_redriven_job_starts_as_new(yard: Yard) -> None:
    (job_id,) = await add(yard.engine, "a", max_attempts=1)
    await yard.engine.retry([await take_one(yard.engine)], 0.0, "failed")
    assert await yard.engine.redrive(None, [job_id]) == {job_id}
    again = await take_one(yard.engine)
    assert (again.id, again.attempt, again.crashes) == (job_id, 1, 0)
    assert await yard.engine.list_dead(None, None, None, 10) == []


async def test_a_redriven_killer_is_a_suspect_no_more(yard: Yard) -> None:
    (job_id,) = await add(yard.engine, "a")
    for _ in range(JOB_CRASHES_BEFORE_BURIED):
        await take_one(yard.engine)
        yard.clock.advance(LEASE_S + 1)
        await yard.engine.rescue()
    await yard.engine.redrive(None, [job_id])
    assert (await take(yard.engine, suspects=False))[0].crashes == 0


async def test_redriving_twice_brings_the_job_once(yard: Yard) -> None:
    (job_id,) = await bury(yard.engine, "a")
    assert await yard.engine.redrive(None, [job_id, job_id]) == {job_id}
    assert await yard.engine.redrive(None, [job_id]) == set()
    assert len(await take(yard.engine)) == 1


async def test_an_old_token_is_stale_after_redrive(yard: Yard) -> None:
    (job_id,) = await add(yard.engine, "a")
    stale = await take_one(yard.engine)
    await yard.engine.bury([stale], "no")
    await yard.engine.redrive(None, [job_id])
    current = await take_one(yard.engine)
    assert await yard.engine.complete([stale]) == set()
    assert await yard.engine.complete([current]) == {job_id}


async def test_a_discarded_job_is_gone(yard: Yard) -> None:
    first, second = await bury(yard.engine, *"ab")
    assert await yard.engine.discard(None, [first]) == {first}
    assert [dead.id for dead in await yard.engine.list_dead(None, None, None, 9)] == [second]
    assert await yard.engine.redrive(None, [first]) == set()


async def test_a_waiting_job_can_be_neither_redriven_nor_discarded(yard: Yard) -> None:
    (job_id,) = await add(yard.engine, "a")
    assert await yard.engine.redrive(None, [job_id]) == set()
    assert await yard.engine.discard(None, [job_id]) == set()
    assert len(await take(yard.engine)) == 1
