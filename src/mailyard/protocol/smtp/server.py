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

from collections import deque

from msgspec import Struct

from mailyard.core import limits
from mailyard.protocol.smtp.command import (
    MailCommand,
    Refused,
    parse_chunk,
    parse_mail,
    parse_recipient,
)
from mailyard.protocol.smtp.content import ContentReceiver, Fault, fault_in
from mailyard.protocol.smtp.envelope import Peer
from mailyard.protocol.smtp.reply import Reply
from mailyard.protocol.smtp.session import (
    Event,
    MessageReceived,
    Question,
    RecipientAsked,
    SessionConfig,
    TlsRequested,
    Transaction,
)
from mailyard.protocol.smtp.states import TRANSITIONS, State, Step

_QUESTIONS_OPEN = 100  # recipients asked about at once, so that one session cannot flood a batch
_MESSAGES_OPEN = 32  # whole messages of one session that wait for an answer
_AHEAD_BYTES = 256 * limits.KIB  # of content that came before its recipients were answered
_BUFFER_BYTES = 256 * limits.KIB  # unread input at which the shell should stop reading


class _Said(Struct, eq=False):
    """A reply that waits behind an open question."""

    reply: bytes


_OK = b"250 2.0.0 OK\r\n"
_OK_SENDER = b"250 2.1.0 OK\r\n"
_GO_AHEAD = b"354 End data with <CR><LF>.<CR><LF>\r\n"
_READS_COMMANDS = frozenset(
    {State.CONNECTED, State.READY, State.SENDER, State.ADDRESSED, State.BETWEEN_CHUNKS}
)
# Looked up for every command; a global costs a third of an attribute of an Enum.
_IN_DATA = State.IN_DATA
_IN_CHUNK = State.IN_CHUNK
_CLOSED = State.CLOSED
_HANDSHAKE = State.HANDSHAKE
_MAIL = Step.MAIL
_RECIPIENT = Step.RECIPIENT
_RECIPIENT_TAKEN = Step.RECIPIENT_TAKEN
_NOBODY = Reply(503, "5.5.1", "BDAT needs an accepted recipient")
_NO_CONTENT = ContentReceiver(0)
_NO_TRANSACTION = Transaction(MailCommand("", None, False, False), [])
_FAULTS = {
    Fault.TOO_LARGE: Reply(552, "5.3.4", "Message too large"),
    Fault.LINE_TOO_LONG: Reply(550, "5.6.0", "Message has a line that is too long"),
    Fault.BARE_LINE_END: Reply(550, "5.6.11", "Message has a bare CR or LF; lines end with CRLF"),
}


def _wire_bytes(message_bytes: int) -> int:
    """How long stuffed content may be: SIZE does not count stuffed dots (RFC 1870 section 3), of
    which there is at most one for every three bytes."""
    return message_bytes + message_bytes // 3 + 1


