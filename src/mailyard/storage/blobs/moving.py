"""A store that is on its way to another: what is new goes there, what is not there yet is read
where it was."""

from collections.abc import AsyncIterator, Sequence

from mailyard.storage.blob import BlobMissing, BlobStore, Stored


class MovingBlobs:
    """`now`, and for what it does not have `before`."""

    def __init__(self, now: BlobStore, before: BlobStore) -> None:
        self._now = now
        self._before = before

    async def put(self, key: str, content: bytes | AsyncIterator[bytes]) -> None:
        await self._now.put(key, content)

    async def get(self, key: str, first_bytes: int | None = None) -> bytes:
        try:
            return await self._now.get(key, first_bytes)
        except BlobMissing:
            return await self._before.get(key, first_bytes)

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        try:
            return await self._now.stream(key)
        except BlobMissing:
            return await self._before.stream(key)

    async def size_bytes(self, key: str) -> int | None:
        found = await self._now.size_bytes(key)
        return await self._before.size_bytes(key) if found is None else found

    async def delete(self, keys: Sequence[str]) -> None:
        """Where it was first: who copies it at this moment looks there again afterwards."""
        await self._before.delete(keys)
        await self._now.delete(keys)

    async def list(self, prefix: str = "") -> AsyncIterator[Sequence[Stored]]:
        """Of both; what was copied comes twice."""
        async for run in self._now.list(prefix):
            yield run
        async for run in self._before.list(prefix):
            yield run

    async def presign(self, key: str, seconds: float) -> str | None:
        there = await self._now.size_bytes(key) is not None
        return await (self._now if there else self._before).presign(key, seconds)

    async def prepare(self) -> None:
        await self._now.prepare()

    async def close(self) -> None:
        await self._now.close()
        await self._before.close()
