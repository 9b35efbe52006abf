"""The fence around a workspace in the cluster that it leaves.

Each table of a workspace has a guard, a trigger that asks the table of fences. It is made when the
first workspace leaves a cluster, and stays: a process that has slept through the move writes
nothing in the old place, however late it wakes. While the fence says `copying` the guard notes what
changes; once it is `closed` it refuses.

A fence counts from its commit on, for what is written afterwards. What was written before and has
not committed is waited for: all transactions with a number that was drawn by then.
"""

import asyncio
from collections.abc import Sequence
from time import monotonic
from uuid import UUID

import asyncpg

from mailyard.core.errors import Unavailable
from mailyard.fleet.shards.tables import QUERIES, WORKSPACE, Table
from mailyard.storage.database import Database

COPYING = "copying"
CLOSED = "closed"
LOCK_TIMEOUT_S = 2.0
LOCK_ATTEMPTS = 10
_LOOK_S = 0.02


async def make_guards(database: Database, tables: Sequence[Table]) -> int:
    """Give a guard to each of `tables` that lacks one; how many were made.

    Each in a transaction of its own that waits at most LOCK_TIMEOUT_S for the table: others serve
    meanwhile. Raises Unavailable when a table cannot be had.
    """
    made = 0
    for table in tables:
        wanted = table.guard_arguments
        if table.guard == "".join(f"{one}\\000" for one in wanted):
            continue
        function = "shard_guard_workspace" if table.name == WORKSPACE else "shard_guard"
        statement = await database.fetchval(QUERIES.say_guard, table.name, function, list(wanted))
        await _make_guard(database, table.name, statement)
        made += 1
    return made


async def _make_guard(database: Database, name: str, statement: str) -> None:
    for attempt in range(1, LOCK_ATTEMPTS + 1):
        try:
            async with database.transaction() as tx:
                await tx.execute(QUERIES.limit_lock_wait, f"{int(LOCK_TIMEOUT_S * 1000)}ms")
                await tx.execute(statement)
                return
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            await asyncio.sleep(0.1 * attempt)
    raise Unavailable(f"no lock on table {name} to guard it; try the move again")


async def set_fence(
    database: Database, workspace_id: UUID, state: str, *, patience_s: float
) -> None:
    """The fence is `state` for everybody when this returns.

    Raises Unavailable when a transaction that began before runs for longer than `patience_s`: the
    fence stays as it was set, and who wants it otherwise says so.
    """
    await database.execute(QUERIES.set_fence, workspace_id, state)
    above: int = await database.fetchval(QUERIES.next_transaction)
    until = monotonic() + patience_s
    while await database.fetchval(QUERIES.oldest_transaction) < above:
        if monotonic() > until:
            raise Unavailable(
                f"a transaction has been open for more than {patience_s:.0f} s in the cluster that "
                "the workspace leaves, and may hold its rows; try again when it has ended"
            )
        await asyncio.sleep(_LOOK_S)


async def lift_fence(database: Database, workspace_id: UUID) -> None:
    """The workspace stays after all."""
    await database.execute(QUERIES.lift_fence, workspace_id)
    await database.execute(QUERIES.forget_all_changes, workspace_id)
