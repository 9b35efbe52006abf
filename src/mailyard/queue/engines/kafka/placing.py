"""Which partition a job goes to: pure decisions.

A job's key is its tenant, so that a tenant's work lies together and one that floods a lane fills a
few partitions and not all of them. One partition would be too few for a large tenant alone on an
installation: a key has `spread` neighbouring partitions, one in twelve, and each batch goes whole
to one of them, in turn.
"""

from uuid import UUID
from zlib import crc32

_KEY_BITS = 0x3FFF_FFFF  # room for the spread to be added in 32 bits
_SPREAD_SHARE = 12


def key_of(workspace_id: UUID | None) -> int:
    """A tenant as a number."""
    return 0 if workspace_id is None else crc32(workspace_id.bytes) & _KEY_BITS


def spread_of(partitions: int) -> int:
    """Over how many partitions one tenant's batches go."""
    return max(1, partitions // _SPREAD_SHARE)


def partition_of(key: int, batch: int, partitions: int) -> int:
    """Where the jobs of `key` in the nth batch go (the drain's SQL says the same)."""
    return (key + batch % spread_of(partitions)) % partitions
