"""A workspace moves to another database cluster while it works.

The states of a move, and what may happen in each; who is killed is followed by a mover that goes on
from the state it finds:

    copying    big tables are copied by ranges of their keys, what changes behind the copy is noted
               and copied again, in rounds that get shorter. The workspace notices nothing.
    frozen     its jobs have come to rest and it takes no changes (503, 451): what has changed since
               is copied, then everything else, in one transaction of the target with the jobs, the
               comparison of both sides and a row of `shard_arrival`. With that commit it is there.
               Without it, whatever happened, it is still where it was.
    switched   the directory names the new cluster. What is left in the old one goes.
    done       only the fence is left there.

Nothing that is acknowledged is lost: before `frozen` all is acknowledged by the old cluster and
noted; while it is frozen nothing is; afterwards all is acknowledged by the new one.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from uuid import UUID

import asyncpg
import structlog

from mailyard.access.audit import Actor, Audit
from mailyard.access.member import ANY_WORKSPACE, session_tag
from mailyard.cache.layered import LayeredCache
from mailyard.core import ids
from mailyard.core.errors import Conflict, InvalidInput, MailyardError, NotFound
from mailyard.fleet.shards import jobs
from mailyard.fleet.shards.fences import CLOSED, COPYING, lift_fence, make_guards, set_fence
from mailyard.fleet.shards.tables import QUERIES, SHARED, Tables, read_tables, sort_out
from mailyard.fleet.shards.transfer import CHANGES, Transfer
from mailyard.storage.database import Connection, Database
from mailyard.storage.directory import BELIEVED_S
from mailyard.storage.partitions import ensure_like
from mailyard.storage.queries import load

_ACCESS = load("access")
_LOG = structlog.get_logger(__name__)

PATIENCE_S = 120.0  # with jobs that are at work; the workspace works on meanwhile
FREEZE_PATIENCE_S = 20.0  # with transactions, while it takes no changes
_MARGIN_S = 0.5  # over what processes believe
_ROUNDS = 20  # of catching up before the freeze
_LEFT_ROWS = 5_000  # a statement of letting go


@dataclass(frozen=True, slots=True)
class Moved:
    """What a move did. `frozen_s`: how long the workspace took no changes."""

    id: UUID
    rows: int
    frozen_s: float


Say = Callable[[str], None]
Pause = Callable[[str], Awaitable[None]]


def _silent(line: str) -> None:
    """Nobody listens."""


async def _go_on(step: str) -> None:
    """Between two steps. Tests stop here."""


def _nobody(workspace_id: UUID) -> Actor:
    """A mover that nobody in particular has called."""
    return Actor("system", "shard move", workspace_id)


class Mover:
    """Moves workspaces between `clusters`, by name, of which `home` has the directory."""

    def __init__(
        self,
        *,
        clusters: Mapping[str, Database],
        home: str,
        say: Say = _silent,
        whole: bool = False,
        patience_s: float = PATIENCE_S,
        pause: Pause = _go_on,
        actor: Callable[[UUID], Actor] = _nobody,
    ) -> None:
        """`whole`: both sides are compared byte by byte, bodies of mail included. `actor`: who
        moves a workspace, for its audit log."""
        self._clusters = clusters
        self._home_name = home
        self._home = clusters[home]
        self._say = say
        self._whole = whole
        self._patience_s = patience_s
        self._pause = pause
        self._actor = actor

    async def move(self, workspace_id: UUID, to: str) -> Moved:
        """Bring the workspace to the cluster `to`, or go on with a move there that was cut short.

        Raises NotFound, InvalidInput, Conflict; Unavailable when something is in the way: the
        workspace works where it was then, and the next call goes on.
        """
        async with self._alone(workspace_id):
            state, source, move_id = await self._begin(workspace_id, to)
            run = _Run(self, move_id, workspace_id, source, to)
            if state == "copying":
                await run.prepare()
                await run.copy()
            if state != "switched":
                await run.bring_over()
            return await run.let_go()

    async def give_up(self, workspace_id: UUID) -> None:
        """The workspace stays where it is. Raises NotFound without a move, Conflict once it has
        arrived."""
        async with self._alone(workspace_id):
            row = await self._home.fetchrow(QUERIES.open_move, workspace_id)
            if row is None:
                raise NotFound("no move of this workspace is under way")
            run = _Run(self, row["id"], workspace_id, row["source"], row["target"])
            if row["state"] == "switched" or await run.arrival() is not None:
                raise Conflict("the workspace has arrived; `mailyard shard move` finishes the move")
            await run.give_up()

    def cluster(self, name: str) -> Database:
        """The cluster of that name. Raises InvalidInput."""
        found = self._clusters.get(name)
        if found is None:
            raise InvalidInput(
                f"no shard is named {name!r}; MAILYARD_SHARDS names {', '.join(self._clusters)}"
            )
        return found

    @asynccontextmanager
    async def _alone(self, workspace_id: UUID) -> AsyncIterator[None]:
        """One mover of a workspace. The lock lives with a connection to the home cluster."""
        connection = await self._home.direct()
        try:
            number = workspace_id.int % (1 << 31)
            if not await connection.fetchval(QUERIES.lock_mover, number):
                raise Conflict("another process moves this workspace now")
            yield
        finally:
            with suppress(OSError):
                await connection.close()

    async def _begin(self, workspace_id: UUID, to: str) -> tuple[str, str, UUID]:
        """The move that is under way, or a new one: its state, its source, its id."""
        self.cluster(to)
        row = await self._home.fetchrow(QUERIES.open_move, workspace_id)
        if row is not None:
            if row["target"] != to:
                raise Conflict(
                    f"the workspace is on its way to {row['target']}; finish that, or give it up"
                )
            self._say(f"goes on with a move that is {row['state']}")
            return row["state"], row["source"], row["id"]
        place = await self._home.fetchrow(QUERIES.place_of, workspace_id)
        source = place["shard"] if place is not None else self._home_name
        if source == to:
            raise Conflict(f"the workspace is in {to} already")
        if await self.cluster(source).fetchrow(_ACCESS.get_workspace, workspace_id) is None:
            raise NotFound("no such workspace")
        if workspace_id == await self.cluster(source).fetchval(_ACCESS.first_workspace):
            raise InvalidInput("the installation's own workspace stays in its cluster")
        move_id = ids.uuid7()
        async with self._home.transaction() as tx:
            await tx.execute(QUERIES.add_place, workspace_id, source)
            await tx.execute(QUERIES.begin_move, move_id, workspace_id, source, to)
        return "copying", source, move_id


class _Run:
    """One move, by one mover."""

    def __init__(
        self, mover: Mover, move_id: UUID, workspace_id: UUID, source: str, target: str
    ) -> None:
        self._mover = mover
        self._id = move_id
        self._workspace_id = workspace_id
        self._from = source
        self._to = target
        self._home = mover._home
        self._source = mover.cluster(source)
        self._target = mover.cluster(target)
        self._say = mover._say
        self._pause = mover._pause
        self._transfer = Transfer(self._source, self._target, workspace_id)
        self._tables: Tables | None = None

    async def _of_schema(self) -> Tables:
        if self._tables is None:
            self._tables = sort_out(await read_tables(self._source))
        return self._tables

    async def arrival(self) -> int | None:
        """How many rows arrived with this move; None before. A commit that a mover has left behind
        unanswered is waited for."""
        async with self._target.transaction() as tx:
            await self._transfer.wait(tx)
            row = await tx.fetchrow(QUERIES.arrived, self._workspace_id)
        return row["rows_moved"] if row is not None and row["move_id"] == self._id else None

    # -- copying ------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """What must hold before anything is copied. Raises Conflict."""
        versions = [
            await one.fetchval(QUERIES.schema_version) for one in (self._source, self._target)
        ]
        if versions[0] != versions[1]:
            raise Conflict(
                f"the clusters are at migrations {versions[0]} and {versions[1]}: run "
                "`mailyard shard add` for both with one version"
            )
        await self._transfer.check_people()
        made = await make_guards(self._source, (await self._of_schema()).guarded)
        if made:
            self._say(f"{made} tables are guarded from now on")
        await set_fence(
            self._source, self._workspace_id, COPYING, patience_s=self._mover._patience_s
        )
        await self._pause("fenced")
        await ensure_like(self._source, self._target)

    async def copy(self) -> None:
        """The big tables, while the workspace works; then what changed, until little is left."""
        progress = {
            row["table_name"]: row for row in await self._home.fetch(QUERIES.progress, self._id)
        }
        tables = await self._of_schema()
        for table in tables.live:
            known = progress.get(table.name)
            if known is not None and known["finished"]:
                continue
            behind = known["behind"] if known is not None else None
            rows = 0
            while found := await self._transfer.chunk(table, behind):
                behind, count = found
                rows += count
                await self._note(table.name, behind, count, finished=False)
                await self._pause("chunk")
            await self._note(table.name, None, 0, finished=True)
            if rows:
                self._say(f"{table.name}: {rows} rows")
        for _ in range(_ROUNDS):
            if await self._catch_up() < CHANGES // 2:
                return

    async def _note(
        self, table: str, behind: list[str] | None, rows: int, *, finished: bool
    ) -> None:
        await self._home.execute(QUERIES.note_progress, self._id, table, behind, rows, finished)

    async def _catch_up(self) -> int:
        """What has changed by now; how many rows that were."""
        count, tables = 0, (await self._of_schema()).live
        while found := await self._transfer.changes(tables):
            count += found
            await self._pause("change")
            if found < CHANGES:
                break
        return count

    # -- frozen -------------------------------------------------------------------------------

    async def bring_over(self) -> None:
        """From a workspace that works here to one that is there. Raises Unavailable when something
        is in the way: it works here on."""
        if await self.arrival() is None:
            try:
                await self._come_to_rest()
                await self._freeze()
                rows = await self._bring_rest()
            except BaseException as error:
                # A commit that was not answered may have been done: then there is no way back.
                await self._thaw(error)
                raise
            self._say(f"{rows} rows are there, and compared")
        await self._pause("arrived")
        async with self._home.transaction() as tx:
            await tx.execute(QUERIES.switch, self._workspace_id, self._to)
            await tx.execute(
                QUERIES.step_move,
                self._id,
                self._workspace_id,
                "switched",
                await self.arrival(),
                None,
            )
        self._say(f"the workspace works in {self._to}")
        await self._pause("switched")

    async def _come_to_rest(self) -> None:
        """What was under way has ended, so that the freeze need not wait for it. The workspace
        still takes everything, which then waits a little."""
        await set_fence(
            self._source, self._workspace_id, COPYING, patience_s=self._mover._patience_s
        )
        await jobs.come_to_rest(
            self._source, self._workspace_id, patience_s=self._mover._patience_s, busy=True
        )
        await self._catch_up()
        await self._pause("rested")

    async def _freeze(self) -> None:
        """From now on it takes no changes, whoever asks."""
        async with self._home.transaction() as tx:
            await tx.execute(QUERIES.set_moving, self._workspace_id, "moving")
            await tx.execute(QUERIES.step_move, self._id, self._workspace_id, "frozen", None, None)
        await self._pause("frozen")
        until = monotonic() + BELIEVED_S + _MARGIN_S
        since = datetime.now(UTC)
        while monotonic() < until:
            await self._catch_up()
            await jobs.hold(self._source, self._workspace_id)
            await asyncio.sleep(0.1)
        await jobs.come_to_rest(self._source, self._workspace_id, patience_s=FREEZE_PATIENCE_S)
        await jobs.events_told(
            self._source, self._workspace_id, since, patience_s=FREEZE_PATIENCE_S
        )
        await set_fence(self._source, self._workspace_id, CLOSED, patience_s=FREEZE_PATIENCE_S)
        await jobs.come_to_rest(self._source, self._workspace_id, patience_s=FREEZE_PATIENCE_S)
        await self._pause("closed")

    async def _bring_rest(self) -> int:
        """All that is left, all compared, in one transaction of the target; how many rows."""
        while await self._catch_up():
            pass
        await ensure_like(self._source, self._target)
        tables = await self._of_schema()
        async with self._target.transaction() as tx:
            await self._transfer.begin(tx)
            for table in tables.rest:
                try:
                    await self._transfer.whole(table, tx)
                except asyncpg.UniqueViolationError as error:
                    raise Conflict(
                        f"{self._to} has a row of table {table.name} already that another "
                        f"workspace needs there: {error.detail}"
                    ) from error
            for table in tables.left:
                await self._transfer.clear(table, tx)
            _, count = await jobs.send(self._source, tx, self._workspace_id)
            await tx.execute(QUERIES.keep_webhook_order, self._workspace_id)
            await tx.execute(QUERIES.pass_tokens, await self._source.fetchval(QUERIES.newest_token))
            rows = count + await self._compare(tables, tx)
            await self._pause("compared")
            await self._part_ways_in(tx)
            await LayeredCache(database=self._target).clear(self._workspace_id, tx)
            await tx.execute(QUERIES.note_arrival, self._workspace_id, self._id, rows)
            await self._audit(tx)
        return rows

    async def _audit(self, tx: Connection) -> None:
        """Who moved it, in its own log, where it is from now on."""
        await Audit(database=self._target).record(
            self._mover._actor(self._workspace_id),
            "workspace.move",
            ids.type_id(ids.WORKSPACE, self._workspace_id),
            {"shard": self._from},
            {"shard": self._to},
            tx,
        )

    async def _part_ways_in(self, tx: Connection) -> None:
        """A session of a person in this workspace opens no other one of theirs in the target."""
        rows = await tx.fetch(QUERIES.part_ways_in, self._workspace_id)
        if rows:
            tags = [session_tag(row["token_hash"]) for row in rows]
            await LayeredCache(database=self._target).change(ANY_WORKSPACE, tags, tx)

    async def _compare(self, tables: Tables, tx: Connection) -> int:
        """How many rows both have. A table in which they differ is copied whole once more, under
        the closed fence. Raises Conflict when that does not help."""
        count = 0
        for table in tables.moved:
            if table.name in SHARED:
                continue
            ours, theirs = await self._transfer.sums(table, tx, whole=self._mover._whole)
            if ours != theirs:
                _LOG.warning("move_differs", table=table.name, source=ours, target=theirs)
                self._say(f"{table.name}: copied again ({ours.rows} rows, there {theirs.rows})")
                await self._transfer.mend(table, tx)
                ours, theirs = await self._transfer.sums(table, tx, whole=self._mover._whole)
                if ours != theirs:
                    raise Conflict(
                        f"table {table.name} has {ours.rows} rows here and {theirs.rows} there, or "
                        "others; the workspace stays where it is"
                    )
            count += ours.rows
        return count

    async def _thaw(self, error: BaseException) -> None:
        """The workspace goes on where it was, if it has not arrived; when that cannot be found out,
        it stays frozen until a mover comes again."""
        try:
            if await self.arrival() is not None:
                return
            await self._stay("copying", str(error)[:500] or type(error).__name__)
        except MailyardError as trouble:
            self._say(f"stays frozen until the move is called again: {trouble.message}")

    async def _stay(self, state: str, trouble: str | None) -> None:
        async with self._target.transaction() as tx:
            # An unanswered commit that still runs has the lock: then it counts.
            await self._transfer.begin(tx)
        await self._source.execute(QUERIES.set_fence, self._workspace_id, COPYING)
        await jobs.release(self._source, self._workspace_id)
        async with self._home.transaction() as tx:
            await tx.execute(QUERIES.set_moving, self._workspace_id, "active")
            await tx.execute(QUERIES.step_move, self._id, self._workspace_id, state, None, trouble)

    # -- afterwards ---------------------------------------------------------------------------

    async def let_go(self) -> Moved:
        """What is left in the old cluster goes: late jobs to the new one, the rest away."""
        await asyncio.sleep(BELIEVED_S + _MARGIN_S)  # until nobody reads here any more
        tables = await self._of_schema()
        await self._bring_late_jobs()
        await self._source.execute(QUERIES.forget_arrival, self._workspace_id)
        for table in [*tables.left, *reversed(tables.moved)]:
            if table.name not in SHARED:
                await self._remove(table.name)
                await self._pause("removed")
        await self._source.execute(QUERIES.forget_all_changes, self._workspace_id)
        await self._target.execute(QUERIES.forget_came_jobs, self._workspace_id)
        await self._home.execute(
            QUERIES.step_move, self._id, self._workspace_id, "done", None, None
        )
        row = await self._home.fetchrow(QUERIES.move_of, self._id)
        assert row is not None, "it was written a moment ago"
        frozen_s = (row["switched_at"] - row["frozen_at"]).total_seconds()
        return Moved(self._id, row["rows_moved"] or 0, frozen_s)

    async def _bring_late_jobs(self) -> None:
        """The jobs are over there; so go those that came into the lines here since. The target
        knows which have come, so a mover that dies in between loses none and repeats none."""
        while True:
            await jobs.hold(self._source, self._workspace_id)
            async with self._target.transaction() as tx:
                await self._transfer.wait(tx)
                brought, late = await jobs.send(self._source, tx, self._workspace_id)
            await jobs.forget(self._source, self._workspace_id, brought)
            if not late:
                return

    async def _remove(self, table: str) -> None:
        """The workspace's rows of a table, from the cluster that it has left."""
        await self._remove_from(self._source, table)

    async def _remove_from(self, database: Database, table: str) -> None:
        condition = await database.fetchval(
            QUERIES.say_range, table, self._workspace_id, [], None, None
        )
        statement = await database.fetchval(QUERIES.say_delete_some, table, condition, _LEFT_ROWS)
        while True:
            async with database.transaction() as tx:
                await tx.execute(QUERIES.let_pass, str(self._workspace_id))
                tag = await tx.execute(statement)
            if int(tag.rsplit(" ", 1)[-1]) < _LEFT_ROWS:
                return

    async def give_up(self) -> None:
        """The workspace stays; what was copied goes again."""
        await self._stay("frozen", None)
        tables = await self._of_schema()
        for table in reversed(tables.moved):
            if table.name not in SHARED:
                await self._remove_from(self._target, table.name)
        await lift_fence(self._source, self._workspace_id)
        await self._home.execute(
            QUERIES.step_move, self._id, self._workspace_id, "given up", None, None
        )
