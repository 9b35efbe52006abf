"""One SMTP connection: feeds its session, asks the handler, writes what is answered, keeps time."""

import asyncio
import ssl
from asyncio import Future
from collections.abc import Awaitable
from functools import partial
from typing import TYPE_CHECKING, cast

import structlog

from mailyard.core.errors import MailyardError, Unavailable
from mailyard.observe import metrics, trace
from mailyard.protocol.proxy_header import BadProxyHeader, Source, missing_bytes, read_source
from mailyard.protocol.smtp.reply import Reply
from mailyard.protocol.smtp.server import ServerSession
from mailyard.protocol.smtp.session import (
    LoginAsked,
    MessageReceived,
    Question,
    RecipientAsked,
    TlsRequested,
)
from mailyard.receiving.later import Later
from mailyard.receiving.tls_server import HANDSHAKE_S

if TYPE_CHECKING:
    from mailyard.receiving.listener import Listener

_log = structlog.get_logger(__name__)

_TRY_LATER = Reply(451, "4.3.0", "Temporary failure, try again later")
_BUSY = Reply(451, "4.3.1", "Too many messages are waiting, try again later")
_SHUTTING_DOWN = Reply(421, "4.3.2", "Shutting down, try again later")
_TOO_MANY = Reply(421, "4.7.0", "Too many connections, try again later")
_TIMEOUT = Reply(421, "4.4.2", "Timeout")


class Connection(asyncio.Protocol):
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
        self, listener: "Listener", loop: asyncio.AbstractEventLoop, source: Source | None = None
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
        if type(question) is not MessageReceived or not trace.on():
            self._ask_about(session, question)
            return
        span = trace.begin(
            "smtp message",
            trace.SERVER,
            mailyard__recipients=len(question.envelope.recipients),
            mailyard__size_bytes=len(question.content),
        )
        assert span is not None, "somebody traces"
        with trace.within(span.mark, lasting=True):  # a submission is taken by a task
            self._ask_about(session, question, span)

    def _ask_about(
        self, session: ServerSession, question: Question, span: trace.Span | None = None
    ) -> None:
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
            self._settle(session, question, answer, span)
            return
        if type(question) is MessageReceived:
            listener.waiting_messages += 1
            listener.waiting_bytes += len(question.content)
        if type(answer) is not Later:
            answer = self._when_done(cast("Awaitable[Reply]", answer))
        answer.then(partial(self._answered, session, question, span))

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
        self,
        session: ServerSession,
        question: Question,
        span: trace.Span | None,
        outcome: Reply | Exception,
    ) -> None:
        if type(question) is MessageReceived:
            self._listener.waiting_messages -= 1
            self._listener.waiting_bytes -= len(question.content)
        reply = _failed(outcome) if isinstance(outcome, Exception) else outcome
        self._settle(session, question, reply, span)
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

    def _settle(
        self,
        session: ServerSession,
        question: Question,
        reply: Reply,
        span: trace.Span | None = None,
    ) -> None:
        if span is not None:
            span.end("refused" if reply.code >= 400 else "", smtp__reply_code=reply.code)
        if reply.code >= 400:
            metrics.MESSAGES_REFUSED.labels(str(reply.code)).inc()
        elif type(question) is MessageReceived:
            self._listener.accepted += 1
        session.answer(question, reply)

    def _flush(self, session: ServerSession) -> None:
        output = session.take_output()
        closed = session.closed
        if not output and not closed:
            return
        transport = self._transport
        if transport is None or transport.is_closing():
            return  # nobody is there who would read it
        if output:
            transport.write(output)
            self._turn_at = self._loop.time()
        if closed:
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
