"""SMTP to one destination: a few pooled connections, many mails on each, no task per mail.

What `submit` takes waits in one queue. Connections pull from it: a ready one at once, a busy one
together with the end of its mail when the peer offers PIPELINING (see `protocol.smtp.client`). New
connections are opened while mails wait, up to the limit, and idle ones are closed with QUIT.

When the destination cannot be reached, what waits is answered LATER, and the next attempt waits by
a short backoff, so that a dead relay costs a worker little more than time.
"""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import cast

import structlog
from msgspec import Struct

from mailyard.core.backoff import Backoff
from mailyard.core.errors import MailyardError
from mailyard.net.guard import Network, refusal
from mailyard.net.tls import client_context
from mailyard.protocol.smtp.client import ClientSession
from mailyard.protocol.smtp.client_mail import (
    ClientMail,
    Fate,
    SessionEnded,
    Stage,
    StartTls,
    Verdict,
)
from mailyard.sending.route.failover import Fault, fault_of
from mailyard.sending.shape.answer import Phase, read_answer
from mailyard.sending.transport import (
    HANDOFF_REPLY_CHARACTERS,
    Handoff,
    Outcome,
    Outgoing,
)
from mailyard.sending.transports.sign_in import SignIn
from mailyard.sending.transports.smtp_connection import Connection, Patience

_log = structlog.get_logger(__name__)

_SWEEP_S = 1.0
_QUIT_S = 1.0  # how long `close` waits for the peers' answers to QUIT
_PLAIN_AFTER_TLS_FAILURE_S = 600.0
_OUTCOMES = {
    Fate.ACCEPTED: Outcome.ACCEPTED,
    Fate.LATER: Outcome.LATER,
    Fate.NEVER: Outcome.NEVER,
    Fate.UNKNOWN: Outcome.UNKNOWN,
}


def is_the_ways(verdict: Verdict) -> bool:
    """Whether a refusal is this relay's matter, so that another way may have the mail at once."""
    if verdict.fate not in (Fate.LATER, Fate.NEVER):
        return False
    if verdict.stage is Stage.HERE:  # never asked: out of reach, closing; or it cannot be written
        return verdict.fate is Fate.LATER
    answer = read_answer(
        _OUTCOMES[verdict.fate], verdict.code, verdict.text, Phase(verdict.stage.value)
    )
    return fault_of(answer) is Fault.PROVIDER


class SmtpOptions(Struct, frozen=True):
    """How to talk to a destination. Times in seconds.

    `pipeline`: how many mails follow one another on a connection before the first is answered,
    where the peer offers PIPELINING and CHUNKING; 0 keeps to DATA.
    `tls_on_connect`: TLS before the greeting (RFC 8314 section 3.3); no STARTTLS follows, and
    nothing is ever said in the clear. `reply_timeout_s` caps the time limits of RFC 5321 section
    4.5.3.2 (it never raises one).
    """

    connections: int = 10
    pipeline: int = 8
    starttls: StartTls = StartTls.OPPORTUNISTIC
    tls_on_connect: bool = False
    idle_s: float = 30.0
    connect_timeout_s: float = 30.0
    reply_timeout_s: float = 600.0
    backoff: Backoff = Backoff(first_s=0.25, cap_s=15.0)


class _Ticket(Struct, eq=False):
    """What the caller gave, and how often the mail has come back untouched."""

    mail: Outgoing
    done: Callable[[Handoff], None]
    returns: int = 0


