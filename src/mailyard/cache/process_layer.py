"""The first layer: values as objects in this process, found again by their tags."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

_ENTRY_BYTES = 400  # what a key, its tags and its place in the tables take

Place = tuple[str, UUID, str]  # kind, workspace, key
Tag = tuple[UUID, str]


@dataclass(slots=True)
class Entry:
    """A value. Fresh until `until`, given until `stale_until` while a new one is made; monotonic
    seconds, None: without end. `ends_at`: wall-clock seconds at which it is nothing any more.
    """

    value: Any
    until: float | None
    stale_until: float | None
    ends_at: float | None
    tags: tuple[Tag, ...]
    size_bytes: int


class ProcessLayer:
    """Bounded in bytes: what was not used for longest goes first."""

    def __init__(self, size_bytes: int) -> None:
        self._most = size_bytes
        self._entries: OrderedDict[Place, Entry] = OrderedDict()
        self._tagged: dict[Tag, set[Place]] = {}
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, place: Place) -> Entry | None:
        entry = self._entries.get(place)
        if entry is not None:
            self._entries.move_to_end(place)
        return entry

    def put(self, place: Place, entry: Entry) -> None:
        """Keep an entry in the place of an older one; one that alone is too large is not kept."""
        self.drop(place)
        entry.size_bytes += _ENTRY_BYTES + 2 * len(place[2])
        if entry.size_bytes > self._most // 4:
            return
        self._entries[place] = entry
        self.size_bytes += entry.size_bytes
        for tag in entry.tags:
            self._tagged.setdefault(tag, set()).add(place)
        while self.size_bytes > self._most:
            self.drop(next(iter(self._entries)))

    def drop(self, place: Place) -> None:
        entry = self._entries.pop(place, None)
        if entry is None:
            return
        self.size_bytes -= entry.size_bytes
        for tag in entry.tags:
            places = self._tagged[tag]
            places.discard(place)
            if not places:
                del self._tagged[tag]

    def drop_tagged(self, tags: Iterable[Tag]) -> None:
        """Forget every value that carries one of `tags`."""
        for tag in tags:
            for place in list(self._tagged.get(tag, ())):
                self.drop(place)

    def clear(self) -> None:
        self._entries.clear()
        self._tagged.clear()
        self.size_bytes = 0
