"""The directory of names is kept true to the tables of one cluster, by its scheduler.

Names are claimed as their rows are written (`storage/names.py`). What that leaves behind is mended
here: a claim whose row was never committed, or is gone, is let go; a row without a claim (made
before there were shards, or by a process that did not know of them) gets one. Only the cluster
where a workspace lives touches the claims of that workspace, so two clusters never mend each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg
import structlog

from mailyard.storage.database import Database
from mailyard.storage.directory import Home, Residence
from mailyard.storage.names import (
    ADDRESS,
    DOMAIN,
    HOOK,
    KEY,
    PERSON,
    QUERIES,
    SESSION,
    Named,
    Names,
)
from mailyard.storage.queries import Query

NAMES_AT_ONCE = 1_000
# How old a claim is before it can be called left behind: longer than any transaction that may yet
# commit its row (a statement ends after 60 s, storage/database.py).
LEFT_S = 600.0

_LOG = structlog.get_logger(__name__)

# What of each kind is in a cluster, each read in the order of its names.
_HERE: Sequence[tuple[str, Query]] = (
    (KEY, QUERIES.keys_here),
    (HOOK, QUERIES.hooks_here),
    (PERSON, QUERIES.people_here),
    (DOMAIN, QUERIES.domains_here),
    (ADDRESS, QUERIES.addresses_here),
    (ADDRESS, QUERIES.reserved_here),
    (SESSION, QUERIES.sessions_here),
)


class _Place(NamedTuple):
    """How far a pass has come: the table, and the name behind which it goes on."""

    table: int = 0
    behind: str = ""


@dataclass(slots=True)
class Pass:
    """What one pass over all names has mended. `twice`: names that two clusters have."""

    claimed: int = 0
    released: int = 0
    twice: list[Named] = field(default_factory=list)
    ended_at: datetime | None = None


class NamesUpkeep:
    """Mends the claims of the workspaces in the cluster of `database`, a page at a time."""

    def __init__(
        self,
        *,
        database: Database,
        home: Home,
        residence: Residence,
        names: Names,
        shard: str,
        name_of_home: str,
        left_s: float = LEFT_S,
    ) -> None:
        self._database = database
        self._home = home
        self._residence = residence
        self._names = names
        self._shard = shard
        self._name_of_home = name_of_home
        self._left_s = left_s
        self._here = _Place()
        self._claims = Named("", "")
        self._adopted = False
        self._now = Pass()
        self.last = Pass()

    async def whole(self) -> Pass:
        """One pass from the beginning to the end. Raises Unavailable."""
        self._here, self._claims, self._adopted = _Place(), Named("", ""), False
        self._now = Pass()
        while await self.step():
            pass
        return self.last

    async def step(self) -> bool:
        """The next page; whether there is more. Raises Unavailable."""
        if not self._adopted:
            self._adopted = not await self._adopt()
            return True
        if await self._let_go():
            return True
        self._now.ended_at = datetime.now(UTC)
        if self._now.twice:
            _LOG.warning("names_twice", names=[one.name for one in self._now.twice[:20]])
        self.last, self._now = self._now, Pass()
        self._here, self._claims, self._adopted = _Place(), Named("", ""), False
        return False

    # -- rows without a claim -----------------------------------------------------------------

    async def _adopt(self) -> bool:
        kind, query = _HERE[self._here.table]
        rows = await self._database.fetch(query, self._here.behind, NAMES_AT_ONCE)
        if rows:
            self._here = _Place(self._here.table, rows[-1]["name"])
            await self._adopt_rows(kind, rows)
        if len(rows) < NAMES_AT_ONCE:
            self._here = _Place(self._here.table + 1)
        return self._here.table < len(_HERE)

    async def _adopt_rows(self, kind: str, rows: Sequence[asyncpg.Record]) -> None:
        home = await self._home.get()
        known = {
            row["name"]: row["workspace_id"]
            for row in await home.fetch(
                QUERIES.find_names, [kind] * len(rows), [row["name"] for row in rows]
            )
        }
        # People may be known by way of another workspace of theirs.
        wrong = [
            row
            for row in rows
            if known.get(row["name"]) != row["workspace_id"]
            and not (kind == PERSON and row["name"] in known)
        ]
        if not wrong:
            return
        here = await self._residence.here({row["workspace_id"] for row in wrong})
        by_workspace: dict[UUID, list[asyncpg.Record]] = {}
        for row in wrong:
            if row["workspace_id"] in here:
                by_workspace.setdefault(row["workspace_id"], []).append(row)
        for workspace_id, own in by_workspace.items():
            await self._claim(kind, workspace_id, own)

    async def _claim(self, kind: str, workspace_id: UUID, rows: Sequence[asyncpg.Record]) -> None:
        async with self._database.transaction() as tx:
            if kind == PERSON:
                for row in rows:
                    await self._names.claim_person(row["name"], row["person_id"], workspace_id, tx)
                taken: Sequence[str] = ()
            else:
                found = [row["name"] for row in rows]
                taken = await self._names.claim(kind, found, workspace_id, tx)
        self._now.claimed += len(rows) - len(taken)
        self._now.twice += [Named(kind, name) for name in taken]

    # -- claims without a row -----------------------------------------------------------------

    async def _let_go(self) -> bool:
        home = await self._home.get()
        rows = await home.fetch(
            QUERIES.claimed_names,
            *self._claims,
            self._shard,
            self._left_s,
            NAMES_AT_ONCE,
            self._name_of_home,
        )
        if not rows:
            return False
        self._claims = Named(rows[-1]["kind"], rows[-1]["name"])
        by_kind: dict[str, list[asyncpg.Record]] = {}
        for row in rows:
            by_kind.setdefault(row["kind"], []).append(row)
        for kind, claims in by_kind.items():
            there = {
                (row["name"], row["workspace_id"])
                for row in await self._database.fetch(
                    QUERIES.find_workspaces, kind, [row["name"] for row in claims]
                )
            }
            gone = [row for row in claims if (row["name"], row["workspace_id"]) not in there]
            if gone:
                self._now.released += await home.fetchval(
                    QUERIES.release_names,
                    [row["kind"] for row in gone],
                    [row["name"] for row in gone],
                    [row["workspace_id"] for row in gone],
                    [row["claimed_at"] for row in gone],
                )
        return len(rows) == NAMES_AT_ONCE
