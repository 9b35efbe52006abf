"""The scaling decision: a table of cases, and what holds for every load."""

from dataclasses import replace
from math import ceil
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.core.errors import ConfigurationError
from mailyard.fleet.autoscale.decide import (
    ADVISE,
    BLOCKED,
    DOWN,
    HOLD,
    UP,
    Decision,
    Lane,
    Memory,
    Reading,
    decide,
    misses,
    wanted,
)
from mailyard.fleet.autoscale.policy import Policy, read_policies
from mailyard.fleet.autoscale.scaler import settled

PACKED = {policy.group: replace(policy, least=1, most=10) for policy in read_policies()}
API, WORKER = PACKED["api"], PACKED["worker"]
TICK_S = 5.0


def lane(
    backlog: float = 0.0, arrival: float = 0.0, service: float | None = 0.1, age: float = 0.0
) -> Lane:
    return Lane("inbound-email", backlog, age, arrival, service, 4.0)


def worker(count: int | None = 2, one: Lane | None = None, **values: float | None) -> Reading:
    one = one or lane()
    base = {"depth": one.backlog, "oldest_s": one.oldest_s, "processing_s": 0.1, "memory": 0.3}
    return Reading(count, {**base, **values}, (one,))


def api(
    count: int = 2,
    *,
    cpu: float = 0.1,
    p95: float = 0.01,
    per_s: float = 10.0,
    starved: float = 0.0,
    waiting: float = 0.0,
) -> Reading:
    """`starved`: the share of its time that a process stood ready and others had the core."""
    values = {
        "cpu": cpu,
        "busy": cpu + starved,
        "memory": 0.3,
        "p95_s": p95,
        "requests_per_s": per_s / max(1, count),
    }
    service = cpu * count / per_s if per_s else None
    return Reading(count, values, (Lane("requests", waiting, p95, per_s, service, 1.0),))


def after(
    policy: Policy, reading: Reading, seconds: float, memory: Memory | None = None
) -> Decision:
    """What is decided when a reading has stayed for `seconds`: the first change on the way."""
    memory, now = memory or Memory(), 1_000.0
    end = now + seconds
    while True:
        decision, memory = decide(policy, memory, reading, now)
        if decision.changes or now >= end:
            return decision
        now += TICK_S


@pytest.mark.parametrize(
    ("policy", "reading", "seconds", "kind", "became"),
    [
        # Depth above 100 for five minutes adds one; before that nothing.
        (WORKER, worker(one=lane(150, 10, 0.001)), 290, HOLD, 2),
        (WORKER, worker(one=lane(150, 10, 0.001)), 300, UP, 3),
        # The oldest job is older than a minute.
        (WORKER, worker(one=lane(5, 1, 0.01, 61)), 0, UP, 3),
        # Below 10 for a quarter of an hour removes one.
        (WORKER, worker(), 890, HOLD, 2),
        (WORKER, worker(), 900, DOWN, 1),
        (WORKER, worker(1), 5_000, HOLD, 1),
        # Panic: ten times the work; 15 s, and then at once what the work needs.
        (WORKER, worker(one=lane(3_000, 100, 0.1)), 10, HOLD, 2),
        (WORKER, worker(one=lane(3_000, 100, 0.1)), 15, UP, 8),
        (WORKER, worker(one=lane(30_000, 100, 0.1)), 15, UP, 10),
        # Average processing above 30 s, memory above 80 %: one more.
        (WORKER, worker(processing_s=31.0), 300, UP, 3),
        (WORKER, worker(memory=0.81), 300, UP, 3),
        # The processor for five minutes; for ten minutes idle.
        (API, api(cpu=0.71, per_s=900), 295, HOLD, 2),
        (API, api(cpu=0.71, per_s=900), 300, UP, 3),
        (API, api(cpu=0.2), 595, HOLD, 2),
        (API, api(cpu=0.2), 600, DOWN, 1),
        # Slow answers: busy processors ask for more, idle ones for a look at queries.
        (API, api(cpu=0.6, p95=1.5, per_s=900), 60, UP, 3),
        (API, api(cpu=0.1, p95=1.5), 60, ADVISE, 2),
        (API, api(cpu=0.1, p95=1.5), 3_000, ADVISE, 2),
        # Processes that share cores with others look idle and are not.
        (API, api(cpu=0.3, starved=0.4, p95=1.5, per_s=900), 60, UP, 3),
        # Requests that wait, answered or not, are work.
        (API, api(cpu=1.0, per_s=1_000, waiting=1_000), 15, UP, 6),
        (API, api(cpu=1.0, per_s=1_000, waiting=0), 15, HOLD, 2),
        # Bounds.
        (replace(WORKER, most=2), worker(one=lane(9_000, 100, 0.1)), 600, HOLD, 2),
        (replace(WORKER, least=4), worker(), 0, UP, 4),
        (replace(WORKER, most=1), worker(), 0, DOWN, 1),
    ],
)
def test_what_is_decided(
    policy: Policy, reading: Reading, seconds: float, kind: str, became: int
) -> None:
    decision = after(policy, reading, seconds)

    assert (decision.kind, decision.became) == (kind, became), decision.reason


