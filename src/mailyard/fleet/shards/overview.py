"""What the installation's operators see of all database clusters: each cluster, the newest moves,
and every workspace, wherever it is. A cluster that is away is named, and the rest is there."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from mailyard.fleet.shards.across import ASK_S, across
from mailyard.fleet.shards.tables import QUERIES
from mailyard.storage.database import Database

MOVES = 20
# In whose name a cluster beside the home one looks after itself. Version 7 of the beginning of
# time: before every workspace that was ever made, so it is the first there; nobody belongs to it.
OPERATOR = UUID("00000000-0000-7000-8000-000000000001")
_LAST = UUID(int=(1 << 128) - 1)


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster. `workspaces`: that were moved there; None for the home one, where all others
    are. `migration`: its newest; None, and `away` says why, when it does not answer."""

    name: str
    workspaces: int | None
    migration: int | None
    away: str


@dataclass(frozen=True, slots=True)
class MoveSeen:
    """One move. `frozen_s`: how long the workspace took no changes."""

    workspace_id: UUID
    source: str
    target: str
    state: str
    rows: int | None
    frozen_s: float | None
    trouble: str


@dataclass(frozen=True, slots=True)
class Resident:
    """A workspace and its cluster."""

    id: UUID
    name: str
    shard: str
    moving: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Residents:
    """A page of workspaces, newest first. `away`: why clusters are missing."""

    items: Sequence[Resident]
    away: Mapping[str, str]
    next_before: UUID | None


class Overview:
    """Asks `clusters`, by name, of which `home` has the directory."""

    def __init__(self, clusters: Mapping[str, Database], home: str) -> None:
        self._clusters = clusters
        self._home = home

    async def clusters(self) -> list[Cluster]:
        """All of them. Raises Unavailable when the home one is away."""
        counts = {
            row["shard"]: row["workspaces"]
            for row in await self._clusters[self._home].fetch(QUERIES.counts)
        }
        found = await across(
            {name: _version(cluster) for name, cluster in self._clusters.items()},
            lambda _: _LAST,
            limit=len(self._clusters),
        )
        versions = dict(found.items)
        return [
            Cluster(
                name,
                None if name == self._home else counts.get(name, 0),
                versions.get(name),
                found.away.get(name, ""),
            )
            for name in self._clusters
        ]

    async def moves(self) -> list[MoveSeen]:
        """The newest. Raises Unavailable."""
        rows = await self._clusters[self._home].fetch(QUERIES.moves, MOVES)
        return [_move(row) for row in rows]

    async def workspaces(
        self, *, before: UUID | None = None, limit: int, ask_s: float = ASK_S
    ) -> Residents:
        """The workspaces older than `before`. Raises Unavailable when the home cluster is away."""
        page = await across(
            {name: _older(cluster, before or _LAST) for name, cluster in self._clusters.items()},
            lambda row: row["workspace_id"],
            limit=limit,
            ask_s=ask_s,
        )
        rows = await self._clusters[self._home].fetch(
            QUERIES.places_of, [row["workspace_id"] for _, row in page.items]
        )
        places = {row["workspace_id"]: (row["shard"], row["state"] == "moving") for row in rows}
        items = []
        for shard, row in page.items:
            place, moving = places.get(row["workspace_id"], (self._home, False))
            if shard == place:  # not on its way there, and not still to be let go
                items.append(
                    Resident(row["workspace_id"], row["name"], shard, moving, row["created_at"])
                )
        last = page.items[-1][1]["workspace_id"] if page.more else None
        return Residents(items, page.away, last)


def _version(cluster: Database) -> Callable[[int], Awaitable[Sequence[int]]]:
    async def ask(_: int) -> Sequence[int]:
        return [await cluster.fetchval(QUERIES.schema_version)]

    return ask


def _older(cluster: Database, before: UUID) -> Callable[[int], Awaitable[Sequence[asyncpg.Record]]]:
    async def ask(limit: int) -> Sequence[asyncpg.Record]:
        return await cluster.fetch(QUERIES.all_workspaces, before, limit, OPERATOR)

    return ask


def _move(row: asyncpg.Record) -> MoveSeen:
    frozen = row["switched_at"] and row["frozen_at"] and row["switched_at"] - row["frozen_at"]
    return MoveSeen(
        row["workspace_id"],
        row["source"],
        row["target"],
        row["state"],
        row["rows_moved"],
        frozen.total_seconds() if frozen else None,
        row["trouble"] or "",
    )
