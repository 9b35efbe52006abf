"""The jobs of a workspace that moves.

They are held first: nobody is given any more of them, and those that somebody has are waited for.
So nothing of the workspace is under way when it goes, and no mail leaves twice because its worker
could not say that it had left. In the other cluster they get new numbers, and are due when they
were. Their leases there are newer than all of the old cluster (`pass_tokens`): what they are about
carries fences of that, and a worker with an older token would leave it alone, for good.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from time import monotonic
from uuid import UUID

import asyncpg

from mailyard.core.errors import Unavailable
from mailyard.fleet.shards.tables import QUERIES
from mailyard.queue.job import EMAIL_EVENTS
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import Query

_JOBS = 500  # a statement
_LOOK_S = 0.1
_COLUMNS = (
    "queue",
    "priority",
    "suspect",
    "attempts",
    "crashes",
    "chances",
    "max_attempts",
    "enqueued_at",
    "kind",
    "unique_key",
    "limit_key",
    "error",
    "payload",
)


async def hold(database: Database, workspace_id: UUID) -> None:
    """Nobody is given jobs of the workspace that are there now."""
    await database.execute(QUERIES.hold_jobs, workspace_id)


async def release(database: Database, workspace_id: UUID) -> None:
    """They are given out again."""
    await database.execute(QUERIES.release_jobs, workspace_id)


async def come_to_rest(
    database: Database, workspace_id: UUID, *, patience_s: float, busy: bool = False
) -> None:
    """Hold the jobs until nobody works on one. Raises Unavailable after `patience_s`.

    `busy`: the workspace still takes mail, so there is always a job that has just begun. Then it is
    enough that those have ended that were at work when this began.
    """
    until = monotonic() + patience_s
    first: set[int] | None = None
    while True:
        await hold(database, workspace_id)
        at_work = await database.fetch(QUERIES.jobs_at_work, workspace_id)
        ids = {row["id"] for row in at_work}
        first = ids if first is None or not busy else first & ids
        if not first:
            return
        if monotonic() > until:
            count = Counter(row["kind"] for row in at_work if row["id"] in first)
            kinds = ", ".join(f"{jobs} {kind}" for kind, jobs in sorted(count.items()))
            raise Unavailable(
                f"jobs of the workspace are still at work after {patience_s:.0f} s ({kinds}); "
                "pause its campaigns, or try again"
            )
        await asyncio.sleep(_LOOK_S)


async def events_told(
    database: Database, workspace_id: UUID, since: datetime, *, patience_s: float
) -> None:
    """Until webhooks have been dealt what happened, and mail that came back has been read that was
    there at `since`. Raises Unavailable after `patience_s`."""
    until = monotonic() + patience_s
    while (
        await database.fetchval(QUERIES.undealt_events, workspace_id)
        or await database.fetchval(QUERIES.open_replays, workspace_id)
        or await database.fetchval(QUERIES.returns_at_work, EMAIL_EVENTS, since)
    ):
        await hold(database, workspace_id)
        if monotonic() > until:
            raise Unavailable(
                f"events of the workspace are still being told after {patience_s:.0f} s; is a "
                "worker at work in its cluster? try again"
            )
        await asyncio.sleep(_LOOK_S)


async def send(source: Database, target: Connection, workspace_id: UUID) -> tuple[list[int], int]:
    """Bring the held and the buried jobs into the target's transaction, which notes each: those
    that an earlier call has brought do not come twice. Their numbers in the source, where they stay
    until `forget`, and how many are new."""
    held, new_held = await _send(
        source, target, workspace_id, QUERIES.leaving_jobs, QUERIES.arrive_jobs, "run_at"
    )
    dead, new_dead = await _send(
        source,
        target,
        workspace_id,
        QUERIES.leaving_dead,
        QUERIES.arrive_dead,
        "buried_at",
        "again_at",
    )
    return held + dead, new_held + new_dead


async def _send(
    source: Database,
    target: Connection,
    workspace_id: UUID,
    leaving: Query,
    arrive: Query,
    *times: str,
) -> tuple[list[int], int]:
    behind, seen, count = -(1 << 62), list[int](), 0
    while True:
        async with source.connection() as connection:
            found = await connection.fetch(leaving, workspace_id, behind, _JOBS)
        if not found:
            return seen, count
        behind = found[-1]["id"]
        seen += [row["id"] for row in found]
        noted = await target.fetch(
            QUERIES.note_came_jobs, workspace_id, [row["id"] for row in found]
        )
        new = {row["job_id"] for row in noted}
        rows = [row for row in found if row["id"] in new]
        if not rows:
            continue
        await target.execute(
            QUERIES.arrive_lines,
            workspace_id,
            [row["queue"] for row in rows],
            [row["priority"] for row in rows],
        )
        await target.execute(
            arrive, workspace_id, *(_column(rows, name) for name in (*_COLUMNS, *times))
        )
        count += len(rows)


def _column(rows: Sequence[asyncpg.Record], name: str) -> list[object]:
    return [row[name] for row in rows]


async def forget(source: Database, workspace_id: UUID, jobs: Sequence[int]) -> int:
    """Those of `jobs` are over there; how many went."""
    return int(await source.fetchval(QUERIES.drop_jobs, workspace_id, jobs))
