"""Numbered SQL migrations (`storage/migrations/NNNN_name.sql`), applied forward only.

Any number of instances may start together: one holds an advisory lock and works, the others wait
and find nothing left to do. The checksum of each applied file is kept, so that a file that was
edited after it had been applied stops the start.

Others serve meanwhile. So no migration waits long for a lock, and what would stand them still is
refused before it is released (`storage/online.py`).

While an installation is upgraded, and when it is rolled back, a build meets a schema that is newer
than itself. It goes on with it, unless a migration that it does not know has taken something away
from it: that one says so in its text (`-- breaks builds below 0050`, `storage/compatible.py`).
"""

import asyncio
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import asyncpg

from mailyard.core.errors import ConfigurationError, Unavailable
from mailyard.storage.database import AWAY
from mailyard.storage.queries import load

QUERIES = load("migrate")
# Migrations up to this one were made before there was a rule that they stand nobody still; they are
# frozen, and a fresh installation applies them to empty tables.
BEFORE_THE_RULE = 39
CONCURRENTLY = "-- concurrently"  # how the text of one begins that no transaction may hold
LOCK_TIMEOUT_S = 2.0
LOCK_ATTEMPTS = 10
_BREAKS = re.compile(r"^-- breaks builds below (\d{4})$", re.M)
_FILE_NAME = re.compile(r"^(\d{4})_([a-z0-9_]+)\.sql$")


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its number, its name without number and suffix, and its text."""

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> bytes:
        return hashlib.sha256(self.text.encode()).digest()

    @property
    def breaks_below(self) -> int | None:
        """Builds that know fewer migrations than this cannot work once it is applied."""
        match = _BREAKS.search(self.text)
        return None if match is None else int(match[1])


@dataclass(frozen=True, slots=True)
class Standing:
    """By names: what the schema lacks for this build, and what it has that this build does not
    know, all of which it can work with."""

    missing: tuple[str, ...]
    newer: tuple[str, ...]


def known_migrations() -> list[Migration]:
    """The migrations that this version brings, in order. Raises ConfigurationError on a gap."""
    found: list[Migration] = []
    for file in files("mailyard.storage").joinpath("migrations").iterdir():
        match = _FILE_NAME.match(file.name)
        if match is not None:
            found.append(Migration(int(match[1]), match[2], file.read_text("utf-8")))
    found.sort(key=lambda migration: migration.number)
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise ConfigurationError("storage/migrations must be numbered 0001, 0002, … without a gap")
    return found


async def migrate(direct_url: str, migrations: Sequence[Migration] | None = None) -> list[str]:
    """Bring the database at `direct_url` to this version; the names of what was applied.

    `direct_url` must not pass through a pooler, because the lock belongs to the session. Raises
    ConfigurationError when a newer version has taken from the database what this one needs, or
    when it is of another history, and Unavailable when PostgreSQL does not answer.
    """
    wanted = known_migrations() if migrations is None else list(migrations)
    connection = await _connect(direct_url)
    try:
        if await connection.fetchval(QUERIES.table_exists) and not await _missing(
            connection, wanted
        ):
            return []
        await connection.execute(QUERIES.lock)
        try:
            await connection.execute(QUERIES.create_table)
            missing = await _missing(connection, wanted)
            for migration in missing:
                await _apply(connection, migration)
            return [f"{migration.number:04d}_{migration.name}" for migration in missing]
        finally:
            if not connection.is_closed():
                await connection.execute(QUERIES.unlock)
    finally:
        await connection.close()


async def pending(direct_url: str, migrations: Sequence[Migration] | None = None) -> list[str]:
    """Names of the migrations that `migrate` would apply. Changes nothing; raises as it does."""
    return list((await standing(direct_url, migrations)).missing)


async def standing(direct_url: str, migrations: Sequence[Migration] | None = None) -> Standing:
    """How the database's schema stands to this build. Changes nothing; raises as `migrate` does."""
    wanted = known_migrations() if migrations is None else list(migrations)
    connection = await _connect(direct_url)
    try:
        newer: list[str] = []
        if await connection.fetchval(QUERIES.table_exists):
            rows = await connection.fetch(QUERIES.applied)
            newer = [_name_of(row) for row in rows if row["number"] > len(wanted)]
            wanted = await _missing(connection, wanted)
    finally:
        await connection.close()
    names = [f"{migration.number:04d}_{migration.name}" for migration in wanted]
    return Standing(tuple(names), tuple(newer))


