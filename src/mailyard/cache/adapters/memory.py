"""A cache inside one process, bounded in bytes: what was not used for longest goes first."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from uuid import UUID

from mailyard.cache.cache import kept
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.limits import MIB

_ENTRY_BYTES = 300  # what a key and its place in the table take


class MemoryCache:
    """Values of this process alone."""

    def __init__(self, *, clock: Clock | None = None, size_bytes: int = 16 * MIB) -> None:
        self._clock = clock or SystemClock()
        self._most = size_bytes
        self._size = 0
        self._entries: OrderedDict[tuple[UUID, str], tuple[bytes, float]] = OrderedDict()

    async def get(self, workspace_id: UUID, keys: Sequence[str]) -> dict[str, bytes]:
        now = self._clock.monotonic()
        found: dict[str, bytes] = {}
        for key in keys:
            place = (workspace_id, key)
            entry = self._entries.get(place)
            if entry is None:
                continue
            if entry[1] <= now:
                self._forget(place)
                continue
            self._entries.move_to_end(place)
            found[key] = entry[0]
        return found

    async def put(self, workspace_id: UUID, values: Mapping[str, bytes], ttl_s: float) -> None:
        until = self._clock.monotonic() + ttl_s
        for key, value in kept(values).items():
            place = (workspace_id, key)
            self._forget(place)
            self._entries[place] = (value, until)
            self._size += len(value) + _ENTRY_BYTES
        while self._size > self._most and self._entries:
            self._forget(next(iter(self._entries)))

    async def drop(self, workspace_id: UUID, keys: Sequence[str]) -> None:
        for key in keys:
            self._forget((workspace_id, key))

    async def clear(self) -> bool:
        self._entries.clear()
        self._size = 0
        return True

    def _forget(self, place: tuple[UUID, str]) -> None:
        entry = self._entries.pop(place, None)
        if entry is not None:
            self._size -= len(entry[0]) + _ENTRY_BYTES
