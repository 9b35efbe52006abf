"""Source addresses: weights, the ceilings of new ones, what overflows, and pauses."""

from collections import Counter
from datetime import date, timedelta
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.core.errors import InvalidInput
from mailyard.ratelimit.ratelimit import gcra
from mailyard.sending.warmup import (
    BAD_LEAST,
    OTHERS,
    STEADY,
    Plan,
    Pool,
    Source,
    counted_as,
    judged,
    permit,
    pick,
)

DAY1 = date(2026, 11, 2)
PLAN = Plan("careful", {OTHERS: (50, 100, 200), "google": (10, 20, 40, 80)})
WARM = Source("192.0.2.1", weight=3)
NEW = Source("192.0.2.2", weight=1, plan=PLAN, started=DAY1)


def day(number: int) -> date:
    return DAY1 + timedelta(days=number - 1)


@pytest.mark.parametrize(
    ("group", "number", "ceiling"),
    [
        ("yahoo", 1, 50),
        ("yahoo", 3, 200),
        ("yahoo", 4, None),
        ("google", 4, 80),
        ("google", 5, None),
        ("google", 0, 0),  # not before its first day
    ],
)
def test_ceilings_by_day_and_receiver(group: str, number: int, ceiling: int | None) -> None:
    assert NEW.ceiling(group, day(number)) == ceiling


def test_receivers_that_a_plan_does_not_name_share_one_ceiling() -> None:
    assert counted_as(NEW, "yahoo") == counted_as(NEW, "orange") == OTHERS
    assert counted_as(NEW, "google") == "google"
    pool = Pool("p", (NEW,))
    assert pick(pool, "yahoo", day(1), {(NEW.name, OTHERS): 50}, Random(1)).source is None
    assert pick(pool, "google", day(1), {(NEW.name, OTHERS): 50}, Random(1)).source == NEW.name


def test_weights_share_the_mail() -> None:
    pool, random = Pool("p", (WARM, NEW)), Random(2)
    picked = Counter(pick(pool, "yahoo", day(1), {}, random).source for _ in range(4_000))
    assert picked[WARM.name] / 4_000 == pytest.approx(0.75, abs=0.03)


def test_what_is_over_the_ceiling_overflows_to_the_older_address() -> None:
    pool, full = Pool("p", (WARM, NEW), overflow="ses"), {(NEW.name, OTHERS): 50}
    picks = [pick(pool, "yahoo", day(1), full, Random(seed)) for seed in range(50)]
    assert {one.source for one in picks} == {WARM.name}
    overflowed = [one for one in picks if one.overflowed]
    assert overflowed and "ceiling of day 1" in overflowed[0].why


def test_without_an_older_address_it_overflows_to_the_provider_and_else_waits() -> None:
    full = {(NEW.name, OTHERS): 50}
    one = pick(Pool("p", (NEW,), overflow="ses"), "yahoo", day(1), full, Random(1))
    assert (one.source, one.provider, one.overflowed) == (None, "ses", True)
    one = pick(Pool("p", (NEW,)), "yahoo", day(1), full, Random(1))
    assert (one.source, one.provider) == (None, None)
    assert "ceiling" in one.why


def test_overflow_goes_to_the_one_that_is_further_in_its_plan() -> None:
    young = Source("192.0.2.3", weight=1_000, plan=PLAN, started=day(3))
    pool = Pool("p", (NEW, young, Source("192.0.2.4", plan=PLAN, started=day(3))))
    full = {(young.name, OTHERS): 50}
    overflowed = [
        one.source
        for seed in range(50)
        if (one := pick(pool, "yahoo", day(3), full, Random(seed))).overflowed
    ]
    assert set(overflowed) == {NEW.name}


