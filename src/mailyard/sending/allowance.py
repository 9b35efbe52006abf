"""What a workspace allows itself: its clock, quiet hours, a rate, a daily quota, a frequency cap.

Limits are read by a process at most every LIMITS_CACHE_S, so that a workspace without any pays
nothing for them. What is used is counted in one row a workspace, held by whoever accepts until his
commit, so that the count is exact however many accept at once; only those workspaces have it that
have a rate or a quota.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any
from uuid import UUID

import asyncpg

from mailyard.access.plan import Plans
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import InvalidInput, MailyardError, QuotaExceeded, RateLimited
from mailyard.ratelimit.ratelimit import gcra
from mailyard.sending.local_time import QuietHours, check_zone, day_of, zone_of
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("limits")

LIMITS_CACHE_S = 2.0
LIMITS_CACHE_ENTRIES = 10_000
RATE_MAX_PER_S = 1_000_000.0
QUOTA_MAX = 10**12
CAP_MAX = 1_000
_ROUNDING_S = 0.000_002  # PostgreSQL keeps microseconds
CAP_DAYS_MAX = 365


@dataclass(frozen=True, slots=True)
class Limits:
    """None: no such limit. `campaigns_per_contact` in any `campaigns_days` days.

    `plan_per_day` is not the workspace's own: its plan's recipients a UTC day.
    """

    time_zone: str = "UTC"
    quiet: QuietHours | None = None
    emails_per_s: float | None = None
    emails_per_day: int | None = None
    campaigns_per_contact: int | None = None
    campaigns_days: int | None = None
    plan_per_day: int | None = None

    @property
    def zone(self) -> tzinfo:
        return zone_of(self.time_zone) or UTC

    @property
    def counted(self) -> bool:
        """Whether somebody has to count what is sent."""
        return self.emails_per_s is not None or self.quota is not None

    @property
    def quota(self) -> int | None:
        """Recipients a day at most: its own number, or its plan's when that is less."""
        if self.emails_per_day is None or self.plan_per_day is None:
            return self.plan_per_day if self.emails_per_day is None else self.emails_per_day
        return min(self.emails_per_day, self.plan_per_day)

    def check(self) -> None:
        """Raises InvalidInput naming the field."""
        check_zone(self.time_zone)
        _check("emails_per_s", self.emails_per_s, 0.01, RATE_MAX_PER_S)
        _check("emails_per_day", self.emails_per_day, 1, QUOTA_MAX)
        _check("campaigns_per_contact", self.campaigns_per_contact, 1, CAP_MAX)
        _check("campaigns_days", self.campaigns_days, 1, CAP_DAYS_MAX)
        if (self.campaigns_per_contact is None) is not (self.campaigns_days is None):
            raise InvalidInput("a cap has a number and its days", field="campaigns_days")

    def as_fields(self) -> dict[str, Any]:
        """For people and programs."""
        return {
            "time_zone": self.time_zone,
            "quiet_from": self.quiet and clock_text(self.quiet.start),
            "quiet_until": self.quiet and clock_text(self.quiet.end),
            "emails_per_s": self.emails_per_s,
            "emails_per_day": self.emails_per_day,
            "campaigns_per_contact": self.campaigns_per_contact,
            "campaigns_days": self.campaigns_days,
        }


def limits_of(fields: Mapping[str, Any]) -> Limits:
    """The reverse of `Limits.as_fields`, checked. Raises InvalidInput naming the field."""
    start, end = fields["quiet_from"], fields["quiet_until"]
    if (start is None) is not (end is None):
        raise InvalidInput("quiet hours have a beginning and an end", field="quiet_until")
    quiet = None
    if start is not None:
        quiet = QuietHours(clock_time(start, "quiet_from"), clock_time(end, "quiet_until"))
    names = ("emails_per_s", "emails_per_day", "campaigns_per_contact", "campaigns_days")
    limits = Limits(
        time_zone=fields["time_zone"], quiet=quiet, **{name: fields[name] for name in names}
    )
    limits.check()
    return limits


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Use:
    """Recipients since the workspace's day began; the next one begins at `resets_at`."""

    used: int
    resets_at: datetime


@dataclass(frozen=True, slots=True)
class Wanted:
    """Somebody wants to send to so many."""

    workspace_id: UUID
    limits: Limits
    recipients: int


