"""Whose a name is, over all database clusters: addresses, receiving domains, API keys, people.

The table `shard_name` in the home cluster says which workspace has a name, and the directory of
places where that is (`storage/directory.py`): so a name stays right when its workspace moves, and
who is asked for by a name asks one cluster.

A name is claimed in the transaction that writes its row, behind the row and before the commit, so
the cluster's own unique index has been asked first. At home that is one commit. Elsewhere the claim
has committed when the row does: no row is seen whose name is not claimed, and a process that dies
in between leaves a claim without a row, which the upkeep of its cluster (`fleet/shards/upkeep.py`)
lets go.

One statement at home is so asked in the middle of another cluster's transaction. It is given up
after ANSWER_S, and nothing at home waits for other clusters.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from mailyard.core.errors import Unavailable
from mailyard.storage.database import Connection, Database
from mailyard.storage.directory import Home
from mailyard.storage.queries import load

QUERIES = load("shard")

ADDRESS = "address"  # of an inbox, or held for one
DOMAIN = "domain"  # that a workspace has proved to be its own
KEY = "key"  # the prefix of an API key
HOOK = "hook"  # the hash of a provider's address here
SESSION = "session"  # the hash of a session's token
PERSON = "person"  # an account's address
KINDS = (ADDRESS, DOMAIN, HOOK, KEY, PERSON, SESSION)

ANSWER_S = 2.0
_AT_ONCE = 500  # questions in a query


class Named(NamedTuple):
    """A name, with its kind: two things of different kinds may be called the same."""

    kind: str
    name: str


class Names:
    """Claims names for workspaces of one cluster. `at_home`: that cluster is the home one."""

    def __init__(self, home: Home, *, name_of_home: str, at_home: bool) -> None:
        self._home = home
        self._name_of_home = name_of_home
        self._at_home = at_home

    async def claim(
        self, kind: str, names: Sequence[str], workspace_id: UUID, tx: Connection
    ) -> list[str]:
        """The `names` are the workspace's once `tx`, which has written their rows, commits; those
        that it cannot have, because a workspace in another cluster has them. Raises Unavailable.
        """
        if not names:
            return []
        database, own = await self._directory(tx)
        try:
            async with asyncio.timeout(ANSWER_S):
                rows = await database.fetch(
                    QUERIES.claim_names,
                    kind,
                    list(names),
                    workspace_id,
                    self._name_of_home,
                    tx=own,
                )
        except TimeoutError as error:
            raise Unavailable("the home cluster does not answer") from error
        ours = {row["name"] for row in rows}
        return [name for name in names if name not in ours]

    async def note(self, kind: str, name: str, workspace_id: UUID, tx: Connection) -> None:
        """As `claim`, of a name that nobody else can have, because it was drawn: it can wait. While
        home is away it is found by asking all clusters, and the upkeep claims it later."""
        try:
            await self.claim(kind, [name], workspace_id, tx)
        except Unavailable:
            if self._at_home:
                raise

    async def claim_person(
        self, address: str, person_id: UUID, workspace_id: UUID, tx: Connection
    ) -> tuple[UUID, bool]:
        """The id of the account with this address, `person_id` if it has none yet; and whether it
        belongs to a workspace in another cluster. Raises Unavailable."""
        database, own = await self._directory(tx)
        try:
            async with asyncio.timeout(ANSWER_S):
                row = await database.fetchrow(
                    QUERIES.claim_person,
                    address,
                    person_id,
                    workspace_id,
                    self._name_of_home,
                    tx=own,
                )
        except TimeoutError as error:
            raise Unavailable("the home cluster does not answer") from error
        assert row is not None, "an insert that updates on conflict returns its row"
        return row["person_id"] or person_id, row["elsewhere"]

    async def _directory(self, tx: Connection) -> tuple[Database, Connection | None]:
        """Where claims are written; at home in the caller's transaction."""
        return await self._home.get(), tx if self._at_home else None


class NameBook:
    """Finds whose names are, for one process. Questions that arrive while a query runs go into the
    next one."""

    def __init__(self, database: Database) -> None:
        """`database`: the home cluster's."""
        self._database = database
        self._waiting: dict[Named, asyncio.Future[UUID | None]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def find(self, names: Iterable[Named]) -> Mapping[Named, UUID]:
        """The workspaces that have those of `names` that somebody has. Raises Unavailable."""
        asked = {name: self._ask(name) for name in names}
        found = await asyncio.gather(*map(asyncio.shield, asked.values()))
        return {
            name: workspace_id
            for name, workspace_id in zip(asked, found, strict=True)
            if workspace_id is not None
        }

    def _ask(self, name: Named) -> "asyncio.Future[UUID | None]":
        waiting = self._waiting.get(name)
        if waiting is None:
            waiting = self._waiting[name] = asyncio.get_running_loop().create_future()
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_all(), name="names")
        return waiting

    async def _ask_all(self) -> None:
        while self._waiting:
            batch = dict(list(self._waiting.items())[:_AT_ONCE])
            for name in batch:
                del self._waiting[name]
            try:
                async with asyncio.timeout(ANSWER_S):
                    rows = await self._database.fetch(
                        QUERIES.find_names,
                        [name.kind for name in batch],
                        [name.name for name in batch],
                    )
            except Exception as error:
                why = (
                    Unavailable("the home cluster does not answer")
                    if isinstance(error, TimeoutError)
                    else error
                )
                for waiting in batch.values():
                    if not waiting.done():
                        waiting.set_exception(why)
                continue
            found = {Named(row["kind"], row["name"]): row["workspace_id"] for row in rows}
            for name, waiting in batch.items():
                if not waiting.done():
                    waiting.set_result(found.get(name))
