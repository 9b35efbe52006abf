"""The HTTP server of one API process: Granian inside our own event loop.

One role process is one process with one event loop (DESIGN section 10), so Granian runs embedded:
its accept loop and HTTP parser are threads of this process, the application runs in this loop, and
there is no worker process that could outlive it. Its known traps and what is done here:

- *Connections past its backpressure wait unanswered.* Backpressure is set above the file limit;
  ceilings are the application's, which answers 503 (`web/live`) instead of leaving a caller
  hanging.
- *A graceful stop waits for open streams, for ever.* Every request is a task that is known here.
  At `stop` `on_stop` ends the long-lived streams, the listening socket closes, requests get
  `drain_s` seconds, and what is left is cancelled.
- *Several processes on one port.* The socket is ours: bound with SO_REUSEPORT, so that the kernel
  spreads connections over the processes, or refused with a clear error when another program has it.
"""

import asyncio
import logging
import resource
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from mailyard.core.errors import ConfigurationError
from mailyard.fleet.ports import why_not
from mailyard.observe.metrics import HTTP_WAITING
from mailyard.web.protocol import Asgi, Receive, Scope, Send

BACKLOG = 2_048
HEADER_READ_TIMEOUT_MS = 15_000  # a slow-loris has this long for its whole header
HEADER_BYTES = 64 * 1024
_WITHOUT_CEILING = 1 << 20
_STOP_S = 5.0
_TCP_INFO_BYTES = 64
_UNACKED = 24  # where tcpi_unacked stands in struct tcp_info


def bind(host: str, port: int, *, shared: bool) -> socket.socket:
    """A listening socket. `shared`: other processes of ours may listen on the port as well.

    Raises ConfigurationError that says who is in the way and what to do.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except (OSError, UnicodeError) as error:
        listener.close()
        raise ConfigurationError(
            f"cannot serve HTTP on {host}:{port}: {why_not(error, 'MAILYARD_PORT')}"
        ) from error
    return listener


class _OnOurSocket(Server):
    """Granian's embedded server, given a socket that is bound already."""

    def __init__(self, app: Asgi, listener: socket.socket) -> None:
        super().__init__(
            app,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=True,
            backlog=BACKLOG,
            backpressure=_WITHOUT_CEILING,
            http1_settings=HTTP1Settings(
                header_read_timeout=HEADER_READ_TIMEOUT_MS, max_buffer_size=HEADER_BYTES
            ),
            log_enabled=False,
        )
        self._listener = listener

    def _init_shared_socket(self) -> None:
        self._ssp = None
        # Detached: Granian closes the descriptor itself when its accept loop ends.
        self._sfd = self._listener.detach()  # type: ignore[assignment]
        self._shd = SocketHolder(self._sfd, False, BACKLOG)  # type: ignore[assignment,call-arg]


class HttpServer:
    """Serves one ASGI application. `start`, then `serve` until somebody calls `stop`."""

    def __init__(
        self,
        app: Asgi,
        *,
        host: str,
        port: int,
        shared: bool = True,
        drain_s: float = 10.0,
        on_stop: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`on_stop` ends long-lived streams, so that the drain waits for real requests only."""
        self._app = app
        self._host = host
        self.port = port
        self._shared = shared
        self.drain_s = drain_s
        self._on_stop = on_stop
        self._open: set[asyncio.Task[Any]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = False
        self._server: _OnOurSocket | None = None
        self._serving: asyncio.Task[None] | None = None
        self._door: socket.socket | None = None  # the listening socket, to look at

    async def start(self) -> None:
        """Listen; `port` is then the real one where 0 was asked for. Raises ConfigurationError."""
        _raise_file_limit()
        logging.getLogger("_granian").setLevel(logging.ERROR)
        listener = bind(self._host, self.port, shared=self._shared)
        self.port = listener.getsockname()[1]
        self._door = listener.dup()
        HTTP_WAITING.labels("before the door").set_function(self._before_the_door)
        self._server = _OnOurSocket(self._handle, listener)
        self._serving = asyncio.create_task(self._server.serve(), name="http")

    async def serve(self) -> None:
        """Run until the server has stopped."""
        assert self._serving is not None, "start comes first"
        await asyncio.shield(self._serving)

    async def stop(self) -> None:
        """Drain: no new connections, streams end, requests get `drain_s`, then all is closed."""
        if self._stopping or self._server is None or self._serving is None:
            return
        self._stopping = True
        if self._door is not None:
            self._door.close()  # else the port would stay open behind Granian's back
            self._door = None
        try:
            async with asyncio.timeout(self.drain_s):
                if self._on_stop is not None:
                    await self._on_stop()  # first: Granian ends WebSockets without a goodbye
                self._server.stop()  # type: ignore[no-untyped-call]
                await self._idle.wait()
        except TimeoutError:
            self._server.stop()  # type: ignore[no-untyped-call]
            for task in list(self._open):
                task.cancel()
        try:
            await asyncio.wait_for(asyncio.shield(self._serving), _STOP_S)
        except TimeoutError:
            self._serving.cancel()

    def _before_the_door(self) -> int:
        """Connections that the kernel has made and nobody has accepted (of a listening socket
        tcp_info says so in tcpi_unacked: net/ipv4/tcp.c, tcp_get_info)."""
        if self._door is None:
            return 0
        info = self._door.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        return int.from_bytes(info[_UNACKED : _UNACKED + 4], sys.byteorder)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None, "the server runs every request in a task"
        self._open.add(task)
        self._idle.clear()
        try:
            await self._app(scope, receive, send)
        finally:
            self._open.discard(task)
            if not self._open:
                self._idle.set()


def _raise_file_limit() -> None:
    """As many open connections as the machine allows this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
