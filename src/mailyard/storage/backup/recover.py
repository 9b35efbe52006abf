"""A restore: a base backup laid out, the log replayed up to an instant, and the result stopped
again, ready to be started.

All of it happens beside its place (`DATA/postgres.restored`) and is renamed at the end: a restore
that is cut short leaves nothing that looks like a database. The server that replays the log listens
on a socket in a folder of its own and takes no mail, runs no job, archives nothing.
"""

import asyncio
import os
import shutil
import signal
import tarfile
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import BinaryIO

import asyncpg

from mailyard.core.errors import ConfigurationError, Conflict
from mailyard.storage import cluster
from mailyard.storage.backup.log import LogReader
from mailyard.storage.backup.manifest import Base, choose_base, read_bases
from mailyard.storage.backup.seal import Sealer
from mailyard.storage.backup.store import Store
from mailyard.storage.queries import load
from mailyard.storage.unprivileged import Identity, choose_identity

QUERIES = load("backup")
_POLL_S = 0.02
_LOG_LINES = 60
_DEBIAN = Path("/usr/lib/postgresql")
_SHORT = "recovery ended before configured recovery target was reached"
_NOT_THERE = "could not locate required checkpoint record"


@dataclass(frozen=True, slots=True)
class Restored:
    """What came of it. `replayed_at`: the last commit that is there, as the server says it;
    `short`: the log in the store ends before the instant that was asked for."""

    base: Base
    segments: int
    replayed_at: datetime | None
    short: bool
    seconds: float
    workspaces: int
    people: int
    migrations: int
    seen_at: datetime | None


async def restore(
    store: Store,
    sealer: Sealer,
    data: Path,
    *,
    at: datetime | None = None,
    say: Callable[[str], None] = lambda _: None,
    afterwards: Callable[["asyncpg.Connection[asyncpg.Record]"], AsyncIterator[str]] | None = None,
) -> Restored:
    """The database as it was at `at` (now, when None), in `data`/postgres.

    `afterwards`: what is done in the restored database before it is stopped; what it yields is
    said. Raises Conflict when a database is there already, NotFound when the store has none, and
    ConfigurationError when it cannot be opened or replayed.
    """
    if (data / "postgres").exists() and any((data / "postgres").iterdir()):
        raise Conflict(
            f"{data / 'postgres'} holds a database; move it away, or restore into another folder "
            "with --into"
        )
    started = monotonic()
    base = choose_base(await read_bases(store, sealer), at)
    lock = cluster.take_lock(data)
    folder, log = data / "postgres.restored", data / "restore-log"
    try:
        for old in (folder, log):
            await asyncio.to_thread(shutil.rmtree, old, ignore_errors=True)
        say(f"base backup of {base.finished_at.isoformat()}, {base.size_bytes >> 20} MB")
        await lay_out(store, sealer, base, folder)
        segments = await LogReader(store, sealer, base, log).bring()
        say(f"{segments} segments of the log")
        async with recovered(base, folder, log, at) as (connection, short):
            row = await connection.fetchrow(QUERIES.said)
            assert row is not None, "a SELECT without FROM has one row"
            if afterwards is not None:
                async for line in afterwards(connection):
                    say(line)
        await asyncio.to_thread(_put_in_place, data, folder, base)
    finally:
        for left in (folder, log):
            await asyncio.to_thread(shutil.rmtree, left, ignore_errors=True)
        os.close(lock)
    return Restored(
        base=base,
        segments=segments,
        replayed_at=row["replayed_at"],
        short=short,
        seconds=monotonic() - started,
        workspaces=row["workspaces"],
        people=row["people"],
        migrations=row["migrations"],
        seen_at=row["seen_at"],
    )


def _put_in_place(data: Path, folder: Path, base: Base) -> None:
    """The database in its place; the master keys that were kept along, unless there are some."""
    (data / "postgres").mkdir(exist_ok=True)
    folder.rename(data / "postgres")
    path = data / "master.key"
    if base.keys and not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(base.keys)


async def lay_out(store: Store, sealer: Sealer, base: Base, folder: Path) -> None:
    """The files of a base backup in `folder`. Raises ConfigurationError for a damaged piece."""
    await asyncio.to_thread(folder.mkdir, 0o700)
    reading, writing = os.pipe()
    unpacking = asyncio.create_task(asyncio.to_thread(_unpack, reading, folder))
    try:
        with os.fdopen(writing, "wb", buffering=0) as pipe:
            for index, piece in enumerate(base.pieces):
                name = base.piece_name(index)
                sealed = await store.get(name)
                content = await asyncio.to_thread(sealer.open, name, sealed)
                if sha256(content).hexdigest() != piece.sha256:
                    raise ConfigurationError(f"{name} in the backup is not what was stored")
                await asyncio.to_thread(_write_all, pipe, content)
    except BrokenPipeError:
        pass  # the unpacking has failed, and says why
    except BaseException:
        await asyncio.gather(unpacking, return_exceptions=True)
        raise
    await unpacking
    for name in ("postmaster.pid", "standby.signal"):
        (folder / name).unlink(missing_ok=True)


