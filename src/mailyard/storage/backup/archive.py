"""The write-ahead log, into the store as it is written.

`pg_receivewal` streams the log into a spool folder; from there whole segments go into the store,
and every few seconds what has been written of the one under way. So what a disaster can cost is
that many seconds.

A replication slot keeps the server from throwing away what is not in the store yet. The slot is
moved on only after a segment is: not by `pg_receivewal`, whose word would be that the segment lies
in the spool of a machine that may burn. Whoever leads next goes on where the store ends, on any
machine: the spool is begun with an empty file of the last stored segment's name, from which
`pg_receivewal` reads where to start. When the slot is gone (a restored server has none, a full disk
gave it up) there is a gap, and a base backup has to bridge it: `start` says so.
"""

import asyncio
import os
import re
import signal
from contextlib import suppress
from pathlib import Path

import asyncpg
import structlog

from mailyard.core.errors import Unavailable
from mailyard.storage import cluster
from mailyard.storage.backup.seal import Sealer
from mailyard.storage.backup.segment import Segment, read_segment
from mailyard.storage.backup.store import Store
from mailyard.storage.database import AWAY
from mailyard.storage.queries import load
from mailyard.storage.unprivileged import die_with_parent

QUERIES = load("backup")
SLOT = "mailyard_backup"
PAGE_BYTES = 8192
_HISTORY = re.compile(r"[0-9A-F]{8}\.history")
_PART = re.compile(r"wal/([0-9A-F]{24})-([0-9A-F]{8})")
_LOOK_S = 0.5
_PARTS_MOST = 64  # of one segment: then they become one
_LOG = structlog.get_logger(__name__)