class ServerSession:
    """One session. Never raises on what a peer sends."""

    def __init__(self, config: SessionConfig, address: str, port: int) -> None:
        self._config = config
        self._peer = Peer(address, port, "", False, False)
        self.state = State.CONNECTED
        self._input = b""
        self._at = 0
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._blocked = False
        self._output: list[bytes] = []
        self._unsaid: deque[Question | _Said] = deque()
        self._ahead: deque[MessageReceived] = deque()  # decided, and not asked about yet
        self._ahead_bytes = 0
        self._recipients_open = 0
        self._messages_open = 0
        self._content = _NO_CONTENT
        self._chunk_bytes = 0
        self._chunk_last = False
        self._skip_bytes = 0
        self._errors = 0
        self._commands = 0
        self._draining: Reply | None = None
        self._reset_transaction()
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
            if state in _READS_COMMANDS and not self._skip_bytes:
                done, event = self._read_command()
            elif state is _IN_DATA:
                done, event = self._read_data()
            elif state is _IN_CHUNK or self._skip_bytes:
                done, event = self._read_chunk()
            else:
                self._forget_input()
                return None
            if event is not None:
                return event
            if done and (self._at < len(self._input) or self.state is _IN_CHUNK):
                continue  # a chunk may have no octets
            if not self._more_input():
                return None

    def answer(self, question: Question, reply: Reply) -> None:
        """The shell's answer. Replies leave in the order of their questions."""
        question.reply = reply.encode()
        if type(question) is RecipientAsked:
            self._answer_recipient(question, reply)
        else:
            self._messages_open -= 1
            if reply.code < 400:
                self._errors = 0
        unsaid = self._unsaid
        while unsaid and (said := unsaid[0].reply) is not None:
            self._output.append(said)
            unsaid.popleft()
        if self._draining is not None and not self.busy:
            self.close(self._draining)

    def _answer_recipient(self, question: RecipientAsked, reply: Reply) -> None:
        self._recipients_open -= 1
        transaction = question.transaction
        transaction.asked -= 1
        if not self._unsaid:
            return  # closed, and nobody is told any more
        if reply.code < 400:
            transaction.recipients.append(question.address)
            if transaction is self._transaction and self.state is not _CLOSED:
                self.state = TRANSITIONS[self.state][_RECIPIENT_TAKEN]
        elif reply.code >= 500:
            self._count_error()
        if transaction.message is not None and not transaction.asked:
            self._decide(transaction, transaction.message)

    def _decide(self, transaction: Transaction, message: MessageReceived) -> None:
        """All recipients of a message that came ahead of their answers are answered now."""
        self._ahead_bytes -= len(message.content)
        if transaction.recipients:
            message.envelope = transaction.envelope(self._peer)
            self._ahead.append(message)
        else:
            message.reply = _NOBODY.encode()
            self._messages_open -= 1
            self._count_error()

    def take_output(self) -> bytes:
        """What to write now. When `closed` is set, close after writing it."""
        output = self._output
        if not output:
            return b""
        joined = output[0] if len(output) == 1 else b"".join(output)
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
        if not self.busy:
            self.close(reply)

    @property
    def closed(self) -> bool:
        return self.state is _CLOSED and not self._unsaid

    @property
    def busy(self) -> bool:
        """A message is being received or is waiting for its answer."""
        return self._messages_open > 0 or self.in_message

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
        if self._draining is not None:
            return False
        if verb == b"RCPT":
            return self._recipients_open < _QUESTIONS_OPEN
        if verb == b"BDAT":
            return self._messages_open < _MESSAGES_OPEN and self._chunk_fits(argument)
        return verb in (b"MAIL", b"RSET")

    def _chunk_fits(self, argument: bytes) -> bool:
        """Whether a chunk may come before its recipients are answered: a last one that is small."""
        if not self._transaction.asked:
            return True
        try:
            octets, last = parse_chunk(argument.decode("ascii", "replace"))
        except Refused:
            return True  # whatever the recipients are answered
        return last and self._ahead_bytes + octets <= _AHEAD_BYTES

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
        self._peer = Peer(peer.address, peer.port, name, verb == b"EHLO", peer.tls)
        config = self._config
        if verb == b"HELO":
            self._say(Reply(250, "", config.hostname).encode())
            return
        self._say(config.capabilities(encrypted=peer.tls).encode())

    def _mail(self, argument: str) -> None:
        allowed = TRANSITIONS[self.state]
        if _MAIL not in allowed:
            connected = self.state is State.CONNECTED
            why = "Say EHLO first" if connected else "A transaction is open"
            raise Refused(Reply(503, "5.5.1", why))
        mail = parse_mail(argument)
        if mail.declared_bytes is not None and mail.declared_bytes > self._config.message_bytes:
            raise Refused(_FAULTS[Fault.TOO_LARGE])
        self._transaction = Transaction(mail, [])
        self.state = allowed[_MAIL]
        self._say(_OK_SENDER)

    def _recipient(self, argument: str) -> Event | None:
        if _RECIPIENT not in TRANSITIONS[self.state]:
            raise Refused(Reply(503, "5.5.1", "MAIL comes before RCPT"))
        transaction = self._transaction
        mail = transaction.mail
        address = parse_recipient(argument, mail.smtp_utf8, self._config.hostname)
        if transaction.asked + len(transaction.recipients) >= self._config.recipients_per_message:
            self._say(Reply(452, "4.5.3", "Too many recipients for one message").encode())
            return None
        self._recipients_open += 1
        transaction.asked += 1
        question = RecipientAsked(self._peer, mail.reverse_path, address, transaction)
        self._unsaid.append(question)
        return question

    def _data(self, argument: str) -> None:
        self._no_argument(argument)
        self._step_or_refuse(Step.DATA)
        self._content = ContentReceiver(_wire_bytes(self._config.message_bytes))
        self._say(_GO_AHEAD)

    def _read_data(self) -> tuple[bool, Event | None]:
        data = self._input
        if self._at == len(data):
            return False, None
        content, self._at = self._content.feed_data(data, self._at)
        message_bytes = self._config.message_bytes
        if content is None:
            if self._content.dropped_bytes > message_bytes + _wire_bytes(message_bytes):
                self._hang_up(Reply(552, "5.3.4", "Message without end"))
            return False, None
        self._step(Step.DATA_END)
        too_large = self._content.dropped_bytes or len(content) > message_bytes
        fault = Fault.TOO_LARGE if too_large else fault_in(content, self._config.line_bytes)
        return True, self._message(content, fault)

    def _chunk(self, argument: str) -> None:
        octets, last = parse_chunk(argument)
        if octets > 2 * self._config.message_bytes:
            self._hang_up(_FAULTS[Fault.TOO_LARGE])
            return
        allowed = TRANSITIONS[self.state]
        step = Step.CHUNK_AHEAD if self._transaction.asked else Step.CHUNK
        if step not in allowed:
            self._skip_bytes = octets  # RFC 3030 section 2: the octets come all the same
            if Step.CHUNK_FOR_NOBODY in allowed:
                self._step(Step.CHUNK_FOR_NOBODY)
                self._reset_transaction()
            raise Refused(_NOBODY)
        if self.state is not State.BETWEEN_CHUNKS:
            self._content = ContentReceiver(self._config.message_bytes)
        self._step(step)
        self._chunk_bytes = octets
        self._chunk_last = last

    def _read_chunk(self) -> tuple[bool, Event | None]:
        data, at = self._input, self._at
        if self._skip_bytes:
            taken = min(self._skip_bytes, len(data) - at)
            self._at += taken
            self._skip_bytes -= taken
            return self._skip_bytes == 0, None
        taken = min(self._chunk_bytes, len(data) - at)
        self._at += taken
        self._chunk_bytes -= taken
        content = self._content.feed_chunk(
            data[at : at + taken], last=self._chunk_last and not self._chunk_bytes
        )
        if self._chunk_bytes:
            return False, None
        if content is not None:
            self._step(Step.LAST_CHUNK_END)
            fault = fault_in(content, self._config.line_bytes)
            return True, self._message(
                content, Fault.TOO_LARGE if self._content.dropped_bytes else fault
            )
        if self._content.dropped_bytes:
            self._step(Step.RESET)
            self._reset_transaction()
            self._refuse(_FAULTS[Fault.TOO_LARGE])
        else:
            self._step(Step.CHUNK_END)
            self._say(_OK)
        return True, None

    def _message(self, content: bytes, fault: Fault | None) -> Event | None:
        transaction = self._transaction
        self._content = _NO_CONTENT
        self._reset_transaction()
        if fault is Fault.BARE_LINE_END:
            self._hang_up(_FAULTS[fault])
        elif fault is not None:
            self._refuse(_FAULTS[fault])
        elif not transaction.asked and not transaction.recipients:
            self._refuse(_NOBODY)
        else:
            question = MessageReceived(transaction.envelope(self._peer), content)
            self._messages_open += 1
            self._unsaid.append(question)
            if not transaction.asked:
                return question
            self._ahead_bytes += len(content)
            transaction.message = question
        return None

    def _starttls(self, argument: str) -> Event | None:
        self._no_argument(argument)
        if not self._config.tls_offered or self._peer.tls:
            raise Refused(Reply(502, "5.5.1", "STARTTLS is not offered"))
        self._step_or_refuse(Step.STARTTLS)
        self._say(b"220 2.0.0 Ready to start TLS\r\n")
        self._forget_input()
        return TlsRequested()

    # Small things.

    def _no_argument(self, argument: str) -> None:
        if argument.strip():
            raise Refused(Reply(501, "5.5.4", "No argument is allowed here"))

    def _step_or_refuse(self, step: Step) -> None:
        state = TRANSITIONS[self.state].get(step)
        if state is None:
            raise Refused(Reply(503, "5.5.1", "Bad sequence of commands"))
        self.state = state

    def _step(self, step: Step) -> None:
        self.state = TRANSITIONS[self.state][step]

    def _reset_transaction(self) -> None:
        self._transaction = _NO_TRANSACTION

    def _say(self, reply: bytes) -> None:
        if self._unsaid:
            self._unsaid.append(_Said(reply))
        else:
            self._output.append(reply)

    def _refuse(self, reply: Reply) -> None:
        self._say(reply.encode())
        self._count_error()

    def _count_error(self) -> None:
        self._errors += 1
        if self._errors >= self._config.errors_per_session and self.state is not _CLOSED:
            self._hang_up(Reply(421, "4.7.0", "Too many errors"))

    def _hang_up(self, reply: Reply) -> None:
        """Say `reply` in its turn, then close; what follows in the input is never read."""
        self._say(reply.encode())
        self._end()

    def _end(self) -> None:
        if self.state is not State.CLOSED:
            self._step(Step.CLOSE)
        self._forget_input()

    def _forget_input(self) -> None:
        self._input = b""
        self._at = 0
        self._waiting.clear()
        self._waiting_bytes = 0
