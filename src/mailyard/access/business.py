"""The operator's figures: how many there are, what they use, what their plans bring in a month."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from mailyard.access.plan import MESSAGES, SENDS, Plans
from mailyard.core.clock import Clock, SystemClock
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("usage")

FIGURES_CACHE_S = 60.0
INBOXES_CACHE_S = 600.0  # counting ten million of them takes seconds
DAYS = 30


@dataclass(frozen=True, slots=True)
class BusinessDay:
    """One UTC day of all workspaces together."""

    day: date
    messages: int
    sends: int
    sign_ups: int


@dataclass(frozen=True, slots=True)
class Business:
    """`by_plan`: workspaces by the name of their plan, "" without one. Money in `currency`."""

    active_inboxes: int
    workspaces: int
    signed_up: int
    by_plan: Mapping[str, int]
    monthly_recurring_revenue: float
    currency: str
    days: Sequence[BusinessDay]

    @property
    def today(self) -> BusinessDay:
        return self.days[-1]


class BusinessFigures:
    """Gathers them when they are asked for, at most once in FIGURES_CACHE_S."""

    def __init__(self, *, database: Database, plans: Plans, clock: Clock | None = None) -> None:
        self._database = database
        self._plans = plans
        self._clock = clock or SystemClock()
        self._known: tuple[float, Business] | None = None
        self._inboxes: tuple[float, int] | None = None

    async def figures(self) -> Business:
        """The figures, at most FIGURES_CACHE_S old (active inboxes: INBOXES_CACHE_S)."""
        now = self._clock.monotonic()
        if self._known is None or now >= self._known[0]:
            self._known = (now + FIGURES_CACHE_S, await self._gather())
        return self._known[1]

    async def _gather(self) -> Business:
        now = self._clock.now().astimezone(UTC)
        first = now.date() - timedelta(days=DAYS - 1)
        since = datetime.combine(first, datetime.min.time(), UTC)
        by_plan: dict[str, int] = {}
        signed_up, revenue = 0, 0.0
        book = self._plans.book
        for row in await self._database.fetch(_SQL.workspaces_by_plan, since):
            name = row["plan"]
            counts = name if not name or name in book.plans else book.sign_up
            by_plan[counts] = by_plan.get(counts, 0) + row["workspaces"]
            signed_up += row["signed_up"]
            revenue += book.plan(name).price_per_month * row["workspaces"]
        rows = await self._database.fetch(_SQL.amounts_by_day, first)
        amounts = {(row["day"], row["kind"]): row["amount"] for row in rows}
        rows = await self._database.fetch(_SQL.sign_ups_by_day, since)
        sign_ups = {row["day"]: row["amount"] for row in rows}
        days = [first + timedelta(days=place) for place in range(DAYS)]
        return Business(
            active_inboxes=await self._active_inboxes(now),
            workspaces=sum(by_plan.values()),
            signed_up=signed_up,
            by_plan=by_plan,
            monthly_recurring_revenue=round(revenue, 2),
            currency=book.currency,
            days=[
                BusinessDay(
                    day,
                    amounts.get((day, MESSAGES), 0),
                    amounts.get((day, SENDS), 0),
                    sign_ups.get(day, 0),
                )
                for day in days
            ],
        )

    async def _active_inboxes(self, now: datetime) -> int:
        at = self._clock.monotonic()
        if self._inboxes is None or at >= self._inboxes[0]:
            count: int = await self._database.fetchval(_SQL.active_inboxes, now)
            self._inboxes = (at + INBOXES_CACHE_S, count)
        return self._inboxes[1]


def exposition(figures: Business) -> bytes:
    """The figures in Prometheus' text format, for whoever may see them."""
    today = figures.today
    currency = figures.currency
    gauges: list[tuple[str, str, Sequence[tuple[str, float]]]] = [
        ("active_inboxes", "Inboxes that live.", [("", figures.active_inboxes)]),
        (
            "workspaces",
            "Workspaces by plan.",
            [(f'{{plan="{name}"}}', count) for name, count in sorted(figures.by_plan.items())],
        ),
        (
            "mails_today",
            "Mails of this UTC day.",
            [('{direction="received"}', today.messages), ('{direction="sent"}', today.sends)],
        ),
        ("sign_ups_today", "Sign-ups of this UTC day.", [("", today.sign_ups)]),
        ("sign_ups", "Workspaces that signed up.", [("", figures.signed_up)]),
        (
            "monthly_recurring_revenue",
            "What the plans of all workspaces cost a month.",
            [(f'{{currency="{currency}"}}', figures.monthly_recurring_revenue)],
        ),
    ]
    lines = []
    for name, about, samples in gauges:
        whole = f"mailyard_business_{name}"
        lines += [f"# HELP {whole} {about}", f"# TYPE {whole} gauge"]
        lines += [f"{whole}{labels} {value:g}" for labels, value in samples]
    return ("\n".join(lines) + "\n").encode()
