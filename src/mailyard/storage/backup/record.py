"""What became of each backup and of each restore on trial, in the database itself."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from mailyard.core.ids import uuid7
from mailyard.storage.database import Database
from mailyard.storage.queries import load

QUERIES = load("backup")
KEEP = timedelta(days=400)


@dataclass(frozen=True, slots=True)
class Run:
    """One that has come to its end. `kind`: base or drill."""

    id: UUID
    kind: str
    started_at: datetime
    finished_at: datetime
    good: bool
    stored_bytes: int
    detail: dict[str, object]


class BackupLog:
    """Writes and reads them."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def add(self, run: Run) -> None:
        """Remember it, and forget those of more than a year ago."""
        text = msgspec.json.encode(run.detail).decode()
        named = (run.id, run.kind, run.started_at, run.finished_at)
        if run.good:
            await self._database.execute(QUERIES.add_run, *named, run.good, run.stored_bytes, text)
        else:
            await self._database.execute(QUERIES.add_bad_run, *named, text)
        await self._database.execute(QUERIES.forget_runs, run.finished_at - KEEP)

    async def last_good(self) -> dict[str, datetime]:
        """When the last good one of each kind ended."""
        rows = await self._database.fetch(QUERIES.last_good)
        return {row["kind"]: row["finished_at"] for row in rows}

    async def runs(self, limit: int) -> list[Run]:
        """The newest first."""
        return [
            Run(
                row["id"],
                row["kind"],
                row["started_at"],
                row["finished_at"],
                row["good"],
                row["stored_bytes"],
                msgspec.json.decode(row["detail"]),
            )
            for row in await self._database.fetch(QUERIES.runs, limit)
        ]

    async def has_used(self, store: str) -> bool:
        """Whether the store of that name has had a backup of ours."""
        return bool(await self._database.fetchval(QUERIES.used_store, store))


def run_of(
    kind: str,
    started_at: datetime,
    finished_at: datetime,
    *,
    good: bool,
    stored_bytes: int = 0,
    detail: dict[str, object],
) -> Run:
    """A run that ends now."""
    return Run(uuid7(), kind, started_at, finished_at, good, stored_bytes, detail)
