"""The mail transactions of a server session: MAIL, RCPT, the content, and the answers in order.

What a command does and what it is answered with is here; `server` reads the commands off the wire.
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
    LoginAsked,
    MessageReceived,
    Question,
    RecipientAsked,
    SessionConfig,
    Transaction,
)
from mailyard.protocol.smtp.states import TRANSITIONS, State, Step

_HELD_BYTES = 256 * limits.KIB  # of content that may be held while more comes in


class _Said(Struct, eq=False):
    """A reply that waits behind an open question."""

    reply: bytes


_OK = b"250 2.0.0 OK\r\n"
_OK_SENDER = b"250 2.1.0 OK\r\n"
_GO_AHEAD = b"354 End data with <CR><LF>.<CR><LF>\r\n"
# Looked up for every command; a global costs a third of an attribute of an Enum.
_CLOSED = State.CLOSED
_MAIL = Step.MAIL
_RECIPIENT = Step.RECIPIENT
_RECIPIENT_TAKEN = Step.RECIPIENT_TAKEN
_NOBODY = Reply(503, "5.5.1", "BDAT needs an accepted recipient")
_SIGN_IN = Reply(530, "5.7.0", "Authentication required")
_ENCRYPT = Reply(530, "5.7.0", "Must issue a STARTTLS command first")  # RFC 3207 section 4
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


class MailTransactions:
    """The part of a session that receives mail, one transaction after the other."""

    def __init__(self, config: SessionConfig, peer: Peer) -> None:
        self.state = State.CONNECTED
        self._config = config
        self._peer = peer
        self._input = b""
        self._at = 0
        self._output: list[bytes] = []
        self._unsaid: deque[Question | _Said] = deque()
        self._transaction = _NO_TRANSACTION
        self._ahead: deque[MessageReceived] = deque()  # decided, and not asked about yet
        self._held_bytes = 0  # of content whose answer is open
        self._recipients_open = 0
        self._messages_open = 0
        self._content = _NO_CONTENT
        self._chunk_bytes = 0
        self._chunk_last = False
        self._skip_bytes = 0
        self._errors = 0
        self._failed_logins = 0

    def answer(self, question: Question, reply: Reply) -> None:
        """The shell's answer. Replies leave in the order of their questions."""
        question.reply = reply.encode()
        if type(question) is RecipientAsked:
            self._answer_recipient(question, reply)
        elif type(question) is MessageReceived:
            self._messages_open -= 1
            self._let_go(question)
            if reply.code < 400:
                self._errors = 0
        elif type(question) is LoginAsked:
            self._answer_login(question, reply)
        unsaid = self._unsaid
        while unsaid and (said := unsaid[0].reply) is not None:
            self._output.append(said)
            unsaid.popleft()

    # Commands.

    def _mail(self, argument: str) -> None:
        allowed = TRANSITIONS[self.state]
        if _MAIL not in allowed:
            connected = self.state is State.CONNECTED
            why = "Say EHLO first" if connected else "A transaction is open"
            raise Refused(Reply(503, "5.5.1", why))
        if self._config.submission and self._peer.user is None:
            raise Refused(_SIGN_IN if self._peer.tls else _ENCRYPT)
        mail = parse_mail(argument, self._config.submission)
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

    def _chunk_fits(self, argument: bytes) -> bool:
        """Whether a chunk may come while questions are open: one that is small beside what is held
        already, and the last one where its recipients are among them."""
        try:
            octets, last = parse_chunk(argument.decode("utf-8", "replace"))
        except Refused:
            return True  # whatever the recipients are answered
        return (last or not self._transaction.asked) and self._held_bytes + octets <= _HELD_BYTES

    # Content.

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
            self._held_bytes += len(content)
            self._unsaid.append(question)
            if not transaction.asked:
                return question
            transaction.message = question
        return None

    # Answers.

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

    def _answer_login(self, question: LoginAsked, reply: Reply) -> None:
        if self.state is _CLOSED:
            return
        self._step(Step.AUTH_END)
        if reply.code < 400:
            peer = self._peer
            self._peer = Peer(
                peer.address, peer.port, peer.hello, peer.esmtp, peer.tls, question.user
            )
            return
        self._failed_logins += 1
        if self._failed_logins >= self._config.logins_per_session:
            self._hang_up(Reply(421, "4.7.0", "Too many failed attempts to sign in"))

    def _let_go(self, message: MessageReceived) -> None:
        """An answered message may wait for its turn to be told; its content need not."""
        self._held_bytes -= len(message.content)
        message.content = b""

    def _decide(self, transaction: Transaction, message: MessageReceived) -> None:
        """All recipients of a message that came ahead of their answers are answered now."""
        if transaction.recipients:
            message.envelope = transaction.envelope(self._peer)
            self._ahead.append(message)
        else:
            message.reply = _NOBODY.encode()
            self._messages_open -= 1
            self._let_go(message)
            self._count_error()

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
