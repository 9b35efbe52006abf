"""A circuit breaker for one provider: closed, open, half open.

    closed ──too large a share of failures, or one that is decisive──> open
    open ──its time is over──> half open: a few probes, one after another
    half open ──enough good probes──> closed;  ──a bad one──> open, for longer

A function of (now, state, what happened), without a timer: `admit` asks for one mail, `record`
tells how it went. What was sent before the breaker changed its state says nothing about the state
after it: every ticket carries the `turn` in which it was given.

Instants are wall-clock seconds since 1970; jitter comes from the `Random` that is handed in.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random

from mailyard.core.backoff import Backoff

RETRY_AFTER_S_MAX = 3600.0  # a provider that asks for more is asked again after an hour


OPEN_FOR = Backoff(first_s=10.0, cap_s=300.0)


class Position(StrEnum):
    """How the breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerOptions:
    """It opens when of at least `least` mails within `window_s` seconds `share` failed.

    Or when `in_a_row` did, one after another: after a good hour an outage is noticed as soon as
    after none.
    `open_for` is the time until the first probe, longer each time that probing fails. `probes` good
    ones in a row close it. A probe without an answer for `probe_lost_s` counts as failed.
    """

    window_s: float = 60.0
    least: int = 20
    share: float = 0.5
    in_a_row: int = 20
    open_for: Backoff = OPEN_FOR
    probes: int = 3
    probe_lost_s: float = 60.0


_SLICES = 6  # a window is counted in slices: constant memory whatever the rate


@dataclass(frozen=True, slots=True)
class Slice:
    """Counts of one sixth of the window. `number`: instant / length."""

    number: int
    mails: int
    failures: int


@dataclass(frozen=True, slots=True)
class Breaker:
    """The state. `turn` grows with every change of position; `opened`: times in a row."""

    position: Position = Position.CLOSED
    turn: int = 0
    slices: tuple[Slice, ...] = ()
    row: int = 0
    row_since_s: float = 0.0
    open_until_s: float = 0.0
    opened: int = 0
    probe_since_s: float | None = None
    good_probes: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True)
class Ticket:
    """The leave for one mail."""

    turn: int


@dataclass(frozen=True, slots=True)
class BreakerEvent:
    """The breaker changed to `position` at `at_s`, for the page. `until_s`: when it is tried."""

    position: Position
    at_s: float
    why: str
    until_s: float | None


CLOSED = Breaker()
Step = tuple[Breaker, tuple[BreakerEvent, ...]]


def admits(now_s: float, breaker: Breaker, options: BreakerOptions) -> bool:
    """Whether `admit` would give a ticket now. Changes nothing."""
    if breaker.position is Position.CLOSED:
        return True
    if breaker.position is Position.OPEN:
        return now_s >= breaker.open_until_s
    return breaker.probe_since_s is None or _is_lost(now_s, breaker, options)


def admit(
    now_s: float, breaker: Breaker, options: BreakerOptions, random: Random
) -> tuple[Breaker, Ticket | None, tuple[BreakerEvent, ...]]:
    """Leave for one mail, or None. An open breaker whose time is over gives it as a probe."""
    if breaker.position is Position.CLOSED:
        return breaker, Ticket(breaker.turn), ()
    if breaker.position is Position.HALF_OPEN:
        if _is_lost(now_s, breaker, options):
            breaker, events = _open(now_s, breaker, options, "a probe was not answered", random)
            return breaker, None, events
        if breaker.probe_since_s is not None:
            return breaker, None, ()
        return replace(breaker, probe_since_s=now_s), Ticket(breaker.turn), ()
    if now_s < breaker.open_until_s:
        return breaker, None, ()
    half = replace(
        breaker,
        position=Position.HALF_OPEN,
        turn=breaker.turn + 1,
        probe_since_s=now_s,
        good_probes=0,
    )
    event = BreakerEvent(Position.HALF_OPEN, now_s, breaker.why, None)
    return half, Ticket(half.turn), (event,)


