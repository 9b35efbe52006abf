"""Jobs by the clock: schedules are defined in code, and when each is due next is kept in a table.

Every process may run a scheduler. Who claims a due schedule moves it on and enqueues its job in one
transaction, so a tick fires once across all of them. Ticks that were missed while nobody ran fire
once, not once each.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mailyard.core.clock import Clock
from mailyard.core.errors import ConfigurationError
from mailyard.queue.engine import Engine
from mailyard.queue.job import NewJob
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("queue")
_HORIZON = timedelta(days=366 * 8 + 1)  # 29 February may be eight years away
_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_FIELDS = ("minute", "hour", "day of month", "month", "day of week")


@dataclass(frozen=True, slots=True)
class Every:
    """A tick each `seconds`, counted from 1970: all schedulers agree on the instants."""

    seconds: int

    def after(self, moment: datetime) -> datetime:
        """The first tick after `moment`."""
        ticks = int(moment.timestamp()) // self.seconds + 1
        return datetime.fromtimestamp(ticks * self.seconds, UTC)


class Cron:
    """Five fields as in crontab(5), in UTC: `*`, lists, ranges and steps; 0 and 7 are Sunday.

    As there, when day of month and day of week are both restricted, either fits.
    """

    def __init__(self, text: str) -> None:
        fields = text.split()
        if len(fields) != 5:
            raise ConfigurationError(f"expected five fields, as in '0 3 * * 1', got {text!r}")
        self.text = text
        sets = [_values(i, field) for i, field in enumerate(fields)]
        self._minutes, self._hours, self._days, self._months, weekdays = sets
        self._weekdays = {day % 7 for day in weekdays}
        self._any_day = fields[2].startswith("*")
        self._any_weekday = fields[4].startswith("*")

    def after(self, moment: datetime) -> datetime:
        """The first tick after `moment`. Raises ConfigurationError when there never is one."""
        tick = moment.astimezone(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
        end = tick + _HORIZON
        while tick < end:
            if tick.month not in self._months or not self._day_fits(tick):
                tick = tick.replace(hour=0, minute=0) + timedelta(days=1)
            elif tick.hour not in self._hours:
                tick = tick.replace(minute=0) + timedelta(hours=1)
            elif tick.minute not in self._minutes:
                tick += timedelta(minutes=1)
            else:
                return tick
        raise ConfigurationError(f"{self.text!r} never comes")

    def _day_fits(self, tick: datetime) -> bool:
        day = tick.day in self._days
        weekday = tick.isoweekday() % 7 in self._weekdays
        if self._any_day or self._any_weekday:
            return day and weekday
        return day or weekday


def _values(index: int, field: str) -> set[int]:
    lowest, highest = _RANGES[index]
    values: set[int] = set()
    for piece in field.split(","):
        span, _, step_text = piece.partition("/")
        first_text, dash, last_text = span.partition("-")
        try:
            step = int(step_text) if step_text else 1
            if span == "*":
                first, last = lowest, highest
            else:
                first = int(first_text)
                last = int(last_text) if dash else (highest if step_text else first)
        except ValueError:
            raise ConfigurationError(f"{_FIELDS[index]}: cannot read {piece!r}") from None
        if not (lowest <= first <= last <= highest and step >= 1):
            raise ConfigurationError(f"{_FIELDS[index]}: {piece!r} is not in {lowest}-{highest}")
        values.update(range(first, last + 1, step))
    return values


@dataclass(frozen=True, slots=True)
class Schedule:
    """`make` gives the job of a tick; it is enqueued at most once a tick."""

    name: str
    ticks: Every | Cron
    make: Callable[[datetime], NewJob]


class Scheduler:
    """Fires what is due. `fire` is a duty: call it every second or so, in any process.

    `hold`: raises where somebody else is to fire, and keeps it so until its transaction ends.
    """

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        clock: Clock,
        schedules: Sequence[Schedule],
        hold: Callable[[Connection], Awaitable[None]] | None = None,
    ) -> None:
        self._database = database
        self._hold = hold
        self._engine = engine
        self._clock = clock
        self._schedules = {schedule.name: schedule for schedule in schedules}
        self._known = False

    async def fire(self) -> int:
        """Enqueue the jobs of all schedules that are due; how many."""
        now = self._clock.now()
        if not self._known:
            await self._database.execute(
                _SQL.add_schedules,
                list(self._schedules),
                [schedule.ticks.after(now) for schedule in self._schedules.values()],
            )
            self._known = True
        async with self._database.transaction() as tx:
            if self._hold is not None:
                await self._hold(tx)
            rows = await self._database.fetch(_SQL.due_schedules, list(self._schedules), now, tx=tx)
            if not rows:
                return 0
            due = [(self._schedules[row["name"]], row["next_at"]) for row in rows]
            await self._database.execute(
                _SQL.move_schedules,
                [schedule.name for schedule, _ in due],
                [schedule.ticks.after(now) for schedule, _ in due],
                tx=tx,
            )
            await self._engine.enqueue([schedule.make(tick) for schedule, tick in due], tx)
        return len(due)
