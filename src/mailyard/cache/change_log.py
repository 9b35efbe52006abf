"""What has changed, told to the caches of all processes.

Whoever changes something writes the tags of what depends on it into `cache_change`, in the same
transaction. A process asks "what has become visible since my last look?" with the snapshot of that
look: rows of transactions that were not visible then and are now. That misses nothing, whatever the
order of commits, and waits for no transaction that still runs. New mail and changes of mailboxes
tell the same through the stream of live events, where they stand anyway.

The bus says when to look; a reader that must be sure looks before it reads. Many readers share a
look, but never one that began before they asked.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol
from uuid import UUID

import asyncpg
import msgspec

from mailyard.cache.process_layer import Tag
from mailyard.core.clock import Clock
from mailyard.core.errors import Unavailable
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("cache")
TOPIC = "cache"
LOOK_EVERY_S = 0.25  # where not every read waits for a look of its own
EVERYTHING = "*"  # the tag of all that is kept, in every workspace
REACHES_S = 600.0  # whoever has not looked for so long forgets all; the log is kept for longer
_CHANGES = 2_000  # rows of one look; with more everything is forgotten, which is cheaper
_AWAY = (Unavailable, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)

MAIL_TAG = "mail:"  # with an inbox's TypeID: what shows the mail in it
_items = msgspec.json.Decoder(list[dict[str, object]]).decode


class News(Protocol):
    """A subscription to a topic of the bus."""

    def heard(self) -> bool: ...

    def close(self) -> None: ...


class Wakeups(Protocol):
    """Of the bus what the log needs."""

    def announce(self, topic: str) -> None: ...

    def subscribe(self, topic: str) -> News: ...


class ChangeLog:
    """Looks for changes and hands their tags to `forget` (None: forget everything).

    `followed`: kinds of live events, each with the field of its items that holds the TypeID of the
    inbox whose mail has changed.
    """

    def __init__(
        self,
        *,
        database: Database,
        bus: Wakeups | None,
        followed: Mapping[str, str],
        clock: Clock,
        forget: Callable[[Sequence[Tag] | None], None],
    ) -> None:
        self._database = database
        self._bus = bus
        self._followed = dict(followed)
        self._clock = clock
        self._forget = forget
        self._news = bus.subscribe(TOPIC) if bus is not None else None
        self._looked_at: float | None = None
        self._looking: asyncio.Task[bool] | None = None
        self._next: asyncio.Task[bool] | None = None
        self.snapshot: str | None = None

    async def write(self, workspace_id: UUID, tags: Sequence[str], tx: Connection | None) -> None:
        """What carries one of `tags` is no longer so, as of the commit of `tx`."""
        await self._database.execute(_SQL.add_change, workspace_id, list(tags), tx=tx)

    def announce(self) -> None:
        """After the commit: the others look at once."""
        if self._bus is not None:
            self._bus.announce(TOPIC)

    async def write_all(self, workspace_id: UUID, tx: Connection | None) -> None:
        """Nothing that is kept anywhere is so any more, as of the commit of `tx`."""
        await self._database.execute(_SQL.add_change, workspace_id, [EVERYTHING], tx=tx)

    async def changed_since(self, workspace_id: UUID, tags: Sequence[str], snapshot: str) -> bool:
        """Whether one of `tags` was told of by a transaction that `snapshot` did not see."""
        try:
            answer = await self._database.fetchval(
                _SQL.changed_since, workspace_id, list(tags), snapshot
            )
        except _AWAY:
            return True
        return bool(answer)

    async def heard(self) -> bool:
        """Having heard of all that was committed before this call. False: the database is away."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
            task = self._looking
        else:  # under way, and so perhaps older than what the caller must see: the one behind it
            if self._next is None:
                self._next = asyncio.create_task(self._look_behind(self._looking))
            task = self._next
        return await asyncio.shield(task)

    async def recently_heard(self) -> bool:
        """Having heard of what is older than LOOK_EVERY_S; looks at once when the bus says so."""
        if not self.is_recent():
            return await self.heard()
        if self._looking is None and self._told():
            self._looking = asyncio.create_task(self._look())
        return True

    def is_recent(self) -> bool:
        """Whether everything has been heard of that is older than LOOK_EVERY_S."""
        return self._age_s() < LOOK_EVERY_S

    async def close(self) -> None:
        for task in (self._looking, self._next):
            if task is not None:
                await asyncio.wait([task])
        if self._news is not None:
            self._news.close()

    # -----------------------------------------------------------------------------------------

    def _age_s(self) -> float:
        if self._looked_at is None:
            return float("inf")
        return self._clock.monotonic() - self._looked_at

    def _told(self) -> bool:
        return self._news is not None and self._news.heard()

    async def _look_behind(self, before: asyncio.Task[bool]) -> bool:
        await asyncio.wait([before])
        self._looking, self._next = self._next, None
        return await self._look()

    async def _look(self) -> bool:
        if self._news is not None:
            self._news.heard()
        began = self._clock.monotonic()
        try:
            if self.snapshot is None or self._age_s() > REACHES_S:
                self._forget(None)
                self.snapshot = await self._database.fetchval(_SQL.snapshot)
            else:
                self._take(
                    await self._database.fetch(
                        _SQL.changes_since, self.snapshot, list(self._followed), _CHANGES
                    )
                )
        except _AWAY:
            self._forget(None)
            self.snapshot = None
            self._looked_at = None
            return False
        finally:
            if self._looking is asyncio.current_task():
                self._looking = None
        self._looked_at = began
        return True

    def _take(self, rows: Sequence[asyncpg.Record]) -> None:
        self.snapshot = rows[0]["seen"]
        if len(rows) >= _CHANGES:
            self._forget(None)
            return
        tags: list[Tag] = []
        for row in rows:
            if row["tags"] == [EVERYTHING]:
                self._forget(None)
                return
            if row["tags"] is not None:
                tags += [(row["workspace_id"], tag) for tag in row["tags"]]
            elif row["items"] is not None:
                field = self._followed[row["kind"]]
                told = {str(item.get(field)) for item in _items(row["items"])}
                tags += [(row["workspace_id"], MAIL_TAG + inbox) for inbox in told]
        if tags:
            self._forget(tags)
