"""Where backups lie: a folder or an object store, as blobs do (`storage/blob.py`).

What `put` has returned from is durable, and a name holds all of one `put` or of another.
"""

from mailyard.core.errors import NotFound
from mailyard.storage.blob import UNFINISHED, BlobMissing, BlobStore


class Store:
    """What a backup does with its place. Everything raises BlobsAway when it does not answer."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    async def prepare(self) -> None:
        """Make the place where it can be made. Only where none has been before: a folder that is
        not mounted must not be taken for a new one."""
        await self._blobs.prepare()

    async def put(self, name: str, content: bytes) -> None:
        """Keep `content` under `name`, durably, in the place of what was there."""
        await self._blobs.put(name, content)

    async def get(self, name: str) -> bytes:
        """What lies under `name`. Raises NotFound."""
        try:
            return await self._blobs.get(name)
        except BlobMissing:
            raise NotFound(f"the backup store has no {name}") from None

    async def names(self, prefix: str) -> list[str]:
        """All names that begin with `prefix`, which ends with a slash, in order."""
        found: list[str] = []
        async for run in self._blobs.list(prefix):
            found += [one.key for one in run]
        return sorted(name for name in found if not name.split("/")[-1].startswith(UNFINISHED))

    async def delete(self, *names: str) -> None:
        """Forget names; those that are not there are passed over."""
        await self._blobs.delete(names)

    async def close(self) -> None:
        await self._blobs.close()
