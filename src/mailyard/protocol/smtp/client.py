"""The client's side of a session: mails in, commands and verdicts out, no socket in sight.

    session = ClientSession(hello, take_mail)      # take_mail gives the next mail, or None
    session.receive(data); session.lost(reason); session.poke()
    session.take_output() -> what to write; session.take_events() -> what to tell

Mails go one of two ways. When the peer offers PIPELINING and CHUNKING, whole transactions follow
one another without waiting, up to `pipeline` mails: RSET, MAIL, RCPT and the content as one last
chunk (RFC 2920, RFC 3030 section 4.2). RSET keeps a recipient out of the transaction of a sender
that was refused before it. Else, and for a long content, one group of commands goes out per round
trip, as RFC 2920 section 3.1 allows: the end of one message together with MAIL, RCPT and DATA of
the next; or one command when there is no PIPELINING either.

The verdict on a mail whose connection is lost is LATER while its end has not been handed to the
socket, UNKNOWN from then on. A mail of which only the envelope was sent, or that the peer has not
come to when it says 421, is given back: replies come in order, and 421 ends them.
"""

from collections import deque
from collections.abc import Callable
from enum import IntEnum, auto

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
from mailyard.protocol.smtp.client_transaction import (
    Sending,
    judged,
    mail_command,
    problem_with,
    refusal,
    taken,
)
from mailyard.protocol.smtp.content import stuffed, with_last_line_end
from mailyard.protocol.smtp.replies import BrokenReply, PeerReply, ReplyReader

_HELD_CONTENT_BYTES = 256 * limits.KIB  # above this the final dot waits until the content is gone
_PIPELINED_BYTES = 256 * limits.KIB  # of content behind one another


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
    CHUNK = auto()
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
    Await.CHUNK: 600.0,
    Await.VOID_END: 600.0,
    Await.QUIT: 5.0,
}


