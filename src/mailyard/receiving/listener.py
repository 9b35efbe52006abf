"""The asyncio shell around SMTP sessions: sockets, deadlines, ceilings, drain. Decides nothing.

Several processes may listen on one port (SO_REUSEPORT); ceilings are per process. Deadlines are
kept by one sweep a second over all connections, not by a timer for each event.
"""

import asyncio
import ssl
from collections import Counter
from collections.abc import Sequence
from ipaddress import ip_address
from typing import cast

import structlog
from msgspec import Struct

from mailyard.core import limits
from mailyard.net.guard import Network
from mailyard.observe import metrics
from mailyard.protocol.smtp.session import (
    SessionConfig,
)
from mailyard.receiving.connection import Connection
from mailyard.receiving.handler import LoginHandler, SessionHandler
from mailyard.receiving.tls_server import BACKLOG, TlsServer

_log = structlog.get_logger(__name__)

_SWEEP_S = 1.0


class ListenerLimits(Struct, frozen=True):
    """What one process grants. Times in seconds, sizes in bytes.

    `waiting_messages` and `waiting_bytes` bound what has been received and not yet answered; past
    them a message is answered 451 without asking the handler.
    """

    connections: int = limits.SMTP_CONNECTIONS
    connections_per_address: int = limits.SMTP_CONNECTIONS_PER_ADDRESS
    command_timeout_s: float = limits.SMTP_COMMAND_TIMEOUT_S
    data_timeout_s: float = limits.SMTP_DATA_TIMEOUT_S
    message_timeout_s: float = limits.SMTP_MESSAGE_TIMEOUT_S
    session_timeout_s: float = limits.SMTP_SESSION_TIMEOUT_S
    waiting_messages: int = 10_000
    waiting_bytes: int = 256 * limits.MIB


class Listener:
    """Serves SMTP on (`host`, `port`); port 0 takes a free one, see `port`.

    `session` says what each session offers and allows; its `tls_offered` follows from
    `tls_context`. With `tls_on_connect` TLS comes first (RFC 8314 section 3.3). `logins` is needed
    where `session` says `submission`. A peer in `balancers` says first who is behind it, by the
    PROXY protocol; nobody else may.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        handler: SessionHandler,
        hostname: str,
        tls_context: ssl.SSLContext | None = None,
        listener_limits: ListenerLimits | None = None,
        session: SessionConfig | None = None,
        tls_on_connect: bool = False,
        logins: LoginHandler | None = None,
        balancers: Sequence[Network] = (),
    ) -> None:
        self._balancers = tuple(balancers)
        self._host = host
        self._wanted_port = port
        self._server: asyncio.Server | TlsServer | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self.handler = handler
        self.logins = logins
        self.tls_on_connect = tls_on_connect
        self.limits = listener_limits or ListenerLimits()
        self.tls_context = tls_context
        base = session or SessionConfig(hostname)
        self.config = _configured(base, hostname, tls_context is not None)
        self.connections: set[Connection] = set()
        self.per_address: Counter[str] = Counter()
        self.waiting_messages = 0
        self.waiting_bytes = 0
        self.accepted = 0  # and not yet in the metric, whose lock costs as much as a command
        self.draining = False
        self.empty = asyncio.Event()

    @property
    def port(self) -> int:
        """The port that is listened on; 0 before `start`."""
        if self._server is None or not self._server.sockets:
            return 0
        return cast("int", self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Listen. Raises OSError when the address is taken or not ours."""
        loop = asyncio.get_running_loop()
        if self.tls_on_connect:
            assert self.tls_context is not None, "TLS on connect needs a context"
            self._server = TlsServer(
                self._host,
                self._wanted_port,
                context=self.tls_context,
                protocol=lambda source: Connection(self, loop, source),
                has_room=self._has_room,
                is_balancer=self.is_balancer,
            )
        else:
            self._server = await loop.create_server(
                lambda: Connection(self, loop),
                self._host,
                self._wanted_port,
                backlog=BACKLOG,
                reuse_port=True,
            )
        self._sweeper = loop.create_task(self._sweep())

    def _has_room(self, handshakes: int, of_address: int, address: str) -> bool:
        """Whether one more may shake hands: those who do count as connections already."""
        return len(self.connections) + handshakes < self.limits.connections and (
            self.is_balancer(address)
            or self.per_address[address] + of_address < self.limits.connections_per_address
        )

    def is_balancer(self, address: str) -> bool:
        """Whether who connects from `address` says first who is behind it."""
        if not self._balancers:
            return False
        own = ip_address(address)
        own = getattr(own, "ipv4_mapped", None) or own
        return any(own in network for network in self._balancers)

    async def drain(self, timeout_s: float) -> None:
        """Stop listening, let messages under way be answered, close. Cuts what is left after
        `timeout_s` seconds: its senders have had no 250 and keep their mail."""
        self.draining = True
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.drain()
        if self.connections:
            self.empty.clear()
            try:
                await asyncio.wait_for(self.empty.wait(), timeout_s)
            except TimeoutError:
                _log.warning("smtp_drain_cut", connections=len(self.connections))
        for connection in list(self.connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        self._count_accepted()

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SWEEP_S)
            self._count_accepted()
            now = loop.time()
            for connection in list(self.connections):
                connection.check_deadlines(now)

    def _count_accepted(self) -> None:
        metrics.MESSAGES_ACCEPTED.inc(self.accepted)
        self.accepted = 0


def _configured(base: SessionConfig, hostname: str, tls_offered: bool) -> SessionConfig:
    values = {name: getattr(base, name) for name in SessionConfig.__struct_fields__}
    return SessionConfig(**values | {"hostname": hostname, "tls_offered": tls_offered})
