"""What workspaces use, and whether they may use more.

Used is counted as all counters are: who uses appends deltas in his own transaction, and the
scheduler folds them by minute and by UTC day, so that no row is written by two who use at once. A
limit looks at what is folded and at what is not, at most USED_CACHE_S ago. So a day's messages end
within seconds of the limit and not on it; inboxes and sends are counted exactly, under a lock that
only workspaces with such a limit take.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from mailyard.access.plan import INBOXES, MESSAGES, SENDS, Plan, Plans
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import QuotaExceeded
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("usage")

USED_CACHE_S = 3.0
USED_CACHE_ENTRIES = 50_000
DAYS_SHOWN = 30
INBOXES_COUNTED = 100_000  # of a workspace without a limit: more are not worth the time


@dataclass(frozen=True, slots=True)
class Meter:
    """One limit of a workspace and how much of it is used. `resets_at`: None for what lives."""

    kind: str
    used: int
    most: int | None
    level: str
    resets_at: datetime | None


@dataclass(frozen=True, slots=True)
class DayUse:
    """What was used on one UTC day."""

    day: date
    messages: int
    sends: int


class Usage:
    """Counts, and tells what was counted."""

    def __init__(self, *, database: Database, plans: Plans, clock: Clock | None = None) -> None:
        self._database = database
        self._plans = plans
        self._clock = clock or SystemClock()

    def today(self) -> date:
        return self._clock.now().astimezone(UTC).date()

    async def used(self, workspace_id: UUID) -> dict[str, int]:
        """What was used today, by kind."""
        rows = await self._database.fetch(_SQL.used, workspace_id, self.today())
        return {row["kind"]: row["amount"] for row in rows}

    async def inboxes(
        self, workspace_id: UUID, most: int | None, tx: Connection | None = None
    ) -> int:
        """How many inboxes live, counted to one beyond `most`, or to INBOXES_COUNTED."""
        furthest = INBOXES_COUNTED if most is None else most + 1
        count: int = await self._database.fetchval(
            _SQL.count_inboxes, workspace_id, self._clock.now(), furthest, tx=tx
        )
        return count

    async def meters(self, workspace_id: UUID, sends: int | None = None) -> list[Meter]:
        """Every limit and what is used of it. `sends`: as the quota of sending counted them."""
        plan = await self._plans.of(workspace_id)
        used = await self.used(workspace_id)
        midnight = datetime.combine(self.today() + timedelta(days=1), datetime.min.time(), UTC)
        inboxes = await self.inboxes(workspace_id, plan.inboxes)
        sent = used.get(SENDS, 0) if sends is None or plan.sends_per_day is None else sends
        amounts: Sequence[tuple[str, int, int | None, datetime | None]] = (
            (INBOXES, inboxes, plan.inboxes, None),
            (MESSAGES, used.get(MESSAGES, 0), plan.messages_per_day, midnight),
            (SENDS, sent, plan.sends_per_day, midnight),
        )
        return [
            Meter(kind, amount, most, level_of(amount, most, self._plans.book.soft), resets_at)
            for kind, amount, most, resets_at in amounts
        ]

    async def days(self, workspace_id: UUID, count: int = DAYS_SHOWN) -> list[DayUse]:
        """What was used on each of the last days, the oldest first, today the last."""
        today = self.today()
        days = [today - timedelta(days=back) for back in range(count - 1, -1, -1)]
        rows = await self._database.fetch(_SQL.days, workspace_id, days)
        amounts = {(row["day"], row["kind"]): row["amount"] for row in rows}
        return [
            DayUse(day, amounts.get((day, MESSAGES), 0), amounts.get((day, SENDS), 0))
            for day in days
        ]


class Allowance:
    """Whether a workspace may use more of its plan. Raises QuotaExceeded (402) where not."""

    def __init__(
        self, *, database: Database, plans: Plans, usage: Usage, clock: Clock | None = None
    ) -> None:
        self._database = database
        self._plans = plans
        self._usage = usage
        self._clock = clock or SystemClock()
        self._used: dict[UUID, tuple[float, dict[str, int]]] = {}

    @property
    def any(self) -> bool:
        """Whether there are plans at all: without them nobody need call."""
        return self._plans.any

    async def check(
        self, workspace_id: UUID, kind: str, amount: int = 1, tx: Connection | None = None
    ) -> None:
        """Whether `amount` more of a `kind` may be used.

        INBOXES: counted exactly, in the caller's `tx`. MESSAGES: of today, by what is known. Sends
        are counted by their own quota (sending.allowance).
        """
        if not self.any:
            return
        plan = await self._plans.of(workspace_id, tx)
        if kind == INBOXES and plan.inboxes is not None:
            await self._database.fetchval(_SQL.hold_inboxes, workspace_id, tx=tx)
            living = await self._usage.inboxes(workspace_id, plan.inboxes, tx)
            if living + amount > plan.inboxes:
                raise QuotaExceeded(
                    f"the plan has {plan.inboxes} inboxes at once, {living} of them live; delete "
                    "some, or take a larger plan",
                    field="inboxes",
                )
        elif kind == MESSAGES and plan.messages_per_day is not None:
            used = await self._today(workspace_id)
            if used[MESSAGES] + amount > plan.messages_per_day:
                raise messages_used_up(plan)
            used[MESSAGES] += amount  # the counters tell of it when it was ingested

    async def live_connections(self, workspace_id: UUID) -> int | None:
        """How many live connections a workspace may have in one process; None: any number."""
        if not self.any:
            return None
        return (await self._plans.of(workspace_id)).live_connections

    async def longest_life(self, workspace_id: UUID) -> timedelta | None:
        """How long an inbox may live at most; None: for ever."""
        if not self.any:
            return None
        days = (await self._plans.of(workspace_id)).retention_days
        return None if days is None else timedelta(days=days)

    async def life(self, workspace_id: UUID, ttl_s: float | None) -> float | None:
        """The life of a new inbox: what was asked for, or the plan's longest when nothing was.

        Raises QuotaExceeded when more was asked for.
        """
        longest = await self.longest_life(workspace_id)
        if longest is None:
            return ttl_s
        if ttl_s is None:
            return longest.total_seconds()
        if ttl_s > longest.total_seconds():
            raise lives_too_long(longest, longest.total_seconds())
        return ttl_s

    async def extended_life(
        self, workspace_id: UUID, created_at: datetime, ttl_s: float | None
    ) -> None:
        """Whether an inbox may live for `ttl_s` from now: its whole life counts, so that nobody
        keeps one for ever by extending it. Raises QuotaExceeded."""
        longest = await self.longest_life(workspace_id)
        if longest is None:
            return
        left_s = (created_at + longest - self._clock.now()).total_seconds()
        if ttl_s is None or ttl_s > left_s:
            raise lives_too_long(longest, max(0.0, left_s))

    async def used_up(self) -> frozenset[UUID]:
        """Workspaces that may receive nothing more today: who takes mail asks now and then."""
        book = self._plans.book
        limited = {
            name: plan.messages_per_day
            for name, plan in book.plans.items()
            if plan.messages_per_day is not None
        }
        rows = await self._database.fetch(
            _SQL.used_up,
            self._usage.today(),
            list(limited),
            list(limited.values()),
            list(book.plans),
            limited.get(book.sign_up),
        )
        return frozenset(row["workspace_id"] for row in rows)

    async def _today(self, workspace_id: UUID) -> dict[str, int]:
        now = self._clock.monotonic()
        known = self._used.get(workspace_id)
        if known is None or known[0] <= now:
            if len(self._used) >= USED_CACHE_ENTRIES:
                self._used.clear()
            used = {MESSAGES: 0, **await self._usage.used(workspace_id)}
            known = (now + USED_CACHE_S, used)
            self._used[workspace_id] = known
        return known[1]


def level_of(used: int, most: int | None, soft: float) -> str:
    """`free`, `soft` from the soft limit on, `hard` at the limit."""
    if most is None or used < most * soft:
        return "free"
    return "soft" if used < most else "hard"


def messages_used_up(plan: Plan) -> QuotaExceeded:
    return QuotaExceeded(
        f"the plan's {plan.messages_per_day} messages of the day were received; the next day begins"
        " at 00:00 UTC"
    )


def lives_too_long(longest: timedelta, left_s: float) -> QuotaExceeded:
    return QuotaExceeded(
        f"the plan keeps an inbox for {longest.days} days: ask for a ttl_s of up to {left_s:.0f}, "
        "or take a larger plan",
        field="ttl_s",
    )
