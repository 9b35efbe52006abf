"""Rows that have run out and lie in no partition that leaves by itself."""

from mailyard.fleet.duty import Duty
from mailyard.storage.database import Database
from mailyard.storage.queries import load

QUERIES = load("expiry")
EVERY_S = 60.0
ROWS = 5_000  # a statement: short transactions, short locks


def expire(database: Database) -> Duty:
    """Idempotency keys, sessions, sign-in links, inboxes' addresses and full rate buckets."""

    async def do() -> bool:
        more = False
        for query in QUERIES:
            tag = await database.execute(query, ROWS)
            more = more or int(tag.rsplit(" ", 1)[-1]) >= ROWS
        return more

    return Duty("expire-rows", EVERY_S, do)