def test_the_rule_of_capacity_is_the_one_that_is_written_down() -> None:
    reading = worker(one=lane(backlog=600, arrival=50, service=0.2))

    assert wanted(WORKER, reading) == (ceil((50 + 600 / WORKER.drain_s) * 0.2 / (4 * 0.7)), True)


def test_a_lane_that_nobody_knows_hides_nothing_of_the_others_and_keeps_what_there_is() -> None:
    unknown = Lane("media", 5.0, 0.0, 1.0, None, 1.0)
    busy = worker(one=lane(3_000, 100, 0.1))
    busy = replace(busy, lanes=(unknown, *busy.lanes))
    idle = replace(worker(), lanes=(unknown, lane()))

    assert after(WORKER, busy, 15).became == 8
    assert after(WORKER, idle, 5_000).reason == "nobody knows how long the work takes"


def test_a_full_database_holds_back_what_is_wanted() -> None:
    busy = worker(one=lane(3_000, 100, 0.1))

    full = after(WORKER, replace(busy, connections=0.81), 600)
    narrow = after(WORKER, replace(busy, room=1), 15)

    assert (full.kind, full.became) == (BLOCKED, 2)
    assert "81% of the database's connections" in full.reason
    assert (narrow.kind, narrow.became) == (UP, 3)
    assert "the budget of database connections has no room for more" in narrow.reason
    bound = after(replace(WORKER, most=4), busy, 15)
    assert (bound.kind, bound.became) == (UP, 4) and "4 is the most" in bound.reason


