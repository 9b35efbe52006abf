"""One supervised process: spawned to die with us, spoken to over a wire, its lines passed on."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from mailyard.storage.unprivileged import die_with_parent

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_LINE_BYTES = 1 << 20


class Phase(Enum):
    """What a process is doing. A failed one said that a restart will not help."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    ENDED = "ended"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to run: `command` gets `--control FD` appended. Above `memory_bytes` it is replaced."""

    name: str
    role: str
    command: tuple[str, ...]
    memory_bytes: int


class Child:
    """One run of a spec, from spawn to exit."""

    def __init__(
        self,
        spec: ChildSpec,
        say: Callable[[str, str], None],
        changed: Callable[[], None],
        asked: Callable[[str, int], None] = lambda _role, _count: None,
    ) -> None:
        self.spec = spec
        self.phase = Phase.STARTING
        self.failure = ""
        self.settled = asyncio.Event()  # it works, or never will
        self.ended = asyncio.Event()
        self._say = say
        self._changed = changed
        self._asked = asked
        self._process: asyncio.subprocess.Process | None = None
        self._wire: socket.socket | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def pid(self) -> int:
        assert self._process is not None, "spawn comes first"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def spawn(self, environment: Mapping[str, str]) -> None:
        """Start the process. It gets SIGKILL from the kernel when this process ends."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        parent = os.getpid()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self.spec.command,
                *("--control", str(theirs.fileno())),
                pass_fds=(theirs.fileno(),),
                preexec_fn=lambda: die_with_parent(signal.SIGKILL, parent),
                env=dict(environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                limit=_LINE_BYTES,
                start_new_session=True,  # Ctrl-C reaches the supervisor alone, which then drains
            )
        finally:
            theirs.close()
        self._wire = ours
        self._tasks = [
            asyncio.create_task(self._pass_lines_on(self._process)),
            asyncio.create_task(self._read_wire(ours)),
        ]

    def go(self) -> None:
        """Tell it that the database is ready."""
        self._send("go")

    def tell(self, role: str, count: int) -> None:
        """Tell it how many processes of `role` there are to be."""
        self._send(f"have {role} {count}")

    def _send(self, word: str) -> None:
        if self._wire is not None:
            try:
                self._wire.send(word.encode() + b"\n")
            except OSError:
                pass  # it has ended; whoever waits for its exit sees that

    def tell_settings(self, text: str) -> None:
        """Hand it the settings, as JSON on one line, that were read again."""
        if self._wire is not None:
            try:
                self._wire.send(b"settings " + text.encode() + b"\n")
            except OSError:
                pass  # it has ended, or takes nothing: its successor gets them at its start

    def drain(self) -> None:
        """Ask it to finish what it has and end."""
        if self.running and self.phase is not Phase.DRAINING:
            self.phase = Phase.DRAINING
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    async def wait(self) -> int:
        """Until it has ended and its last line is passed on; its exit status."""
        assert self._process is not None, "spawn comes first"
        status = await self._process.wait()
        lines, wire = self._tasks
        await asyncio.gather(lines, return_exceptions=True)
        if self.phase is not Phase.FAILED:
            await asyncio.wait([wire], timeout=1.0)
        wire.cancel()
        if self._wire is not None:
            self._wire.close()
            self._wire = None
        if self.phase is not Phase.FAILED:
            self.phase = Phase.ENDED
        self.settled.set()
        self.ended.set()
        self._changed()
        return status

    def memory_bytes(self) -> int:
        """Resident memory now; 0 when it has ended."""
        try:
            pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        except OSError:
            return 0
        return int(pages) * _PAGE_BYTES

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:
            try:
                self._process.send_signal(number)
            except ProcessLookupError:
                pass  # it ended between the question and the signal

    async def _pass_lines_on(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:
                continue  # longer than the limit: dropped by the reader
            if not line:
                return
            self._say(self.spec.name, line.decode("utf-8", "replace").rstrip("\n"))

    async def _read_wire(self, wire: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        buffer = b""
        while data := await loop.sock_recv(wire, 4096):
            *words, buffer = (buffer + data).split(b"\n")
            for word in words:
                self._hear(word.decode("utf-8", "replace"))

    def _hear(self, word: str) -> None:
        if word.startswith("scale "):
            _, role, count = word.split(" ")
            self._asked(role, int(count))
            return
        if word == "ready" and self.phase is Phase.STARTING:
            self.phase = Phase.READY
        elif word.startswith("failed "):
            self.phase = Phase.FAILED
            self.failure = word.removeprefix("failed ")
        self.settled.set()
        self._changed()
