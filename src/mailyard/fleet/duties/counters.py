"""Counters: deltas that everybody appends become sums that pages read."""

from datetime import timedelta

from mailyard.core.clock import Clock
from mailyard.fleet.duty import Duty
from mailyard.storage.database import Database
from mailyard.storage.queries import load

QUERIES = load("fold")
FOLD_EVERY_S = 1.0
FOLD_ROWS = 5_000
KEEP_MINUTES_DAYS = 400
FORGET_EVERY_S = 3600.0
FORGET_ROWS = 10_000
FORGET_PLACES_EVERY_S = 60.0


def fold(database: Database) -> Duty:
    """A few thousand deltas a statement, until few are left."""

    async def do() -> bool:
        return bool(await database.fetchval(QUERIES.fold_counters, FOLD_ROWS) >= FOLD_ROWS)

    return Duty("fold-counters", FOLD_EVERY_S, do)


def forget(database: Database, clock: Clock) -> Duty:
    """Minutes that no chart shows any more."""

    async def do() -> bool:
        before = clock.now() - timedelta(days=KEEP_MINUTES_DAYS)
        tag = await database.execute(QUERIES.drop_old_minutes, before, FORGET_ROWS)
        return int(tag.rsplit(" ", 1)[-1]) >= FORGET_ROWS

    return Duty("forget-minutes", FORGET_EVERY_S, do)


def forget_places(database: Database) -> Duty:
    """Where callers had written long ago: every replica has it by now."""

    async def do() -> bool:
        from mailyard.storage.written import forget_places as forget_old

        await forget_old(database)
        return False

    return Duty("forget-places", FORGET_PLACES_EVERY_S, do)
