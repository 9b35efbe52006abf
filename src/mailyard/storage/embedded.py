"""The embedded PostgreSQL: made at the first start, run in the foreground as a child, repaired.

The postmaster asks the kernel for SIGQUIT, PostgreSQL's immediate shutdown, when its parent ends:
so all its backends end with a killed supervisor, busy ones too, and the next start recovers from
the write-ahead log, for as long as that takes.
"""

import asyncio
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import asyncpg

from mailyard.core.errors import ConfigurationError
from mailyard.core.limits import MIB
from mailyard.storage import cluster
from mailyard.storage.queries import load
from mailyard.storage.unprivileged import Identity, choose_identity

QUERIES = load("embedded")
_POLL_S = 0.01
_SAY_EVERY_S = 5.0
_FAST_SHUTDOWN_S = 15.0
_LOG_READ_BYTES = 64 * 1024
_LOG_LINE_BYTES = 8 * 1024  # of a longer line the beginning is kept


class EmbeddedPostgres:
    """One cluster in `data`, for as long as this object runs it.

    `say` gets PostgreSQL's log lines and, while a recovery lasts, a line of progress. `slots` are
    those of its replicas; of replicas that there are no more none is kept, for it would keep log.
    """

    def __init__(
        self,
        data: Path,
        *,
        connections: int = 100,
        memory_bytes: int = 64 * MIB,
        say: Callable[[str], None] = lambda _: None,
        more: Mapping[str, str] | None = None,
        slots: Sequence[str] = (),
    ) -> None:
        self._data = data.absolute()
        self._connections = connections
        self._memory_bytes = memory_bytes
        self._say = say
        self._more = dict(more or {})
        self._slots = list(slots)
        self._lock: int | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._log: deque[str] = deque(maxlen=50)

    @property
    def url(self) -> str:
        """Where the database answers once `start` has returned."""
        return cluster.url_of(self._data)

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Make or repair the cluster and wait until it answers. Raises ConfigurationError."""
        if self._lock is None:
            self._lock = cluster.take_lock(self._data)
        try:
            await self._launch()
            await self._prepare()
        except BaseException:
            await self.stop()
            raise

    async def _launch(self) -> None:
        folder = self._data / "postgres"
        programs = cluster.binaries()
        identity = choose_identity(programs / "postgres", folder)
        new = not cluster.check_version(folder)
        try:
            if new:
                await self._make(programs, identity)
            else:
                if cluster.clear_leftovers(self._data):
                    self._say("the last run did not end cleanly: PostgreSQL repairs its data")
                cluster.give_to(identity, folder)
            cluster.make_socket_folder(self._data, identity)
            cluster.configure(
                self._data, identity, self._connections, self._memory_bytes, self._more
            )
        except OSError as error:
            raise cluster.explain(self._data, [str(error)]) from error
        self._log.clear()
        self._process = await asyncio.create_subprocess_exec(
            str(programs / "postgres"),
            *("-D", str(folder)),
            preexec_fn=identity.enter(signal.SIGQUIT),
            cwd=folder,
            env=cluster.environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C on the terminal is for the supervisor alone
        )
        self._reader = asyncio.create_task(self._read_log(self._process))
        await self._until_ready(folder / "postmaster.pid", self._process)

    async def restart(self) -> None:
        """Start again after the postmaster has ended by itself. Raises ConfigurationError."""
        if self._reader is not None:
            await self._reader
        await self._launch()

    async def wait(self) -> int:
        """Until the postmaster ends; its exit status."""
        if self._process is None:
            raise ConfigurationError("PostgreSQL was not started")
        return await self._process.wait()

    async def stop(self) -> None:
        """Shut down: sessions are cut, the last checkpoint is written, the lock is given back."""
        process, self._process = self._process, None
        if process is not None:
            for stop_signal, patience_s in (
                (signal.SIGINT, _FAST_SHUTDOWN_S),
                (signal.SIGQUIT, 6.0),
                (signal.SIGKILL, None),
            ):
                if process.returncode is None:
                    process.send_signal(stop_signal)
                try:
                    await asyncio.wait_for(process.wait(), patience_s)
                    break
                except TimeoutError:
                    continue
        if self._reader is not None:
            await self._reader
            self._reader = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _until_ready(self, status: Path, process: asyncio.subprocess.Process) -> None:
        """The postmaster writes its state into the eighth line of its lock file."""
        clock = asyncio.get_running_loop().time
        started = said = clock()
        while process.returncode is None:
            if _is_ready(status, process.pid):
                return
            if clock() - said >= _SAY_EVERY_S:
                said = clock()
                self._say(f"PostgreSQL is recovering, {said - started:.0f} s so far")
            await asyncio.sleep(_POLL_S)
        if self._reader is not None:
            await self._reader
        raise cluster.explain(self._data, list(self._log))

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        """Keep PostgreSQL's pipe empty, whatever it says: on a full one it would stand still."""
        assert process.stderr is not None
        begun = b""
        while read := await process.stderr.read(_LOG_READ_BYTES):
            *lines, begun = (begun + read).split(b"\n")
            for line in lines:
                self._hear(line)
            if len(begun) > _LOG_LINE_BYTES:
                self._hear(begun)
                begun = b""
        if begun:
            self._hear(begun)

    def _hear(self, line: bytes) -> None:
        text = line[:_LOG_LINE_BYTES].decode("utf-8", "replace").rstrip()
        self._log.append(text)
        if _worth_saying(text):
            self._say(text)

    async def _make(self, programs: Path, identity: Identity) -> None:
        """The files of a new cluster."""
        await asyncio.to_thread(cluster.initialise, self._data, programs, identity)

    async def _prepare(self) -> None:
        """The platform's own role, which is no superuser, and its database, where missing; a slot
        for each replica."""
        server = await asyncpg.connect(
            cluster.url_of(self._data, database="postgres", role=cluster.SUPERUSER)
        )
        try:
            if not await server.fetchval(QUERIES.role_exists, cluster.ROLE):
                await server.execute(f"CREATE ROLE {cluster.ROLE} LOGIN")
            if not await server.fetchval(QUERIES.database_exists, cluster.DATABASE):
                await server.execute(f"CREATE DATABASE {cluster.DATABASE} OWNER {cluster.ROLE}")
            await server.execute(QUERIES.drop_slots_of_nobody, self._slots)
            for slot in self._slots:
                await server.execute(QUERIES.make_slot, slot)
        finally:
            await server.close()


def _is_ready(status: Path, pid: int) -> bool:
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return False  # not written yet
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _worth_saying(line: str) -> bool:
    """Warnings and worse, and what PostgreSQL tells about a recovery; not its everyday words."""
    if "skipping missing" in line:
        return False
    return not line.startswith("LOG:") or "redo in progress" in line
