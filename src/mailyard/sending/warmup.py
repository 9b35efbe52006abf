"""Source addresses: which one a mail leaves from, and how a new one earns its reputation.

A pool has addresses with weights. A new address follows a plan: so many mails on its first day, so
many on its second, for each group of receivers. What a day's ceiling does not allow overflows to
the older addresses of the pool, and then to the pool's provider. Bad answers pause an address for a
while, and the days that it lost are added to its plan.

`pick` works with the counts that this process knows, and gives its mails their order. The ceiling
itself is kept by all processes together: `permit` is what to draw from the shared bucket before an
address is used, and never allows more than the ceiling in any 24 hours.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from random import Random
from types import MappingProxyType

from mailyard.core.errors import InvalidInput

DAYS_MAX = 120  # of a plan
CEILING_MAX = 100_000_000
WEIGHT_MAX = 1_000
SOURCES_MAX = 256  # addresses of one pool
OTHERS = "default"  # the group of receivers that a plan does not name

BAD_LEAST = 20  # bad answers of one day before an address is judged
BAD_SHARE = 0.05  # of its answers: what large receivers begin to defer at is lower for complaints
PAUSE_DAYS = 1

_DAY_S = 86_400.0
_BURST_SHARE = 24.0  # one hour's worth of a day may go at once


@dataclass(frozen=True, slots=True)
class Plan:
    """Ceilings of mails a day: `ceilings[group][n]` on day n + 1. After the last day: none.

    The group OTHERS is for receivers that are not named; every plan has it.
    """

    name: str
    ceilings: Mapping[str, tuple[int, ...]]

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        if OTHERS not in self.ceilings:
            raise InvalidInput(f"the plan {self.name!r} must have {OTHERS!r}", field=OTHERS)
        for group, days in self.ceilings.items():
            if not 0 < len(days) <= DAYS_MAX:
                allowed = f"1 to {DAYS_MAX} days"
                raise InvalidInput(
                    f"{group} has {len(days)} days; allowed is {allowed}", field=group
                )
            for number, ceiling in enumerate(days, 1):
                if not 0 < ceiling <= CEILING_MAX:
                    raise InvalidInput(
                        f"{group}, day {number} is {ceiling}; allowed is 1 to {CEILING_MAX}",
                        field=group,
                    )
        object.__setattr__(self, "ceilings", MappingProxyType(dict(self.ceilings)))

    def ceiling(self, group: str, day: int) -> int | None:
        """Mails on day `day` (1 is the first) to receivers of `group`. None: no ceiling."""
        days = self.ceilings.get(group) or self.ceilings[OTHERS]
        return days[day - 1] if day <= len(days) else None


# Doubling from 50 a day, as senders do with a cold address: a month to a million a day.
STEADY = Plan(
    "steady",
    {OTHERS: tuple(int(min(1_000_000, 50 * 1.42**day)) for day in range(30))},
)


@dataclass(frozen=True, slots=True)
class Source:
    """One address and what has become of it.

    `plan` None: it is warm. `started`: its first day. `lost_days`: days that it was paused, which
    the plan does not count. `paused_until`: the day on which it may send again.
    """

    name: str
    weight: int = 1
    plan: Plan | None = None
    started: date | None = None
    lost_days: int = 0
    paused_until: date | None = None
    why: str = ""

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        if not 0 < self.weight <= WEIGHT_MAX:
            raise InvalidInput(
                f"the weight of {self.name} is {self.weight}; allowed is 1 to {WEIGHT_MAX}",
                field="weight",
            )
        if (self.plan is None) != (self.started is None):
            raise InvalidInput(
                f"{self.name} needs both a plan and its first day, or neither", field="started"
            )

    def day(self, today: date) -> int:
        """Which day of its plan `today` is; 0 before the first. A warm address has no days."""
        if self.started is None:
            return 0
        return max(0, (today - self.started).days + 1 - self.lost_days)

    def ceiling(self, group: str, today: date) -> int | None:
        """Mails today to receivers of `group`: 0 while it may not send, None without a ceiling."""
        if self.paused_until is not None and today < self.paused_until:
            return 0
        if self.plan is None:
            return None
        day = self.day(today)
        return self.plan.ceiling(group, day) if day else 0


@dataclass(frozen=True, slots=True)
class Pool:
    """Addresses that share their mail. `overflow`: the provider that gets what none may send."""

    name: str
    sources: tuple[Source, ...]
    overflow: str | None = None

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        names = [source.name for source in self.sources]
        if not 0 < len(names) <= SOURCES_MAX or len(set(names)) != len(names):
            raise InvalidInput(
                f"the pool {self.name!r} must have 1 to {SOURCES_MAX} addresses, each once",
                field="sources",
            )


Counts = Mapping[tuple[str, str], int]
"""Mails that went today, by (name of the source, the group that it is counted as)."""


@dataclass(frozen=True, slots=True)
class Pick:
    """Where one mail leaves from: an address, or a provider, or neither before tomorrow.

    `overflowed`: it would have been an address that has reached its ceiling.
    """

    source: str | None
    provider: str | None
    overflowed: bool
    why: str


@dataclass(frozen=True, slots=True)
class Permit:
    """What to draw from the bucket of all processes for one mail (`RateLimit.draw`)."""

    key: str
    per_s: float
    burst: float


@dataclass(frozen=True, slots=True)
class SourceEvent:
    """An address was paused, or goes on; for the page and the alerts."""

    source: str
    paused_until: date
    why: str


def pick(pool: Pool, group: str, today: date, counts: Counts, random: Random) -> Pick:
    """Where one mail to a receiver of `group` leaves from, by the weights of those with room."""
    drawn = _weighted(pool.sources, random)
    if _room(drawn, group, today, counts):
        return Pick(drawn.name, None, False, "")
    roomy = [one for one in pool.sources if _room(one, group, today, counts)]
    why = _why_not(drawn, today)
    older = [one for one in roomy if _is_older(one, drawn, today)] or roomy
    if older:
        return Pick(_weighted(tuple(older), random).name, None, True, why)
    if pool.overflow is not None:
        return Pick(None, pool.overflow, True, why)
    return Pick(None, None, True, f"{why}, and so have the others of {pool.name}")


def permit(source: Source, group: str, today: date) -> Permit | None:
    """The draw that keeps the ceiling over all processes; None: there is none to keep.

    In any 24 hours the bucket gives at most its burst and a day of its rate: the ceiling. A ceiling
    of 0 has no draw: `pick` never chooses such an address.
    """
    ceiling = source.ceiling(group, today)
    if not ceiling:
        return None
    burst = max(1.0, ceiling / _BURST_SHARE)
    # A ceiling of one: the burst is all of it, and the next one comes after a day.
    per_s = max(ceiling - burst, 1.0) / _DAY_S
    return Permit(f"warmup:{source.name}:{counted_as(source, group)}", per_s, burst)


def judged(
    source: Source, today: date, answers: int, bad: int, why: str
) -> tuple[Source, SourceEvent | None]:
    """After `answers` of today, of which `bad` were about our reputation: pause it or not.

    `why` is the newest bad answer. A warm address is paused too; it has no plan to lose days of.
    """
    paused = source.paused_until is not None and today < source.paused_until
    if paused or bad < BAD_LEAST or bad < BAD_SHARE * answers:
        return source, None
    until = date.fromordinal(today.toordinal() + 1 + PAUSE_DAYS)
    reason = f"{bad} of {answers} answers today were bad, the newest: {why}"
    # Today is lost as well: its ceiling was too high, and is tried again.
    lost = source.lost_days + (1 + PAUSE_DAYS if source.plan is not None else 0)
    source = replace(source, paused_until=until, lost_days=lost, why=reason)
    return source, SourceEvent(source.name, until, reason)


def _room(source: Source, group: str, today: date, counts: Counts) -> bool:
    ceiling = source.ceiling(group, today)
    if ceiling is None:
        return True
    return counts.get((source.name, counted_as(source, group)), 0) < ceiling


def counted_as(source: Source, group: str) -> str:
    """The group under which a mail is counted: its own, if the plan names it, else OTHERS."""
    if source.plan is None or group in source.plan.ceilings:
        return group
    return OTHERS


def _is_older(one: Source, than: Source, today: date) -> bool:
    if one.plan is None or than.plan is None:
        return one.plan is None
    return one.day(today) > than.day(today)


def _why_not(source: Source, today: date) -> str:
    if source.paused_until is not None and today < source.paused_until:
        return f"{source.name} is paused until {source.paused_until}: {source.why}"
    return f"{source.name} has reached its ceiling of day {source.day(today)}"


def _weighted(sources: tuple[Source, ...], random: Random) -> Source:
    at = random.random() * sum(source.weight for source in sources)
    for source in sources:
        at -= source.weight
        if at < 0:
            return source
    return sources[-1]