def _write_all(pipe: BinaryIO, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[pipe.write(view) :]


def _unpack(descriptor: int, folder: Path) -> None:
    """The files and folders of the tar stream, below `folder` and nowhere else."""
    with os.fdopen(descriptor, "rb") as pipe, tarfile.open(fileobj=pipe, mode="r|") as tar:
        for member in tar:
            path = folder / member.name
            if ".." in Path(member.name).parts or Path(member.name).is_absolute():
                raise ConfigurationError(f"the backup names a file outside of it: {member.name}")
            if member.isdir():
                path.mkdir(parents=True, exist_ok=True)
            elif member.isreg():
                content = tar.extractfile(member)
                assert content is not None, "a regular file has content"
                path.parent.mkdir(parents=True, exist_ok=True)
                with content, path.open("wb") as file:
                    shutil.copyfileobj(content, file, 1 << 20)
        while pipe.read(1 << 20):
            pass  # what pads the end


def programs_of(major: int) -> Path:
    """The folder of PostgreSQL's programs of that version. Raises ConfigurationError."""
    if major == cluster.MAJOR:
        return cluster.binaries()
    folder = _DEBIAN / str(major) / "bin"
    if (folder / "postgres").exists():
        return folder
    raise ConfigurationError(
        f"the backup is of PostgreSQL {major}, which is not on this machine; install "
        f"postgresql-{major}"
    )


@asynccontextmanager
async def recovered(
    base: Base, folder: Path, log: Path, at: datetime | None
) -> AsyncIterator[tuple["asyncpg.Connection[asyncpg.Record]", bool]]:
    """A connection to the cluster in `folder` with the log in `log` replayed up to `at`, and
    whether the log ended before that. It is stopped in good order afterwards."""
    programs = programs_of(base.major)
    identity = choose_identity(programs / "postgres", folder)
    # Below /tmp: a socket's path has room for 107 bytes.
    with tempfile.TemporaryDirectory(prefix="mailyard-restore-") as name:
        socket = Path(name)
        server = _Server(base, programs, identity, folder, log, socket)
        server.prepare()
        short = False
        if not await server.replay(at):
            short = True
            if not await server.replay(None):
                raise server.explain()
        try:
            connection = await asyncpg.connect(
                f"postgresql://{base.role}@/{base.database}?host={socket}"
            )
            try:
                yield connection, short
            finally:
                await connection.close()
        finally:
            await server.stop()


class _Server:
    """The server that replays the log."""

    def __init__(
        self,
        base: Base,
        programs: Path,
        identity: Identity,
        folder: Path,
        log: Path,
        socket: Path,
    ) -> None:
        self._base = base
        self._programs = programs
        self._identity = identity
        self._folder = folder
        self._log = log
        self._socket = socket
        self._process: asyncio.subprocess.Process | None = None
        self._lines: deque[str] = deque(maxlen=_LOG_LINES)

    def prepare(self) -> None:
        """Files as PostgreSQL wants them; who signs in is whoever can reach the socket."""
        for name in ("postgresql.conf", "pg_hba.conf", "pg_ident.conf"):
            (self._folder / name).touch()
        (self._folder / "restore_hba.conf").write_text("local all all trust\n")
        (self._folder / "recovery.signal").touch()
        cluster.give_to(self._identity, self._log)
        self._folder.chmod(0o700)
        if os.geteuid() == 0:
            for place in (self._socket, self._folder):
                os.chown(place, *self._identity.owner)
            for path in self._folder.rglob("*"):
                os.chown(path, *self._identity.owner, follow_symlinks=False)

    async def replay(self, at: datetime | None) -> bool:
        """Start and replay; whether it got as far as `at`. Raises ConfigurationError."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._socket),
            "unix_socket_permissions": "0700",
            "port": "5432",
            "hba_file": str(self._folder / "restore_hba.conf"),
            "ssl": "off",
            "archive_mode": "off",
            "hot_standby": "off",  # or it would want as many connections as the server had
            "synchronous_standby_names": "",
            "shared_preload_libraries": "",
            "logging_collector": "off",
            "log_destination": "stderr",
            "log_min_messages": "log",
            "restore_command": "cp ../restore-log/%f %p",
            "recovery_target_timeline": "latest",
            "recovery_target_action": "promote",
            "recovery_target_time": at.isoformat() if at is not None else "",
        }
        options = [word for pair in settings.items() for word in ("-c", "=".join(pair))]
        self._lines.clear()
        self._process = await asyncio.create_subprocess_exec(
            *(str(self._programs / "postgres"), "-D", str(self._folder), *options),
            preexec_fn=self._identity.enter(signal.SIGQUIT),
            cwd=self._folder,
            env=cluster.environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        reading = asyncio.create_task(self._read(self._process))
        while self._process.returncode is None:
            if _is_ready(self._folder / "postmaster.pid"):
                return True
            await asyncio.sleep(_POLL_S)
        await reading
        if at is not None and any(_SHORT in line for line in self._lines):
            return False
        raise self.explain()

    async def stop(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGINT)
        await process.wait()
        (self._folder / "restore_hba.conf").unlink(missing_ok=True)

    def explain(self) -> ConfigurationError:
        last = "; ".join(line for line in list(self._lines)[-5:]) or "it said nothing"
        if any(_NOT_THERE in line for line in self._lines):
            return ConfigurationError(f"the log of the base backup is not in the store: {last}")
        return ConfigurationError(f"the log cannot be replayed: {last}")

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        begun = b""
        while read := await process.stderr.read(1 << 16):
            *lines, begun = (begun + read).split(b"\n")
            self._lines.extend(line.decode("utf-8", "replace") for line in lines)


def _is_ready(status: Path) -> bool:
    """Whether the replay is over and the server takes connections."""
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[7].strip() == "ready"