class Allowances:
    """Reads, changes and counts. Time is the database's, or `clock`'s."""

    def __init__(
        self, *, database: Database, clock: Clock | None = None, plans: Plans | None = None
    ) -> None:
        self._database = database
        self._clock = clock
        self._plans = plans
        self._monotonic = (clock or SystemClock()).monotonic
        self._known: dict[UUID, tuple[float, Limits]] = {}

    def known(self, workspace_id: UUID) -> Limits | None:
        """The limits, if they were read lately."""
        known = self._known.get(workspace_id)
        return known[1] if known is not None and self._monotonic() < known[0] else None

    async def of(self, workspace_id: UUID, tx: Connection | None = None) -> Limits:
        """The limits, at most LIMITS_CACHE_S old."""
        known = self.known(workspace_id)
        if known is not None:
            return known
        until = self._monotonic() + LIMITS_CACHE_S
        limits = await self.read(workspace_id, tx)
        if len(self._known) >= LIMITS_CACHE_ENTRIES:
            self._known.clear()
        self._known[workspace_id] = (until, limits)
        return limits

    async def read(self, workspace_id: UUID, tx: Connection | None = None) -> Limits:
        """The limits as they stand now."""
        row = await self._database.fetchrow(_SQL.get_limits, workspace_id, tx=tx)
        limits = NO_LIMITS if row is None else _limits(row)
        if self._plans is None or not self._plans.any:
            return limits
        most = (await self._plans.of(workspace_id, tx)).sends_per_day
        return limits if most is None else replace(limits, plan_per_day=most)

    async def write(
        self, workspace_id: UUID, limits: Limits, tx: Connection | None = None
    ) -> Limits:
        """Set the limits; those from before. Raises InvalidInput naming the field."""
        limits.check()
        before = await self.read(workspace_id, tx)
        quiet = limits.quiet
        await self._database.execute(
            _SQL.set_limits,
            workspace_id,
            limits.time_zone,
            quiet and quiet.start,
            quiet and quiet.end,
            limits.emails_per_s,
            limits.emails_per_day,
            limits.campaigns_per_contact,
            limits.campaigns_days,
            tx=tx,
        )
        self._known.pop(workspace_id, None)
        return before

    async def use(self, workspace_id: UUID, limits: Limits) -> Use:
        """What was used of the day."""
        row = await self._database.fetchrow(_SQL.get_use, workspace_id, self._now())
        assert row is not None, "the query has always one row"
        today, resets_at = day_of(row["now"], limits.zone)
        return Use(row["used"] if row["day"] == today else 0, resets_at)

    async def plan_use(self, workspace_id: UUID) -> int:
        """What was used of the plan's recipients on this UTC day."""
        row = await self._database.fetchrow(_SQL.get_use, workspace_id, self._now())
        assert row is not None, "the query has always one row"
        same = row["plan_day"] == row["now"].astimezone(UTC).date()
        return int(row["plan_used"]) if same else 0

    async def draw(self, wanted: Sequence[Wanted], tx: Connection) -> list[MailyardError | None]:
        """Count what is wanted, one after the other, as far as the limits allow it.

        For each: None when it was counted, which is undone if `tx` is; else why not: RateLimited
        with the wait, or InvalidInput for more than a whole day's quota.
        """
        workspaces = sorted({one.workspace_id for one in wanted})
        rows = await self._database.fetch(_SQL.hold_use, workspaces, self._now(), tx=tx)
        held = {row["workspace_id"]: _Held(row) for row in rows}
        answers = [held[one.workspace_id].take(one) for one in wanted]
        await self._database.execute(
            _SQL.set_use,
            workspaces,
            [held[workspace_id].day for workspace_id in workspaces],
            [held[workspace_id].used for workspace_id in workspaces],
            [held[workspace_id].tat for workspace_id in workspaces],
            [held[workspace_id].plan_day for workspace_id in workspaces],
            [held[workspace_id].plan_used for workspace_id in workspaces],
            tx=tx,
        )
        return answers

    def _now(self) -> datetime | None:
        return None if self._clock is None else self._clock.now()


class _Held:
    """A workspace's row while it is held."""

    __slots__ = ("_now", "day", "plan_day", "plan_used", "tat", "used")

    def __init__(self, row: asyncpg.Record) -> None:
        self._now: datetime = row["now"]
        self.day: date = row["day"]
        self.used: int = row["used"]
        self.tat: datetime = row["tat"]
        # By UTC, whatever zone the workspace says: a plan's day does not begin anew with a setting.
        self.plan_day: date = self._now.astimezone(UTC).date()
        self.plan_used: int = row["plan_used"] if row["plan_day"] == self.plan_day else 0

    def take(self, wanted: Wanted) -> MailyardError | None:
        limits, recipients = wanted.limits, wanted.recipients
        today, tomorrow = day_of(self._now, limits.zone)
        used = self.used if self.day == today else 0
        quota = limits.emails_per_day
        if quota is not None and used + recipients > quota:
            if recipients > quota:
                return InvalidInput(f"more recipients than the day's quota of {quota}", field="to")
            return RateLimited(
                f"the workspace's quota of {quota} emails a day is used up "
                f"({quota - used} left, {recipients} wanted)",
                retry_after_s=(tomorrow - self._now).total_seconds(),
            )
        most = limits.plan_per_day
        if most is not None and self.plan_used + recipients > most:
            return QuotaExceeded(
                f"the plan's {most} recipients of the day are used up ({most - self.plan_used} left"
                f", {recipients} wanted); the next day begins at 00:00 UTC",
                field="to",
            )
        if limits.emails_per_s is not None:
            # Counted from now: of seconds since 1970 a float keeps a quarter of a microsecond.
            ahead_s = (self.tat - self._now).total_seconds()
            burst = max(1.0, limits.emails_per_s)
            _, wait_s = gcra(ahead_s, 0.0, recipients, limits.emails_per_s, burst)
            if wait_s > _ROUNDING_S:
                return RateLimited(
                    f"the workspace sends {limits.emails_per_s:g} emails a second",
                    retry_after_s=wait_s,
                )
            moved_s = max(ahead_s, 0.0) + recipients / limits.emails_per_s
            self.tat = self._now + timedelta(seconds=moved_s)
        self.day, self.used = today, used + recipients
        if most is not None:
            self.plan_used += recipients
        return None


def clock_text(at: time) -> str:
    """`22:00`."""
    return f"{at:%H:%M}"


def clock_time(text: str, field: str) -> time:
    """`22:00` as a time. Raises InvalidInput naming `field`."""
    try:
        hours, minutes = text.split(":")
        if len(minutes) != 2:
            raise ValueError
        return time(int(hours), int(minutes))
    except ValueError:
        raise InvalidInput("a time like 22:00", field=field) from None


def _limits(row: asyncpg.Record) -> Limits:
    values = dict(row)
    start, end = values.pop("quiet_from"), values.pop("quiet_until")
    return Limits(quiet=QuietHours(start, end) if start is not None else None, **values)


def _check(field: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise InvalidInput(f"from {low:g} to {high:g}", field=field)