def test_a_signal_that_asks_once_does_not_ask_again_before_it_has_fallen() -> None:
    memory, now, ups = Memory(), 0.0, []
    count = 2
    for tick in range(2_000):
        memory_share = 0.9 if tick < 1_000 or tick > 1_100 else 0.5
        reading = worker(count, memory=memory_share, one=lane(arrival=10, service=0.3))
        decision, memory = decide(WORKER, memory, reading, now)
        if decision.kind == UP:
            ups.append(tick)
            count = decision.became or 0
        now += TICK_S

    assert [tick // 1_000 for tick in ups] == [0, 1]


@pytest.mark.parametrize("most", [2, 3])
def test_memory_that_stays_high_asks_once_and_does_not_keep_a_process_for_ever(most: int) -> None:
    """It gets its one more if there is one, and goes back when all else has long been quiet."""
    memory, now, count, changes = Memory(), 0.0, 2, []
    policy = replace(WORKER, most=most)
    for _ in range(4 * 720):
        reading = worker(count, memory=0.9)
        decision, memory = decide(policy, memory, reading, now)
        if decision.changes:
            changes.append((decision.was, decision.became))
            count = decision.became or 0
        now += TICK_S

    up = [(2, 3), (3, 2)] if most == 3 else []
    assert changes == [*up, (2, 1)]


def test_memory_that_the_database_left_no_room_for_asks_again() -> None:
    narrow = replace(worker(memory=0.9), room=0)
    decision, memory = decide(WORKER, Memory(hot={"memory": 0.0}), narrow, 1_000.0)

    again, _ = decide(WORKER, memory, worker(memory=0.9), 1_005.0)

    assert (decision.kind, again.kind) == (BLOCKED, UP)
    assert "no room for another process" in decision.reason


def test_at_its_most_because_of_the_budget_the_row_says_so() -> None:
    busy = replace(worker(one=lane(3_000, 100, 0.1)), room=0)

    decision = after(replace(WORKER, most=2), busy, 15)

    assert decision.kind == BLOCKED
    assert "budget of database connections" in decision.reason


def test_the_budget_bounds_what_a_group_may_have_beside_the_others() -> None:
    policies = [Policy("a", "api", most=9), Policy("w", "worker"), Policy("b", "worker", least=2)]
    starts = {"api": 1, "smtp": 1, "worker": 2, "scheduler": 1}

    api_, worker_, bulk = settled(policies, starts, most_by_itself=20, room=10)
    narrow = settled(policies, starts, most_by_itself=20, room=3)

    assert [(one.least, one.most) for one in (api_, worker_, bulk)] == [(1, 4), (2, 5), (2, 5)]
    assert [one.most for one in narrow] == [1, 1, 1]


def test_after_a_change_the_next_one_waits_for_the_cooldown_but_panic_does_not() -> None:
    memory = Memory(last_up=995.0)

    slow = after(API, api(cpu=0.71, p95=0.1, per_s=900), 300, replace(memory, hot={"cpu": 0.0}))
    panic = after(WORKER, worker(one=lane(3_000, 100, 0.1)), 15, memory)

    assert slow.kind == UP
    assert (
        decide(API, replace(memory, hot={"cpu": 0.0}), api(cpu=0.71, per_s=900), 1_000.0)[0].kind
        == HOLD
    )
    assert panic.kind == UP


LOADS = st.builds(
    lane,
    backlog=st.floats(0, 1e5),
    arrival=st.floats(0, 1e4),
    service=st.floats(1e-4, 60),
    age=st.floats(0, 1e4),
)
MEMORIES = st.builds(
    Memory,
    hot=st.dictionaries(st.sampled_from(["depth", "oldest_s", "processing_s"]), st.floats(0, 2e3)),
    cold=st.dictionaries(st.sampled_from(["depth", "oldest_s"]), st.floats(0, 2e3)),
    spent=st.frozensets(st.sampled_from(["processing_s", "memory"])),
    panic=st.none() | st.floats(0, 2e3),
    last_up=st.floats(0, 2e3),
    last_down=st.floats(0, 2e3),
)
COUNTS = st.integers(0, 14)


@given(LOADS, MEMORIES, COUNTS, st.floats(0, 1), st.integers(0, 5))
def test_no_decision_passes_the_bounds(
    load: Lane, memory: Memory, count: int, used: float, room: int
) -> None:
    policy = replace(WORKER, least=2, most=9)

    decision, _ = decide(
        policy, memory, replace(worker(count, load), connections=used, room=room), 2_000.0
    )

    assert decision.became is not None and 2 <= decision.became <= 9
    if used > policy.budget_share and count >= 2:
        assert decision.became <= count


@given(
    LOADS, MEMORIES, COUNTS, st.sampled_from(["depth", "oldest_s", "memory", "n", "used", "age"])
)
def test_nothing_is_done_while_anything_is_not_known(
    load: Lane, memory: Memory, count: int, missing: str
) -> None:
    reading = worker(count, load)
    match missing:
        case "n":
            reading = replace(reading, instances=None)
        case "used":
            reading = replace(reading, connections=None)
        case "age":
            reading = replace(reading, lanes=(replace(load, oldest_s=None),))
        case _:
            reading = replace(reading, values={**reading.values, missing: None})

    decision, remembered = decide(WORKER, memory, reading, 2_000.0)

    assert not decision.changes and decision.kind == HOLD
    assert not remembered.hot and not remembered.cold and remembered.panic is None


@given(LOADS, MEMORIES, st.integers(1, 10), st.data())
def test_more_load_never_means_fewer_processes(
    load: Lane, memory: Memory, count: int, data: st.DataObject
) -> None:
    assert load.backlog is not None and load.arrival_per_s is not None
    assert load.oldest_s is not None and load.service_s is not None
    more = lane(
        load.backlog + data.draw(st.floats(0, 1e5)),
        load.arrival_per_s + data.draw(st.floats(0, 1e4)),
        load.service_s + data.draw(st.floats(0, 60)),
        load.oldest_s + data.draw(st.floats(0, 1e4)),
    )
    processing = data.draw(st.floats(0, 60))
    heavier = processing + data.draw(st.floats(0, 60))

    less, _ = decide(WORKER, memory, worker(count, load, processing_s=processing), 2_000.0)
    greater, _ = decide(WORKER, memory, worker(count, more, processing_s=heavier), 2_000.0)

    assert (greater.became or 0) >= (less.became or 0)
    assert misses(WORKER, worker(count, more)) >= misses(WORKER, worker(count, load))


API_MEMORIES = st.builds(
    Memory,
    hot=st.dictionaries(st.sampled_from(["cpu", "p95_s", "requests_per_s"]), st.floats(0, 2e3)),
    cold=st.dictionaries(st.sampled_from(["cpu", "p95_s", "requests_per_s"]), st.floats(0, 2e3)),
    spent=st.frozensets(st.just("memory")),
    panic=st.none() | st.floats(0, 2e3),
    last_up=st.floats(0, 2e3),
    last_down=st.floats(0, 2e3),
)
SHARES = st.floats(0, 1)


@given(API_MEMORIES, COUNTS, SHARES, SHARES, st.floats(0, 20), st.floats(0, 1e5), st.data())
def test_the_api_keeps_to_its_bounds_and_never_acts_on_what_is_missing(
    memory: Memory,
    count: int,
    cpu: float,
    starved: float,
    p95: float,
    waiting: float,
    data: st.DataObject,
) -> None:
    reading = api(count, cpu=cpu, starved=starved, p95=p95, per_s=500.0, waiting=waiting)
    missing = data.draw(st.sampled_from([*reading.values, "requests", "room"]))
    policy = replace(API, least=2, most=9)

    decision, _ = decide(policy, memory, reading, 2_000.0)
    blind = reading
    if missing == "room":
        blind = replace(reading, room=None)
    elif missing == "requests":
        blind = replace(reading, lanes=(replace(reading.lanes[0], backlog=None),))
    elif missing != "busy":  # which only says why answers are slow
        blind = replace(reading, values={**reading.values, missing: None})
    held, _ = decide(policy, memory, blind, 2_000.0)

    assert decision.became is not None and 2 <= decision.became <= 9
    if blind is not reading:
        assert held.kind == HOLD and not held.changes


@given(API_MEMORIES, st.integers(1, 10), st.data())
def test_more_requests_never_mean_fewer_api_processes(
    memory: Memory, count: int, data: st.DataObject
) -> None:
    per_s = data.draw(st.floats(1, 1e4))
    cpu, p95, waiting = data.draw(SHARES), data.draw(st.floats(0, 20)), data.draw(st.floats(0, 1e4))
    more = data.draw(st.floats(1, 10))
    service = cpu * count / per_s

    def offered(times: float) -> Reading:
        reading = api(count, cpu=min(1.0, cpu * times), p95=p95 * times, per_s=per_s * times)
        work = Lane("requests", waiting * times, p95 * times, per_s * times, service, 1.0)
        return replace(reading, lanes=(work,))

    less, _ = decide(API, memory, offered(1.0), 2_000.0)
    greater, _ = decide(API, memory, offered(more), 2_000.0)

    assert (greater.became or 0) >= (less.became or 0)


@settings(deadline=None)
@given(
    per_s=st.floats(0, 20_000),
    service=st.floats(1e-4, 5e-3),
    count=st.integers(1, 10),
    hot_memory=st.booleans(),
)
def test_under_constant_requests_the_api_comes_to_rest(
    per_s: float, service: float, count: int, hot_memory: bool
) -> None:
    """Six hours of processors that take what they can; what they cannot waits."""
    memory, now, waiting, last, turns, changes = Memory(), 0.0, 0.0, "", 0, []
    for tick in range(6 * 720):
        offered = per_s * service
        waiting = min(4_096.0, max(0.0, waiting + (per_s - count / service) * TICK_S))
        cpu = min(1.0, (offered + waiting * service) / count)
        p95 = service * 3 + waiting * service / count
        values = {
            "cpu": cpu,
            "busy": cpu,
            "memory": 0.9 if hot_memory else 0.2,
            "p95_s": p95,
            "requests_per_s": per_s / count,
        }
        reading = Reading(count, values, (Lane("requests", waiting, p95, per_s, service, 1.0),))
        decision, memory = decide(API, memory, reading, now)
        if decision.changes:
            turns += bool(last) and decision.kind != last
            last = decision.kind
            count = decision.became or 0
            changes.append(tick)
        now += TICK_S

    assert turns <= 2  # one more for memory, one less again; else as below
    assert not changes or changes[-1] < 5 * 720


@settings(deadline=None)
@given(
    arrival=st.floats(0, 120),
    service=st.floats(0.005, 0.5),
    seed=st.integers(0, 2**32),
)
def test_figures_that_tremble_do_not_make_it_swing(
    arrival: float, service: float, seed: int
) -> None:
    """Constant work, read with errors of a tenth: up for what it needs, at most once down again."""
    random = Random(seed)
    memory, now, count, backlog, last, turns = Memory(), 0.0, 2, 0.0, "", 0
    for _ in range(4 * 720):
        capacity = count * 4 / service
        backlog = max(0.0, backlog + (arrival - capacity) * TICK_S)
        trembles = [random.uniform(0.9, 1.1) for _ in range(3)]
        load = lane(
            backlog, arrival * trembles[0], service * trembles[1], backlog / capacity * trembles[2]
        )
        decision, memory = decide(WORKER, memory, worker(count, load), now)
        if decision.changes:
            turns += bool(last) and decision.kind != last
            last, count = decision.kind, decision.became or 0
        now += TICK_S

    assert turns <= 1


@settings(deadline=None)
@given(
    arrival=st.floats(0, 120),
    service=st.floats(0.005, 0.5),
    count=st.integers(1, 10),
    backlog=st.floats(0, 5_000),
    busy=st.floats(0, 6),
)
def test_under_constant_load_it_comes_to_rest(
    arrival: float, service: float, count: int, backlog: float, busy: float
) -> None:
    """Four hours of a lane that is a real line: what is not done waits, and grows older."""
    memory, now, turns, last = Memory(), 0.0, 0, ""
    signals = (*WORKER.signals, API.signals[0])
    policy = replace(WORKER, signals=signals)
    changes = []
    for tick in range(4 * 720):
        capacity = count * 4 / service
        backlog = max(0.0, backlog + (arrival - capacity) * TICK_S)
        age = backlog / capacity
        reading = worker(count, lane(backlog, arrival, service, age), cpu=min(1.0, busy / count))
        decision, memory = decide(policy, memory, reading, now)
        if decision.changes:
            turns += bool(last) and decision.kind != last
            last = decision.kind
            count = decision.became or 0
            changes.append(tick)
        now += TICK_S

    assert turns <= 1  # up for what has gathered, then down; or down alone
    assert not changes or changes[-1] < 3 * 720


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[worker]\nmost = 'many'", "most"),
        ("[worker]\nmust = 3", "must"),
        ("[worker]\nleast = 5\nmost = 4", "least"),
        ("[fax]\nmost = 3", "role"),
        ("[[worker.signal]]\nmetric = 'mood'\nup_above = 1.0\nup_for_s = 0.0", "mood"),
        (
            "[[worker.signal]]\nmetric = 'cpu'\nup_above = 0.3\nup_for_s = 1.0\ndown_below = 0.7",
            "never rest",
        ),
        ("[worker", "not TOML"),
    ],
)
def test_a_wrong_policy_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        read_policies(text, "my.toml")


def test_a_file_of_ones_own_replaces_values_and_adds_groups() -> None:
    policies = {
        one.group: one
        for one in read_policies(
            "[worker]\nmost = 7\n[api]\nremove = true\n"
            "[bulk]\nrole = 'worker'\nqueues = ['email-bulk']\ndeployment = 'mailyard-bulk'\n"
        )
    }

    assert policies["worker"].most == 7
    assert policies["worker"].signals == WORKER.signals
    assert "api" not in policies
    assert policies["bulk"].queues == ("email-bulk",)
