"""A day under the policy, without a process: what it would do with a load, second by second. Pure.

Work comes as a curve says; workers do what they can; what they cannot waits and grows older.
Figures are read as the scheduler reads them, every few seconds and over the last of them. For who
wants to see a policy, the packed one or his own, before it moves anything.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mailyard.fleet.autoscale.decide import Decision, Lane, Memory, Reading, decide
from mailyard.fleet.autoscale.policy import Policy

EVERY_S = 5.0
_OVER = 3  # rounds that a rate is counted over
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Work:
    """A lane. `per_s(t)`: jobs that come; `service_s`: of one job in one of the `slots` of a
    process; `begins_s`: how long a new process needs until it works."""

    per_s: Callable[[float], float]
    service_s: float
    slots: float
    begins_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Moment:
    """What there was at `at_s`, and what was decided."""

    at_s: float
    per_s: float
    backlog: float
    oldest_s: float
    processes: int
    decision: Decision


def run(policy: Policy, work: Work, seconds: float = DAY_S, count: int = 0) -> Iterator[Moment]:
    """`seconds` of it. `policy.least` and `.most` are settled; `count` 0: the least."""
    count = count or policy.least
    memory, backlog = Memory(), 0.0
    came: deque[float] = deque(maxlen=_OVER)
    working: deque[tuple[float, int]] = deque([(0.0, count)])  # (from when on, processes)
    at_s = 0.0
    while at_s < seconds:
        per_s = work.per_s(at_s)
        while len(working) > 1 and working[1][0] <= at_s:
            working.popleft()
        able = working[0][1] * work.slots / work.service_s
        backlog = max(0.0, backlog + (per_s - able) * EVERY_S)
        came.append(per_s)
        oldest_s = backlog / able
        rate = sum(came) / len(came)
        lane = Lane("work", backlog, oldest_s, rate, work.service_s, work.slots)
        values: dict[str, float | None] = {
            "depth": backlog,
            "oldest_s": oldest_s,
            "processing_s": work.service_s,
            "memory": 0.3,
            "cpu": min(1.0, per_s / able),
            "busy": min(1.0, per_s / able),
            "p95_s": work.service_s + oldest_s,
            "requests_per_s": per_s / count,
        }
        decision, memory = decide(policy, memory, Reading(count, values, (lane,)), at_s)
        yield Moment(at_s, per_s, backlog, oldest_s, count, decision)
        if decision.changes and decision.became is not None:
            ready_s = at_s + (work.begins_s if decision.became > count else 0.0)
            count = decision.became
            working.append((ready_s, count))
        at_s += EVERY_S


def a_day(
    base_per_s: float, spikes: tuple[tuple[float, float, float], ...]
) -> Callable[[float], float]:
    """Mail over a day, by the hour: half of `base_per_s` at night, twice as much before noon.
    `spikes`: (from hour, for seconds, times the base)."""
    by_hour = (5, 5, 5, 5, 5, 6, 8, 11, 15, 18, 20, 20, 18, 18, 19, 18, 17, 15, 13, 11, 9, 8, 6, 5)

    def per_s(at_s: float) -> float:
        for hour, seconds, times in spikes:
            if hour * 3600.0 <= at_s < hour * 3600.0 + seconds:
                return base_per_s * times
        return base_per_s * by_hour[int(at_s // 3600) % 24] / 10.0

    return per_s
