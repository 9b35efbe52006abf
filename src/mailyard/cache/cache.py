"""The port of the cache: bytes under a key of a workspace, for a time, or not at all.

Nothing here is the truth. A value may be gone at any moment, and an old one may come back for as
long as it was put for; whoever needs to know asks the database. A cache that is away answers like
an empty one and never fails its caller.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol
from uuid import UUID

VALUE_BYTES = 8 * 1024 * 1024  # a larger value is not kept
KEY_CHARACTERS = 512  # a longer key is not kept


class Cache(Protocol):
    """Many keys at a time; every key belongs to a workspace."""

    async def get(self, workspace_id: UUID, keys: Sequence[str]) -> dict[str, bytes]:
        """The values that are there, by key."""
        ...

    async def put(self, workspace_id: UUID, values: Mapping[str, bytes], ttl_s: float) -> None:
        """Keep values for `ttl_s` seconds, in the place of older ones."""
        ...

    async def drop(self, workspace_id: UUID, keys: Sequence[str]) -> None:
        """Forget values."""
        ...

    async def clear(self) -> bool:
        """Forget all values, of every workspace. False: it is away and keeps what it has."""
        ...


def kept(values: Mapping[str, bytes]) -> dict[str, bytes]:
    """Those that may be kept, in the order of their keys."""
    return {
        key: values[key]
        for key in sorted(values)
        if len(key) <= KEY_CHARACTERS and len(values[key]) <= VALUE_BYTES
    }
