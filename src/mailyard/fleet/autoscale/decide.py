"""The decision as one pure function: (policy, what is remembered, what is read, now) -> decision.

What holds for every policy and every reading (tests/unit/fleet/test_autoscale_decide.py):

- a result lies within `least` and `most`;
- while anything that the policy looks at is missing, nothing changes;
- more load never means fewer processes;
- under constant load it comes to rest: up fast, down one at a time, and never down where the load
  would send it up again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil

from mailyard.fleet.autoscale.policy import Policy, Signal

_ROUNDING = 1e-9
_FULL = "the budget of database connections has no room"
_UNKNOWN = 1 << 30  # a need that nobody could say
UP = "up"
DOWN = "down"
HOLD = "hold"
BLOCKED = "blocked"  # more is wanted, and the database has no room for it
ADVISE = "advise"  # more would not help


@dataclass(frozen=True, slots=True)
class Lane:
    """Work that comes and waits: jobs of a queue, or requests. None: not known.

    `service_s`: one slot's seconds a job; `slots`: jobs (batches) that one process does at once.
    """

    name: str
    backlog: float | None
    oldest_s: float | None
    arrival_per_s: float | None
    service_s: float | None
    slots: float | None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a group looks like now. `values`: metrics by name, None when not known.

    `connections`: share of the database's budget in use. `room`: how many more processes it still
    allows.
    """

    instances: int | None
    values: Mapping[str, float | None]
    lanes: tuple[Lane, ...] = ()
    connections: float | None = 0.0
    room: int | None = 1_000


@dataclass(frozen=True, slots=True)
class Memory:
    """What a group's next decision must know of the past; instants in the caller's seconds."""

    hot: Mapping[str, float] = field(default_factory=dict)  # metric -> since when
    cold: Mapping[str, float] = field(default_factory=dict)
    spent: frozenset[str] = frozenset()  # signals that have asked once
    panic: float | None = None
    last_up: float = float("-inf")
    last_down: float = float("-inf")
    needs: tuple[tuple[float, int], ...] = ()  # (when, processes needed), the largest first


@dataclass(frozen=True, slots=True)
class Decision:
    """`was` and `became` instances, and why. `wanted`: by the rule of capacity, if it can say."""

    group: str
    kind: str
    was: int | None
    became: int | None
    wanted: int | None
    reason: str

    @property
    def changes(self) -> bool:
        return self.became != self.was and self.became is not None


def wanted(policy: Policy, reading: Reading) -> tuple[int, bool]:
    """(processes that the work needs at least, whether that is all).

    A process has slots of its own for each lane, so the neediest lane decides. A lane that has work
    of which nobody knows how long it takes, because none of it was done lately, may need any
    number: it hides nothing of what the others need.
    """
    most, sure = 0, True
    for lane in reading.lanes:
        if lane.backlog is None or lane.arrival_per_s is None:
            sure = False
            continue
        rate = lane.arrival_per_s + lane.backlog / policy.drain_s
        if rate <= 0:
            continue
        if lane.service_s is None or not lane.slots:
            sure = False
            continue
        need = rate * lane.service_s / (lane.slots * policy.utilisation)
        most = max(most, ceil(need - _ROUNDING))
    return most, sure


def misses(policy: Policy, reading: Reading) -> bool:
    """Whether the oldest work will be older than it may be by the time it is done."""
    count = max(1, reading.instances or 1)
    for lane in reading.lanes:
        if lane.oldest_s is None or lane.backlog is None:
            continue
        ahead_s = 0.0
        if lane.backlog and lane.service_s is not None and lane.slots:
            ahead_s = lane.backlog * lane.service_s / (lane.slots * count)
        if lane.oldest_s + ahead_s > policy.oldest_s:
            return True
    return False


def decide(policy: Policy, memory: Memory, reading: Reading, now: float) -> tuple[Decision, Memory]:
    """What to do now, and what to remember. `policy.least` and `.most` are settled (not 0)."""
    count = reading.instances
    missing = [one.metric for one in policy.signals if reading.values.get(one.metric) is None]
    missing += [
        lane.name for lane in reading.lanes if lane.backlog is None or lane.oldest_s is None
    ]
    if count is None or missing or reading.connections is None or reading.room is None:
        what = ", ".join(missing) or ("instances" if count is None else "database connections")
        held = Decision(policy.group, HOLD, count, count, None, f"not known: {what}")
        return held, replace(memory, hot={}, cold={}, panic=None, needs=())
    if not policy.least <= count <= policy.most:
        target = min(max(count, policy.least), policy.most)
        kind = UP if target > count else DOWN
        reason = f"the bounds are {policy.least} to {policy.most}"
        return Decision(policy.group, kind, count, target, None, reason), _acted(memory, kind, now)
    need, sure = wanted(policy, reading)
    memory = _remember(policy, memory, reading, need if sure else _UNKNOWN, now)
    memory = _alarmed(policy, memory, reading, need, now)
    up, why, spends, advice = _grow(policy, memory, reading, need, now)
    if up > count:
        return _up(policy, memory, reading, need, now, up, why, spends)
    if advice:
        return Decision(policy.group, ADVISE, count, count, need, advice), memory
    why = _why_not_down(policy, memory, reading, need if sure else None, now)
    if why:
        return Decision(policy.group, HOLD, count, count, need, why), memory
    reason = "quiet for long enough"
    down = Decision(policy.group, DOWN, count, count - 1, need, reason)
    return down, _acted(memory, DOWN, now)


