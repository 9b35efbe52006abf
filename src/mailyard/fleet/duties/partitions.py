"""Partitions ahead of time, and away when all in them has expired."""

from mailyard.core.clock import Clock
from mailyard.fleet.duty import Duty
from mailyard.storage.database import Database
from mailyard.storage.partitions import Keep, drop_expired, ensure_partitions

MAKE_EVERY_S = 600.0
DROP_EVERY_S = 300.0


def make_ahead(database: Database, clock: Clock) -> Duty:
    """Today's partitions and the next ones; days before they are needed."""

    async def do() -> bool:
        await ensure_partitions(database, clock.now())
        return False

    return Duty("make-partitions", MAKE_EVERY_S, do)


def drop_old(database: Database, clock: Clock, keep: Keep) -> Duty:
    """Expired mail, and history older than `keep`, leave as whole partitions."""

    async def do() -> bool:
        await drop_expired(database, clock.now(), keep)
        return False

    return Duty("drop-partitions", DROP_EVERY_S, do)
