"""A virtual day under the packed policy of workers, as an experiment: no process runs."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from mailyard.fleet.autoscale.policy import read_policies
from mailyard.fleet.autoscale.simulate import Moment, Work, a_day, run
from mailyard.proving.experiments.chart import Line, Panel
from mailyard.proving.experiments.series import Check, Decided, Outcome, Series

_MOST = 10
_BASE_PER_S = 20.0
_SERVICE_S, _SLOTS = 0.05, 2.0
_SPIKES = ((3.5, 60.0, 10.0), (20.5, 1_800.0, 10.0))  # a minute by night, half an hour by evening
_LATE_S = 1.0
_EVERY = 24  # rounds a row of the table, where nothing happens


def day() -> Outcome:
    """One worker can do twice the average; twice in the day ten times the average comes."""
    (policy,) = (
        replace(one, least=1, most=_MOST) for one in read_policies() if one.role == "worker"
    )
    moments = list(run(policy, Work(a_day(_BASE_PER_S, _SPIKES), _SERVICE_S, _SLOTS)))
    changes = _changes(moments, policy.group)
    series = _series(moments)
    points = series.points
    return Outcome(
        name="day",
        title="A virtual day under the packed policy (no process runs)",
        settings={
            "jobs_per_s_on_average": _BASE_PER_S,
            "one_worker_per_s": _SLOTS / _SERVICE_S,
            "workers_at_most": _MOST,
        },
        figures={"changes": float(len(changes))},
        checks=[*_back_in_time(moments), _down_slowly(changes)],
        decisions=changes,
        series=series,
        panels=[
            Panel("jobs a second", [Line("come", points("per_s"))]),
            Panel("age of the oldest job, s", [Line("oldest", points("oldest_s"))]),
            Panel("workers", [Line("workers", points("workers"), stairs=True)]),
        ],
        unit="h",
    )


def _changes(moments: Sequence[Moment], group: str) -> list[Decided]:
    return [
        Decided(
            round(moment.at_s / 3600.0, 3),
            group,
            moment.decision.kind,
            moment.decision.was or 0,
            moment.decision.became or 0,
            moment.decision.reason,
        )
        for moment in moments
        if moment.decision.changes
    ]


def _series(moments: Sequence[Moment]) -> Series:
    series = Series()
    for number, moment in enumerate(moments):
        if number % _EVERY and not moment.oldest_s and not moment.decision.changes:
            continue
        series.add(
            moment.at_s / 3600.0,
            {
                "per_s": moment.per_s,
                "backlog": moment.backlog,
                "oldest_s": moment.oldest_s,
                "workers": moment.processes,
            },
        )
    return series


def _back_in_time(moments: Sequence[Moment]) -> Iterator[Check]:
    for hour, seconds, times in _SPIKES:
        late = [
            one.at_s - hour * 3600.0
            for one in moments
            if hour * 3600.0 <= one.at_s < hour * 3600.0 + seconds + 60 and one.oldest_s > _LATE_S
        ]
        back_s = max(late, default=0.0)
        told = f"{back_s:.0f} s after its start nothing was older than {_LATE_S:g} s any more"
        yield Check(f"{times:g} times the load for {seconds:g} s", told, 0 < back_s <= 60.0)


def _down_slowly(changes: Sequence[Decided]) -> Check:
    downs = [one for one in changes if one.kind == "down"]
    after_h = downs[0].at_s - changes[0].at_s
    return Check(
        "down one at a time, the first a quarter of an hour after",
        f"{len(downs)} steps down, the first {after_h:.2f} h after",
        all(one.was - one.became == 1 for one in downs) and after_h >= 0.25,
    )
