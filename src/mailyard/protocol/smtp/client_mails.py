"""Mails over a client session that is ready: what is written of each, and what its replies mean.

There are two ways, see `client`: whole transactions behind one another by BDAT, and by DATA.
"""

from collections import deque
from collections.abc import Callable
from enum import IntEnum, auto

from mailyard.core import limits
from mailyard.protocol.smtp.client_mail import (
    ClientEvent,
    ClientMail,
    MailDone,
    MailReturned,
    Stage,
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
from mailyard.protocol.smtp.replies import BrokenReply, PeerReply

_HELD_CONTENT_BYTES = 256 * limits.KIB  # above this the final dot waits until the content is gone
_PIPELINED_BYTES = 256 * limits.KIB  # of content behind one another


class Await(IntEnum):
    """Which reply is due."""

    GREETING = auto()
    EHLO = auto()
    HELO = auto()
    STARTTLS = auto()
    AUTH = auto()
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
    Await.AUTH: 120.0,
    Await.RSET: 300.0,
    Await.MAIL: 300.0,
    Await.RCPT: 300.0,
    Await.DATA: 120.0,
    Await.END: 600.0,
    Await.CHUNK: 600.0,
    Await.VOID_END: 600.0,
    Await.QUIT: 5.0,
}


STAGE_OF: dict[Await, Stage] = {
    Await.GREETING: Stage.CONNECT,
    Await.EHLO: Stage.HELLO,
    Await.HELO: Stage.HELLO,
    Await.STARTTLS: Stage.TLS,
    Await.AUTH: Stage.AUTH,
    Await.RSET: Stage.MAIL,
    Await.MAIL: Stage.MAIL,
    Await.RCPT: Stage.RCPT,
    Await.DATA: Stage.DATA,
    Await.END: Stage.CONTENT,
    Await.CHUNK: Stage.CONTENT,
    Await.VOID_END: Stage.CONTENT,
    Await.QUIT: Stage.CONTENT,
}


# Looked up for every reply; a global costs a third of an attribute of an Enum.
_MAIL, _RCPT, _CHUNK = Await.MAIL, Await.RCPT, Await.CHUNK
_DATA, _END, _VOID_END = Await.DATA, Await.END, Await.VOID_END


class MailHandOver:
    """The part of a session that hands over mails."""

    def __init__(self, take_mail: Callable[[], ClientMail | None], pipeline: int) -> None:
        self._take_mail = take_mail
        self._pipeline = pipeline
        self._output: list[bytes] = []
        self._events: list[ClientEvent] = []
        self._due: deque[Await] = deque((Await.GREETING,))
        self._unwritten: deque[tuple[Await, bytes]] = deque()
        self._offered({})
        self._chunked: deque[Sending] = deque()  # written whole, replies due
        self._chunked_bytes = 0
        self._long: ClientMail | None = None  # goes by DATA when those before it are answered
        self._envelope: Sending | None = None  # MAIL, RCPT, DATA written, replies due
        self._content: Sending | None = None  # content written, its reply due
        self._transaction_open = False
        self._held_end = False
        self._ready = False
        self._quitting = False
        self._ended = False

    def content_flushed(self) -> None:
        """A long content has left: its final dot may follow."""
        if self._held_end and not self._ended:
            self._held_end = False
            self._write_end()

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

    def _offered(self, extensions: dict[str, str]) -> None:
        """What the peer says that it can; asked for every mail and every reply."""
        self._extensions = extensions
        self._pipelining = "PIPELINING" in extensions
        self._chunking = self._pipeline > 0 and self._pipelining and "CHUNKING" in extensions

    @property
    def _busy(self) -> bool:
        """A mail is under way."""
        return bool(self._chunked) or self._envelope is not None or self._content is not None

    def _read_mail_reply(self, due: Await, reply: PeerReply) -> bool:
        """Take a reply to one of a mail's commands; False for any other. Raises BrokenReply."""
        if due is _RCPT:
            self._recipient_reply(reply)
        elif due is _MAIL:
            self._sender_reply(reply)
        elif due is _CHUNK:
            if taken(reply) and not self._chunked[0].anybody_taken:
                raise BrokenReply(f"BDAT for nobody answered with {reply.code}")
            self._settle_chunked(judged(reply))
            self._transaction_open = not taken(reply)
            self._continue()
        elif due is _DATA:
            self._data_reply(reply)
        elif due is _END:
            self._settle_content(reply)
        elif due is _VOID_END:
            self._continue()
        else:
            return False
        return True

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
            raise BrokenReply(f"DATA answered with {reply.code}, which makes no sense")
        if reply.code != 354:
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
        # Where everybody was refused at RCPT, this speaks for nobody.
        self._done(sending, refusal(reply, Stage.DATA))
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

    def _under_way(self) -> Sending:
        if self._chunked:
            return self._chunked[0]
        assert self._envelope is not None, "a reply to an envelope is only due with an envelope"
        return self._envelope

    def _write(self, awaited: Await, line: bytes) -> None:
        self._due.append(awaited)
        self._output.append(line)

    def _say_quit(self) -> None:
        if not self._ended and Await.QUIT not in self._due:
            self._write(Await.QUIT, b"QUIT\r\n")
