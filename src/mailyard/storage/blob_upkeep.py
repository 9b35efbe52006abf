"""Blobs that no row names any more are deleted.

Two ways lead there. A row that is deleted leaves its blob's key in `blob_gone` (a trigger writes
it, so no way to delete a mail forgets it), and `forget` deletes what stands there. What no trigger
sees is found by looking through the store (`sweep`): blobs whose rows left with their partition,
and those that were put for a commit that never came. Neither deletes a blob that a row names: not
one whose message moved to a longer class, and stays where it lies.

Where backups are taken, the blob of a deleted row stays as long as they reach back to when the row
was there: else a database that is restored to an instant would name bytes that are gone. What has
left with its partition need not stay: its time is over in a restored database too. A purge does not
wait.

A store may have blobs of workspaces that are in no row of this database: two installations that
were given the same bucket by mistake, two regions whose buckets are copied into each other. Those
are not looked at: who does not know a workspace cannot say that nobody names its mail.

A mail that is accepted at this moment has put its blob and not committed yet: that is why a blob
must be BLOB_ORPHAN_S old before it counts as unnamed.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import structlog

from mailyard.core.clock import Clock
from mailyard.core.limits import BLOB_ORPHAN_S
from mailyard.observe.metrics import BLOBS_SWEPT
from mailyard.storage.blob import UNFINISHED, BlobName, BlobsAway, BlobStore, parse_name
from mailyard.storage.database import Database
from mailyard.storage.directory import Residence
from mailyard.storage.queries import load

_SQL = load("blob")
_KEYS = 1_000  # a round; what S3 deletes in one request

_LOG = structlog.get_logger(__name__)


class BlobUpkeep:
    """Deletes from `store` what no row names. Without a store there is nothing to do: what was put
    into one that the settings no longer name is deleted when they name it again.

    `keep_s`: how far backups reach back, so long the blob of a deleted row stays. `keeps`: which
    workspaces are in this cluster, where several share the store.
    """

    def __init__(
        self,
        *,
        database: Database,
        store: BlobStore | None,
        clock: Clock,
        keep_s: float = 0.0,
        keeps: Residence | None = None,
    ) -> None:
        self._database = database
        self._keeps = keeps
        self._store = store
        self._clock = clock
        self._keep = timedelta(seconds=keep_s)

    async def forget(self, workspace_id: UUID | None = None) -> int:
        """Delete blobs whose rows were deleted and that no backup needs any more; or, of one
        workspace, for a purge, all of them. How many went. Raises BlobsAway; what is left then is
        deleted the next time."""
        gone = 0
        before = self._clock.now() - self._keep if self._keep else None
        while self._store is not None:
            if workspace_id is None:
                rows = await self._database.fetch(_SQL.gone, _KEYS, before)
            else:
                rows = await self._database.fetch(_SQL.gone_of, workspace_id, _KEYS)
            if not rows:
                break
            keys = [row["key"] for row in rows]
            unnamed = await self._unnamed(keys)
            if unnamed:
                await self._store.delete(unnamed)
            owners = [row["workspace_id"] for row in rows]
            await self._database.execute(_SQL.settle, keys, owners)
            gone += len(unnamed)
            BLOBS_SWEPT.labels("deleted").inc(len(unnamed))
        return gone

    async def forget_soon(self) -> None:
        """`forget` for who comes again in any case: a store that is away is only told of."""
        try:
            await self.forget()
        except BlobsAway as error:
            _LOG.warning("blobs.not_deleted", error=error.message)

    async def waiting(self) -> int:
        """How many blobs wait to be deleted."""
        found: int = await self._database.fetchval(_SQL.waiting)
        return found

    async def sweep(self, stopping: asyncio.Event) -> int:
        """Look through the whole store for what no row names; how many went. Raises BlobsAway."""
        gone = 0
        if self._store is None:
            return gone
        old = self._clock.now() - timedelta(seconds=BLOB_ORPHAN_S)
        async for run in self._store.list():
            keys = [one.key for one in run if one.modified_at < old and _is_ours(one.key)]
            keys = await self._own(keys)
            unnamed = await self._unnamed(keys)
            if unnamed and self._keep:
                kept = await self._database.fetch(_SQL.gone_keys, unnamed)
                unnamed = sorted({*unnamed} - {row["key"] for row in kept})
            if unnamed:
                await self._store.delete(unnamed)
                gone += len(unnamed)
                BLOBS_SWEPT.labels("unnamed").inc(len(unnamed))
            if stopping.is_set():
                break
        return gone

    async def _own(self, keys: Sequence[str]) -> list[str]:
        """Those of `keys` that this cluster has a say in: of workspaces that are in it and stay."""
        owners = {key: name.workspace_id for key in keys if (name := parse_name(key)) is not None}
        asked = set(owners.values())
        if self._keeps is not None:
            here = await self._keeps.here(asked)
        else:
            rows = await self._database.fetch(_SQL.known, list(asked))
            here = {row["workspace_id"] for row in rows}
        return [key for key in keys if key not in owners or owners[key] in here]

    async def _unnamed(self, keys: Sequence[str]) -> list[str]:
        """Those of `keys` that no row names."""
        names = [name for key in keys if (name := parse_name(key)) is not None]
        named = await self._named(names) if names else set()
        return [key for key in keys if key not in named]

    async def _named(self, names: Sequence[BlobName]) -> set[str]:
        owners = [name.owner_id for name in names]
        rows = await self._database.fetch(
            _SQL.named,
            [name.workspace_id for name in names],
            owners,
            [str(name) for name in names],
            min(owners),
            max(owners),
        )
        return {row["key"] for row in rows}


def _is_ours(key: str) -> bool:
    """A row's blob, or one that was never put wholly. The rest of a store is somebody else's."""
    return parse_name(key) is not None or key.rpartition("/")[2].startswith(UNFINISHED)
