"""The checks of the database server, its connections and its schema."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import asyncpg

from mailyard.core.errors import ConfigurationError, MailyardError
from mailyard.fleet.checkup.finding import Finding, Grade, from_error
from mailyard.storage.database import AWAY
from mailyard.storage.migrate import standing
from mailyard.storage.queries import load

QUERIES = load("process")
OLDEST_SERVER = 150_000  # server_version_num of PostgreSQL 15
_CLOCK_SKEW_S = 2.0


async def check_database(direct_url: str, check_connections: Callable[[int], str]) -> list[Finding]:
    """A database that runs: reachable, new enough, safe, migrated, with room for our connections.

    `check_connections` gets the server's limit and says what is used of it, or raises
    ConfigurationError.
    """
    try:
        connection = await asyncpg.connect(direct_url, timeout=5.0)
    except (*AWAY, asyncpg.PostgresError) as error:
        return [
            Finding(
                "database",
                Grade.BAD,
                f"does not answer: {error}",
                "start it, or correct MAILYARD_DATABASE_URL",
            )
        ]
    try:
        facts = await connection.fetchrow(QUERIES.server_facts)
        limit = await connection.fetchval(QUERIES.server_limit)
    finally:
        await connection.close()
    assert facts is not None, "a SELECT without FROM has one row"
    findings = list(_judge_server(facts))
    skew_s = abs((datetime.now(UTC) - facts["now"]).total_seconds())
    findings.append(
        Finding(
            "clock",
            Grade.GOOD if skew_s < _CLOCK_SKEW_S else Grade.WARN,
            f"{skew_s:.1f} s from the database's",
            "" if skew_s < _CLOCK_SKEW_S else "let both machines follow NTP",
        )
    )
    try:
        used = check_connections(limit)
        found = f"{used}; the server gives {limit}"
        findings.append(Finding("connections", Grade.GOOD, found))
    except ConfigurationError as error:
        findings.append(from_error("connections", error))
    findings.append(await _check_schema(direct_url))
    return findings


def _judge_server(facts: asyncpg.Record) -> Iterator[Finding]:
    major = facts["version"] // 10_000
    if facts["version"] < OLDEST_SERVER:
        yield Finding("database", Grade.BAD, f"PostgreSQL {major}", "15 or newer is needed")
    elif facts["replica"]:
        yield Finding("database", Grade.BAD, "a replica", "name the primary")
    else:
        yield Finding("database", Grade.GOOD, f"PostgreSQL {major}")
    if not (facts["fsync"] and facts["synchronous_commit"]):
        yield Finding(
            "durability",
            Grade.BAD,
            "fsync or synchronous_commit is off",
            "turn both on: without them a 250 is no promise",
        )
    if not facts["may_create"]:
        yield Finding(
            "permission",
            Grade.BAD,
            "the database user may not create tables",
            "GRANT CREATE ON SCHEMA public TO the user",
        )


async def _check_schema(direct_url: str) -> Finding:
    try:
        found = await standing(direct_url)
    except MailyardError as error:
        return from_error("schema", error)
    if found.missing:
        lacks = f"lacks {', '.join(found.missing)}"
        return Finding("schema", Grade.WARN, lacks, "mailyard migrate")
    if found.newer:
        return Finding(
            "schema",
            Grade.WARN,
            f"newer than this version by {', '.join(found.newer)}, which it can work with",
            "finish the upgrade, or roll the other processes back too",
        )
    return Finding("schema", Grade.GOOD, "up to date")
