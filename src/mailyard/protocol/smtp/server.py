"""The server's side of a session: bytes in, questions and replies out, no socket in sight.

    session = ServerSession(config, "192.0.2.1", 4711)      # says the greeting
    session.receive(data)                                    # whatever arrived
    while (event := session.next_event()) is not None: ...   # answer questions: session.answer()
    transport.write(session.take_output())

Replies leave in the order of their commands (RFC 2920). Two kinds of answer take time: is this
recipient taken, and is this message stored. While such questions are open the session reads on
only as far as nothing can depend on them: RCPT after RCPT, the last chunk after RCPT (a message
whose recipients are all refused then is answered 503, as RFC 3030 has it), and the next transaction
after the end of a message. So messages that a peer pipelines are looked up and stored together.
Everything else waits in the buffer; `wants_input` tells the shell when to stop reading.

What smells of smuggling (a bare CR or LF, in a command or in content) ends the session after its
reply, and nothing that was pipelined behind it is looked at.
"""

from mailyard.core import limits
from mailyard.protocol.smtp.authentication import Challenge, Credentials, Exchange, begin
from mailyard.protocol.smtp.command import Refused
from mailyard.protocol.smtp.envelope import Peer
from mailyard.protocol.smtp.reply import Reply
from mailyard.protocol.smtp.session import (
    Event,
    LoginAsked,
    MessageReceived,
    Question,
    SessionConfig,
    TlsRequested,
)
from mailyard.protocol.smtp.states import State, Step
from mailyard.protocol.smtp.transactions import MailTransactions

_QUESTIONS_OPEN = 100  # recipients asked about at once, so that one session cannot flood a batch
_UNSAID = 1_000  # replies that wait behind an open question
_MESSAGES_OPEN = 32  # whole messages of one session that wait for an answer
_BUFFER_BYTES = 256 * limits.KIB  # unread input at which the shell should stop reading

_OK = b"250 2.0.0 OK\r\n"
_READS_COMMANDS = frozenset(
    {State.CONNECTED, State.READY, State.SENDER, State.ADDRESSED, State.BETWEEN_CHUNKS}
)
# Looked up for every command; a global costs a third of an attribute of an Enum.
_IN_DATA = State.IN_DATA
_IN_CHUNK = State.IN_CHUNK
_CLOSED = State.CLOSED
_HANDSHAKE = State.HANDSHAKE
_IN_AUTH = State.IN_AUTH
_AUTH_ASKED = State.AUTH_ASKED


