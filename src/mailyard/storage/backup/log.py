"""The write-ahead log, out of the store again: the segments that a recovery needs, in a folder."""

import asyncio
import re
from pathlib import Path

from mailyard.storage.backup.archive import PAGE_BYTES
from mailyard.storage.backup.manifest import Base
from mailyard.storage.backup.seal import Sealer
from mailyard.storage.backup.segment import Segment, read_segment
from mailyard.storage.backup.store import Store

_STORED = re.compile(r"wal/([0-9A-F]{24})(?:-([0-9A-F]{8}))?")


class LogReader:
    """Brings what a recovery from `base` may ask for into `folder`."""

    def __init__(self, store: Store, sealer: Sealer, base: Base, folder: Path) -> None:
        self._store = store
        self._sealer = sealer
        self._size = base.segment_bytes
        self._folder = folder
        first = read_segment(base.first_wal, self._size)
        assert first is not None, "a manifest names a segment"
        self._first: Segment = first

    async def bring(self) -> int:
        """All of it; how many segments. Raises what store and sealer raise."""
        self._folder.mkdir(parents=True, exist_ok=True)
        whole: list[str] = []
        parts: dict[str, list[tuple[str, int]]] = {}
        for name in await self._store.names("wal/"):
            if name.endswith(".history"):
                await self._keep(name.removeprefix("wal/"), await self._open(name))
                continue
            match = _STORED.fullmatch(name)
            segment = read_segment(match[1], self._size) if match is not None else None
            if match is None or segment is None or segment.number < self._first.number:
                continue
            if match[2] is None:
                whole.append(name)
            else:
                parts.setdefault(match[1], []).append((name, int(match[2], 16)))
        for name in whole:
            await self._keep(name.removeprefix("wal/"), await self._open(name))
        for segment_name, found in parts.items():
            if f"wal/{segment_name}" not in whole:
                pieces = [(begin, await self._open(name)) for name, begin in found]
                content = await asyncio.to_thread(assemble, pieces, self._size)
                await self._keep(segment_name, content)
        return len(set(whole) | {f"wal/{name}" for name in parts})

    async def _open(self, name: str) -> bytes:
        sealed = await self._store.get(name)
        return await asyncio.to_thread(self._sealer.open, name, sealed)

    async def _keep(self, name: str, content: bytes) -> None:
        await asyncio.to_thread((self._folder / name).write_bytes, content)


def assemble(pieces: list[tuple[int, bytes]], size_bytes: int) -> bytes:
    """A segment from what was stored of it: (offset, whole pages), in any order.

    A page is written from its beginning on and never otherwise: of two states of one, the one that
    goes further is the later.
    """
    content = bytearray(size_bytes)
    used: dict[int, int] = {}
    for begin, piece in pieces:
        for at in range(0, len(piece), PAGE_BYTES):
            page = piece[at : at + PAGE_BYTES]
            length = len(page.rstrip(b"\0"))
            if length > used.get(begin + at, -1):
                used[begin + at] = length
                content[begin + at : begin + at + len(page)] = page
    return bytes(content)


def is_before(name: str, first: Segment, size_bytes: int) -> bool:
    """Whether what lies under `name` ends before the segment `first` begins: nobody needs it."""
    match = _STORED.fullmatch(name)
    segment = read_segment(match[1], size_bytes) if match is not None else None
    return segment is not None and segment.number < first.number
