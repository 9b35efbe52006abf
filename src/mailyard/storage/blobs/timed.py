"""Every use of a store counted, timed and bounded.

A store that is away is asked again only after a pause: who comes meanwhile hears so at once, so
that a thousand peers do not each wait for the same answer.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import monotonic, perf_counter
from weakref import WeakSet

import structlog

from mailyard.core.limits import (
    BLOB_BYTES_PER_S,
    BLOB_PAUSE_S,
    BLOB_READ_S,
    BLOB_WRITE_S,
)
from mailyard.observe import metrics
from mailyard.observe.metrics import BLOB_BYTES, BLOB_OPERATIONS, BLOB_SECONDS, BLOBS_REACHABLE
from mailyard.storage.blob import BlobDamaged, BlobMissing, BlobsAway, BlobStore, Stored

_KNOWN_S = 180.0  # a failure that nobody has tried to repeat says nothing after so long
_LOG = structlog.get_logger(__name__)


class TimedBlobs:
    """`store` with its uses counted; each ends in time, in BlobsAway if need be."""

    def __init__(
        self,
        store: BlobStore,
        *,
        read_s: float = BLOB_READ_S,
        write_s: float = BLOB_WRITE_S,
        pause_s: float = BLOB_PAUSE_S,
    ) -> None:
        self._store = store
        self._read_s = read_s
        self._write_s = write_s
        self._pause_s = pause_s
        self._away_until = 0.0
        self._failed_at: float | None = None
        BLOBS_REACHABLE.set(1)
        _STORES.add(self)
        metrics.tell("blobs", _told)

    async def put(self, key: str, content: bytes | AsyncIterator[bytes]) -> None:
        size_bytes = len(content) if isinstance(content, bytes) else 0
        async with self._use("put", self._write_s + size_bytes / BLOB_BYTES_PER_S):
            await self._store.put(key, content)
        BLOB_BYTES.labels("put").inc(size_bytes)

    async def get(self, key: str, first_bytes: int | None = None) -> bytes:
        async with self._use("get", self._read_s):
            content = await self._store.get(key, first_bytes)
        BLOB_BYTES.labels("get").inc(len(content))
        return content

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        async with self._use("get", self._read_s):
            pieces = await self._store.stream(key)

        async def counted() -> AsyncIterator[bytes]:
            async for piece in pieces:
                BLOB_BYTES.labels("get").inc(len(piece))
                yield piece

        return counted()

    async def size_bytes(self, key: str) -> int | None:
        async with self._use("head", self._read_s):
            return await self._store.size_bytes(key)

    async def delete(self, keys: Sequence[str]) -> None:
        async with self._use("delete", self._write_s):
            await self._store.delete(keys)

    async def list(self, prefix: str = "") -> AsyncIterator[Sequence[Stored]]:
        runs = aiter(self._store.list(prefix))
        while True:
            async with self._use("list", self._read_s):
                run = await anext(runs, None)
            if run is None:
                return
            yield run

    async def presign(self, key: str, seconds: float) -> str | None:
        async with self._use("presign", self._read_s):
            return await self._store.presign(key, seconds)

    async def prepare(self) -> None:
        async with self._use("prepare", self._write_s):
            await self._store.prepare()

    async def close(self) -> None:
        await self._store.close()

    @asynccontextmanager
    async def _use(self, operation: str, within_s: float) -> AsyncIterator[None]:
        if monotonic() < self._away_until:
            BLOB_OPERATIONS.labels(operation, "not tried").inc()
            raise BlobsAway("the blob store was away a moment ago")
        started = perf_counter()
        try:
            async with asyncio.timeout(within_s):
                yield
        except (BlobsAway, TimeoutError) as error:
            self._mark_away(operation, error)
            if isinstance(error, BlobsAway):
                raise
            raise BlobsAway(f"the blob store did not answer in {within_s:.0f} s") from None
        except (BlobMissing, BlobDamaged) as error:
            BLOB_OPERATIONS.labels(operation, error.code).inc()
            raise
        else:
            self._failed_at = None
            BLOBS_REACHABLE.set(1)
            BLOB_OPERATIONS.labels(operation, "done").inc()
            BLOB_SECONDS.labels(operation).observe(perf_counter() - started)

    @property
    def away(self) -> bool:
        """Whether it failed lately. Who has not asked for long does not know, and says no."""
        return self._failed_at is not None and monotonic() - self._failed_at < _KNOWN_S

    def _mark_away(self, operation: str, error: Exception) -> None:
        self._failed_at = monotonic()
        self._away_until = self._failed_at + self._pause_s
        BLOBS_REACHABLE.set(0)
        BLOB_OPERATIONS.labels(operation, "away").inc()
        _LOG.warning("blobs.away", operation=operation, error=str(error))


_STORES: "WeakSet[TimedBlobs]" = WeakSet()


def _told() -> dict[str, float]:
    """For alert rules: a store of this process is away (there are two while blobs move)."""
    return {"away": float(any(one.away for one in _STORES))}