def test_bad_answers_pause_an_address_and_its_plan_waits_for_it() -> None:
    paused, event = judged(NEW, day(2), answers=100, bad=30, why="421 4.7.0 unsolicited")
    assert event is not None and event.paused_until == day(4)
    assert "30 of 100" in event.why and "unsolicited" in event.why
    assert [paused.ceiling("yahoo", day(number)) for number in (2, 3)] == [0, 0]
    assert paused.ceiling("yahoo", day(4)) == 100  # its second day again
    assert paused.ceiling("yahoo", day(5)) == 200
    one = pick(Pool("p", (paused,), overflow="ses"), "yahoo", day(3), {}, Random(1))
    assert one.provider == "ses" and "paused until" in one.why
    assert judged(paused, day(2), 100, 50, "more")[1] is None


@pytest.mark.parametrize(("answers", "bad"), [(1_000, BAD_LEAST - 1), (10_000, 400), (10, 10)])
def test_few_bad_answers_pause_nothing(answers: int, bad: int) -> None:
    assert judged(NEW, day(1), answers, bad, "x") == (NEW, None)


def test_a_warm_address_is_paused_too_and_has_no_day_to_lose() -> None:
    paused, event = judged(WARM, day(1), 100, 60, "listed")
    assert event is not None and paused.lost_days == 0
    assert paused.ceiling("google", day(2)) == 0
    assert paused.ceiling("google", day(3)) is None


def test_a_warm_address_needs_no_permit() -> None:
    assert permit(WARM, "google", day(1)) is None
    assert permit(NEW, "google", day(9)) is None


@pytest.mark.parametrize("ceiling", [1, 2, 50, 480, 10_000])
def test_all_processes_together_never_pass_the_ceiling_in_any_day(ceiling: int) -> None:
    """They draw from one bucket, each minute, as greedily as they can, for three days."""
    source = Source("a", plan=Plan("p", {OTHERS: (ceiling,) * 120}), started=DAY1)
    draw = permit(source, "google", DAY1)
    assert draw is not None
    tat_s, minutes = 0.0, []
    for minute in range(3 * 1_440):
        taken = 0
        while taken < ceiling:
            tat_s, wait_s = gcra(tat_s, minute * 60.0, 1, draw.per_s, draw.burst)
            if wait_s:
                break
            taken += 1
        minutes.append(taken)
    days = [sum(minutes[first : first + 1_440]) for first in range(2 * 1_440 + 1)]
    assert max(days) <= ceiling
    assert days[0] >= 0.95 * ceiling - 1  # and the day is used, not only kept
    assert max(minutes) <= max(1.0, ceiling / 24.0) + 1  # spread over it


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 5), st.lists(st.sampled_from(["google", "yahoo", "gmx"]), max_size=300))
def test_no_address_is_picked_above_its_ceiling(number: int, groups: list[str]) -> None:
    pool, random = Pool("p", (NEW, Source("b", plan=PLAN, started=day(2)))), Random(8)
    counts: Counter[tuple[str, str]] = Counter()
    for group in groups:
        picked = pick(pool, group, day(number), counts, random).source
        if picked is not None:
            source = next(one for one in pool.sources if one.name == picked)
            counts[picked, counted_as(source, group)] += 1
    for (name, group), count in counts.items():
        source = next(one for one in pool.sources if one.name == name)
        ceiling = source.ceiling(group, day(number))
        assert ceiling is None or count <= ceiling


def test_the_steady_plan_grows_each_day_to_a_million() -> None:
    ceilings = STEADY.ceilings[OTHERS]
    assert ceilings[0] == 50 and ceilings[-1] == 1_000_000
    assert all(one < two for one, two in pairwise(ceilings))


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: Plan("p", {"google": (1,)}), "default"),
        (lambda: Plan("p", {OTHERS: ()}), "1 to 120 days"),
        (lambda: Plan("p", {OTHERS: (0,)}), "day 1 is 0"),
        (lambda: Source("a", weight=0), "weight of a is 0"),
        (lambda: Source("a", plan=PLAN), "first day"),
        (lambda: Pool("p", ()), "1 to 256"),
        (lambda: Pool("p", (WARM, WARM)), "each once"),
    ],
)
def test_what_cannot_be_meant_is_refused(make: object, part: str) -> None:
    with pytest.raises(InvalidInput, match=part):
        make()  # type: ignore[operator]
