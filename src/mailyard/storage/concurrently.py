"""Migrations that build indexes while everybody reads and writes.

A file whose first line is `-- concurrently` is applied statement by statement, outside any
transaction; each of its statements must do no harm a second time (`IF NOT EXISTS`), because a
crash in the middle has the file applied anew. PostgreSQL builds no index concurrently over a table
in partitions; here it is one on the parent alone, one on each partition, built concurrently and
attached.
"""

import asyncio
import re

import asyncpg

from mailyard.core.errors import ConfigurationError, Unavailable
from mailyard.storage.online import statements
from mailyard.storage.queries import load

QUERIES = load("migrate")
LOCK_WAIT = "200ms"
LOCK_ATTEMPTS = 30
_NAME_BYTES = 63  # PostgreSQL cuts longer identifiers
_INDEX = re.compile(
    r"CREATE\s+(UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+(?:IF\s+NOT\s+EXISTS\s+)?([a-z0-9_]+)\s+"
    r"ON\s+([a-z0-9_]+)\s+(.*)",
    re.IGNORECASE | re.DOTALL,
)


async def apply_concurrently(
    connection: "asyncpg.Connection[asyncpg.Record]", name: str, text: str
) -> None:
    """Run every statement of the migration `name`. Raises ConfigurationError for one that cannot
    be run twice."""
    for statement in statements(text):
        match = _INDEX.fullmatch(statement.text)
        if match is not None:
            unique, index, table, rest = match.groups()
            await _build(connection, unique or "", index.lower(), table.lower(), rest)
        elif "IF NOT EXISTS" in statement.text.upper() or "IF EXISTS" in statement.text.upper():
            await connection.execute(statement.text)
        else:
            raise ConfigurationError(
                f"migration {name} is applied without a transaction, and a statement of it could "
                f"not be run a second time: {statement.text[:80]}"
            )


async def _build(
    connection: "asyncpg.Connection[asyncpg.Record]",
    unique: str,
    index: str,
    table: str,
    rest: str,
) -> None:
    if await connection.fetchval(QUERIES.index_is_valid, index):
        return
    if await connection.fetchval(QUERIES.kind_of_table, table) != "p":
        # One that was cut short stands there, is kept up to date, and is of no use to anybody.
        await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {index}")
        await connection.execute(f"CREATE {unique}INDEX CONCURRENTLY {index} ON {table} {rest}")
        return
    await _briefly(connection, f"CREATE {unique}INDEX IF NOT EXISTS {index} ON ONLY {table} {rest}")
    for row in await connection.fetch(QUERIES.partitions_of, table):
        part = _name_of_part(index, row["name"])
        await _build(connection, unique, part, row["name"], rest)
        await _briefly(connection, f"ALTER INDEX {index} ATTACH PARTITION {part}")


async def _briefly(connection: "asyncpg.Connection[asyncpg.Record]", statement: str) -> None:
    """Run what takes a moment once it has its lock, and waits for it no longer than a moment:
    whoever writes would wait behind it. Raises Unavailable after LOCK_ATTEMPTS."""
    for attempt in range(1, LOCK_ATTEMPTS + 1):
        try:
            async with connection.transaction():
                await connection.execute(QUERIES.limit_lock_wait, LOCK_WAIT)
                await connection.execute(statement)
            return
        except asyncpg.LockNotAvailableError:
            await asyncio.sleep(0.1 * attempt)
    raise Unavailable(f"no lock for {statement[:80]}; run `mailyard migrate` again")


def _name_of_part(index: str, partition: str) -> str:
    """A name of the partition's index, short enough, that says both."""
    return f"{partition}_{index}"[-_NAME_BYTES:].lstrip("_0123456789")
