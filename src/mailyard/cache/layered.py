"""The cache in layers: in this process, shared between processes, and a table of results.

    value = await cache.get_or_make(INBOX, workspace_id, key, make, tags=(f"inbox:{id}",))

looks from the nearest layer to the farthest, and makes the value when none has it. Many who ask at
once share one making (single flight); a kind may be given a little too old while a new value is
made behind the answer (stale while revalidate). How long which layer keeps what stands in
`cache/kind.py`.

Whoever changes what a value is made of names its tags, in the transaction of the change:

    await cache.change(workspace_id, [f"inbox:{id}"], tx)

and from its commit on no `strict` kind gives the old value in any process: reads look at the log
of changes before they believe what they have (`cache/change_log.py`). Nothing here is the truth,
and nothing here fails its caller: with the database away every value is made, or is not.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

import msgspec
import structlog

from mailyard.cache.cache import KEY_CHARACTERS, Cache
from mailyard.cache.change_log import LOOK_EVERY_S, ChangeLog, Wakeups
from mailyard.cache.count import count
from mailyard.cache.kind import UNUSED, Kind
from mailyard.cache.lower import ResultTable, SharedLayer
from mailyard.cache.process_layer import Entry, Place, ProcessLayer, Tag
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.limits import MIB
from mailyard.observe.metrics import CACHE_BYTES
from mailyard.storage.database import Connection, Database
from mailyard.storage.reading import at_head

_LOG = structlog.get_logger(__name__)
PROCESS_BYTES = 16 * MIB

T = TypeVar("T")
Make = Callable[[], Awaitable[T]]


class _Flight:
    """One making that many wait for. `spoiled`: a change was told of meanwhile."""

    __slots__ = ("spoiled", "tags", "task")

    def __init__(self, tags: tuple[Tag, ...]) -> None:
        self.tags = frozenset(tags)
        self.spoiled = False
        self.task: asyncio.Task[Any] | None = None


class LayeredCache:
    """One a process. Belongs to one event loop."""

    def __init__(
        self,
        *,
        database: Database,
        shared: Cache | None = None,
        bus: Wakeups | None = None,
        followed: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        size_bytes: int = PROCESS_BYTES,
    ) -> None:
        self._clock = clock or SystemClock()
        self._near = ProcessLayer(size_bytes)
        self._log = ChangeLog(
            database=database,
            bus=bus,
            followed=followed or {},
            clock=self._clock,
            forget=self._forget,
        )
        self._shared = SharedLayer(cache=shared, log=self._log) if shared is not None else None
        self._results = ResultTable(database=database)
        self._flights: dict[Place, _Flight] = {}
        self._behind: set[asyncio.Task[None]] = set()

    async def get_or_make(
        self,
        kind: Kind,
        workspace_id: UUID,
        key: str,
        make: Make[T],
        tags: Sequence[str] = (),
        *,
        shape: type[T] | None = None,
        ends_at: Callable[[T], datetime | None] | None = None,
        weigh: Callable[[T], int] | None = None,
    ) -> T:
        """The value of `key` in the workspace, cached or made. Raises what `make` raises.

        The value is shared by all who ask: never change it. `shape`: what it is, where a lower
        layer has to store it (any type of msgspec's; without it plain values). `ends_at`: an
        instant from which on it is nothing any more. `weigh`: its size in bytes.
        """
        if len(key) > KEY_CHARACTERS:
            return await make()
        log = self._log
        heard = await (log.heard() if kind.strict else log.recently_heard())
        if not heard:
            count(kind, "process", hit=False)
            return await make()
        place = (kind.name, workspace_id, key)
        making = _Making(kind, make, tags, shape, ends_at, weigh)
        entry = self._near.get(place)
        if entry is not None:
            age = self._judge(entry)
            if age != "dead":
                count(kind, "process", hit=True)
                if age == "stale":
                    self._renew(place, making)
                value: T = entry.value
                return value
            self._near.drop(place)
        count(kind, "process", hit=False)
        return await asyncio.shield(self._fly(place, making))

    async def change(
        self, workspace_id: UUID, tags: Sequence[str], tx: Connection | None = None
    ) -> None:
        """What carries one of `tags` is no longer so, from the commit of `tx` on."""
        await self._log.write(workspace_id, tags, tx)
        if tx is None:
            self.changed(workspace_id, tags)

    def changed(self, workspace_id: UUID, tags: Sequence[str]) -> None:
        """After the commit: forget here and let the others look. Without it they do in a second."""
        self._forget([(workspace_id, tag) for tag in tags])
        self._log.announce()

    def peek(self, kind: Kind, workspace_id: UUID, key: str) -> Any | None:
        """What this process has and may give without asking anybody; else None. Only of kinds that
        are not `strict`: for callers who hold a connection and so must not wait for another."""
        if kind.strict or not self._log.is_recent():
            return None
        entry = self._near.get((kind.name, workspace_id, key))
        if entry is None or self._judge(entry) != "fresh":
            return None
        count(kind, "process", hit=True)
        return entry.value

    async def everybody_has_heard(self) -> None:
        """After the commit of a change: from here on no process gives the old value of any kind,
        so whoever is answered now cannot read what he has changed as it was."""
        await asyncio.sleep(LOOK_EVERY_S)

    async def clear(self, workspace_id: UUID, tx: Connection) -> bool:
        """Nothing that is kept is so any more, in any process, from the commit of `tx` on.

        `workspace_id`: who says so. False: the shared layer is away; what it has and nothing names
        comes back with it, until that runs out.
        """
        emptied = self._shared is None or await self._shared.clear()
        await self._results.clear(tx)
        await self._log.write_all(workspace_id, tx)
        return emptied

    async def cleared(self) -> None:
        """After the commit: forget here, and what was shared until then; let the others look."""
        if self._shared is not None:
            await self._shared.clear()
        self._forget(None)
        self._log.announce()

    async def sweep(self) -> None:
        """Free the room of what has run out (a duty of the workers)."""
        await self._results.sweep()

    async def close(self) -> None:
        for task in [flight.task for flight in self._flights.values()]:
            if task is not None:
                task.cancel()
        await self._log.close()

    # -----------------------------------------------------------------------------------------

    def _judge(self, entry: Entry) -> str:
        now = self._clock.monotonic()
        if entry.ends_at is not None and self._clock.now().timestamp() >= entry.ends_at:
            return "dead"
        if entry.until is None or now < entry.until:
            return "fresh"
        return "stale" if entry.stale_until is not None and now < entry.stale_until else "dead"

    def _renew(self, place: Place, making: "_Making[Any]") -> None:
        """Make a new value behind the answer that was given."""
        if place in self._flights:
            return
        task = self._fly(place, making)
        waiting = asyncio.create_task(_quietly(task))
        self._behind.add(waiting)
        waiting.add_done_callback(self._behind.discard)

    def _fly(self, place: Place, making: "_Making[Any]") -> "asyncio.Task[Any]":
        """The making that is under way, or a new one."""
        flight = self._flights.get(place)
        if flight is None:
            flight = _Flight(tuple((place[1], tag) for tag in making.tags))
            flight.task = asyncio.create_task(self._find(place, making, flight))
            self._flights[place] = flight
        assert flight.task is not None
        return flight.task

    async def _find(self, place: Place, making: "_Making[Any]", flight: _Flight) -> Any:
        try:
            return await self._look_below(place, making, flight)
        finally:
            if self._flights.get(place) is flight:
                del self._flights[place]

    async def _look_below(self, place: Place, making: "_Making[Any]", flight: _Flight) -> Any:
        kind, (_, workspace_id, key) = making.kind, place
        seen = self._log.snapshot
        shared = self._shared if kind.shared_s != UNUSED else None
        shared_key = f"{kind.name}:{key}"
        if shared is not None:
            packed = await shared.get(workspace_id, shared_key)
            count(kind, "shared", hit=packed is not None)
            if packed is not None:
                value = making.unpack(packed)
                self._keep(place, making, value, flight)
                return value
        if kind.result_s != UNUSED:
            found = await self._results.get(workspace_id, kind.name, key)
            count(kind, "result", hit=found is not None)
            if found is not None:
                value = making.unpack(found.value)
                self._keep(place, making, value, flight)
                return value
        with at_head():  # who is given it later has heard of every change until now
            value = await making.make()
        self._keep(place, making, value, flight)
        if seen is not None and not flight.spoiled:
            await self._store_below(place, making, value, seen, shared, shared_key)
        return value

    async def _store_below(
        self,
        place: Place,
        making: "_Making[Any]",
        value: Any,
        seen: str,
        shared: SharedLayer | None,
        shared_key: str,
    ) -> None:
        kind, (_, workspace_id, key) = making.kind, place
        if shared is None and kind.result_s == UNUSED:
            return
        packed = msgspec.msgpack.encode(value)
        if kind.result_s != UNUSED:
            ttl_s = _shorter(kind.result_s, kind.life_s)
            await self._results.put(workspace_id, kind.name, key, packed, making.tags, seen, ttl_s)
        if shared is not None:
            ttl_s = _shorter(kind.shared_s, kind.life_s)
            assert ttl_s is not None, "a shared value has an end"
            await shared.put(workspace_id, shared_key, packed, making.tags, seen, ttl_s)

    def _keep(self, place: Place, making: "_Making[Any]", value: Any, flight: _Flight) -> None:
        """In the process, unless a change was told of while the value was on its way."""
        if flight.spoiled:
            return
        kind, now = making.kind, self._clock.monotonic()
        life_s = _shorter(kind.process_s, kind.life_s)
        until = None if life_s is None else now + life_s
        end = making.ends_at(value) if making.ends_at is not None else None
        self._near.put(
            place,
            Entry(
                value=value,
                until=until,
                stale_until=until + kind.stale_s if until is not None and kind.stale_s else None,
                ends_at=None if end is None else end.timestamp(),
                tags=tuple((place[1], tag) for tag in making.tags),
                size_bytes=making.weigh(value) if making.weigh is not None else kind.entry_bytes,
            ),
        )
        CACHE_BYTES.set(self._near.size_bytes)

    def _forget(self, tags: Sequence[Tag] | None) -> None:
        if tags is None:
            self._near.clear()
            spoiled = list(self._flights)
        else:
            self._near.drop_tagged(tags)
            named = frozenset(tags)
            spoiled = [place for place, one in self._flights.items() if one.tags & named]
        for place in spoiled:  # whoever asks from now on waits for a new one
            self._flights.pop(place).spoiled = True


class _Making(Generic[T]):
    """How a value is made and kept."""

    __slots__ = ("ends_at", "kind", "make", "shape", "tags", "weigh")

    def __init__(
        self,
        kind: Kind,
        make: Make[T],
        tags: Sequence[str],
        shape: type[T] | None,
        ends_at: Callable[[T], datetime | None] | None,
        weigh: Callable[[T], int] | None,
    ) -> None:
        self.kind = kind
        self.make = make
        self.tags = tuple(tags)
        self.shape = shape
        self.ends_at = ends_at
        self.weigh = weigh

    def unpack(self, packed: bytes) -> Any:
        return msgspec.msgpack.decode(packed, type=Any if self.shape is None else self.shape)


def _shorter(layer_s: float | None, life_s: float | None) -> float | None:
    if layer_s is None or life_s is None:
        return life_s if layer_s is None else layer_s
    return min(layer_s, life_s)


async def _quietly(task: "asyncio.Task[Any]") -> None:
    try:
        await asyncio.shield(task)
    except Exception as error:
        _LOG.warning("a cached value was not made anew", error=str(error))
