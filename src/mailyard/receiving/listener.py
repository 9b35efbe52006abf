"""The asyncio shell around SMTP sessions: sockets, deadlines, ceilings, drain. Decides nothing.

Several processes may listen on one port (SO_REUSEPORT); ceilings are per process. Deadlines are
kept by one sweep a second over all connections, not by a timer for each event.
"""

import asyncio
import ssl
from asyncio import Future
from collections import Counter
from collections.abc import Awaitable, Sequence
from functools import partial
from ipaddress import ip_address
from typing import cast

import structlog
from msgspec import Struct

from mailyard.core import limits
from mailyard.core.errors import MailyardError, Unavailable
from mailyard.net.guard import Network
from mailyard.observe import metrics
from mailyard.protocol.proxy_header import BadProxyHeader, Source, missing_bytes, read_source
from mailyard.protocol.smtp.reply import Reply
from mailyard.protocol.smtp.server import ServerSession
from mailyard.protocol.smtp.session import (
    LoginAsked,
    MessageReceived,
    Question,
    RecipientAsked,
    SessionConfig,
    TlsRequested,
)
from mailyard.receiving.handler import LoginHandler, SessionHandler
from mailyard.receiving.later import Later
from mailyard.receiving.tls_server import BACKLOG, HANDSHAKE_S, TlsServer

_log = structlog.get_logger(__name__)

