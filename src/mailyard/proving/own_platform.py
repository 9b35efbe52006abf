"""A platform of one's own for a while: `mailyard up` as a child, on free ports, in a folder.

For whoever wants to prove something without touching what runs already. The child is told to die
with its parent, so that nothing stays behind however this process ends.
"""

import asyncio
import ctypes
import os
import shutil
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import msgspec

from mailyard.core.errors import Unavailable
from mailyard.storage.cluster import socket_folder

START_S = 60.0
STOP_S = 40.0
_PR_SET_PDEATHSIG = 1
_LOG_TAIL_BYTES = 4_000


class _Ready(msgspec.Struct):
    """The line that `mailyard up --json` prints when everything works."""

    page: str
    smtp: str
    seconds: float
    api_key: str | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """Where a platform answers."""

    url: str
    api_key: str
    smtp_host: str
    smtp_port: int


class OwnPlatform:
    """`mailyard up` in `folder`, whose `data` it uses and whose `platform.log` it writes.

    `settings` are more MAILYARD_* variables; `api_key` is that of data from before. It has
    `start_s` to begin to work. Starting it again in the same folder goes on with the same data,
    ports and key.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str] | None = None,
        *,
        api_key: str = "",
        start_s: float = START_S,
    ) -> None:
        self.folder = folder
        self._start_s = start_s
        self._settings = dict(settings or {})
        self._ports = (free_port(), free_port())
        self._process: asyncio.subprocess.Process | None = None
        self._api_key = api_key
        self.address: Address | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What the platform's processes run with; nothing of the caller's own platform."""
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("MAILYARD_")
        }
        http_port, smtp_port = self._ports
        return inherited | {
            "MAILYARD_DATA": str(self.folder / "data"),
            "MAILYARD_PORT": str(http_port),
            "MAILYARD_SMTP_PORT": str(smtp_port),
            "MAILYARD_SUBMISSION_PORT": "0",
            "MAILYARD_SUBMISSIONS_PORT": "0",
            "MAILYARD_LOG_LEVEL": "warning",
            **self._settings,
        }

    @property
    def pid(self) -> int:
        """The supervisor's process id. Raises Unavailable when it does not run."""
        if self._process is None or self._process.returncode is not None:
            raise Unavailable("the platform does not run")
        return self._process.pid

    async def start(self) -> Address:
        """Until everything works. Raises Unavailable with the end of the log when it cannot."""
        with (self.folder / "platform.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "mailyard.cli.main",
                "up",
                "--json",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=self.environment,
                preexec_fn=_die_with_parent,
            )
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(self._start_s):
                line = await self._process.stdout.readline()
            ready = msgspec.json.decode(line, type=_Ready)
        except (TimeoutError, msgspec.DecodeError) as error:
            await self.kill()
            raise Unavailable(f"the platform did not start:\n{self._log_tail()}") from error
        self._api_key = ready.api_key or self._api_key
        host, _, port = ready.smtp.rpartition(":")
        self.address = Address(ready.page, self._api_key, host, int(port))
        return self.address

    async def stop(self) -> None:
        """Drain and end; what does not end in time is killed."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """End the supervisor at once; its children end with it."""
        if self._process is not None:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()

    def remove(self) -> None:
        """Delete everything that it has left. Call it after `stop`."""
        for folder in (self.folder, socket_folder(self.folder / "data")):
            shutil.rmtree(folder, ignore_errors=True)

    async def __aenter__(self) -> Address:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    def _log_tail(self) -> str:
        log = (self.folder / "platform.log").read_bytes()
        return log[-_LOG_TAIL_BYTES:].decode("utf-8", "replace")


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
