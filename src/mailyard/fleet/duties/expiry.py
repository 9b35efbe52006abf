"""Rows that have run out and lie in no partition that leaves by itself."""

from collections.abc import Awaitable, Callable

from mailyard.fleet.duty import Duty
from mailyard.storage.database import Database
from mailyard.storage.queries import load

QUERIES = load("expiry")
EVERY_S = 60.0
ROWS = 5_000  # a statement: short transactions, short locks


def free_addresses(database: Database) -> Duty:
    """Addresses of expired inboxes may be taken again."""

    async def do() -> bool:
        tag = await database.execute(QUERIES.expired_addresses, ROWS)
        return int(tag.rsplit(" ", 1)[-1]) >= ROWS

    return Duty("free-addresses", EVERY_S, do)


def sweep(name: str, room: Callable[[], Awaitable[object]]) -> Duty:
    """What a room itself knows to be over: idempotency keys, sessions, full rate buckets."""

    async def do() -> bool:
        await room()
        return False

    return Duty(f"sweep-{name}", EVERY_S, do)
