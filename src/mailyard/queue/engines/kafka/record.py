"""A job as bytes of the log.

A record is 8 bytes that say how it came, then the job in MessagePack. How it came: 0 for what was
produced by who enqueued it; else the batch of the outbox in the upper 44 bits and the number of the
record among those of its batch and partition in the lower 20, by which a copy is told.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID
from zlib import adler32, crc32

import msgspec

from mailyard.observe.trace import unpacked
from mailyard.queue.job import NewJob

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NUMBER_BITS = 20
BATCH_RECORDS = 1 << _NUMBER_BITS
DIRECT = bytes(8)
_WORKSPACES_KEPT = 10_000


class Record(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """What the log knows of a job. New fields come last, with a default."""

    id: int
    kind: str
    workspace: bytes | None
    max_attempts: int
    at_us: int  # enqueued, microseconds since 1970
    payload: bytes  # as it is kept, with its marks (observe/trace.py)
    claims: bool = False  # a unique key, by a row in PostgreSQL

    @property
    def enqueued_at(self) -> datetime:
        return _EPOCH + timedelta(microseconds=self.at_us)


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Record)
_WORKSPACES: dict[bytes, UUID] = {}


def encode(job: NewJob, job_id: int, at: datetime) -> bytes:
    """The job in MessagePack, without how it came."""
    workspace = None if job.workspace_id is None else job.workspace_id.bytes
    at_us = (at - _EPOCH) // _MICROSECOND
    return _ENCODER.encode(
        Record(
            job_id,
            job.kind,
            workspace,
            job.max_attempts,
            at_us,
            job.stored,
            job.unique_key is not None,
        )
    )


def decode(value: bytes) -> Record:
    """Raises msgspec.DecodeError for what no engine of ours wrote."""
    return _DECODER.decode(memoryview(value)[8:])


def came(batch: int, number: int) -> bytes:
    """How a record of the outbox came."""
    return (batch << _NUMBER_BITS | number).to_bytes(8, "big")


def batch_of(value: bytes) -> tuple[int, int]:
    """(batch, number) of a record of the outbox; batch 0: it did not come that way."""
    how = int.from_bytes(value[:8], "big")
    return how >> _NUMBER_BITS, how & (BATCH_RECORDS - 1)


def workspace_of(record: Record) -> UUID | None:
    """Making a UUID costs more than reading the record: the same ones come again and again."""
    if record.workspace is None:
        return None
    known = _WORKSPACES.get(record.workspace)
    if known is None:
        if len(_WORKSPACES) >= _WORKSPACES_KEPT:
            _WORKSPACES.clear()
        known = _WORKSPACES[record.workspace] = UUID(bytes=record.workspace)
    return known


def digest(workspace: bytes | None, payload: bytes) -> bytes:
    """8 bytes by which a job that is held is known (`is_leased`), made in a third of a microsecond:
    two checksums, for a person's question and against nobody's malice."""
    seed = crc32(workspace) if workspace else 0
    payload, _ = unpacked(payload)
    return (crc32(payload, seed) << 32 | adler32(payload, seed or 1)).to_bytes(8, "big")


def ranges_text(numbers: Sequence[int]) -> str:
    """Sorted numbers as PostgreSQL writes an int4multirange."""
    parts: list[str] = []
    first = last = None
    for number in numbers:
        if last is not None and number == last + 1:
            last = number
            continue
        if first is not None and last is not None:
            parts.append(f"[{first},{last + 1})")
        first = last = number
    if first is not None and last is not None:
        parts.append(f"[{first},{last + 1})")
    return "{" + ",".join(parts) + "}"
