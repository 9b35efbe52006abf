"""Staging: what waits beside the lines of the PostgreSQL engine is moved in when it may go.

Delayed and given-back jobs go when they are due, jobs of a limited key when rate and concurrency
allow. Every process that leases stages for all queues, every few milliseconds; row locks that are
skipped keep the processes out of each other's way.

Whoever makes a line says so on the bus, before its first job can be seen; those who lease then read
the lines before they ask them. A look every second is the net below that.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from time import monotonic

import asyncpg

from mailyard.queue.engine import Waiting
from mailyard.queue.engines.lines import Lines
from mailyard.storage.database import Database
from mailyard.storage.queries import load

LINES_TOPIC = "queue-lines"  # announced on the bus when lines have been made
_PROMOTED = 2_000  # jobs that one statement moves
_LATE_S = 60.0  # most looks begin so far back; a transaction open for longer is found by a full one
_FULL_EVERY_S = 5.0
_LINES_EVERY_S = 1.0
_FOLD_EVERY_S = 2.0
_SWEEP_EVERY_S = 600.0
_LATE_LINES = 1_000  # ids drawn before the last one known, whose line may have come later
_IDLE_S = 1.0  # the longest between two looks while somebody waits
_BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)

_SQL = load("queue")


class Stage:
    """One a process. `run` before each lease; it mostly returns at once."""

    def __init__(
        self,
        database: Database,
        lines: Lines,
        new_lines: Waiting,
        announce: Callable[[Sequence[str]], None],
        now: Callable[[], datetime | None],
        every_s: float,
    ) -> None:
        self.suspects: set[int] = set()
        self._database = database
        self._lines = lines
        self._new_lines = new_lines
        self._announce = announce
        self._now = now
        self._every_s = every_s
        self._running = asyncio.Lock()
        self._reading_lines = asyncio.Lock()
        self._next_s = 0.0
        self._full_due_s = 0.0
        self._lines_due_s = 0.0
        self._promote_due_s = 0.0
        self._fold_due_s = monotonic() + _FOLD_EVERY_S
        self._sweep_due_s = monotonic() + _SWEEP_EVERY_S
        self._hastened = True
        self._parked = False
        self._heads: dict[int, int] = {}

    def hasten(self) -> None:
        """Something may have become due: look at the next lease, whatever the clock says."""
        self._hastened = True

    def due_in_s(self) -> float:
        """Seconds until the next look may find something that nobody announces."""
        if self._hastened:
            return max(0.001, self._every_s / 10)
        if self._parked:
            return max(0.001, self._every_s)
        return min(_IDLE_S, max(0.001, self._promote_due_s - monotonic()))

    async def run(self) -> None:
        """Stage what may go, unless that was done just now."""
        await self.follow_lines()
        now_s = monotonic()
        if self._every_s and not self._hastened and now_s < self._next_s:
            return
        if self._running.locked() and self._every_s:
            return
        async with self._running:
            self._hastened = False
            self._next_s = now_s + self._every_s
            await self._look()
            await self._tidy(now_s)

    async def follow_lines(self) -> None:
        """Learn the lines that other processes have made, when one said so or it is time to look.

        Who comes while they are being read waits for them: it was woken for one of them, maybe.
        """
        async with self._reading_lines:
            if self._new_lines.heard():
                self._lines_due_s = 0.0
            if monotonic() >= self._lines_due_s or not self._every_s:
                behind = max(0, self._lines.last_id - _LATE_LINES)
                self.learn(await self._database.fetch(_SQL.lines, behind))
                self._lines_due_s = monotonic() + _LINES_EVERY_S

    def learn(self, rows: Sequence[asyncpg.Record]) -> None:
        """Take up lines as `lines` reads them."""
        for row in rows:
            self._lines.add(row["id"], row["queue"], row["priority"], row["workspace_id"])

    async def ages(self, queues: Sequence[str]) -> dict[str, float]:
        """Seconds that the first job of each queue has been due; queues with none are absent."""
        lines = [line for queue in queues for line in self._lines.of_queue(queue)]
        if not lines:
            return {}
        ids = [line.id for line in lines] + [-line.id for line in lines]
        behind = [self._heads.get(line_id, 0) for line_id in ids]
        rows = await self._database.fetch(_SQL.heads, ids, behind, self._now())
        ages: dict[str, float] = {}
        for row in rows:
            # One less than the place found: that job may still wait when we ask again.
            self._heads[row["id"]] = row["place"] - 1
            queue = self._lines.of_id(row["id"]).queue
            age_s = (row["now"] - row["since"]).total_seconds()
            ages[queue] = max(ages.get(queue, 0.0), age_s)
        return ages

    async def _look(self) -> None:
        since = self._since()
        seen = await self._see(since)
        if seen["next_at"] is not None and seen["next_at"] <= seen["now"]:
            await self._promote(since)
            seen = await self._see(since)
        self._lines.settle(seen["xmin"], seen["next_xid"] or 0, seen["last_place"])
        self.suspects = set(seen["suspects"])
        self._parked = seen["parked"]
        next_at = seen["next_at"]
        wait_s = _IDLE_S if next_at is None else (next_at - seen["now"]).total_seconds()
        self._promote_due_s = monotonic() + max(0.0, wait_s)
        if self._parked:
            await self._admit()

    async def _see(self, since: datetime) -> asyncpg.Record:
        marks = self._lines.wants_mark
        seen = await self._database.fetchrow(_SQL.upkeep, since, self._now(), marks)
        assert seen is not None
        return seen

    async def _promote(self, since: datetime) -> None:
        moved = _PROMOTED
        while moved >= _PROMOTED:
            rows = await self._database.fetch(_SQL.promote, self._now(), since, _PROMOTED)
            moved = sum(row["jobs"] for row in rows)
            if rows:
                self._announce([row["queue"] for row in rows])

    async def _tidy(self, now_s: float) -> None:
        """Fold the counts and forget idle keys, now and then; who comes late finds none."""
        if now_s >= self._fold_due_s:
            self._fold_due_s = now_s + _FOLD_EVERY_S
            await self._database.execute(_SQL.fold)
        if now_s >= self._sweep_due_s:
            self._sweep_due_s = now_s + _SWEEP_EVERY_S
            await self._database.execute(_SQL.sweep_keys)
            await self._database.execute(_SQL.repair_keys)

    def _since(self) -> datetime:
        now_s = monotonic()
        if now_s >= self._full_due_s or not self._every_s:
            self._full_due_s = now_s + _FULL_EVERY_S
            return _BEGINNING
        return (self._now() or datetime.now(UTC)) - timedelta(seconds=_LATE_S)

    async def _admit(self) -> None:
        async with self._database.transaction() as tx:
            # Two statements: the second must see what the last holder of these locks has done.
            keys = await self._database.fetch(_SQL.lock_keys, tx=tx)
            if not keys:
                return
            rows = await self._database.fetch(
                _SQL.admit,
                [key["queue"] for key in keys],
                [key["limit_key"] for key in keys],
                self._now(),
                tx=tx,
            )
        if rows:
            self._announce([row["queue"] for row in rows])
