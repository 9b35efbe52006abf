"""Partitions ahead of time, and away when all in them has expired."""

from mailyard.core.clock import Clock
from mailyard.fleet.duty import Duty
from mailyard.storage.database import Database
from mailyard.storage.partitions import Keep, LateReader, drop_expired, ensure_partitions

MAKE_EVERY_S = 600.0
DROP_EVERY_S = 300.0


def make_ahead(database: Database, clock: Clock) -> Duty:
    """Today's partitions and the next ones; days before they are needed."""

    async def do() -> bool:
        await ensure_partitions(database, clock.now())
        return False

    return Duty("make-partitions", MAKE_EVERY_S, do)


def drop_old(database: Database, clock: Clock, keep: Keep, *readers: LateReader) -> Duty:
    """Expired mail, history older than `keep`, and events that all `readers` have had, leave as
    whole partitions."""

    async def do() -> bool:
        await drop_expired(database, clock.now(), keep, readers)
        return False

    return Duty("drop-partitions", DROP_EVERY_S, do)
