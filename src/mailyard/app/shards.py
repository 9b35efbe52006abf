"""One application for each database cluster, and which of them a caller belongs to.

The home cluster has the directory, which knows where workspaces are (`storage/directory.py`) and
whose names are (`storage/names.py`): API keys, sessions, providers' addresses, inboxes, receiving
domains. One question there leads to the one cluster that a caller belongs to, and the answer is
kept.

All clusters are asked, at once, for what has no name there: links in mails and return-paths, of
which a campaign has millions; people, who may belong to workspaces in several; and strangers,
before they are told that they are. So are all while the home cluster is away.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from math import inf
from time import monotonic
from typing import TYPE_CHECKING
from uuid import UUID

import structlog

from mailyard.app.application import Application
from mailyard.app.foundation import Foundation, database_address
from mailyard.core.errors import MailyardError, Unavailable
from mailyard.fleet.shards.overview import OPERATOR
from mailyard.fleet.shards.upkeep import NamesUpkeep
from mailyard.settings import HOME, Settings
from mailyard.storage.database import Database
from mailyard.storage.directory import BELIEVED_S, Directory, Home, Place, Residence
from mailyard.storage.migrate import migrate
from mailyard.storage.names import HOOK, KEY, SESSION, NameBook, Named, Names
from mailyard.storage.partitions import ensure_partitions
from mailyard.storage.queries import load

if TYPE_CHECKING:
    from collections.abc import Sequence

QUERIES = load("shard")
ASK_S = 2.0  # one cluster, for a name
AGAIN_S = 2.0  # between two tries to reach a cluster
_REMEMBERED = 50_000
_CHANGING = frozenset({"person"})  # whoever belongs to a workspace today
_CLAIMED = frozenset({HOOK, KEY, SESSION})

_LOG = structlog.get_logger(__name__)


def settings_of(settings: Settings, shard: str) -> Settings:
    """The settings as they are for one cluster."""
    return replace(settings, shard="" if shard == HOME else shard)


def clusters_of(settings: Settings) -> dict[str, Database]:
    """A database for each cluster, by name, the home one first; not opened."""
    names = [HOME, *settings.shard_urls]
    return {name: Database(database_address(settings_of(settings, name))) for name in names}


@asynccontextmanager
async def opened_clusters(settings: Settings) -> AsyncIterator[Mapping[str, Database]]:
    """All clusters, open for a while. Raises Unavailable when one is away."""
    clusters = clusters_of(settings)
    try:
        for cluster in clusters.values():
            await cluster.open()
        yield clusters
    finally:
        for cluster in clusters.values():
            await cluster.close()


async def prepare(cluster: Database, name: str) -> list[str]:
    """Bring a cluster to this version: migrations, partitions, the workspace in whose name it looks
    after itself. The names of what was applied. Raises Unavailable."""
    applied = await migrate(cluster.direct_url)
    await cluster.open()
    try:
        await ensure_partitions(cluster, datetime.now(UTC))
        if name != HOME:
            await cluster.execute(QUERIES.operator, OPERATOR, f"Cluster {name}")
    finally:
        await cluster.close()
    return applied


def residence_of(foundation: Foundation) -> Residence:
    """Which workspaces are in the cluster of `foundation`."""
    shard = foundation.settings.shard or HOME
    return Residence(home=foundation.home, shard=shard, name_of_home=HOME)


def names_of(foundation: Foundation) -> Names:
    """What claims names for the workspaces in the cluster of `foundation`."""
    at_home = not foundation.settings.shard
    return Names(foundation.home, name_of_home=HOME, at_home=at_home)


def upkeep_of(database: Database, home: Home, shard: str) -> NamesUpkeep:
    """What keeps the directory of names true to the cluster `shard`, which is `database`."""
    return NamesUpkeep(
        database=database,
        home=home,
        residence=Residence(home=home, shard=shard, name_of_home=HOME),
        names=Names(home, name_of_home=HOME, at_home=shard == HOME),
        shard=shard,
        name_of_home=HOME,
    )


def home_of(foundation: Foundation) -> Home:
    """The home cluster: as somebody has opened it already, or with a connection of its own."""
    if not foundation.settings.shard:
        return Home(foundation.database, opened=True)
    if foundation.home_database is not None:
        return Home(foundation.home_database, opened=True)
    address = database_address(settings_of(foundation.settings, HOME))
    home = Home(Database(replace(address, connections=1)), opened=False)
    foundation.ends.append(home.close)
    return home


class Shards:
    """The clusters of an installation, for a process that serves them all. `home` is opened and
    closed by its owner; the others here, each when it can be reached."""

    def __init__(self, home: Application) -> None:
        self.applications: Mapping[str, Application] = {
            HOME: home,
            **{
                name: Application(settings_of(home.settings, name))
                for name in home.settings.shard_urls
            },
        }
        home.clusters = {name: one.database for name, one in self.applications.items()}
        for one in self.applications.values():
            one.home_database = home.database
        self.names = NameBook(home.database)
        self.directory = Directory(database=home.database, home=HOME)
        self._up = {HOME}
        self._known: dict[Named, tuple[UUID, float]] = {}  # until when it is believed
        self._opening: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Read the directory and reach for the clusters; those that are away are tried on. Raises
        Unavailable when the home cluster is."""
        await self.directory.open()
        self._opening = [
            asyncio.create_task(self._open(name), name=f"open {name}")
            for name in self.applications
            if name != HOME
        ]
        if self._opening:
            await asyncio.wait(self._opening, timeout=ASK_S)

    async def close(self) -> None:
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        await self.directory.close()
        for name in self._up - {HOME}:
            await self.applications[name].close()

    def reload(self, settings: Settings) -> None:
        """Go by what may change while it works."""
        for name, application in self.applications.items():
            if name != HOME:
                application.reload(settings_of(settings, name))

    def application(self, name: str) -> Application:
        """The application of a cluster. Raises Unavailable while it was never reached."""
        if name not in self._up:
            raise Unavailable(f"the database cluster {name} is away")
        return self.applications[name]

    @property
    def up(self) -> "Sequence[str]":
        """The clusters that were reached, the home one first."""
        return [name for name in self.applications if name in self._up]

    async def find(self, kind: str, name: str) -> UUID | None:
        """The workspace behind a name; None for one that is nobody's.

        The directory of names says it. Where it does not, all clusters are asked before the name is
        nobody's: it may be one that nobody can claim (a delivery's, a link's), or was made by a
        process that did not know of shards. Raises Unavailable when it may be one of a cluster that
        does not answer.
        """
        asked = Named(kind, name)
        known, until = self._known.get(asked, (None, 0.0))
        if known is not None and monotonic() < until:
            return known
        found = None
        if kind in _CLAIMED:
            try:
                found = (await self.names.find([asked])).get(asked)
            except Unavailable:
                found = known  # else whoever is in a cluster that is there is found there
        if found is None:
            found = await self._ask_all(kind, name)
        if found is not None and kind not in _CHANGING:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            until = monotonic() + BELIEVED_S if kind == SESSION else inf
            self._known[asked] = found, until
        return found

    async def _ask_all(self, kind: str, name: str) -> UUID | None:
        answers = await asyncio.gather(*(self._ask(one, kind, name) for one in self.applications))
        found = next((answer for answer in answers if isinstance(answer, UUID)), None)
        if found is not None:
            return found
        for answer in answers:
            if isinstance(answer, Unavailable):
                raise answer
        return None

    async def place(self, workspace_id: UUID) -> Place:
        """Where a workspace is."""
        return await self.directory.place(workspace_id)

    async def _ask(self, shard: str, kind: str, name: str) -> UUID | Unavailable | None:
        try:
            async with asyncio.timeout(ASK_S):
                database = self.application(shard).database
                rows = await database.fetch(QUERIES.find_workspaces, kind, [name])
        except TimeoutError:
            return Unavailable(f"the database cluster {shard} does not answer")
        except Unavailable as error:
            return error
        return rows[0]["workspace_id"] if rows else None

    async def _open(self, name: str) -> None:
        """Until it is reached."""
        application, told = self.applications[name], False
        while True:
            try:
                await application.open()
            except MailyardError as error:
                if not told:
                    _LOG.warning("shard_away", shard=name, error=error.message)
                told = True
                with suppress(MailyardError):
                    await application.database.close()
                await asyncio.sleep(AGAIN_S)
            else:
                self._up.add(name)
                return
