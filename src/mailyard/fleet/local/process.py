"""One process of a service: started, awaited, started again whenever it ends, and ended.

It runs in a session of its own and asks the kernel for a signal when we end. What it says goes into
our log. When it dies its children are ended too: a program like nginx leaves workers behind that
hold its ports.
"""

import asyncio
import os
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from random import Random

from mailyard.core.backoff import Backoff
from mailyard.core.errors import ConfigurationError
from mailyard.fleet.local.place import LOOPBACK, write_private
from mailyard.storage.unprivileged import die_with_parent

Say = Callable[[str, str], None]
RESTART = Backoff(first_s=0.2, cap_s=15.0)
HEALTHY_AFTER_S = 30.0
_LOOK_S = 0.05
_ANSWER_S = 2.0
_LINE_BYTES = 1 << 16
_LOG_LINES = 20
_PATIENCE_S = 8.0  # from `stop_signal` to a kill


def as_we_are(death_signal: int) -> Callable[[], None]:
    """What a forked child calls before exec: stay who we are, get `death_signal` when we end."""
    parent = os.getpid()
    return lambda: die_with_parent(death_signal, parent)


class ServiceProcess:
    """`command` says what to run, anew for each start; `ready` whether it works now.

    `stop_signal` asks it to end, which may take _PATIENCE_S; `orphaned` is what the kernel sends
    when we are gone. `rest_s` passes before it is started again.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        command: Callable[[], Awaitable[Sequence[str | Path]]],
        ready: Callable[[], Awaitable[bool]],
        say: Say,
        environment: Mapping[str, str] | None = None,
        become: Callable[[int], Callable[[], None]] = as_we_are,
        stop_signal: signal.Signals = signal.SIGTERM,
        orphaned: signal.Signals = signal.SIGKILL,
        ready_s: float = 60.0,
        rest_s: float = 0.0,
    ) -> None:
        self.name = name
        self._folder = folder
        self._command = command
        self._ready = ready
        self._say = say
        self._environment = dict(environment or {})
        self._become = become
        self._stop_signal = stop_signal
        self._orphaned = orphaned
        self._ready_s = ready_s
        self._rest_s = rest_s
        self._random = Random()
        self._process: asyncio.subprocess.Process | None = None
        self._program = ""
        self._reader: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._log: deque[str] = deque(maxlen=_LOG_LINES)

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if self._process is not None and running else None

    async def start(self) -> None:
        """Start it and wait until it works. Raises ConfigurationError with the end of its log."""
        await self._spawn()
        try:
            await self._until_ready()
        except BaseException:
            await self.stop()
            raise
        self._keeper = asyncio.create_task(self._keep(), name=self.name)

    def send(self, number: signal.Signals) -> None:
        """Signal it, if it runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def stop(self) -> None:
        """Ask it to end, kill it when it does not, and all that it has left."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.send_signal(self._stop_signal)
            try:
                await asyncio.wait_for(_ended(process.pid), _PATIENCE_S)
            except TimeoutError:
                process.kill()
        await self._wait(process)

    async def _spawn(self) -> None:
        words = [str(word) for word in await self._command()]
        self._program = _program(words[0])
        note = self._folder / "pid"
        if note.exists():  # left by a run that was ended together with what sees to it
            self._end_group(int(note.read_text() or 0))
        self._process = await asyncio.create_subprocess_exec(
            *words,
            preexec_fn=self._become(self._orphaned),
            cwd=self._folder,
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "TZ": "UTC"}
            | self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=_LINE_BYTES,
            start_new_session=True,
        )
        write_private(note, str(self._process.pid))
        self._log.clear()
        self._reader = asyncio.create_task(self._read(self._process))

    async def _until_ready(self) -> None:
        clock = asyncio.get_running_loop().time
        until = clock() + self._ready_s
        while clock() < until:
            process = self._process
            if process is None or process.returncode is not None:
                if self._reader is not None:
                    await self._reader
                raise ConfigurationError(f"{self.name} did not start: {self._last_words()}")
            try:
                if await asyncio.wait_for(self._ready(), _ANSWER_S):
                    return
            except (OSError, EOFError, TimeoutError):
                pass  # not yet
            await asyncio.sleep(_LOOK_S)
        raise ConfigurationError(
            f"{self.name} was not ready within {self._ready_s:.0f} s: {self._last_words()}"
        )

    async def _keep(self) -> None:
        """Start it again whenever it ends, until we stop."""
        clock = asyncio.get_running_loop().time
        failures = 0
        while self._process is not None:
            began = clock()
            status = await self._wait(self._process)
            failures = 1 if clock() - began > HEALTHY_AFTER_S else failures + 1
            delay_s = max(self._rest_s, RESTART.delay_s(failures, self._random))
            self._say(self.name, f"ended with status {status}, starts again in {delay_s:.1f} s")
            await asyncio.sleep(delay_s)
            try:
                await self._spawn()
                await self._until_ready()
                self._say(self.name, "works again")
            except (ConfigurationError, OSError) as error:
                self._say(self.name, str(error))

    async def _wait(self, process: asyncio.subprocess.Process) -> int:
        """Until it has ended, and what it left as well; its exit status.

        In this order: those that it left hold its pipe, until whose end asyncio knows of no exit.
        """
        await _ended(process.pid)
        waiting = asyncio.ensure_future(process.wait())
        while not waiting.done():  # one may have been between two names when we looked
            self._end_group(process.pid)
            await asyncio.wait([waiting], timeout=_LOOK_S)
        status = waiting.result()
        if self._reader is not None:
            await self._reader
            self._reader = None
        return status

    def _end_group(self, group: int) -> None:
        """End what a process that is gone has left of its program in its group."""
        for pid in _members(group, self._program):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it has ended by itself

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Keep its pipe empty; what it says is logged."""
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:
                continue  # longer than the limit: dropped by the reader
            if not line:
                return
            text = line.decode("utf-8", "replace").rstrip()
            if text:
                self._log.append(text)
                self._say(self.name, text)

    def _last_words(self) -> str:
        return "; ".join(list(self._log)[-6:]) or "it said nothing"


async def _ended(pid: int) -> None:
    """Until our child `pid` has ended, whoever still holds what was its."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return  # it has, and was reaped
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _program(path: str) -> str:
    """The program's name as the kernel has it, behind all links."""
    return Path(path).resolve().name


def _members(group: int, program: str) -> list[int]:
    """Processes of `program` in the process group."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or group <= 0:
            continue
        try:
            stat = (entry / "stat").read_text()
            name = (entry / "exe").readlink().name.removesuffix(" (deleted)")
            its_group = int(stat[stat.rindex(")") + 2 :].split()[2])
        except (OSError, ValueError, IndexError):
            continue  # it has ended, or it is another user's
        if its_group == group and name == program:
            found.append(int(entry.name))
    return found


async def listens(port: int) -> bool:
    """Whether somebody takes connections there. Raises OSError."""
    _, writer = await asyncio.open_connection(LOOPBACK, port)
    writer.close()
    return True
