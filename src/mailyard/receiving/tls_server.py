"""Listening for connections that begin with TLS (RFC 8314 section 3.3).

The loop's own server would do, but nobody could count who has connected and not yet shaken hands:
such peers cost a descriptor and memory, so they have a bound and a deadline here. And a connection
that is taken as plain and made TLS afterwards may already have swallowed the peer's first record.
"""

import asyncio
import socket
import ssl
from asyncio import Task
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog

from mailyard.protocol.proxy_header import BadProxyHeader, Source, missing_bytes, read_source

BACKLOG = 1024
HANDSHAKE_S = 15.0  # a handshake takes two round trips; who needs longer is not a mail client
_PAUSE_S = 0.1  # after an accept that failed, most likely for want of descriptors

_log = structlog.get_logger(__name__)


class TlsServer:
    """Listens on (`host`, `port`) from its making on, within a running loop, until `close`.

    `protocol` gets a connection once it is encrypted. `has_room(handshakes, those of the address,
    the address)` decides whether one more may begin; who `is_balancer` says first, in plain, who is
    behind it. Raises OSError when the address is taken.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        context: ssl.SSLContext,
        protocol: Callable[[Source | None], asyncio.Protocol],
        has_room: Callable[[int, int, str], bool],
        is_balancer: Callable[[str], bool],
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server(
            (host, port), family=family, backlog=BACKLOG, reuse_port=True
        )
        listening.setblocking(False)
        self.sockets: tuple[socket.socket, ...] = (listening,)
        self._context = context
        self._protocol = protocol
        self._has_room = has_room
        self._is_balancer = is_balancer
        self._loop = asyncio.get_running_loop()
        self._handshakes: set[Task[None]] = set()
        self._of_address: Counter[str] = Counter()
        self._accepting = self._loop.create_task(self._accept(listening))

    def close(self) -> None:
        """Take no more; handshakes under way end with nothing."""
        self._accepting.cancel()
        for handshake in self._handshakes:
            handshake.cancel()
        for listening in self.sockets:
            listening.close()
        self.sockets = ()

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connected, peer = await self._loop.sock_accept(listening)
            except OSError as error:
                _log.warning("tls_accept_failed", error=str(error))
                await asyncio.sleep(_PAUSE_S)
                continue
            self._begin(connected, str(peer[0]) if peer else "")

    def _begin(self, connected: socket.socket, address: str) -> None:
        if not self._has_room(len(self._handshakes), self._of_address[address], address):
            self._forget(address)
            connected.close()
            return
        self._of_address[address] += 1
        handshake = self._loop.create_task(self._shake_hands(connected, address))
        self._handshakes.add(handshake)

        def ended(task: Task[Any]) -> None:
            self._handshakes.discard(task)
            self._of_address[address] -= 1
            self._forget(address)

        handshake.add_done_callback(ended)

    def _forget(self, address: str) -> None:
        if self._of_address[address] <= 0:
            del self._of_address[address]

    async def _shake_hands(self, connected: socket.socket, address: str) -> None:
        try:
            source = await self._source(connected) if self._is_balancer(address) else None
            await self._loop.connect_accepted_socket(
                partial(self._protocol, source),
                connected,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_S,
            )
        except (OSError, ssl.SSLError) as error:
            _log.info("tls_handshake_failed", peer=address, error=str(error))
            connected.close()
        except BadProxyHeader as error:
            _log.warning("proxy_header_refused", peer=address, error=error.message)
            connected.close()

    async def _source(self, connected: socket.socket) -> Source:
        """Read the header and not a byte more: what follows it is the handshake."""
        header = b""
        async with asyncio.timeout(HANDSHAKE_S):
            while missing := missing_bytes(header):
                data = await self._loop.sock_recv(connected, missing)
                if not data:
                    raise ConnectionError("closed within the PROXY header")
                header += data
        return read_source(header)[0]
