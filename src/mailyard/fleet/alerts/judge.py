"""The judgement as a pure function: (rule, what is remembered, values, now) -> what changes.

A value that is not known changes nothing and starts every duration anew; an alert whose figure has
been unknown for an hour is over, because what it was about is there no more.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mailyard.fleet.alerts.rule import CRITICAL, WARNING, Rule

UNKNOWN_FOR_S = 3600.0
RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class State:
    """Of one rule and subject. `level`: as it was told. Instants since when, or None."""

    level: str | None = None
    warned: float | None = None
    critical: float | None = None
    good: float | None = None
    unknown: float | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """`event`: warning, critical or resolved. `since`: when the value passed the level."""

    event: str
    value: float
    since: float


def judge(rule: Rule, state: State, value: float | None, now: float) -> tuple[Change | None, State]:
    """What is to be told of one subject's value, and what to remember."""
    if value is None:
        gone = now if state.unknown is None else state.unknown
        if state.level is not None and now - gone >= UNKNOWN_FOR_S:
            return Change(RESOLVED, 0.0, gone), State()
        return None, State(level=state.level, unknown=gone)
    found = rule.level_of(value)
    state = State(
        level=state.level,
        warned=_since(state.warned, found is not None, now),
        critical=_since(state.critical, found == CRITICAL, now),
        good=_since(state.good, found is None, now),
    )
    wanted = _lasting(rule, state, now)
    if wanted is not None and wanted != state.level and not _keeps(state, wanted):
        since = state.critical if wanted == CRITICAL else state.warned
        assert since is not None, "a level that lasts has begun"
        return Change(wanted, value, since), replace(state, level=wanted)
    good = state.good
    if state.level is not None and good is not None and now - good >= rule.resolve_for_s:
        return Change(RESOLVED, value, good), replace(state, level=None)
    return None, state


def _since(before: float | None, holds: bool, now: float) -> float | None:
    if not holds:
        return None
    return now if before is None else before


def _lasting(rule: Rule, state: State, now: float) -> str | None:
    """The worst level that has lasted long enough."""
    if state.critical is not None and now - state.critical >= rule.critical_for_s:
        return CRITICAL
    if rule.warning is None or state.warned is None:
        return None
    return WARNING if now - state.warned >= rule.warning_for_s else None


def _keeps(state: State, wanted: str) -> bool:
    """One that is still beyond critical stays so, although it has not been for long again."""
    if state.level != CRITICAL or wanted != WARNING:
        return False
    return state.critical is not None


def judge_all(
    rule: Rule, states: Mapping[str, State], values: Mapping[str, float | None], now: float
) -> tuple[list[tuple[str, Change]], dict[str, State]]:
    """All subjects of a rule; those that are remembered and not there any more are unknown."""
    changes = []
    after = {}
    for subject in sorted({*values, *states}):
        if not rule.concerns(subject):
            continue
        change, state = judge(rule, states.get(subject, State()), values.get(subject), now)
        if change is not None:
            changes.append((subject, change))
        if state != State():
            after[subject] = state
    return changes, after
