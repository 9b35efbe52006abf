"""The child's end of the wire to its supervisor: a socket that tells when to begin and who lives.

Words are lines. Down come `go` when the database is migrated, `settings <JSON>` when they were
read again and, to a scheduler, `have <role> <n>`: how many processes the supervisor keeps. Up go
`ready`, `scale <role> <n>` and, before an exit that a restart will not mend, `failed <why>`. The
end of the wire means that the supervisor is gone.
"""

import asyncio
import os
import socket
from collections.abc import Callable


class Control:
    """One child's wire. Without a descriptor (a role that runs alone) nothing is waited for."""

    def __init__(self, descriptor: int | None) -> None:
        self._socket = None if descriptor is None else socket.socket(fileno=descriptor)
        self._going = asyncio.Event()
        self._buffer = b""
        self._have: dict[str, int] = {}
        self._on_settings: Callable[[str], None] = _no_settings
        self._on_end: Callable[[], None] = _end_at_once
        if self._socket is not None:
            self._socket.setblocking(False)

    def listen(self, on_end: Callable[[], None] | None = None) -> None:
        """Begin to read; `on_end` is called when the supervisor is gone (default: exit at once)."""
        if on_end is not None:
            self._on_end = on_end
        if self._socket is None:
            self._going.set()
        else:
            asyncio.get_running_loop().add_reader(self._socket, self._read)

    def hear_settings(self, heard: Callable[[str], None]) -> None:
        """Call `heard` with the settings as JSON whenever they were read again."""
        self._on_settings = heard

    @property
    def alone(self) -> bool:
        """Whether no supervisor stands behind this process."""
        return self._socket is None

    async def go(self) -> None:
        """Until the supervisor says that the database is ready."""
        await self._going.wait()

    def ready(self) -> None:
        """Say that this role does its work now."""
        self._say("ready")

    def failed(self, why: str) -> None:
        """Say that a setting or the machine is wrong, so that a restart would not help."""
        self._say("failed " + why.replace("\n", " "))

    def have(self, role: str) -> int | None:
        """How many processes of `role` the supervisor keeps; None before it said so."""
        return self._have.get(role)

    def scale(self, role: str, count: int) -> None:
        """Ask for `count` processes of `role`."""
        self._say(f"scale {role} {count}")

    def _say(self, word: str) -> None:
        if self._socket is not None:
            try:
                self._socket.send(word.encode() + b"\n")
            except OSError:
                self._on_end()

    def _read(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._on_end()
            return
        *words, self._buffer = (self._buffer + data).split(b"\n")
        for word in words:
            self._hear(word.decode())

    def _hear(self, word: str) -> None:
        if word == "go":
            self._going.set()
        elif word.startswith("have "):
            _, role, count = word.split(" ")
            self._have[role] = int(count)
        elif word.startswith("settings "):
            self._on_settings(word.removeprefix("settings "))


def _no_settings(_text: str) -> None:
    """Nobody wants them yet: what is made from now on is made with those of the start."""


def _end_at_once() -> None:
    os._exit(1)
