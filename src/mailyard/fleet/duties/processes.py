"""Processes that died without a word are struck out of the table."""

from mailyard.fleet.duty import Duty
from mailyard.fleet.registry import REAP_AFTER_S
from mailyard.storage.database import Database
from mailyard.storage.queries import load

QUERIES = load("process")
EVERY_S = 10.0


def reap(database: Database) -> Duty:
    """A process that lives comes back with its next beat."""

    async def do() -> bool:
        await database.fetch(QUERIES.reap, REAP_AFTER_S)
        return False

    return Duty("reap-processes", EVERY_S, do)
