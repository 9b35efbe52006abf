"""Which database cluster a workspace is in.

The table `shard_place` in the home cluster says it; a workspace without a row is at home. Each
process keeps what the table says and reads what has changed every LOOK_S, so that finding a place
costs a look into a dictionary.

What a process knows counts for BELIEVED_S after it was read; older knowledge is read anew first. So
who moves a workspace says so, waits for longer than that, and then nobody goes by the old place any
more. A process whose home cluster is away goes on by what it knows: what it reads may be old then,
and what it writes the fence of the old cluster refuses (`fleet/shards/fences.py`).
"""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic
from uuid import UUID

import structlog

from mailyard.core.errors import Unavailable
from mailyard.storage.database import Database
from mailyard.storage.queries import load

QUERIES = load("shard")

LOOK_S = 0.5
BELIEVED_S = 2.0
# A change may commit after a later one: so far back is looked every time. Its writers are moves,
# which commit at once.
_OVERLAP = timedelta(seconds=30)
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
_READ_S = 2.0

_LOG = structlog.get_logger(__name__)


_NOBODY = UUID(int=0)  # in whose name mail is stored that came back; each cluster has its own


@dataclass(frozen=True, slots=True)
class Place:
    """Where a workspace is. `moving`: it takes no changes at this moment."""

    shard: str
    moving: bool = False


class Directory:
    """The places of all workspaces, for one process. `home`: the name of the cluster of `database`,
    where all are that the table does not name."""

    def __init__(self, *, database: Database, home: str) -> None:
        self._database = database
        self._home = Place(home)
        self._places: dict[UUID, Place] = {}
        self._newest = _LONG_AGO
        self._read_at = 0.0
        self._one_reads = asyncio.Lock()  # or an older answer could come last
        self._reading: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._told = False  # that it cannot be read

    @property
    def home(self) -> str:
        """The cluster of workspaces that were never moved."""
        return self._home.shard

    @property
    def fresh(self) -> bool:
        """Whether what is known may still be gone by."""
        return monotonic() - self._read_at < BELIEVED_S

    async def open(self) -> None:
        """Read the table, and follow it. Raises Unavailable."""
        await self._read()
        self._following = asyncio.create_task(self._follow(), name="directory")

    async def close(self) -> None:
        """Follow no longer."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    def known(self, workspace_id: UUID) -> Place:
        """Where the workspace is by what was read last."""
        return self._places.get(workspace_id, self._home)

    async def place(self, workspace_id: UUID) -> Place:
        """Where the workspace is."""
        if not self.fresh:
            await self.look()
        return self.known(workspace_id)

    async def look(self) -> None:
        """Read what has changed, together with whoever wants that too. Without the home cluster
        what is known stays."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read(), name="directory-look")
        try:
            await asyncio.shield(self._reading)
        except Unavailable as error:
            self._tell(error.message)

    def _tell(self, why: str) -> None:
        """Once, until it is read again."""
        if not self._told:
            _LOG.warning("directory_not_read", error=why)
        self._told = True

    async def _read(self) -> None:
        async with self._one_reads:
            began = monotonic()
            try:
                async with asyncio.timeout(_READ_S):
                    rows = await self._database.fetch(QUERIES.places, self._newest - _OVERLAP)
            except TimeoutError as error:
                raise Unavailable("the home cluster does not answer") from error
            for row in rows:
                self._places[row["workspace_id"]] = Place(row["shard"], row["state"] == "moving")
                self._newest = max(self._newest, row["changed_at"])
            self._read_at = began
            self._told = False

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self._read()
            except Exception as error:  # the home cluster is away, or full, or whatever
                self._tell(str(error))


class Home:
    """The home cluster, for who asks it now and then: opened with the first question. `opened`:
    whether somebody else opens and closes it."""

    def __init__(self, database: Database, *, opened: bool) -> None:
        self._database = database
        self._others = opened
        self._open = opened
        self._opening = asyncio.Lock()

    async def get(self) -> Database:
        """The database, to be asked. Raises Unavailable."""
        if not self._open:
            async with self._opening:
                if not self._open:
                    await self._database.open()
                    self._open = True
        return self._database

    async def close(self) -> None:
        """Let go of what was opened here."""
        if not self._others:
            await self._database.close()
            self._open = False


class Residence:
    """Which workspaces are in the cluster `shard`, for who asks now and then: reads the table each
    time."""

    def __init__(self, *, home: Home, shard: str, name_of_home: str) -> None:
        self._home = home
        self._shard = shard
        self._name_of_home = name_of_home

    async def here(self, workspaces: Collection[UUID]) -> set[UUID]:
        """Those of `workspaces` that are here and not about to leave. Raises Unavailable."""
        home = await self._home.get()
        rows = await home.fetch(QUERIES.places_of, list(workspaces))
        elsewhere = {
            row["workspace_id"]
            for row in rows
            if row["shard"] != self._shard or row["state"] == "moving"
        }
        named = {row["workspace_id"] for row in rows}
        if self._shard != self._name_of_home:
            elsewhere |= set(workspaces) - named
        return set(workspaces) - elsewhere - {_NOBODY}
