"""Rows from one cluster to another, as bytes that nobody looks into.

Both clusters have the same schema, so rows go as PostgreSQL's own binary COPY. A step can be done
twice: a range of keys is emptied in the target before it is filled, and single rows replace those
that are there.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from mailyard.core.errors import Conflict
from mailyard.fleet.shards.tables import QUERIES, SHARED, Table
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import Query

CHUNK_ROWS = 2_000
CHANGES = 1_000  # keys that one round applies
_PIECES = 8  # of COPY's stream, 64 KiB or so each, between the two clusters
_END = b""


@dataclass(frozen=True, slots=True)
class Sum:
    """What two clusters must agree on about a table."""

    rows: int
    sum: str


class Transfer:
    """Copies the rows of one workspace from `source` to `target`."""

    def __init__(self, source: Database, target: Database, workspace_id: UUID) -> None:
        self._source = source
        self._target = target
        self.workspace_id = workspace_id
        self._number = _number_of(workspace_id)

    async def chunk(
        self, table: Table, behind: Sequence[str] | None, rows: int = CHUNK_ROWS
    ) -> tuple[list[str], int] | None:
        """Copy the next `rows` rows of `table` behind the key `behind`; the key of the last one and
        how many they were, or None when there are none."""
        key = list(table.key)
        find = await self._say(
            QUERIES.say_chunk_end, table.name, self.workspace_id, key, behind, rows
        )
        async with self._source.connection() as connection:
            last = await connection.fetchrow(find)
        if last is None:
            await self._empty_behind(table, behind)
            return None
        condition = await self._say(
            QUERIES.say_range, table.name, self.workspace_id, key, behind, list(last["key"])
        )
        async with self._target.transaction() as tx:
            await self.begin(tx)
            await tx.execute(await self._say(QUERIES.say_delete, table.name, condition))
            await self._copy(table, condition, table.name, tx)
        return list(last["key"]), last["rows"]

    async def _empty_behind(self, table: Table, behind: Sequence[str] | None) -> None:
        """What an earlier, abandoned move has left in the target behind the last row."""
        condition = await self._say(
            QUERIES.say_range, table.name, self.workspace_id, list(table.key), behind, None
        )
        async with self._target.transaction() as tx:
            await self.begin(tx)
            await tx.execute(await self._say(QUERIES.say_delete, table.name, condition))

    async def begin(self, tx: Connection) -> None:
        """Every transaction of a mover in the target begins so: one at a time, and none once the
        workspace is there. Raises Conflict then."""
        await self.wait(tx)
        await tx.execute(QUERIES.let_pass, str(self.workspace_id))
        if await tx.fetchval(QUERIES.arrived, self.workspace_id) is not None:
            raise Conflict("the workspace has arrived already: another mover was faster")

    async def wait(self, tx: Connection) -> None:
        """Until no other transaction of a mover of the workspace is open in the target."""
        await tx.execute(QUERIES.begin_arrival, self._number)

    async def whole(self, table: Table, tx: Connection) -> None:
        """Copy all rows of `table` in `tx`, instead of what is there. People may be there already,
        as members of others: those stay as they are."""
        condition = await self._say(
            QUERIES.say_range, table.name, self.workspace_id, list(table.key), None, None
        )
        if table.name in SHARED:
            await self._take_in(table, condition, tx, keep=True)
            return
        await tx.execute(await self._say(QUERIES.say_delete, table.name, condition))
        await self._copy(table, condition, table.name, tx)

    async def mend(self, table: Table, tx: Connection) -> None:
        """Make the target's rows of `table` the source's, in `tx`."""
        if not table.live:
            await self.whole(table, tx)
            return
        condition = await self._say(
            QUERIES.say_range, table.name, self.workspace_id, list(table.key), None, None
        )
        await self._take_in(table, condition, tx, keep=False)

    async def clear(self, table: Table, tx: Connection) -> None:
        """What the workspace has left behind in the target when it was there before."""
        condition = await self._say(
            QUERIES.say_range, table.name, self.workspace_id, [], None, None
        )
        await tx.execute(await self._say(QUERIES.say_delete, table.name, condition))

    async def changes(self, tables: Sequence[Table]) -> int:
        """Apply what has changed behind the copy, up to CHANGES keys; how many there were."""
        rows = await self._source.fetch(QUERIES.changes, self.workspace_id, CHANGES)
        if not rows:
            return 0
        keys: dict[str, dict[str, None]] = {}
        for row in rows:
            keys.setdefault(row["table_name"], {})[row["key"]] = None
        async with self._target.transaction() as own:
            await self.begin(own)
            for table in tables:
                if table.name in keys:
                    await self._apply(table, list(keys[table.name]), own)
        await self._source.execute(
            QUERIES.forget_changes, self.workspace_id, [row["id"] for row in rows]
        )
        return len(rows)

    async def _apply(self, table: Table, keys: list[str], tx: Connection) -> None:
        condition = await self._say(
            QUERIES.say_keys, table.name, self.workspace_id, list(table.key), keys
        )
        await self._take_in(table, condition, tx, keep=False)

    async def _take_in(self, table: Table, condition: str, tx: Connection, *, keep: bool) -> None:
        """The rows for which `condition` are as in the source: those that are gone there go, the
        others are replaced where they lie, because who refers to them would go with them."""
        columns, key = list(table.columns), list(table.key)
        await tx.execute(await self._say(QUERIES.say_waiting_room, table.name, columns))
        await self._copy(table, condition, "shard_room", tx)
        if not keep:
            await tx.execute(await self._say(QUERIES.say_delete_absent, table.name, condition, key))
        await tx.execute(await self._say(QUERIES.say_take_in, table.name, columns, key, keep))
        await tx.execute(QUERIES.drop_waiting_room)

    async def sums(
        self, table: Table, tx: Connection, *, whole: bool, condition: str | None = None
    ) -> tuple[Sum, Sum]:
        """What source and target have of `table`. `whole`: bytes are read, not only counted."""
        if condition is None:
            condition = await self._say(
                QUERIES.say_range, table.name, self.workspace_id, list(table.key), None, None
            )
        statement = await self._say(
            QUERIES.say_checksum, table.name, list(table.columns), condition, whole
        )
        async with self._source.connection() as connection:
            ours, theirs = await asyncio.gather(
                connection.fetchrow(statement, timeout=None), tx.fetchrow(statement, timeout=None)
            )
        assert ours is not None and theirs is not None, "an aggregate has one row"
        return Sum(ours["rows"], ours["sum"]), Sum(theirs["rows"], theirs["sum"])

    async def check_people(self) -> None:
        """Raises Conflict when somebody has another account of the same address over there."""
        people = await self._source.fetch(QUERIES.people, self.workspace_id)
        strangers = await self._target.fetch(
            QUERIES.strangers, [row["id"] for row in people], [row["email"] for row in people]
        )
        if strangers:
            names = ", ".join(row["email"] for row in strangers[:5])
            raise Conflict(
                f"{names} has another account in the cluster that the workspace is to move to; "
                "remove one of the two memberships first"
            )

    async def _copy(self, table: Table, condition: str, into: str, tx: Connection) -> None:
        """Rows of the source into the table `into` of the target's transaction, as a stream: what
        is in memory at a time are a few pieces."""
        columns = list(table.columns)
        statement = await self._say(QUERIES.say_select, table.name, columns, condition)
        pieces: asyncio.Queue[bytes] = asyncio.Queue(_PIECES)

        async def read() -> None:
            async with self._source.connection() as connection:
                await connection.copy_from_query(
                    statement, output=pieces.put, format="binary", timeout=None
                )
            await pieces.put(_END)

        async def pass_on() -> AsyncIterator[bytes]:
            while piece := await pieces.get():
                yield piece

        reading = asyncio.create_task(read(), name=f"copy {table.name}")
        writing = asyncio.create_task(
            tx.copy_to_table(
                into, source=pass_on(), columns=columns, format="binary", timeout=None
            ),
            name=f"fill {table.name}",
        )
        try:
            await asyncio.wait([reading, writing], return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in (reading, writing):
                if not task.done():
                    task.cancel()
            outcomes = await asyncio.gather(reading, writing, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(
                outcome, asyncio.CancelledError
            ):
                raise outcome

    async def _say(self, query: Query, *arguments: object) -> str:
        """A statement, put together by PostgreSQL out of names of its own catalogue."""
        statement: str = await self._source.fetchval(query, *arguments)
        return statement


def _number_of(workspace_id: UUID) -> int:
    """What stands for a workspace where PostgreSQL wants an integer."""
    return (workspace_id.int ^ workspace_id.int >> 61) % (1 << 31)
