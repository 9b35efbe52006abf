"""The client's side of a session: mails in, commands and verdicts out, no socket in sight.

    session = ClientSession(hello, take_mail)      # take_mail gives the next mail, or None
    session.receive(data); session.lost(reason); session.poke()
    session.take_output() -> what to write; session.take_events() -> what to tell

When the peer offers PIPELINING, one group of commands goes out per round trip, as RFC 2920 section
3.1 allows: the end of one message together with MAIL, RCPT and DATA of the next. A group ends with
DATA or with the final dot, because their replies decide what follows.

The verdict on a mail whose connection is lost is LATER while its final dot has not been handed to
the socket, UNKNOWN from then on. A mail of which only the envelope was sent is given back.
"""

from collections import deque
from collections.abc import Callable
from enum import IntEnum, auto

from msgspec import Struct

from mailyard.core import limits
from mailyard.protocol.smtp.client_mail import (
    ClientEvent,
    ClientMail,
    Fate,
    MailDone,
    MailReturned,
    SessionEnded,
    SessionReady,
    StartTls,
    TlsWanted,
    Verdict,
)
from mailyard.protocol.smtp.content import has_bare_line_end, stuffed
from mailyard.protocol.smtp.replies import BrokenReply, PeerReply, ReplyReader

_HELD_CONTENT_BYTES = 256 * limits.KIB  # above this the final dot waits until the content is gone


class Await(IntEnum):
    """Which reply is due."""

    GREETING = auto()
    EHLO = auto()
    HELO = auto()
    STARTTLS = auto()
    RSET = auto()
    MAIL = auto()
    RCPT = auto()
    DATA = auto()
    END = auto()
    VOID_END = auto()  # of the empty content after a DATA that nobody should have accepted
    QUIT = auto()


# RFC 5321 section 4.5.3.2, seconds.
REPLY_TIMEOUT_S: dict[Await, float] = {
    Await.GREETING: 300.0,
    Await.EHLO: 300.0,
    Await.HELO: 300.0,
    Await.STARTTLS: 120.0,
    Await.RSET: 300.0,
    Await.MAIL: 300.0,
    Await.RCPT: 300.0,
    Await.DATA: 120.0,
    Await.END: 600.0,
    Await.VOID_END: 600.0,
    Await.QUIT: 5.0,
}


class _Sending(Struct, eq=False):
    """A mail under way: its envelope's replies so far."""

    mail: ClientMail
    sender_reply: PeerReply | None = None
    recipient_replies: list[PeerReply] = []
    end_written: bool = False