class WalArchiver:
    """One for an installation: the leading scheduler has it. `start`, then `step` again and again,
    then `stop`."""

    def __init__(
        self, *, store: Store, sealer: Sealer, url: str, spool: Path, part_every_s: float
    ) -> None:
        self._store = store
        self._sealer = sealer
        self._url = url
        self._spool = spool
        self._part_every_s = part_every_s
        self._segment_bytes = 0
        self._process: asyncio.subprocess.Process | None = None
        self._part = ("", 0)  # the segment under way, and up to where it is stored
        self._parts: list[str] = []  # the names of what is stored of it
        self._part_at = 0.0
        self._said = ""  # by pg_receivewal, last
        self._hearing: asyncio.Task[None] | None = None

    async def start(self) -> bool:
        """Begin to receive; whether the log in the store goes on without a gap.

        Raises Unavailable when server or store do not answer.
        """
        connection = await self._connect()
        try:
            facts = await connection.fetchrow(QUERIES.server)
            assert facts is not None, "a SELECT without FROM has one row"
            self._segment_bytes = facts["segment_bytes"]
            slot = await connection.fetchrow(QUERIES.slot, SLOT)
            kept: int | None = slot["position"] if slot is not None else None
            whole = kept is not None
            if kept is None:
                if slot is not None:
                    await connection.fetchval(QUERIES.drop_slot, SLOT)
                kept = int(await connection.fetchval(QUERIES.make_slot, SLOT))
            timeline = await connection.fetchval(QUERIES.timeline)
        finally:
            await connection.close()
        first = Segment(kept // self._segment_bytes, timeline)
        stored = await self._last_stored(timeline)
        if stored is not None:
            whole = whole and stored.after() >= first
            first = max(first, stored.after())
        await asyncio.to_thread(self._begin_spool, first)
        await self._receive()
        return whole

    async def step(self) -> None:
        """Store what is whole; now and then what there is of the next. Takes about half a second.

        Raises Unavailable when the stream has ended or the store fails; then `stop` and `start`.
        """
        process = self._process
        if process is None:
            raise Unavailable("the log is not being received")
        await self._store_whole()
        now = asyncio.get_running_loop().time()
        if now - self._part_at >= self._part_every_s:
            self._part_at = now
            await self._store_part()
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _LOOK_S)
        if process.returncode is not None:
            raise Unavailable(f"pg_receivewal ended: {self._said or process.returncode}")

    async def stop(self) -> None:
        """End the stream; what it brought stays in the spool."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGINT)
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), 3.0)
            if process.returncode is None:
                process.kill()
                await process.wait()
        if self._hearing is not None:
            await asyncio.wait([self._hearing], timeout=1.0)
            self._hearing = None

    # -----------------------------------------------------------------------------------------

    async def _connect(self) -> "asyncpg.Connection[asyncpg.Record]":
        try:
            return await asyncpg.connect(self._url, timeout=10.0)
        except AWAY as error:
            raise Unavailable(f"PostgreSQL does not answer: {error}") from error

    async def _last_stored(self, timeline: int) -> Segment | None:
        """The newest whole segment of the timeline in the store."""
        found = [
            segment
            for name in await self._store.names("wal/")
            if (segment := read_segment(name.removeprefix("wal/"), self._segment_bytes))
            and segment.timeline == timeline
        ]
        return max(found, default=None)

    def _begin_spool(self, first: Segment) -> None:
        """A spool from which `pg_receivewal` goes on at `first`, or where an older run stopped."""
        self._spool.mkdir(parents=True, exist_ok=True, mode=0o700)
        there = [segment for _, segment in self._whole_ones()]
        if there and min(there) <= first <= max(there).after():
            return
        for path in self._spool.iterdir():
            path.unlink()
        before = Segment(first.number - 1, first.timeline)
        with (self._spool / before.name(self._segment_bytes)).open("wb") as file:
            file.truncate(self._segment_bytes)

    def _whole_ones(self) -> list[tuple[Path, Segment]]:
        """The whole segments in the spool, in order."""
        found = [
            (path, segment)
            for path in self._spool.iterdir()
            if (segment := read_segment(path.name, self._segment_bytes)) is not None
        ]
        return sorted(found, key=lambda pair: pair[1])

    async def _receive(self) -> None:
        parent = os.getpid()
        self._part = ("", 0)
        self._process = await asyncio.create_subprocess_exec(
            str(cluster.binaries() / "pg_receivewal"),
            *("-d", self._url, "-D", str(self._spool), "--no-loop", "--no-password"),
            *("--status-interval=2", "--synchronous"),
            env=cluster.environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            preexec_fn=lambda: die_with_parent(signal.SIGKILL, parent),
            start_new_session=True,
        )
        assert self._process.stderr is not None
        self._hearing = asyncio.create_task(self._hear(self._process.stderr))

    async def _hear(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            self._said = line.decode("utf-8", "replace").strip()

    async def _store_whole(self) -> None:
        """Every segment that is whole, the histories, and then the slot. The newest one stays in
        the spool: it says where to go on."""
        for path in sorted(self._spool.iterdir()):
            if _HISTORY.fullmatch(path.name):
                await self._put(f"wal/{path.name}", path.read_bytes())
                path.unlink()
        whole = self._whole_ones()
        newest: Segment | None = None
        for path, segment in whole:
            if not await asyncio.to_thread(_is_begun, path):
                continue  # the empty file that says where to begin
            name = f"wal/{path.name}"
            await self._put(name, await asyncio.to_thread(path.read_bytes))
            await asyncio.to_thread(_empty, path, self._segment_bytes)
            newest = segment
        if newest is None:
            return
        for path, segment in whole:
            if segment < newest:
                path.unlink()
        await self._advance(newest.ends_at(self._segment_bytes))
        await self._drop_parts(newest)

    async def _put(self, name: str, content: bytes) -> None:
        await self._store.put(name, await asyncio.to_thread(self._sealer.seal, name, content))

    async def _advance(self, position: int) -> None:
        connection = await self._connect()
        try:
            await connection.execute(QUERIES.advance_slot, SLOT, position)
        except asyncpg.PostgresError as error:
            _LOG.warning("backup_slot_not_moved", error=str(error))
        finally:
            await connection.close()

    async def _drop_parts(self, newest: Segment) -> None:
        """Parts of segments that are whole in the store."""
        for name in await self._store.names("wal/"):
            match = _PART.fullmatch(name)
            if match is not None:
                segment = read_segment(match[1], self._segment_bytes)
                if segment is not None and segment <= newest:
                    await self._store.delete(name)

    async def _store_part(self) -> None:
        """What has been written of the segment under way since the last time."""
        under_way = sorted(self._spool.glob("*.partial"))
        if not under_way:
            return
        path = under_way[-1]
        segment = path.name.removesuffix(".partial")
        if self._part[0] != segment:
            self._part, self._parts = (segment, 0), []
        begin = self._part[1] if len(self._parts) < _PARTS_MOST else 0
        content = await asyncio.to_thread(_written_since, path, begin)
        if not content:
            return
        name = f"wal/{segment}-{begin:08X}"
        await self._put(name, content)
        # Its last page may be filled further: the next part begins with it.
        self._part = (segment, begin + max(0, len(content) - PAGE_BYTES))
        older, self._parts = (self._parts, [name]) if begin == 0 else ([], [*self._parts, name])
        await self._store.delete(*(one for one in older if one != name))


def _is_begun(path: Path) -> bool:
    """Whether anything was written to a segment: its first page says what it is."""
    with path.open("rb") as file:
        return file.read(2) != b"\0\0"


def _empty(path: Path, size_bytes: int) -> None:
    """Leave the name, for where to go on, and nothing in it."""
    with path.open("wb") as file:
        file.truncate(size_bytes)


def _written_since(path: Path, begin: int) -> bytes:
    """What lies behind `begin`, in whole pages, without the empty ones at the end."""
    try:
        with path.open("rb") as file:
            file.seek(begin)
            content = file.read()
    except FileNotFoundError:
        return b""  # it has become whole
    used = len(content.rstrip(b"\0"))
    return content[: -(-used // PAGE_BYTES) * PAGE_BYTES]