class ServerSession(MailTransactions):
    """One session. Never raises on what a peer sends."""

    def __init__(
        self, config: SessionConfig, address: str, port: int, *, encrypted: bool = False
    ) -> None:
        super().__init__(config, Peer(address, port, "", False, encrypted))
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._blocked = False
        self._commands = 0
        self._draining: Reply | None = None
        self._exchange: Exchange | None = None
        self._say(Reply(220, "", f"{config.hostname} ESMTP Mailyard").encode())

    # What the shell calls.

    def receive(self, data: bytes) -> None:
        """Bytes from the peer. Call `next_event` until it gives None."""
        if self.state is _CLOSED or self.state is _HANDSHAKE:
            return  # RFC 3207 section 4.2: nothing from before TLS is kept
        if self._at == len(self._input) and not self._waiting:
            self._input = data
            self._at = 0
        else:
            self._waiting.append(data)
            self._waiting_bytes += len(data)

    def next_event(self) -> Event | None:
        """Read on. The next question or request, or None when more input or an answer is due."""
        if self._ahead:
            return self._ahead.popleft()
        while True:
            state = self.state
            if self._at == len(self._input) and not self._waiting and state is not _IN_CHUNK:
                return None  # nothing is unread; only a chunk may have no octets
            if state in _READS_COMMANDS and not self._skip_bytes:
                done, event = self._read_command()
            elif state is _IN_DATA:
                done, event = self._read_data()
            elif state is _IN_CHUNK or self._skip_bytes:
                done, event = self._read_chunk()
            elif state is _IN_AUTH:
                done, event = self._read_auth_line()
            elif state is _AUTH_ASKED:
                return None
            else:
                self._forget_input()
                return None
            if event is not None:
                return event
            if not done and not self._more_input():
                return None

    def answer(self, question: Question, reply: Reply) -> None:
        """The shell's answer. Replies leave in the order of their questions."""
        super().answer(question, reply)
        if self._draining is not None and not self._owes_answers:
            self.close(self._draining)

    def take_output(self) -> bytes:
        """What to write now. When `closed` is set, close after writing it."""
        output = self._output
        if not output:
            return b""
        if len(output) == 1:
            return output.pop()
        joined = b"".join(output)
        output.clear()
        return joined

    def tls_started(self) -> None:
        """The handshake is done. The session starts anew (RFC 3207 section 4.2)."""
        self._step(Step.TLS_STARTED)
        self._peer = Peer(self._peer.address, self._peer.port, "", False, True)
        self._reset_transaction()

    def close(self, reply: Reply) -> None:
        """Say `reply` (421 usually) and end. Open questions are answered to nobody."""
        if self.state is not State.CLOSED:
            self._unsaid.clear()
            self._ahead.clear()
            self._output.append(reply.encode())
            self._end()

    def drain(self, reply: Reply) -> None:
        """End with `reply`: at once, or when the message under way has been answered."""
        self._draining = reply
        if not self._owes_answers:
            self.close(reply)

    @property
    def closed(self) -> bool:
        return self.state is _CLOSED and not self._unsaid

    @property
    def busy(self) -> bool:
        """A message is being received or is waiting for its answer."""
        return self._messages_open > 0 or self.in_message

    @property
    def _owes_answers(self) -> bool:
        """A message is under way, or its answer waits behind another question."""
        return self.busy or any(type(said) is MessageReceived for said in self._unsaid)

    @property
    def in_message(self) -> bool:
        """Content is being received."""
        return self.state in (State.IN_DATA, State.IN_CHUNK, State.BETWEEN_CHUNKS)

    @property
    def waits_for_answer(self) -> bool:
        """A question is open: the silence is ours, not the peer's."""
        return bool(self._unsaid)

    @property
    def encrypted(self) -> bool:
        """The handshake has been done."""
        return self._peer.tls

    @property
    def wants_input(self) -> bool:
        """False while so much is unread that the shell should stop reading."""
        return self._waiting_bytes + len(self._input) - self._at < _BUFFER_BYTES

    # Reading.

    def _more_input(self) -> bool:
        """Join what came meanwhile to what is unread. False when nothing came."""
        if not self._waiting or self._blocked:
            return False
        rest = self._input[self._at :]
        self._input = b"".join((rest, *self._waiting)) if rest else b"".join(self._waiting)
        self._at = 0
        self._waiting.clear()
        self._waiting_bytes = 0
        return True

    def _read_command(self) -> tuple[bool, Event | None]:
        """Carry out the next command line. (False, None) when none is complete or it must wait."""
        self._blocked = False
        data, start = self._input, self._at
        newline = data.find(b"\n", start)
        end = newline + 1 or len(data)
        if end - start > self._config.command_line_bytes:
            self._hang_up(Reply(500, "5.5.6", "Command line too long"))
            return False, None
        if newline < 0:
            return False, None
        if newline == start or data.find(b"\r", start, end) != newline - 1:
            self._hang_up(Reply(500, "5.5.2", "Lines end with CRLF; a bare CR or LF is refused"))
            return False, None
        verb, _, argument = data[start : newline - 1].partition(b" ")
        verb = verb.upper()
        if self._unsaid and not self._may_run_ahead(verb, argument):
            self._blocked = True
            return False, None
        self._at = end
        self._commands += 1
        if self._commands > self._config.commands_per_session:
            self._hang_up(Reply(421, "4.7.0", "Too many commands in one session"))
            return False, None
        try:
            return True, self._carry_out(verb, argument.decode("utf-8"))
        except Refused as refused:
            self._refuse(refused.reply)
        except UnicodeDecodeError:
            self._refuse(Reply(501, "5.5.2", "Not UTF-8"))
        return True, None

    def _may_run_ahead(self, verb: bytes, argument: bytes) -> bool:
        """Whether a command's reply is the same whatever the open questions are answered with."""
        if self._draining is not None or len(self._unsaid) >= _UNSAID:
            return False
        if verb == b"RCPT":
            return self._recipients_open < _QUESTIONS_OPEN
        if verb == b"BDAT":
            return self._messages_open < _MESSAGES_OPEN and self._chunk_fits(argument)
        return verb in (b"MAIL", b"RSET")

    def _carry_out(self, verb: bytes, argument: str) -> Event | None:
        match verb:
            case b"RCPT":
                return self._recipient(argument)
            case b"MAIL":
                self._mail(argument)
            case b"DATA":
                self._data(argument)
            case b"BDAT":
                self._chunk(argument)
            case b"EHLO" | b"HELO":
                self._hello(verb, argument)
            case b"STARTTLS":
                return self._starttls(argument)
            case b"RSET":
                self._no_argument(argument)
                self._step_or_refuse(Step.RESET)
                self._reset_transaction()
                self._say(_OK)
            case b"QUIT":
                self._say(b"221 2.0.0 Bye\r\n")
                self._end()
            case b"NOOP":
                self._say(_OK)
            case b"VRFY":
                self._say(b"252 2.5.0 Send some mail, and it will be tried\r\n")
            case b"HELP":
                self._say(b"214 2.0.0 RFC 5321; see the documentation of Mailyard\r\n")
            case b"AUTH" if self._config.submission:
                return self._auth(argument)
            case b"EXPN" | b"AUTH" | b"ETRN" | b"TURN":
                raise Refused(Reply(502, "5.5.1", "Command not implemented"))
            case _:
                raise Refused(Reply(500, "5.5.2", "Command not recognised"))
        return None

    def _hello(self, verb: bytes, argument: str) -> None:
        name = argument.strip()
        if not name or len(name) > limits.SMTP_DOMAIN_BYTES or not name.isprintable():
            raise Refused(Reply(501, "5.5.4", "Syntax: EHLO your-name"))
        self._step_or_refuse(Step.HELLO)
        self._reset_transaction()
        peer = self._peer
        self._peer = Peer(peer.address, peer.port, name, verb == b"EHLO", peer.tls, peer.user)
        config = self._config
        if verb == b"HELO":
            self._say(Reply(250, "", config.hostname).encode())
            return
        self._say(config.capabilities(encrypted=peer.tls).encode())

    def _starttls(self, argument: str) -> Event | None:
        self._no_argument(argument)
        if not self._config.tls_offered or self._peer.tls:
            raise Refused(Reply(502, "5.5.1", "STARTTLS is not offered"))
        self._step_or_refuse(Step.STARTTLS)
        self._say(b"220 2.0.0 Ready to start TLS\r\n")
        self._forget_input()
        return TlsRequested()

    # Signing in (RFC 4954).

    def _auth(self, argument: str) -> Event | None:
        peer = self._peer
        if not peer.tls:
            raise Refused(Reply(538, "5.7.11", "Encryption is required: STARTTLS comes first"))
        if peer.user is not None:
            raise Refused(Reply(503, "5.5.1", "Already signed in"))
        self._step_or_refuse(Step.AUTH)
        try:
            self._exchange, outcome = begin(argument)
        except Refused:
            self._step(Step.AUTH_END)
            raise
        return self._go_on(outcome)

    def _read_auth_line(self) -> tuple[bool, Event | None]:
        """One line of the exchange; (False, None) when none is complete."""
        data, start = self._input, self._at
        newline = data.find(b"\n", start)
        end = newline + 1 or len(data)
        if end - start > limits.SMTP_AUTH_LINE_BYTES:
            self._hang_up(Reply(500, "5.5.6", "Authentication exchange line too long"))
            return False, None
        if newline < 0:
            return False, None
        if newline == start or data.find(b"\r", start, end) != newline - 1:
            self._hang_up(Reply(500, "5.5.2", "Lines end with CRLF; a bare CR or LF is refused"))
            return False, None
        self._at = end
        assert self._exchange is not None, "there is an exchange while its lines are read"
        try:
            return True, self._go_on(self._exchange.line(data[start : newline - 1]))
        except Refused as refused:
            self._exchange = None
            self._step(Step.AUTH_END)
            self._refuse(refused.reply)
            return True, None

    def _go_on(self, outcome: Challenge | Credentials) -> Event | None:
        if isinstance(outcome, Challenge):
            self._step(Step.AUTH_LINE)
            self._say(outcome.encode())
            return None
        self._exchange = None
        self._step(Step.AUTH_WHOLE)
        question = LoginAsked(self._peer, outcome)
        self._unsaid.append(question)
        return question

    # Small things.

    def _end(self) -> None:
        super()._end()
        self._forget_input()

    def _forget_input(self) -> None:
        self._input = b""
        self._at = 0
        self._waiting.clear()
        self._waiting_bytes = 0
