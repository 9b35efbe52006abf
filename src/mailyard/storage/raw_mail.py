"""The bytes of received mail: in their row, or, above a size, in the blob store.

A row of `message` has its bytes in `raw`; or `raw` is empty, and `blob` is the key under which they
lie. Whoever reads bytes selects both columns and asks here; nobody else knows of two places.

The order of writes: the blob first, durable, then the commit that names it. What is put and never
named (a crash between, a commit that failed) is deleted later (`storage.blob_upkeep`); what is
named is there. No transaction is open meanwhile.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, cast
from uuid import UUID

import asyncpg

from mailyard.core.limits import BLOB_ABOVE_BYTES, BLOB_READS_AT_ONCE, MIB
from mailyard.storage.blob import BlobsAway, BlobStore, check, name_for

_ASIDE_BYTES = 1 * MIB  # of more the hash is computed in a thread


class _Filled:
    """A row whose bytes lay outside, with them in their place."""

    __slots__ = ("_raw", "_row")

    def __init__(self, row: asyncpg.Record, raw: bytes) -> None:
        self._row = row
        self._raw = raw

    def __getitem__(self, name: str) -> Any:
        return self._raw if name == "raw" else self._row[name]

    def __iter__(self) -> Iterator[Any]:
        return (self[name] for name in self._row.keys())  # noqa: SIM118 (a record's own method)


class RawMail:
    """Both places. Without a `store` all mail stays in its row, and what an earlier setting put
    outside cannot be read: BlobsAway says which setting is missing."""

    def __init__(self, store: BlobStore | None = None, above_bytes: int = BLOB_ABOVE_BYTES) -> None:
        self.store = store
        self.above_bytes = above_bytes

    def goes_outside(self, size_bytes: int) -> bool:
        """Whether a mail of that size goes to the store."""
        return self.store is not None and size_bytes > self.above_bytes

    async def put(
        self, workspace_id: UUID, retention_days: int, message_id: UUID, raw: bytes
    ) -> str:
        """Durable in the store on return, under the key that the row is to name. Raises
        BlobsAway."""
        asked = (workspace_id, retention_days, message_id, raw)
        aside = len(raw) > _ASIDE_BYTES
        key = str(await asyncio.to_thread(name_for, *asked) if aside else name_for(*asked))
        await self._there().put(key, raw)
        return key

    async def of(self, row: asyncpg.Record) -> bytes:
        """The whole mail of a row with `raw` and `blob`. Raises BlobsAway, BlobMissing,
        BlobDamaged."""
        if row["blob"] is None:
            return bytes(row["raw"])
        return await self.read(row["blob"])

    async def read(self, key: str) -> bytes:
        """The whole of a blob, proved. Raises as `of`."""
        return await self._read(key, None)

    async def filled(
        self, rows: Sequence[asyncpg.Record], first_bytes: int | None = None
    ) -> Sequence[asyncpg.Record]:
        """`rows` with their bytes in `raw`, wherever these lay; of what lay outside only the first
        bytes if so wished. Raises as `of`."""
        found, away = await self.filled_or_away(rows, first_bytes)
        if away:
            raise BlobsAway("the blob store with some of the mail is away")
        return found

    async def filled_or_away(
        self, rows: Sequence[asyncpg.Record], first_bytes: int | None = None
    ) -> tuple[Sequence[asyncpg.Record], set[UUID]]:
        """As `filled`, without those rows whose bytes cannot be had now; their `id`s."""
        outside = [row for row in rows if row["blob"] is not None]
        if not outside:
            return rows, set()
        places = asyncio.Semaphore(BLOB_READS_AT_ONCE)

        async def read(row: asyncpg.Record) -> tuple[UUID, bytes | None]:
            async with places:
                try:
                    return row["id"], await self._read(row["blob"], first_bytes)
                except BlobsAway:
                    return row["id"], None

        contents = dict(await asyncio.gather(*map(read, outside)))
        away = {one for one, raw in contents.items() if raw is None}
        found = [
            row if row["blob"] is None else _fill(row, contents[row["id"]])
            for row in rows
            if row["id"] not in away
        ]
        return found, away

    async def presign(self, key: str, seconds: float) -> str | None:
        """An address where the blob can be downloaded; None where there is none. Raises
        BlobsAway."""
        return await self._there().presign(key, seconds)

    async def _read(self, key: str, first_bytes: int | None) -> bytes:
        content = await self._there().get(key, first_bytes)
        if first_bytes is not None and len(content) >= first_bytes:
            return content  # its beginning proves nothing
        if len(content) < _ASIDE_BYTES:
            return check(key, content)
        return await asyncio.to_thread(check, key, content)

    def _there(self) -> BlobStore:
        if self.store is None:
            raise BlobsAway("this mail lies in a blob store, and MAILYARD_BLOBS names none")
        return self.store


IN_ROWS = RawMail()


def _fill(row: asyncpg.Record, raw: bytes | None) -> asyncpg.Record:
    assert raw is not None, "rows without their bytes were left out"
    return cast("asyncpg.Record", _Filled(row, raw))
