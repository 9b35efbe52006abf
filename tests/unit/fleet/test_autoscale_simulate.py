"""A virtual day under the packed policy: what the long thresholds do that no test can wait for."""

from dataclasses import replace
from itertools import pairwise

from mailyard.fleet.autoscale.policy import read_policies
from mailyard.fleet.autoscale.simulate import DAY_S, Moment, Work, a_day, run

(WORKER,) = (replace(one, least=1, most=10) for one in read_policies() if one.role == "worker")
SPIKE_S = 3.5 * 3600


def day() -> list[Moment]:
    """One worker does 40 jobs a second; 20 come on average, and twice ten times as many."""
    load = a_day(20.0, spikes=((3.5, 60.0, 10.0), (20.5, 1_800.0, 10.0)))
    return list(run(WORKER, Work(load, service_s=0.05, slots=2.0)))


def test_each_spike_is_over_within_a_minute_and_goes_down_one_at_a_time() -> None:
    moments = day()

    for began in (SPIKE_S, 20.5 * 3600):
        late = [
            one.at_s for one in moments if began <= one.at_s < began + 1_800 and one.oldest_s > 1
        ]
        assert late and max(late) - began <= 60
    downs = [one.decision for one in moments if one.decision.kind == "down"]
    assert downs and all((one.was or 0) - (one.became or 0) == 1 for one in downs)


def test_down_comes_after_a_quarter_of_an_hour_and_then_every_five_minutes() -> None:
    after = [
        one.at_s
        for one in day()
        if one.decision.kind == "down" and SPIKE_S < one.at_s < SPIKE_S + 2 * 3600
    ]

    assert after[0] - SPIKE_S >= 900
    assert min(b - a for a, b in pairwise(after)) >= WORKER.down_cooldown_s


def test_a_day_without_spikes_changes_seldom_and_its_work_is_never_late() -> None:
    moments = list(run(WORKER, Work(a_day(20.0, ()), service_s=0.05, slots=2.0), 2 * DAY_S))

    assert sum(one.decision.changes for one in moments) <= 8
    assert max(one.oldest_s for one in moments) < 60
