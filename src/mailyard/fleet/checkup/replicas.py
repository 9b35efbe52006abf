"""The checks of `mailyard doctor` on standby servers: do they stream, are they near, is there room?

One finding a server.
"""

from collections.abc import Sequence

import asyncpg

from mailyard.core.limits import MIB
from mailyard.fleet.checkup.finding import Finding, Grade
from mailyard.storage.database import AWAY
from mailyard.storage.hosts import place_of
from mailyard.storage.queries import load

QUERIES = load("replica")
_TIMEOUT_S = 5.0
_FAR_BYTES = 64 * MIB


async def check_replicas(
    direct_url: str, replica_urls: Sequence[str], connections: int
) -> list[Finding]:
    """`connections`: what all processes together may open to each of them."""
    head = await _head(direct_url)
    return [await _check(url, head, connections) for url in replica_urls]


async def _head(direct_url: str) -> int | None:
    """Where the primary is; None when it does not say (its own check does)."""
    try:
        connection = await asyncpg.connect(direct_url, timeout=_TIMEOUT_S)
    except (*AWAY, asyncpg.PostgresError):
        return None
    try:
        row = await connection.fetchrow(QUERIES.head)
        return None if row is None else int(row["position"])
    except asyncpg.PostgresError:
        return None
    finally:
        await connection.close()


async def _check(url: str, head: int | None, connections: int) -> Finding:
    name = f"replica {place_of(url)}"
    try:
        connection = await asyncpg.connect(url, timeout=_TIMEOUT_S)
    except (*AWAY, asyncpg.PostgresError) as error:
        return Finding(
            name,
            Grade.WARN,
            f"does not answer: {error}",
            "start it, or take it out of MAILYARD_DATABASE_REPLICAS; reads go to the primary",
        )
    try:
        limit = await connection.fetchrow(QUERIES.standby_limit)
        place = await connection.fetchrow(QUERIES.replayed)
    finally:
        await connection.close()
    assert limit is not None and place is not None, "a SELECT without FROM has one row"
    if not limit["standby"]:
        return Finding(
            name, Grade.WARN, "is no standby, and is not read from", "let it follow the primary"
        )
    if connections > limit["connections"]:
        return Finding(
            name,
            Grade.BAD,
            f"all processes together may open {connections} connections, it gives "
            f"{limit['connections']}",
            "raise its max_connections, or lower MAILYARD_DATABASE_CONNECTIONS",
        )
    behind_bytes = max(0, (head or 0) - place["position"])
    grade = Grade.WARN if behind_bytes > _FAR_BYTES else Grade.GOOD
    return Finding(
        name,
        grade,
        f"a standby, {behind_bytes / MIB:.1f} MB behind, gives {limit['connections']} connections",
        "" if grade is Grade.GOOD else "see that it streams: it is left out while 5 s behind",
    )
