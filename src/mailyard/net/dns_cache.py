"""What DNS has said and how long it holds, bounded in entries and bytes.

The least used goes first.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class _Kept(Generic[Value]):
    value: Value
    until: float
    size_bytes: int


class DnsCache(Generic[Key, Value]):
    """`now` and `until` are of one monotonic clock, in seconds. Every operation is O(1)."""

    def __init__(self, entries: int, size_bytes: int) -> None:
        self._entries = entries
        self._size_bytes = size_bytes
        self._kept: OrderedDict[Key, _Kept[Value]] = OrderedDict()
        self._held_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key, now: float) -> tuple[Value, float] | None:
        """(what is kept, the seconds that it still holds), or None."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept.until <= now:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return kept.value, kept.until - now

    def put(self, key: Key, value: Value, until: float, size_bytes: int) -> None:
        """Keep `value`, in place of what was kept under `key`."""
        if key in self._kept:
            self._drop(key)
        self._kept[key] = _Kept(value, until, size_bytes)
        self._held_bytes += size_bytes
        while len(self._kept) > self._entries or self._held_bytes > self._size_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: Key) -> None:
        self._held_bytes -= self._kept.pop(key).size_bytes