class SmtpTransport:
    """Hands mails to the SMTP server at (`host`, `port`). `hello` is our name in EHLO.

    Without a `tls_context` the peer's certificate is verified when TLS is required, and any will
    do when it is opportunistic. `allowed`: what a tenant names is connected to at public addresses
    and in these networks alone; None: wherever the operator says. `sign_in`: whose login each
    connection begins with.
    """

    def __init__(
        self,
        *,
        name: str,
        host: str,
        port: int,
        hello: str,
        tls_context: ssl.SSLContext | None = None,
        options: SmtpOptions | None = None,
        random: Random | None = None,
        allowed: tuple[Network, ...] | None = None,
        sign_in: SignIn | None = None,
    ) -> None:
        self.name = name
        self.host = host
        self.hello = hello
        self.options = options or SmtpOptions()
        self.tls_context = tls_context or client_context(
            verify=self.options.starttls is StartTls.REQUIRED
        )
        self._port = port
        self._allowed = allowed
        self._sign_in = sign_in
        self._patience = Patience(self.options.reply_timeout_s, self.options.idle_s)
        self._random = random or Random()
        self._queue: deque[ClientMail] = deque()
        self._connections: set[Connection] = set()
        self._unanswered = 0
        self._answered_all = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures = 0
        self._retry_at = 0.0
        self._plain_until = 0.0
        self._dispatch_due = False
        self._sweep_due = False
        self._closing = False
        self._closed = False

    # The port.

    def submit(self, mail: Outgoing, done: Callable[[Handoff], None]) -> None:
        """See `Transport.submit`."""
        addresses = [recipient.address for recipient in mail.recipients]
        client_mail = ClientMail(
            mail.reverse_path,
            addresses,
            mail.content,
            mail.eight_bit,
            mail.smtp_utf8,
            _Ticket(mail, done),
        )
        self._unanswered += 1
        self._queue.append(client_mail)
        self._dispatch_soon()

    async def close(self, drain_s: float) -> None:
        """See `Transport.close`."""
        self._closing = True
        self._answered_all.clear()
        self._dispatch_soon()
        if self._unanswered:
            try:
                await asyncio.wait_for(self._answered_all.wait(), drain_s)
            except TimeoutError:
                _log.warning("smtp_transport_cut", transport=self.name, mails=self._unanswered)
        for connection in list(self._connections):
            connection.quit()
        self._fail_queue("shutting down")
        deadline = asyncio.get_running_loop().time() + min(_QUIT_S, drain_s)
        await self._wait_closed(deadline)
        for connection in list(self._connections):
            connection.fail("shutting down")
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._closed = True
        self._fail_queue("shutting down")

    async def _wait_closed(self, deadline: float) -> None:
        closed = [connection.closed for connection in self._connections if connection.ready]
        if closed:
            left_s = max(0.0, deadline - asyncio.get_running_loop().time())
            await asyncio.wait(closed, timeout=left_s)

    # What connections call.

    def take_mail(self) -> ClientMail | None:
        """The next mail that waits."""
        return self._queue.popleft() if self._queue else None

    def settle(
        self, mail: ClientMail, verdicts: list[Verdict], connection: Connection | None = None
    ) -> None:
        """Tell the caller about every recipient of `mail`."""
        del connection
        ticket = cast("_Ticket", mail.token)
        for recipient, verdict in zip(ticket.mail.recipients, verdicts, strict=True):
            handoff = Handoff(
                recipient.delivery_id,
                _OUTCOMES[verdict.fate],
                verdict.code,
                verdict.text[:HANDOFF_REPLY_CHARACTERS],
                self.name,
                verdict.fate is not Fate.ACCEPTED and is_the_ways(verdict),
                stage=verdict.stage,
            )
            try:
                ticket.done(handoff)
            except Exception as error:
                _log.error("handoff_callback_failed", transport=self.name, exc_info=error)
        self._unanswered -= 1
        if not self._unanswered:
            self._answered_all.set()

    def give_back(self, mail: ClientMail, verdict: Verdict, connection: Connection) -> None:
        """The peer has not begun `mail`. A session that had been working has merely ended: the
        mail goes to another one, once; after a 421 once for each that may be ending with it."""
        ticket = cast("_Ticket", mail.token)
        returns = self.options.connections if verdict.code == 421 else 1
        if connection.ready and ticket.returns < returns and not self._closing:
            ticket.returns += 1
            self._queue.appendleft(mail)
            self._dispatch_soon()
        else:
            self.settle(mail, [verdict] * len(mail.recipients))

    def ready(self, connection: Connection) -> None:
        """A session is ready: the destination can be reached."""
        del connection
        self._failures = 0
        self._retry_at = 0.0

    def gone(self, connection: Connection, end: SessionEnded) -> None:
        """`connection` has ended."""
        self._connections.discard(connection)
        if connection.ready or self._closing:
            self._dispatch_soon()
        else:
            self._unreachable(end.reason)

    def tls_failed(self) -> bool:
        """An opportunistic handshake failed: go on in the clear for a while (RFC 7435). False
        when the options forbid that."""
        if self.options.starttls is StartTls.REQUIRED:
            return False
        self._plain_until = asyncio.get_running_loop().time() + _PLAIN_AFTER_TLS_FAILURE_S
        return True

    # The pool.

    def _dispatch_soon(self) -> None:
        if not self._dispatch_due:
            self._dispatch_due = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Give what waits to ready connections, open more for the rest, then fill pipelines."""
        self._dispatch_due = False
        if self._closed:
            self._fail_queue("the transport is closed")
        if not self._queue:
            return
        connections = list(self._connections)
        for connection in connections:
            if self._queue and connection.idle:
                connection.poke()
        opening = sum(not connection.ready for connection in connections)
        room = self.options.connections - len(connections)
        for _ in range(min(room, len(self._queue) - opening)):
            if not self._may_open():
                break
            self._open()
        for connection in connections:
            if self._queue and connection.takes_mail:
                connection.poke()

    def _may_open(self) -> bool:
        """Whether the backoff is over. If not, look again when it is, or fail when closing."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now >= self._retry_at:
            return True
        if self._closing and not self._connections:
            self._fail_queue("closing while the destination is unreachable")
        else:
            loop.call_later(self._retry_at - now + 0.001, self._dispatch_soon)
        return False

    def _open(self) -> None:
        loop = asyncio.get_running_loop()
        starttls = self.options.starttls
        if self.options.tls_on_connect or loop.time() < self._plain_until:
            starttls = StartTls.NONE
        session = ClientSession(
            self.hello,
            self.take_mail,
            starttls,
            pipeline=self.options.pipeline,
            secure=self.options.tls_on_connect,
        )
        connection = Connection(self, loop, session, self._patience)
        self._connections.add(connection)
        self._run(self._connect(connection, session))
        if not self._sweep_due:
            self._sweep_due = True
            loop.call_later(_SWEEP_S, self._sweep)

    async def _connect(self, connection: Connection, session: ClientSession) -> None:
        try:
            if self._sign_in is not None:
                session.login = await self._sign_in.login()
            await asyncio.wait_for(self._connected(connection), self.options.connect_timeout_s)
        except TimeoutError:
            connection.fail(f"connecting to {self.host}:{self._port} timed out")
        except OSError as error:
            reason = error.strerror or str(error)
            connection.fail(f"connecting to {self.host}:{self._port} failed: {reason}")
        except MailyardError as error:
            connection.fail(f"nobody can sign in at {self.host}: {error.message}")

    async def _connected(self, connection: Connection) -> None:
        """Until the socket, and its TLS where that comes first, is there."""
        secure = self.options.tls_on_connect
        for address in await self._addresses():
            try:
                await asyncio.get_running_loop().create_connection(
                    lambda: connection,
                    address,
                    self._port,
                    ssl=self.tls_context if secure else None,
                    server_hostname=self.host if secure else None,
                )
                return
            except OSError as error:
                failure = error
        raise failure

    async def _addresses(self) -> Sequence[str]:
        """Where to connect, in order: never empty. Raises OSError."""
        if self._allowed is None:
            return (self.host,)
        found = await asyncio.get_running_loop().getaddrinfo(
            self.host, self._port, type=socket.SOCK_STREAM
        )
        addresses = list(dict.fromkeys(str(one[4][0]).partition("%")[0] for one in found))
        reasons = {address: refusal(address, self._allowed) for address in addresses}
        public = [address for address in addresses if reasons[address] is None]
        if not public:
            reason = next(iter(reasons.values()), None) or "it has no address"
            raise OSError(f"{self.host} may not be connected to: {reason}")
        return public

    def run_handshake(self, connection: Connection, plain: asyncio.Transport) -> None:
        """Do a TLS handshake on `connection`."""
        self._run(self._handshake(connection, plain))

    async def _handshake(self, connection: Connection, plain: asyncio.Transport) -> None:
        try:
            secure = await asyncio.get_running_loop().start_tls(
                plain,
                connection,
                self.tls_context,
                server_hostname=self.host,
                ssl_handshake_timeout=min(60.0, self.options.reply_timeout_s),
            )
        except (OSError, ssl.SSLError) as error:
            _log.info("smtp_client_tls_failed", transport=self.name, error=str(error))
            plain.abort()
            connection.fail(f"TLS handshake failed: {error}", retry_now=self.tls_failed())
            return
        if secure is None:
            connection.fail("connection lost during the TLS handshake")
        else:
            connection.tls_started(secure)

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _unreachable(self, reason: str) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._retry_at:  # connections that were opened together fail together, once
            self._failures += 1
            self._retry_at = now + self.options.backoff.delay_s(self._failures, self._random)
            _log.warning("smtp_destination_failed", transport=self.name, reason=reason)
        if not any(connection.ready for connection in self._connections):
            self._fail_queue(reason)
        self._dispatch_soon()

    def _fail_queue(self, reason: str) -> None:
        waiting, self._queue = self._queue, deque()
        for mail in waiting:
            self.settle(mail, [Verdict(Fate.LATER, None, reason)] * len(mail.recipients))

    def _sweep(self) -> None:
        """Time limits of all connections, once a second, while there are any."""
        loop = asyncio.get_running_loop()
        for connection in list(self._connections):
            connection.check_deadlines(loop.time())
        self._sweep_due = bool(self._connections)
        if self._sweep_due:
            loop.call_later(_SWEEP_S, self._sweep)
