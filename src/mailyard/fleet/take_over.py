"""A lost region is taken over: the copy of its database that is kept here becomes the region's own.

An act of a person, never of a program: a site that only cannot be reached is still taking mail, and
nobody here can tell the two apart. What can be told is refused: as long as the primary that the
copy streams from answers, it is not lost.
"""

import asyncio
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from mailyard.access.audit import Actor, Audit
from mailyard.access.region import Region
from mailyard.core.errors import ConfigurationError, Conflict
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("region")
_ACCESS = load("access")
ANSWER_S = 5.0
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)  # every PostgreSQL answers it with one byte
PROMOTE_S = 60


@dataclass(frozen=True, slots=True)
class Taken:
    """What has become of it. `last_commit_at`: of the last transaction that the copy has; what the
    lost site committed after it is not here."""

    region: str
    epoch: int
    position: str
    last_commit_at: datetime | None
    unreplayed_bytes: int


async def take_over(
    copy: Database,
    own: Database,
    region: Region,
    site: str,
    *,
    actor: Callable[[UUID], Actor],
    force: bool = False,
) -> Taken:
    """Promote `copy` and begin a new term of `region`, told in it and in `own`, where the log of
    the installation's workspace says that `actor` did it.

    `force`: also when its primary answers. Raises Conflict, ConfigurationError. May be repeated
    when it was cut off in the middle.
    """
    state = await copy.fetchrow(_SQL.copy_state)
    assert state is not None, "a row of the server's own figures"
    if state["follows"]:
        primary = await copy.fetchrow(_SQL.primary_of)
        if primary is not None and not force and await _answers(primary["host"], primary["port"]):
            raise Conflict(
                f"the primary of region {region.name} answers at {primary['host']}: stop it "
                "first, then take over; --force when it cannot be stopped"
            )
        await _promote(copy, region)
    epoch = 1 + max(
        [
            row["epoch"]
            for database in (copy, own)
            for row in await database.fetch(_SQL.terms)
            if row["region"] == region.name
        ],
        default=0,
    )
    await copy.execute(_SQL.begin_term, region.name, epoch, site, state["position"])
    async with own.transaction() as tx:
        await tx.execute(_SQL.begin_term, region.name, epoch, site, state["position"])
        first = await tx.fetchval(_ACCESS.first_workspace)
        if first is not None:
            after = {"term": epoch, "site": site, "position": state["position"]}
            audit = Audit(database=own)
            await audit.record(actor(first), "region.take_over", region.name, None, after, tx)
    return Taken(
        region.name, epoch, state["position"], state["last_commit_at"], state["unreplayed_bytes"]
    )


async def _promote(copy: Database, region: Region) -> None:
    try:
        done = await copy.fetchval(_SQL.promote, PROMOTE_S)
    except asyncpg.InsufficientPrivilegeError as error:
        raise ConfigurationError(
            f"the user of {region.name}.standby may not promote it ({error}); GRANT EXECUTE ON "
            "FUNCTION pg_promote TO it, or promote the server yourself and run this again"
        ) from error
    if not done:
        raise ConfigurationError(
            f"the copy of region {region.name} was not promoted within {PROMOTE_S} s: see its log"
        )


async def _answers(host: str, port: int) -> bool:
    """Whether a PostgreSQL is there: it says one byte before anybody has to sign in."""
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(_SSL_REQUEST)
                return bool(await reader.read(1))
            finally:
                writer.close()
    except OSError:
        return False
