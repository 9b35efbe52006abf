"""Buckets that all processes share, one row each in `rate_bucket`."""

from collections.abc import Sequence

import asyncpg

from mailyard.core.clock import Clock
from mailyard.ratelimit.ratelimit import Drawn, Taking, check
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("ratelimit")


class PostgresRateLimit:
    """One statement a taking, so take for a whole batch. Time is the database's, or `clock`'s."""

    def __init__(self, *, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock

    async def take(self, key: str, amount: float, per_s: float, burst: float) -> float:
        return (await self.draw(key, amount, per_s, burst)).wait_s

    async def draw(self, key: str, amount: float, per_s: float, burst: float) -> Drawn:
        if amount < 0 or per_s <= 0 or burst <= 0:
            raise ValueError("amount must be at least 0; per_s and burst must be above 0")
        now = None if self._clock is None else self._clock.now()
        step_s = amount / per_s
        allowed_s = max(burst, amount) / per_s
        ahead_s = await self._database.fetchval(_SQL.take, key, step_s, allowed_s, now)
        if ahead_s is not None:
            return Drawn(0.0, float(ahead_s))
        wait_s = await self._database.fetchval(_SQL.wait, key, step_s, allowed_s, now)
        return Drawn(max(float(wait_s or 0.0), 0.001))

    async def draw_many(self, takings: Sequence[Taking]) -> list[Drawn]:
        check(takings)
        now = None if self._clock is None else self._clock.now()
        keys = [one.key for one in takings]
        await self._database.execute(_SQL.fill_many, keys, now)
        rows = await self._database.fetch(
            _SQL.take_many,
            keys,
            [one.amount / one.per_s for one in takings],
            [max(one.burst, one.amount) / one.per_s for one in takings],
            now,
        )
        found = {row["key"]: row for row in rows}
        return [_drawn(found.get(key)) for key in keys]

    async def forget(self, keys: Sequence[str]) -> None:
        await self._database.execute(_SQL.forget, list(keys))

    async def sweep(self) -> None:
        """Forget buckets that are full again. A duty of the scheduler."""
        await self._database.execute(_SQL.sweep)


def _drawn(row: asyncpg.Record | None) -> Drawn:
    if row is None:  # swept between the two statements: it is full at the next try
        return Drawn(0.001)
    if row["taken"]:
        return Drawn(0.0, row["ahead_s"])
    return Drawn(max(row["wait_s"], 0.001))
