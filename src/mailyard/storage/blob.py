"""Blobs: what is too large for a row, kept in a folder or in an object store under a name.

A name says whose a blob is, how long it lives and what is in it:

    {workspace}/{class}/{day}/{owner}-{sha256}
    0198…/d7/2026-03-01/0195…-9f86d081…

So a workspace, a retention class or a day can be listed and removed as what stands before it, the
owner's row is found by its primary key, and the end of the name proves the content: who reads a
whole blob checks it. No two owners share a blob, so that to delete one never takes another's
(docs/decisions/0034-blobs.md).

This is the port; adapters stand in `storage.blobs`.
"""

import hashlib
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Protocol
from uuid import UUID, uuid4

from mailyard.core.errors import MailyardError, OutOfReach
from mailyard.core.ids import time_of

_NAME = re.compile(
    r"(?P<workspace>[0-9a-f-]{36})/(?P<class>d[0-9]+|kept)/(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2})/"
    r"(?P<owner>[0-9a-f-]{36})-(?P<sha256>[0-9a-f]{64})"
)
UNFINISHED = ".part-"  # what the last part of a key begins with whose blob was never put wholly
_TRIED = b"mailyard tries whether this store can be used"
RETRY_S = 5.0  # after which a store that was away is worth another question


class BlobsAway(OutOfReach):
    """The store does not answer, or not in time, or does not let us in: the same call may work
    later."""

    code = "blobs_away"

    def __init__(self, message: str) -> None:
        super().__init__(message, retry_after_s=RETRY_S)


class BlobMissing(MailyardError):
    """There is no such blob, although a row names it. Worth another try: a copy of a store that
    follows its region's late may not have it yet, or somebody names the wrong store by mistake."""

    code = "blob_missing"
    status = 503
    retryable = True


class BlobDamaged(MailyardError):
    """What is in the store is not what was put there."""

    code = "blob_damaged"
    status = 500
    retryable = True


@dataclass(frozen=True, slots=True)
class Stored:
    """A blob as a list shows it."""

    key: str
    size_bytes: int
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class BlobName:
    """What a key says."""

    workspace_id: UUID
    retention_days: int
    day: date
    owner_id: UUID
    sha256: str

    def __str__(self) -> str:
        life = f"d{self.retention_days}" if self.retention_days else "kept"
        return f"{self.workspace_id}/{life}/{self.day:%Y-%m-%d}/{self.owner_id}-{self.sha256}"


class BlobStore(Protocol):
    """Where blobs lie. Every call may raise BlobsAway; keys are as `BlobName` writes them, or other
    paths of ASCII letters, digits and `-_./` without empty parts.
    """

    async def put(self, key: str, content: bytes | AsyncIterator[bytes]) -> None:
        """Keep `content`, durable on return, whole or not at all; what is there already is
        replaced."""
        ...

    async def get(self, key: str, first_bytes: int | None = None) -> bytes:
        """The blob, or what it begins with. Raises BlobMissing."""
        ...

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        """The blob in pieces. Raises BlobMissing at once, BlobsAway also between the pieces."""
        ...

    async def size_bytes(self, key: str) -> int | None:
        """Its size; None when it is not there."""
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove blobs; those that are not there are passed over."""
        ...

    def list(self, prefix: str = "") -> AsyncIterator[Sequence[Stored]]:
        """All blobs whose keys begin with `prefix` (empty, or ending with `/`), in runs of up to a
        thousand, in any order."""
        ...

    async def presign(self, key: str, seconds: float) -> str | None:
        """An address where anybody can download the blob for a time; None: such a store has none
        (a folder)."""
        ...

    async def prepare(self) -> None:
        """Make the store where it can be made (a folder), and see that it takes, gives back and
        deletes a blob. Raises BlobsAway."""
        ...

    async def close(self) -> None:
        """Let go of what is held."""
        ...


async def try_out(store: BlobStore) -> None:
    """See that `store` takes, gives back and deletes a blob. Raises BlobsAway."""
    key = f"mailyard-try/{uuid4()}"
    await store.put(key, _TRIED)
    if await store.get(key) != _TRIED:
        raise BlobsAway("the store gives back something else than was put there")
    await store.delete([key])


def name_for(workspace_id: UUID, retention_days: int, owner_id: UUID, content: bytes) -> BlobName:
    """The name of what belongs to the row `owner_id`, whose time is its day."""
    day = time_of(owner_id).astimezone(UTC).date()
    digest = hashlib.sha256(content).hexdigest()
    return BlobName(workspace_id, retention_days, day, owner_id, digest)


def parse_name(key: str) -> BlobName | None:
    """What `key` says; None when it is no blob of a row."""
    match = _NAME.fullmatch(key)
    if match is None:
        return None
    life = match["class"]
    try:
        return BlobName(
            UUID(match["workspace"]),
            0 if life == "kept" else int(life[1:]),
            date.fromisoformat(match["day"]),
            UUID(match["owner"]),
            match["sha256"],
        )
    except ValueError:
        return None


def check(key: str, content: bytes) -> bytes:
    """`content`, which is the whole of blob `key`. Raises BlobDamaged when it cannot be."""
    name = parse_name(key)
    if name is not None and hashlib.sha256(content).hexdigest() != name.sha256:
        raise BlobDamaged(f"blob {key} holds something else than was put there")
    return content