class ClientSession:
    """One session, greeting to QUIT. `pipeline`: mails behind one another; 0: never by BDAT."""

    def __init__(
        self,
        hello: str,
        take_mail: Callable[[], ClientMail | None],
        starttls: StartTls = StartTls.NONE,
        *,
        pipeline: int = 0,
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
        self._pipeline = pipeline
        self._chunked: deque[Sending] = deque()  # written whole, replies due
        self._chunked_bytes = 0
        self._long: ClientMail | None = None  # goes by DATA when those before it are answered
        self._envelope: Sending | None = None  # MAIL, RCPT, DATA written, replies due
        self._content: Sending | None = None  # content written, its reply due
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
        return self._ready and not self._busy and not self._due

    @property
    def takes_mail(self) -> bool:
        """`poke` would begin a mail now."""
        if not self._ready or self._quitting or self._ended:
            return False
        if self._envelope is not None or self._held_end:
            return False
        if self._chunked:
            return (
                self._long is None
                and len(self._chunked) < self._pipeline
                and self._chunked_bytes < _PIPELINED_BYTES
            )
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

    @property
    def _chunking(self) -> bool:
        return self._pipeline > 0 and self._pipelining and "CHUNKING" in self._extensions

    @property
    def _busy(self) -> bool:
        """A mail is under way."""
        return bool(self._chunked) or self._envelope is not None or self._content is not None

    # Replies.

    def _read_reply(self, due: Await, reply: PeerReply) -> None:
        if reply.code == 421 and due is not Await.QUIT:
            self._service_ended(due, reply)
            return
        match due:
            case Await.END:
                self._settle_content(reply)
            case Await.CHUNK:
                self._settle_chunked(judged(reply))
                self._transaction_open = not taken(reply)
                self._continue()
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
                if not taken(reply):
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
            self._end(verdict, f"421 {reply.text}", clean=not self._busy)
        else:
            self.lost(f"reply without a command: {reply.code} {reply.text}")

    def _service_ended(self, due: Await, reply: PeerReply) -> None:
        """421: the peer is closing. What it answered is LATER, what came after is given back."""
        verdict = Verdict(Fate.LATER, 421, reply.text)
        if due is Await.END and self._content is not None:
            self._done(self._content, verdict)
            self._content = None
        elif due is Await.CHUNK:
            self._settle_chunked(verdict)
        self._give_back_chunked(verdict)
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
        """Take mails while they can go to this peer now, and write what may be written of them."""
        while (mail := self._next_mail()) is not None:
            problem = problem_with(mail, self._extensions)
            if problem is not None:
                self._events.append(MailDone(mail, [problem] * len(mail.recipients)))
            elif not self._chunking or len(mail.content) > _PIPELINED_BYTES:
                self._long = mail if self._chunked else None
                if self._long is None:
                    self._write_envelope(mail)
                return
            else:
                self._write_chunked(mail)
                if not self.takes_mail:
                    return

    def _next_mail(self) -> ClientMail | None:
        mail, self._long = self._long, None
        return mail or self._take_mail()

    def _write_chunked(self, mail: ClientMail) -> None:
        """A whole transaction."""
        due, output = self._due, self._output
        commands = mail_command(mail, self._extensions)
        if self._chunked or self._transaction_open:
            commands = f"RSET\r\n{commands}"
            due.append(Await.RSET)
            self._transaction_open = False
        due.append(Await.MAIL)
        for address in mail.recipients:
            commands += f"RCPT TO:<{address}>\r\n"
            due.append(Await.RCPT)
        due.append(Await.CHUNK)
        content = with_last_line_end(mail.content)
        output.append(f"{commands}BDAT {len(content)} LAST\r\n".encode())
        output.append(content)
        self._chunked.append(Sending(mail, end_written=True))
        self._chunked_bytes += len(mail.content)

    def _settle_chunked(self, verdict: Verdict) -> None:
        """The oldest of those behind one another is answered."""
        sending = self._chunked.popleft()
        self._chunked_bytes -= len(sending.mail.content)
        self._done(sending, verdict)

    def _give_back_chunked(self, verdict: Verdict) -> None:
        """The peer has not come to them, and never will."""
        self._events += [MailReturned(sending.mail, verdict) for sending in self._chunked]
        self._chunked.clear()

    def _write_envelope(self, mail: ClientMail) -> None:
        self._envelope = Sending(mail)
        commands: list[tuple[Await, bytes]] = []
        if self._transaction_open:
            commands.append((Await.RSET, b"RSET\r\n"))
            self._transaction_open = False
        sender = mail_command(mail, self._extensions)
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
        if taken(reply):
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
        if len(replies) < len(sending.mail.recipients) or any(map(taken, replies)):
            self._write(*self._unwritten.popleft())
        else:
            self._unwritten.clear()
            self._transaction_open = True
            self._settle_envelope(reply)

    def _data_reply(self, reply: PeerReply) -> None:
        sending = self._under_way()
        sender_taken = sending.sender_taken
        if reply.code < 400 and reply.code != 354:
            self.lost(f"DATA answered with {reply.code}, which makes no sense")
        elif reply.code != 354:
            self._transaction_open = sender_taken
            self._settle_envelope(reply)
        elif sender_taken and any(map(taken, sending.recipient_replies)):
            self._envelope = None
            self._content = sending
            self._write_content(sending)
        else:  # RFC 2920 section 3.1: nobody was accepted, yet content is asked for: send none
            self._settle_envelope(reply, go_on=False)
            self._write(Await.VOID_END, b".\r\n")

    def _write_content(self, sending: Sending) -> None:
        content = with_last_line_end(stuffed(sending.mail.content))
        self._output.append(content)
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
        self._done(sending, judged(reply))
        if self._envelope is None:
            self._continue()

    def _settle_envelope(self, reply: PeerReply, *, go_on: bool = True) -> None:
        """The mail ended before its content. `reply` is the one that ended it."""
        sending = self._under_way()
        self._envelope = None
        self._done(sending, refusal(reply))
        if go_on:
            self._continue()

    def _done(self, sending: Sending, verdict: Verdict) -> None:
        """`verdict` for the recipients that were taken at RCPT, their own reply for the rest."""
        self._events.append(MailDone(sending.mail, sending.verdicts(verdict)))

    def _continue(self) -> None:
        if self._quitting:
            if self.idle:
                self._say_quit()
        elif self.takes_mail:
            self._begin_mail()

    # Small things.

    def _under_way(self) -> Sending:
        if self._chunked:
            return self._chunked[0]
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
            self._done(content, _unknown(verdict))
        elif content is not None:
            self._done(content, verdict)
        if envelope is not None:
            self._events.append(MailReturned(envelope.mail, verdict))
        while self._chunked:
            self._settle_chunked(_unknown(verdict))
        if self._long is not None:
            self._events.append(MailReturned(self._long, verdict))
            self._long = None
        self._events.append(SessionEnded(reason, clean))


def _unknown(verdict: Verdict) -> Verdict:
    return Verdict(Fate.UNKNOWN, None, f"lost after the final dot: {verdict.text}")
