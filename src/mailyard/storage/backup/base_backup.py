"""A base backup: `pg_basebackup` writes the cluster as one tar stream, which goes into the store in
sealed pieces as it comes. Nothing is written to this machine's disk."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from hashlib import sha256

import asyncpg

from mailyard.core.errors import ConfigurationError, Unavailable
from mailyard.core.ids import uuid7
from mailyard.storage import cluster
from mailyard.storage.backup.manifest import Base, Piece, write_manifest
from mailyard.storage.backup.seal import PIECE_BYTES, Sealer
from mailyard.storage.backup.store import Store
from mailyard.storage.database import AWAY
from mailyard.storage.queries import load
from mailyard.storage.unprivileged import die_with_parent

QUERIES = load("backup")
_READ_BYTES = 1 << 20
# In the tar's first file, backup_label.
_FIRST_WAL = re.compile(rb"START WAL LOCATION: \S+ \(file ([0-9A-F]{24})\)")
_TIMELINE = re.compile(rb"START TIMELINE: (\d+)")


async def take_base(
    store: Store, sealer: Sealer, url: str, *, role: str, keys: bytes = b""
) -> Base:
    """A base backup of the server at `url`, whose user may replicate.

    `role`: who a restored database is asked as. `keys`: master keys to be kept along. Raises
    Unavailable when server or store fail in the middle; what was stored then is swept up later.
    """
    facts = await _facts(url)
    base_id, started_at = str(uuid7()), datetime.now(UTC)
    pieces: list[Piece] = []
    stored_bytes, head = 0, b""
    async for piece in _tar_of(url):
        head = head or piece[:_READ_BYTES]
        name = f"base/{base_id}/{len(pieces) + 1:08d}"
        sealed = await asyncio.to_thread(sealer.seal, name, piece)
        await store.put(name, sealed)
        pieces.append(Piece(len(piece), sha256(piece).hexdigest()))
        stored_bytes += len(sealed)
    first_wal, timeline = _FIRST_WAL.search(head), _TIMELINE.search(head)
    if first_wal is None or timeline is None:
        raise Unavailable("pg_basebackup gave a stream without a backup_label")
    base = Base(
        id=base_id,
        started_at=started_at,
        finished_at=datetime.now(UTC),
        major=facts["major"],
        system_id=facts["system_id"],
        timeline=int(timeline[1]),
        first_wal=first_wal[1].decode(),
        segment_bytes=facts["segment_bytes"],
        database=facts["database"],
        role=role,
        schema=facts["schema"] or 0,
        pieces=pieces,
        stored_bytes=stored_bytes,
        keys=keys,
    )
    await write_manifest(store, sealer, base)
    return base


async def _facts(url: str) -> asyncpg.Record:
    try:
        connection = await asyncpg.connect(url, timeout=10.0)
    except AWAY as error:
        raise Unavailable(f"PostgreSQL does not answer: {error}") from error
    try:
        row = await connection.fetchrow(QUERIES.server)
    except asyncpg.InsufficientPrivilegeError as error:
        raise ConfigurationError(
            f"the database user may not make backups ({error}); name one with REPLICATION and "
            "pg_monitor in MAILYARD_BACKUP_DATABASE_URL"
        ) from error
    finally:
        await connection.close()
    assert row is not None, "a SELECT without FROM has one row"
    return row


async def _tar_of(url: str) -> AsyncIterator[bytes]:
    """The cluster with the log that makes it whole, in pieces of PIECE_BYTES."""
    parent = os.getpid()
    process = await asyncio.create_subprocess_exec(
        str(cluster.binaries() / "pg_basebackup"),
        *("-d", url, "-D", "-", "-F", "tar", "-X", "fetch", "-c", "fast", "--no-password"),
        "--no-manifest",
        env=cluster.environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=2 * _READ_BYTES,
        preexec_fn=lambda: die_with_parent(signal.SIGKILL, parent),
    )
    assert process.stdout is not None and process.stderr is not None
    said = asyncio.create_task(process.stderr.read())
    try:
        piece = bytearray()
        while read := await process.stdout.read(_READ_BYTES):
            piece += read
            if len(piece) >= PIECE_BYTES:
                yield bytes(piece[:PIECE_BYTES])
                del piece[:PIECE_BYTES]
        if piece:
            yield bytes(piece)
        if await process.wait() != 0:
            text = (await said).decode("utf-8", "replace").strip()
            raise Unavailable(f"pg_basebackup failed: {text}")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        said.cancel()