_SWEEP_S = 1.0
_TRY_LATER = Reply(451, "4.3.0", "Temporary failure, try again later")
_BUSY = Reply(451, "4.3.1", "Too many messages are waiting, try again later")
_SHUTTING_DOWN = Reply(421, "4.3.2", "Shutting down, try again later")
_TOO_MANY = Reply(421, "4.7.0", "Too many connections, try again later")
_TIMEOUT = Reply(421, "4.4.2", "Timeout")


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
        reuse_port: bool = True,
        tls_on_connect: bool = False,
        logins: LoginHandler | None = None,
        balancers: Sequence[Network] = (),
    ) -> None:
        self._balancers = tuple(balancers)
        self._host = host
        self._wanted_port = port
        self._reuse_port = reuse_port
        self._server: asyncio.Server | TlsServer | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self.handler = handler
        self.logins = logins
        self.tls_on_connect = tls_on_connect
        self.limits = listener_limits or ListenerLimits()
        self.tls_context = tls_context
        base = session or SessionConfig(hostname)
        self.config = _configured(base, hostname, tls_context is not None)
        self.connections: set[_Connection] = set()
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
                reuse_port=self._reuse_port,
                context=self.tls_context,
                protocol=lambda source: _Connection(self, loop, source),
                has_room=self._has_room,
                is_balancer=self.is_balancer,
            )
        else:
            self._server = await loop.create_server(
                lambda: _Connection(self, loop),
                self._host,
                self._wanted_port,
                reuse_port=self._reuse_port,
                backlog=BACKLOG,
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


class _Connection(asyncio.Protocol):
    """One peer: feeds its session, writes what it says, and keeps time."""

    __slots__ = (
        "_address",
        "_header",
        "_heard_at",
        "_listener",
        "_loop",
        "_opened_at",
        "_peer_slow",
        "_pump_due",
        "_reading",
        "_session",
        "_source",
        "_tasks",
        "_transport",
        "_turn_at",
    )

    def __init__(
        self, listener: Listener, loop: asyncio.AbstractEventLoop, source: Source | None = None
    ) -> None:
        self._listener = listener
        self._source = source  # as a balancer said before TLS began
        self._header: bytes | None = None  # of the PROXY protocol, as far as it has come
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._session: ServerSession | None = None
        self._address = ""
        self._tasks: set[Future[Reply]] = set()
        self._reading = True
        self._peer_slow = False
        self._pump_due = False
        self._opened_at = 0.0
        self._heard_at = 0.0
        self._turn_at = 0.0  # when it became the peer's turn: a command or a message is due

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self._session is not None:
            return  # the same connection, now encrypted: `_handshake` goes on
        now = self._loop.time()
        self._opened_at = self._heard_at = self._turn_at = now
        address, port, *_ = transport.get_extra_info("peername") or ("", 0)
        if self._source is None and self._listener.is_balancer(str(address)):
            self._header = b""
            self._address = str(address)
            self._listener.connections.add(self)
        else:
            self._open(self._transport, self._source or Source(), str(address), int(port))

    def _open(self, transport: asyncio.Transport, source: Source, address: str, port: int) -> None:
        """Begin the session of `source`, or of who is connected where that is nobody."""
        listener = self._listener
        self._address = source.address or address
        full = (
            len(listener.connections) - (self in listener.connections)
            >= listener.limits.connections
        )
        crowded = listener.per_address[self._address] >= listener.limits.connections_per_address
        if full or crowded or listener.draining:
            listener.connections.discard(self)
            metrics.MESSAGES_REFUSED.labels("421").inc()
            transport.write((_SHUTTING_DOWN if listener.draining else _TOO_MANY).encode())
            transport.close()
            return
        listener.connections.add(self)
        listener.per_address[self._address] += 1
        metrics.SMTP_SESSIONS.inc()
        self._session = ServerSession(
            listener.config,
            self._address,
            source.port if source.address else port,
            encrypted=listener.tls_on_connect,
        )
        transport.write(self._session.take_output())

    def _read_header(self, transport: asyncio.Transport, header: bytes) -> None:
        """Whom the balancer brings, as soon as it has said so."""
        self._header = header
        try:
            if missing_bytes(header):
                return
            source, rest = read_source(header)
        except BadProxyHeader as error:
            _log.warning("proxy_header_refused", peer=self._address, error=error.message)
            transport.abort()
            return
        self._header = None
        address, port, *_ = transport.get_extra_info("peername") or ("", 0)
        self._open(transport, source, str(address), int(port))
        if rest:
            self.data_received(rest)

    def data_received(self, data: bytes) -> None:
        session = self._session
        if session is None:
            if self._header is not None and self._transport is not None:
                self._read_header(self._transport, self._header + data)
            return
        self._heard_at = self._loop.time()
        session.receive(data)
        self._pump(session)

    def eof_received(self) -> bool:
        """The peer will say no more; it still gets the answers that are due."""
        session = self._session
        if session is None or not session.waits_for_answer:
            return False
        session.drain(_SHUTTING_DOWN)
        return not session.encrypted  # TLS cannot be half closed

    def connection_lost(self, _: Exception | None) -> None:
        listener = self._listener
        if self in listener.connections:
            listener.connections.remove(self)
            if self._header is None:
                listener.per_address[self._address] -= 1
                if listener.per_address[self._address] <= 0:
                    del listener.per_address[self._address]
                metrics.SMTP_SESSIONS.dec()
            if not listener.connections:
                listener.empty.set()
        self._session = None
        self._transport = None

    def pause_writing(self) -> None:
        self._peer_slow = True
        self._set_reading()

    def resume_writing(self) -> None:
        self._peer_slow = False
        self._set_reading()

    # What the listener calls.

    def drain(self) -> None:
        if self._session is not None:
            self._session.drain(_SHUTTING_DOWN)
            self._flush(self._session)
        elif self._header is not None:
            self.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def check_deadlines(self, now: float) -> None:
        """End the session when the peer has let a deadline pass; our own delays do not count. A
        peer that does not even read why is cut off."""
        session, limit = self._session, self._listener.limits
        if self._header is not None and now - self._opened_at > HANDSHAKE_S:
            self.abort()
        if session is None or self._transport is None:
            return
        if self._transport.is_closing():
            if now - self._turn_at > limit.data_timeout_s:
                self._transport.abort()
            return
        if session.waits_for_answer:
            return
        if session.in_message:
            late = (
                now - self._heard_at > limit.data_timeout_s
                or now - self._turn_at > limit.message_timeout_s
            )
        else:
            late = (
                now - self._turn_at > limit.command_timeout_s
                or now - self._opened_at > limit.session_timeout_s
            )
        if late:
            session.close(_TIMEOUT)
            self._flush(session)

    # The work.

    def _pump(self, session: ServerSession) -> None:
        """Ask what the session wants to know, then write what it has to say."""
        while (event := session.next_event()) is not None:
            if type(event) is TlsRequested:
                self._start_tls(session)
                return
            self._ask(session, cast("Question", event))
        self._flush(session)
        if session.wants_input is not self._reading:
            self._set_reading()

    def _ask(self, session: ServerSession, question: Question) -> None:
        listener = self._listener
        try:
            if type(question) is RecipientAsked:
                answer: Reply | Later | Awaitable[Reply] = listener.handler.accept_recipient(
                    question.peer, question.reverse_path, question.address
                )
            elif type(question) is LoginAsked:
                assert listener.logins is not None, "AUTH is only offered with who decides"
                answer = listener.logins.authenticate(question)
            else:
                message = cast("MessageReceived", question)
                size_bytes = len(message.content)
                if (
                    listener.waiting_messages >= listener.limits.waiting_messages
                    or listener.waiting_bytes + size_bytes > listener.limits.waiting_bytes
                ):
                    answer = _BUSY
                else:
                    answer = listener.handler.accept_message(message.envelope, message.content)
        except Exception as error:
            answer = _failed(error)
        if type(answer) is Reply:
            self._settle(session, question, answer)
            return
        if type(question) is MessageReceived:
            listener.waiting_messages += 1
            listener.waiting_bytes += len(question.content)
        if type(answer) is not Later:
            answer = self._when_done(cast("Awaitable[Reply]", answer))
        answer.then(partial(self._answered, session, question))

    def _when_done(self, answer: Awaitable[Reply]) -> Later:
        later = Later()
        task = asyncio.ensure_future(answer)
        self._tasks.add(task)  # or nobody would hold it
        task.add_done_callback(partial(self._done, later))
        return later

    def _done(self, later: Later, task: Future[Reply]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            later.settle(_TRY_LATER)
        else:
            error = task.exception()
            later.settle(task.result() if error is None else cast("Exception", error))

    def _answered(
        self, session: ServerSession, question: Question, outcome: Reply | Exception
    ) -> None:
        if type(question) is MessageReceived:
            self._listener.waiting_messages -= 1
            self._listener.waiting_bytes -= len(question.content)
        reply = _failed(outcome) if isinstance(outcome, Exception) else outcome
        self._settle(session, question, reply)
        if self._session is not session:
            return
        if not session.waits_for_answer:
            self._pump(session)
        elif not self._pump_due:  # who is answered with its neighbours says it with them
            self._pump_due = True
            self._loop.call_soon(self._pump_together)

    def _pump_together(self) -> None:
        self._pump_due = False
        if self._session is not None:
            self._pump(self._session)

    def _settle(self, session: ServerSession, question: Question, reply: Reply) -> None:
        if reply.code >= 400:
            metrics.MESSAGES_REFUSED.labels(str(reply.code)).inc()
        elif type(question) is MessageReceived:
            self._listener.accepted += 1
        session.answer(question, reply)

    def _flush(self, session: ServerSession) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        output = session.take_output()
        if output:
            transport.write(output)
            self._turn_at = self._loop.time()
        if session.closed:
            transport.close()

    def _set_reading(self) -> None:
        session, transport = self._session, self._transport
        if session is None or transport is None or transport.is_closing():
            return
        reading = session.wants_input and not self._peer_slow
        if reading is not self._reading:
            self._reading = reading
            if reading:
                transport.resume_reading()
            else:
                transport.pause_reading()

    # TLS.

    def _start_tls(self, session: ServerSession) -> None:
        transport = self._transport
        if transport is None:
            return
        transport.write(session.take_output())
        transport.pause_reading()
        task = self._loop.create_task(self._handshake(session, transport))
        self._tasks.add(cast("Future[Reply]", task))
        task.add_done_callback(lambda done: self._tasks.discard(cast("Future[Reply]", done)))

    async def _handshake(self, session: ServerSession, plain: asyncio.Transport) -> None:
        context = self._listener.tls_context
        assert context is not None, "TLS is only offered with a context"
        try:
            secure = await self._loop.start_tls(
                plain,
                self,
                context,
                server_side=True,
                ssl_handshake_timeout=self._listener.limits.data_timeout_s,
            )
        except (OSError, ssl.SSLError, ConnectionError) as error:
            _log.info("tls_handshake_failed", peer=self._address, error=str(error))
            plain.abort()
            self.connection_lost(error)  # the loop tells the TLS layer only
            return
        if self._session is not session or secure is None:
            return
        self._transport = secure
        session.tls_started()
        self._turn_at = self._heard_at = self._loop.time()


def _failed(error: BaseException) -> Reply:
    """The peer keeps its mail whatever went wrong here."""
    if isinstance(error, Unavailable):
        _log.warning("smtp_handler_unavailable", error=error.message)
    elif isinstance(error, MailyardError):
        _log.error("smtp_handler_refused", code=error.code, error=error.message)
    else:
        _log.error("smtp_handler_failed", exc_info=error)
    return _TRY_LATER
