"""The child's end of the wire to its supervisor: a socket that tells when to begin and who lives.

Words are lines. Down comes `go` when the database is migrated, up go `ready` and, before an exit
that a restart will not mend, `failed <why>`. The end of the wire means that the supervisor is gone.
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

    def _say(self, word: str) -> None:
        if self._socket is not None:
            try:
                self._socket.send(word.encode() + b"\n")
            except OSError:
                self._on_end()

    def _read(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(256)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._on_end()
            return
        self._buffer += data
        if b"go\n" in self._buffer:
            self._going.set()


def _end_at_once() -> None:
    os._exit(1)