def record(
    now_s: float,
    breaker: Breaker,
    options: BreakerOptions,
    ticket: Ticket,
    failure: str,
    random: Random,
) -> Step:
    """How the mail of `ticket` went: "" well, else what the provider's failure was."""
    if ticket.turn != breaker.turn or breaker.position is Position.OPEN:
        return breaker, ()
    if breaker.position is Position.HALF_OPEN:
        return _probed(now_s, breaker, options, failure, random)
    breaker = _counted(now_s, breaker, options, bool(failure))
    mails = sum(one.mails for one in breaker.slices)
    failures = sum(one.failures for one in breaker.slices)
    too_many = mails >= options.least and failures >= options.share * mails
    if not failure or not (too_many or breaker.row >= options.in_a_row):
        return breaker, ()
    why = f"{failures} of {mails} mails failed within {options.window_s:g} s, the last: {failure}"
    return _open(now_s, breaker, options, why, random)


def count_good(breaker: Breaker, number: int, mails: int) -> Breaker:
    """`mails` went well within the slice `number` of a closed breaker: many `record` at once."""
    found = False
    slices = []
    for one in breaker.slices:
        if one.number == number:
            one, found = Slice(number, one.mails + mails, one.failures), True
        slices.append(one)
    if not found:
        slices = [one for one in slices if number - _SLICES < one.number < number]
        slices.append(Slice(number, mails, 0))
    return replace(breaker, slices=tuple(slices), row=0)


def slice_of(now_s: float, options: BreakerOptions) -> int:
    """The number of the slice that `now_s` is in."""
    return int(now_s * _SLICES / options.window_s)


def unprobed(breaker: Breaker, ticket: Ticket) -> Breaker:
    """The mail of `ticket` came back without anything having been said to the provider: if it was
    a probe, the next mail is one."""
    if breaker.position is not Position.HALF_OPEN or ticket.turn != breaker.turn:
        return breaker
    return replace(breaker, probe_since_s=None)


def trip(
    now_s: float,
    breaker: Breaker,
    options: BreakerOptions,
    why: str,
    random: Random,
    retry_after_s: float = 0.0,
) -> Step:
    """Open at once: the account is suspended, or the provider said when to come again."""
    asked_s = now_s + min(max(retry_after_s, 0.0), RETRY_AFTER_S_MAX)
    if breaker.position is not Position.OPEN:
        breaker, _ = _open(now_s, breaker, options, why, random)
    elif breaker.open_until_s >= asked_s:
        return breaker, ()
    until_s = max(breaker.open_until_s, asked_s)
    event = BreakerEvent(Position.OPEN, now_s, why, until_s)
    return replace(breaker, open_until_s=until_s, why=why), (event,)


def _probed(
    now_s: float, breaker: Breaker, options: BreakerOptions, failure: str, random: Random
) -> Step:
    if failure:
        return _open(now_s, breaker, options, f"a probe failed: {failure}", random)
    good = breaker.good_probes + 1
    if good < options.probes:
        return replace(breaker, good_probes=good, probe_since_s=None), ()
    why = f"{good} probes went well"
    event = BreakerEvent(Position.CLOSED, now_s, why, None)
    return Breaker(turn=breaker.turn + 1, why=why), (event,)


def _open(
    now_s: float, breaker: Breaker, options: BreakerOptions, why: str, random: Random
) -> Step:
    opened = breaker.opened + 1
    until_s = now_s + options.open_for.delay_s(opened, random)
    state = Breaker(
        position=Position.OPEN,
        turn=breaker.turn + 1,
        open_until_s=until_s,
        opened=opened,
        why=why,
    )
    return state, (BreakerEvent(Position.OPEN, now_s, why, until_s),)


def _is_lost(now_s: float, breaker: Breaker, options: BreakerOptions) -> bool:
    since_s = breaker.probe_since_s
    return since_s is not None and now_s - since_s >= options.probe_lost_s


def _counted(now_s: float, breaker: Breaker, options: BreakerOptions, failed: bool) -> Breaker:
    """One mail more: in the newest of the slices that are within the window, and in the row."""
    number = slice_of(now_s, options)
    kept = tuple(one for one in breaker.slices if number - _SLICES < one.number < number)
    current = next((one for one in breaker.slices if one.number == number), Slice(number, 0, 0))
    newest = Slice(number, current.mails + 1, current.failures + int(failed))
    row, since_s = breaker.row + 1, breaker.row_since_s
    if breaker.row == 0 or now_s - since_s > options.window_s:
        row, since_s = 1, now_s
    return replace(breaker, slices=(*kept, newest), row=row if failed else 0, row_since_s=since_s)
