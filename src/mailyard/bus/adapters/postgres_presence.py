"""Presence in the table of processes, by the database's time."""

from uuid import UUID

import msgspec

from mailyard.bus.presence import HERE_S, Here
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("process")
_stats = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class PostgresPresence:
    """A row a process."""

    def __init__(self, *, database: Database, here_s: float = HERE_S) -> None:
        self._database = database
        self._here_s = here_s

    async def beat(self, here: Here) -> list[Here]:
        await self.enter(here)
        return await self.who()

    async def enter(self, here: Here) -> None:
        """As `beat`, for who need not know who else is there."""
        stats = _stats(here.stats) | {"live": msgspec.Raw(msgspec.json.encode(here.live))}
        text = msgspec.json.encode(stats).decode()
        await self._database.execute(_SQL.beat, here.id, here.role, here.host, here.pid, text)

    async def who(self) -> list[Here]:
        rows = await self._database.fetch(_SQL.present, self._here_s)
        return [
            Here(
                id=row["id"],
                role=row["role"],
                host=row["host"],
                pid=row["pid"],
                live=msgspec.json.decode(row["live"] or "{}", type=dict[str, int]),
            )
            for row in rows
        ]

    async def leave(self, id: UUID) -> None:
        await self._database.execute(_SQL.remove, id)