def _remember(policy: Policy, memory: Memory, reading: Reading, need: int, now: float) -> Memory:
    """Since when each signal asks for more or agrees to less, and what the work needed lately."""
    hot: dict[str, float] = {}
    cold: dict[str, float] = {}
    for one in policy.signals:
        value = reading.values[one.metric]
        assert value is not None, "what is missing was looked for before"
        if value > one.up_above:
            hot[one.metric] = memory.hot.get(one.metric, now)
        if one.down_below is not None and value < one.down_below:
            cold[one.metric] = memory.cold.get(one.metric, now)
    return replace(
        memory,
        hot=hot,
        cold=cold,
        spent=memory.spent & hot.keys(),
        needs=_with_need(policy, memory.needs, need, now),
    )


def _with_need(
    policy: Policy, needs: tuple[tuple[float, int], ...], need: int, now: float
) -> tuple[tuple[float, int], ...]:
    """Of the time that must be quiet before there is one less: the largest need, the largest since
    then, and so on. A need that trembles between two numbers is the larger one."""
    quiet_s = max(
        (one.down_for_s for one in policy.signals if one.down_below is not None), default=0
    )
    kept = [one for one in needs if one[0] >= now - quiet_s and one[1] > need]
    return (*kept, (now, need))


def _alarmed(policy: Policy, memory: Memory, reading: Reading, need: int, now: float) -> Memory:
    """Since when there is panic."""
    if not _panics(policy, reading, need):
        return replace(memory, panic=None)
    return replace(memory, panic=now if memory.panic is None else memory.panic)


def _panics(policy: Policy, reading: Reading, need: int) -> bool:
    count = reading.instances or 0
    return need > count and (need >= policy.panic_factor * count or misses(policy, reading))


def _grow(
    policy: Policy, memory: Memory, reading: Reading, need: int, now: float
) -> tuple[int, str, frozenset[str], str]:
    """(how many there should be, why, signals that have asked now, advice instead)."""
    count = reading.instances or 0
    if memory.panic is not None and now - memory.panic >= policy.panic_s:
        behind = "the oldest work would be late" if misses(policy, reading) else "far behind"
        return need, f"{behind}: the work needs {need}", frozenset(), ""
    rested = now - memory.last_up >= policy.up_cooldown_s
    reasons, spends, advice = [], set(), ""
    for one in policy.signals:
        since = memory.hot.get(one.metric)
        if since is None or now - since < one.up_for_s:
            continue
        if one.needs and (reading.values.get(one.needs) or 0.0) <= one.needs_above:
            advice = one.advice or f"{one.metric} is high and {one.needs} is not"
        elif not (one.once and one.metric in memory.spent) and rested:
            reasons.append(_told(one, reading))
            spends.add(one.metric)
    if reasons:
        return count + 1, "; ".join(reasons), frozenset(spends), ""
    return count, "", frozenset(), advice


def _told(one: Signal, reading: Reading) -> str:
    lasts = f" for {one.up_for_s:g} s" if one.up_for_s else ""
    return f"{one.metric} is {reading.values[one.metric]:.3g}, above {one.up_above:g}{lasts}"


def _up(
    policy: Policy,
    memory: Memory,
    reading: Reading,
    need: int,
    now: float,
    target: int,
    why: str,
    spends: frozenset[str],
) -> tuple[Decision, Memory]:
    count, used, room = reading.instances, reading.connections, reading.room
    assert count is not None and used is not None and room is not None, "checked before"
    most = min(target, policy.most)
    if most <= count and room > 0:
        held = Decision(policy.group, HOLD, count, count, need, f"{why}; {count} is the most")
        return held, replace(memory, spent=memory.spent | spends)  # asked, and there is no more
    allowed = count if used > policy.budget_share else min(most, count + max(0, room))
    if allowed <= count:
        limit = f"{used:.0%} of the database's connections are in use"
        if used <= policy.budget_share:
            limit = f"{_FULL} for another process"
        return Decision(policy.group, BLOCKED, count, count, need, f"{why}; {limit}"), memory
    if allowed < target:
        full = room <= allowed - count
        why += f"; {_FULL} for more" if full else f"; {allowed} is the most"
    risen = _acted(replace(memory, spent=memory.spent | spends), UP, now)
    return Decision(policy.group, UP, count, allowed, need, why), risen


def _why_not_down(
    policy: Policy, memory: Memory, reading: Reading, need: int | None, now: float
) -> str:
    """Why there cannot be one less; empty when there can."""
    count = reading.instances or 0
    if count <= policy.least:
        return f"{count} is the least"
    # What has asked its once and been heard has had its say: else memory that stays high would
    # keep a process for ever.
    spent = {one.metric for one in policy.signals if one.once} & memory.spent
    hot = [name for name in memory.hot if name not in spent]
    if hot or memory.panic is not None:
        return f"high: {', '.join(hot) or 'work'}"
    if need is None:
        return "nobody knows how long the work takes"
    lately = max(most for _, most in memory.needs)
    if lately > count - 1:
        return f"the work needs {need}" + (f", and {lately} lately" if lately > need else "")
    for one in policy.signals:
        if one.down_below is None:
            continue
        since = memory.cold.get(one.metric)
        if since is None or now - since < one.down_for_s:
            return f"{one.metric} has not been below {one.down_below:g} for {one.down_for_s:g} s"
        value = reading.values[one.metric] or 0.0
        if one.each and value * count / (count - 1) >= one.up_above:
            return f"with one less {one.metric} would be too high"
    rested_at = max(memory.last_up, memory.last_down) + policy.down_cooldown_s
    return "" if now >= rested_at else "it changed a moment ago"


def _acted(memory: Memory, kind: str, now: float) -> Memory:
    """After a change what counts is counted anew, but for how long it has been quiet."""
    if kind == UP:
        return replace(memory, hot={}, cold={}, panic=None, last_up=now)
    return replace(memory, last_down=now)