class ClientSession:
    """One session, greeting to QUIT."""

    def __init__(
        self,
        hello: str,
        take_mail: Callable[[], ClientMail | None],
        starttls: StartTls = StartTls.NONE,
    ) -> None:
        self._hello = hello
        self._take_mail = take_mail
        self._starttls = starttls
        self._reader = ReplyReader()
        self._output: list[bytes] = []
        self._events: list[ClientEvent] = []
        self._due: deque[Await] = deque((Await.GREETING,))
        self._unwritten: deque[tuple[Await, bytes]] = deque()
        self._extensions: dict[str, str] = {}
        self._envelope: _Sending | None = None  # MAIL, RCPT, DATA written, replies due
        self._content: _Sending | None = None  # content written, its reply due
        self._transaction_open = False
        self._held_end = False
        self._ready = False
        self._tls = False
        self._quitting = False
        self._ended = False
        self.replies_read = 0

    # What the shell calls.

    def receive(self, data: bytes) -> None:
        """Bytes from the peer."""
        if self._ended:
            return
        try:
            replies = self._reader.feed(data)
            for reply in replies:
                if self._ended:
                    return
                if not self._due or (self._due[0] is Await.STARTTLS and reply is not replies[-1]):
                    self._unexpected(reply)
                    return
                self.replies_read += 1
                self._read_reply(self._due.popleft(), reply)
        except BrokenReply as error:
            self.lost(error.message)

    def poke(self) -> None:
        """There may be a mail to take."""
        if self.takes_mail:
            self._begin_mail()

    def content_flushed(self) -> None:
        """A long content has left: its final dot may follow."""
        if self._held_end and not self._ended:
            self._held_end = False
            self._write_end()

    def tls_started(self) -> None:
        """The handshake is done: everything learnt before it is forgotten (RFC 3207 4.2)."""
        self._tls = True
        self._say_ehlo()

    def quit(self) -> None:
        """Take no more mails; say QUIT when those under way are answered."""
        self._quitting = True
        if self.idle:
            self._say_quit()
        elif not self._ready:
            self._end(Verdict(Fate.LATER, None, "closed"), "closed before it was ready", clean=True)

    def lost(self, reason: str) -> None:
        """The connection is gone or must go. Everything under way gets its verdict."""
        self._end(Verdict(Fate.LATER, None, reason), reason, clean=False)

    def take_output(self) -> bytes:
        """What to write now."""
        output = self._output
        if not output:
            return b""
        joined = output[0] if len(output) == 1 else b"".join(output)
        output.clear()
        return joined

    def take_events(self) -> list[ClientEvent]:
        """What happened since the last call, in order."""
        events = self._events
        if events:
            self._events = []
        return events

    @property
    def idle(self) -> bool:
        """Ready, and nothing under way."""
        return self._ready and self._envelope is None and self._content is None and not self._due

    @property
    def takes_mail(self) -> bool:
        """`poke` would begin a mail now."""
        if not self._ready or self._envelope is not None or self._quitting or self._ended:
            return False
        return self._content is None or self._pipelining

    @property
    def holds_end(self) -> bool:
        """A long content is in the output: call `content_flushed` when the socket has taken it."""
        return self._held_end

    @property
    def awaits(self) -> Await | None:
        """The reply that is due next, for its time limit."""
        return self._due[0] if self._due else None

    @property
    def _pipelining(self) -> bool:
        return "PIPELINING" in self._extensions

    # Replies.

    def _read_reply(self, due: Await, reply: PeerReply) -> None:
        if reply.code == 421 and due is not Await.QUIT:
            self._service_ended(due, reply)
            return
        match due:
            case Await.END:
                self._settle_content(reply)
            case Await.MAIL:
                self._sender_reply(reply)
            case Await.RCPT:
                self._recipient_reply(reply)
            case Await.DATA:
                self._data_reply(reply)
            case Await.GREETING:
                if reply.code != 220:
                    self._refuse_session("greeting", reply)
                    return
                self._say_ehlo()
            case Await.EHLO | Await.HELO:
                self._hello_reply(due, reply)
            case Await.STARTTLS:
                self._starttls_reply(reply)
            case Await.RSET:
                if not _taken(reply):
                    self._refuse_session("RSET", reply)
                elif not self._pipelining:
                    self._write(*self._unwritten.popleft())
            case Await.VOID_END:
                self._continue()
            case Await.QUIT:
                self._end(Verdict(Fate.LATER, None, "session ended"), "quit", clean=True)

    def _unexpected(self, reply: PeerReply) -> None:
        """A reply that nothing asked for: 421 before closing is legal, the rest is an attack."""
        if reply.code == 421:
            verdict = Verdict(Fate.LATER, 421, reply.text)
            self._end(verdict, f"421 {reply.text}", clean=not self._content and not self._envelope)
        else:
            self.lost(f"reply without a command: {reply.code} {reply.text}")

    def _service_ended(self, due: Await, reply: PeerReply) -> None:
        """421: the peer is closing. What it answered is LATER, what came after is given back."""
        verdict = Verdict(Fate.LATER, 421, reply.text)
        if due is Await.END and self._content is not None:
            self._done(self._content, verdict)
            self._content = None
        self._end(verdict, f"421 {reply.text}", clean=self._ready)

    def _refuse_session(self, what: str, reply: PeerReply) -> None:
        reason = f"{what} refused: {reply.code} {reply.text}"
        self._end(Verdict(Fate.LATER, reply.code, reason), reason, clean=False)

    def _hello_reply(self, due: Await, reply: PeerReply) -> None:
        if reply.code != 250:
            if due is Await.EHLO and reply.code >= 500:  # RFC 5321 section 3.2
                self._write(Await.HELO, f"HELO {self._hello}\r\n".encode("ascii"))
            else:
                self._refuse_session(due.name, reply)
            return
        lines = reply.raw.decode("ascii", "replace").split("\n")[1:]
        pairs = (line.strip().upper().partition(" ") for line in lines)
        self._extensions = {name: value.strip() for name, _, value in pairs}
        if self._starttls is not StartTls.NONE and not self._tls:
            if "STARTTLS" in self._extensions:
                self._write(Await.STARTTLS, b"STARTTLS\r\n")
                return
            if self._starttls is StartTls.REQUIRED:
                self.lost("5.7.10 TLS is required and the peer does not offer STARTTLS")
                return
        self._begin()

    def _starttls_reply(self, reply: PeerReply) -> None:
        if reply.code == 220:
            if self._reader.unread:  # injected before the handshake
                self.lost("data behind the reply to STARTTLS")
                return
            self._events.append(TlsWanted())
        elif self._starttls is StartTls.REQUIRED:
            self._refuse_session("STARTTLS", reply)
        else:
            self._begin()

    def _begin(self) -> None:
        self._ready = True
        self._events.append(SessionReady())
        self._continue()

    # One mail.

    def _begin_mail(self) -> None:
        """Take mails until one can go to this peer, and write its envelope."""
        while (mail := self._take_mail()) is not None:
            problem = self._problem(mail)
            if problem is None:
                self._write_envelope(mail)
                return
            self._events.append(MailDone(mail, [problem] * len(mail.recipients)))

    def _problem(self, mail: ClientMail) -> Verdict | None:
        """Why `mail` cannot go to this peer, judged before a byte is sent."""
        extensions = self._extensions
        text = ""
        if mail.eight_bit and "8BITMIME" not in extensions:
            text = "5.6.3 the content is 8-bit and the peer does not offer 8BITMIME"
        elif mail.smtp_utf8 and "SMTPUTF8" not in extensions:
            text = "5.6.7 the mail needs SMTPUTF8 and the peer does not offer it"
        elif not mail.can_be_written:
            text = "5.1.3 an address cannot be written in a command"
        elif has_bare_line_end(mail.content):
            text = "5.6.0 the content has a bare CR or LF"
        else:
            size = extensions.get("SIZE", "")
            if size.isdigit() and 0 < int(size) < len(mail.content):
                text = f"5.3.4 the peer takes at most {size} bytes"
        return Verdict(Fate.NEVER, None, text) if text else None

    def _write_envelope(self, mail: ClientMail) -> None:
        self._envelope = _Sending(mail)
        commands: list[tuple[Await, bytes]] = []
        if self._transaction_open:
            commands.append((Await.RSET, b"RSET\r\n"))
            self._transaction_open = False
        parameters = f" SIZE={len(mail.content)}" if "SIZE" in self._extensions else ""
        if mail.eight_bit:
            parameters += " BODY=8BITMIME"
        if mail.smtp_utf8:
            parameters += " SMTPUTF8"
        sender = f"MAIL FROM:<{mail.reverse_path}>{parameters}\r\n"
        if self._pipelining:
            due, output = self._due, self._output
            for awaited, line in commands:
                due.append(awaited)
                output.append(line)
            due.append(Await.MAIL)
            for address in mail.recipients:
                sender += f"RCPT TO:<{address}>\r\n"
                due.append(Await.RCPT)
            due.append(Await.DATA)
            output.append(f"{sender}DATA\r\n".encode())
            return
        commands.append((Await.MAIL, sender.encode()))
        for address in mail.recipients:
            commands.append((Await.RCPT, f"RCPT TO:<{address}>\r\n".encode()))
        commands.append((Await.DATA, b"DATA\r\n"))
        self._unwritten.extend(commands)
        self._write(*self._unwritten.popleft())

    def _sender_reply(self, reply: PeerReply) -> None:
        sending = self._under_way()
        sending.sender_reply = reply
        if self._pipelining:
            return
        if _taken(reply):
            self._write(*self._unwritten.popleft())
        else:
            self._unwritten.clear()
            self._settle_envelope(reply)

    def _recipient_reply(self, reply: PeerReply) -> None:
        sending = self._under_way()
        replies = sending.recipient_replies
        replies.append(reply)
        if self._pipelining:
            return
        if len(replies) < len(sending.mail.recipients) or any(map(_taken, replies)):
            self._write(*self._unwritten.popleft())
        else:
            self._unwritten.clear()
            self._transaction_open = True
            self._settle_envelope(reply)

    def _data_reply(self, reply: PeerReply) -> None:
        sending = self._under_way()
        sender_reply = sending.sender_reply
        sender_taken = sender_reply is not None and _taken(sender_reply)
        if reply.code < 400 and reply.code != 354:
            self.lost(f"DATA answered with {reply.code}, which makes no sense")
        elif reply.code != 354:
            self._transaction_open = sender_taken
            self._settle_envelope(reply)
        elif sender_taken and any(map(_taken, sending.recipient_replies)):
            self._envelope = None
            self._content = sending
            self._write_content(sending)
        else:  # RFC 2920 section 3.1: nobody was accepted, yet content is asked for: send none
            self._settle_envelope(reply, go_on=False)
            self._write(Await.VOID_END, b".\r\n")

    def _write_content(self, sending: _Sending) -> None:
        content = stuffed(sending.mail.content)
        self._output.append(content)
        if not content.endswith(b"\r\n") and content:
            self._output.append(b"\r\n")
        if len(content) > _HELD_CONTENT_BYTES:
            self._held_end = True
        else:
            self._write_end()

    def _write_end(self) -> None:
        """The final dot, and with it the next mail's envelope."""
        sending = self._content
        if sending is None:
            return
        sending.end_written = True
        self._write(Await.END, b".\r\n")
        if self._pipelining and not self._quitting:
            self._begin_mail()

    def _settle_content(self, reply: PeerReply) -> None:
        sending = self._content
        if sending is None:
            return
        self._content = None
        self._done(sending, _verdict(reply))
        if self._envelope is None:
            self._continue()

    def _settle_envelope(self, reply: PeerReply, *, go_on: bool = True) -> None:
        """The mail ended before its content. `reply` is the one that ended it."""
        sending = self._under_way()
        self._envelope = None
        sender_reply = sending.sender_reply
        if sender_reply is not None and not _taken(sender_reply):
            verdict = _refusal(sender_reply)
            verdicts = [verdict] * len(sending.mail.recipients)
            self._events.append(MailDone(sending.mail, verdicts))
        else:
            self._done(sending, _refusal(reply))
        if go_on:
            self._continue()

    def _done(self, sending: _Sending, verdict: Verdict) -> None:
        """`verdict` for the recipients that were taken at RCPT, their own reply for the rest."""
        replies = sending.recipient_replies
        verdicts = [verdict if _taken(reply) else _refusal(reply) for reply in replies]
        self._events.append(MailDone(sending.mail, verdicts))

    def _continue(self) -> None:
        if self._quitting:
            if self.idle:
                self._say_quit()
        elif self._envelope is None and self._content is None:
            self._begin_mail()

    # Small things.

    def _under_way(self) -> _Sending:
        assert self._envelope is not None, "a reply to an envelope is only due with an envelope"
        return self._envelope

    def _write(self, awaited: Await, line: bytes) -> None:
        self._due.append(awaited)
        self._output.append(line)

    def _say_ehlo(self) -> None:
        self._extensions = {}
        self._write(Await.EHLO, f"EHLO {self._hello}\r\n".encode("ascii"))

    def _say_quit(self) -> None:
        if not self._ended and Await.QUIT not in self._due:
            self._write(Await.QUIT, b"QUIT\r\n")

    def _end(self, verdict: Verdict, reason: str, *, clean: bool) -> None:
        if self._ended:
            return
        self._ended = True
        content, envelope = self._content, self._envelope
        self._content = self._envelope = None
        self._due.clear()
        self._unwritten.clear()
        self._output.clear()
        if content is not None and content.end_written:
            unknown = Verdict(Fate.UNKNOWN, None, f"lost after the final dot: {verdict.text}")
            self._done(content, unknown)
        elif content is not None:
            self._done(content, verdict)
        if envelope is not None:
            self._events.append(MailReturned(envelope.mail, verdict))
        self._events.append(SessionEnded(reason, clean))


def _taken(reply: PeerReply) -> bool:
    """RFC 5321 section 4.3.2 has 250 and 251; any 2yz is a yes (section 4.2.1)."""
    return 200 <= reply.code < 300


def _verdict(reply: PeerReply) -> Verdict:
    """What the reply to the content says."""
    if _taken(reply):
        return Verdict(Fate.ACCEPTED, reply.code, reply.text)
    return _refusal(reply)


def _refusal(reply: PeerReply) -> Verdict:
    """What a reply that ended a mail early says. Never ACCEPTED: no content has been sent."""
    return Verdict(Fate.NEVER if reply.code >= 500 else Fate.LATER, reply.code, reply.text)