def _name_of(row: asyncpg.Record) -> str:
    return f"{row['number']:04d}_{row['name']}"


async def _connect(direct_url: str) -> "asyncpg.Connection[asyncpg.Record]":
    try:
        return await asyncpg.connect(
            direct_url, server_settings={"application_name": "mailyard migrate"}
        )
    except AWAY as error:
        raise Unavailable(f"PostgreSQL does not answer: {error}") from error


async def _missing(
    connection: "asyncpg.Connection[asyncpg.Record]", wanted: Sequence[Migration]
) -> list[Migration]:
    """What of `wanted` the database lacks. Raises ConfigurationError when histories differ."""
    applied = {row["number"]: row for row in await connection.fetch(QUERIES.applied)}
    _check_newer(list(applied.values()), len(wanted))
    for migration in wanted:
        row = applied.get(migration.number)
        if row is not None and row["checksum"] != migration.checksum:
            raise ConfigurationError(
                f"migration {migration.number:04d}_{migration.name} is not the one that was "
                f"applied to this database ({row['name']}); the database belongs to another "
                "build of Mailyard: use that build, or a fresh database"
            )
    return [migration for migration in wanted if migration.number not in applied]


def _check_newer(applied: Sequence[asyncpg.Record], known: int) -> None:
    """Raise ConfigurationError when a migration above the `known` ones has broken this build."""
    newer = [row for row in applied if row["number"] > known]
    if not newer:
        return
    name = _name_of(newer[-1])
    for row in newer:
        if row["breaks_below"] is not None and row["breaks_below"] > known:
            raise ConfigurationError(
                f"this database was made by a newer Mailyard (its schema is {name}, this version "
                f"knows up to {known:04d}), and {_name_of(row)} has taken away "
                f"what versions below {row['breaks_below']:04d} need; install a later version"
            )


async def _apply(connection: "asyncpg.Connection[asyncpg.Record]", migration: Migration) -> None:
    try:
        if migration.text.startswith(CONCURRENTLY):
            from mailyard.storage.concurrently import apply_concurrently

            await apply_concurrently(connection, migration.name, migration.text)
            await _record(connection, migration)
        else:
            await _apply_whole(connection, migration)
    except asyncpg.InsufficientPrivilegeError as error:
        raise ConfigurationError(
            f"the database user may not create tables ({error}); "
            "grant it CREATE on the schema, or name another user in MAILYARD_DATABASE_URL"
        ) from error


async def _apply_whole(
    connection: "asyncpg.Connection[asyncpg.Record]", migration: Migration
) -> None:
    """In one transaction; given up and tried again while a lock is not to be had soon."""
    for attempt in range(1, LOCK_ATTEMPTS + 1):
        try:
            async with connection.transaction():
                if migration.number > BEFORE_THE_RULE:
                    await connection.execute(
                        QUERIES.limit_lock_wait, f"{int(LOCK_TIMEOUT_S * 1000)}ms"
                    )
                await connection.execute(migration.text)
                await _record(connection, migration)
            return
        except asyncpg.LockNotAvailableError as error:
            if attempt == LOCK_ATTEMPTS:
                raise Unavailable(
                    f"no lock for migration {migration.number:04d}_{migration.name} in "
                    f"{LOCK_ATTEMPTS} tries ({error}); what holds it? run `mailyard migrate` again"
                ) from error
            await asyncio.sleep(LOCK_TIMEOUT_S / 4 * attempt)


async def _record(connection: "asyncpg.Connection[asyncpg.Record]", migration: Migration) -> None:
    await connection.execute(QUERIES.record, migration.number, migration.name, migration.checksum)
    if migration.breaks_below is not None:
        await connection.execute(QUERIES.record_break, migration.number, migration.breaks_below)
