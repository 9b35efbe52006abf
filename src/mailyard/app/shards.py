"""One application for each database cluster, and which of them a caller belongs to.

The home cluster has the directory (`storage/directory.py`), which knows workspaces. What a caller
shows before its workspace is known (an API key, a session, a link in a mail) lies in the cluster of
its workspace and nowhere else, so all clusters are asked for it at once and the answer is kept: a
name never changes its workspace. A table of names beside them would be a second truth, to be kept
in step with every key, session and inbox that is made.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

import structlog

from mailyard.app.application import Application
from mailyard.app.foundation import Foundation, database_address
from mailyard.core.errors import MailyardError, Unavailable
from mailyard.fleet.shards.overview import OPERATOR
from mailyard.settings import HOME, Settings
from mailyard.storage.database import Database
from mailyard.storage.directory import Directory, Place, Residence
from mailyard.storage.migrate import migrate
from mailyard.storage.partitions import ensure_partitions
from mailyard.storage.queries import load

if TYPE_CHECKING:
    from collections.abc import Sequence

QUERIES = load("shard")
ASK_S = 2.0  # one cluster, for a name
AGAIN_S = 2.0  # between two tries to reach a cluster
_REMEMBERED = 50_000
_CHANGING = frozenset({"person"})  # whoever belongs to a workspace today

_LOG = structlog.get_logger(__name__)


def settings_of(settings: Settings, shard: str) -> Settings:
    """The settings as they are for one cluster."""
    return replace(settings, shard="" if shard == HOME else shard)


def clusters_of(settings: Settings) -> dict[str, Database]:
    """A database for each cluster, by name, the home one first; not opened."""
    names = [HOME, *settings.shard_urls]
    return {name: Database(database_address(settings_of(settings, name))) for name in names}


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
    settings = foundation.settings
    if not settings.shard:
        return Residence(home=foundation.database, shard=HOME, name_of_home=HOME, opened=True)
    home = Database(replace(database_address(settings_of(settings, HOME)), connections=1))
    residence = Residence(home=home, shard=settings.shard, name_of_home=HOME, opened=False)
    foundation.ends.append(residence.close)
    return residence


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
        self.directory = Directory(database=home.database, home=HOME)
        self._up = {HOME}
        self._names: dict[tuple[str, str], UUID] = {}
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

        Raises Unavailable when it may be one of a cluster that does not answer.
        """
        known = self._names.get((kind, name))
        if known is not None:
            return known
        answers = await asyncio.gather(*(self._ask(one, kind, name) for one in self.applications))
        found = next((answer for answer in answers if isinstance(answer, UUID)), None)
        if found is not None:
            if len(self._names) >= _REMEMBERED:
                self._names.clear()
            if kind not in _CHANGING:
                self._names[(kind, name)] = found
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
