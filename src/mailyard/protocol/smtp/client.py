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

from collections.abc import Callable, Iterator

from mailyard.protocol.smtp.client_auth import Login, lines_of, mechanism_for
from mailyard.protocol.smtp.client_mail import (
    ClientEvent,
    ClientMail,
    Fate,
    MailReturned,
    SessionEnded,
    SessionReady,
    Stage,
    StartTls,
    TlsWanted,
    Verdict,
)
from mailyard.protocol.smtp.client_mails import STAGE_OF, Await, MailHandOver
from mailyard.protocol.smtp.client_transaction import (
    taken,
)
from mailyard.protocol.smtp.replies import BrokenReply, PeerReply, ReplyReader

_STARTTLS = Await.STARTTLS  # looked at for every reply


class ClientSession(MailHandOver):
    """One session, greeting to QUIT. `pipeline`: mails behind one another; 0: never by BDAT.

    `login`: who signs in, over TLS alone. `secure`: the connection is TLS from its first byte.
    """

    def __init__(
        self,
        hello: str,
        take_mail: Callable[[], ClientMail | None],
        starttls: StartTls = StartTls.NONE,
        *,
        pipeline: int = 0,
        login: Login | None = None,
        secure: bool = False,
    ) -> None:
        super().__init__(take_mail, pipeline)
        self._hello = hello
        self._starttls = starttls
        self._reader = ReplyReader()
        self._tls = False
        self._secure = secure
        self.login = login
        self._auth_lines: Iterator[bytes] = iter(())
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
                due = self._due
                if not due or (due[0] is _STARTTLS and reply is not replies[-1]):
                    self._unexpected(reply)
                    return
                self.replies_read += 1
                self._read_reply(due.popleft(), reply)
        except BrokenReply as error:
            self.lost(error.message)

    def poke(self) -> None:
        """There may be a mail to take."""
        if self.takes_mail:
            self._begin_mail()

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
        self._end(Verdict(Fate.LATER, None, reason, self._stage), reason, clean=False)

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
    def awaits(self) -> Await | None:
        """The reply that is due next, for its time limit."""
        return self._due[0] if self._due else None

    @property
    def _stage(self) -> Stage:
        """What is under way, for what is said of its end."""
        if self._due:
            return STAGE_OF[self._due[0]]
        # With nothing due a session that is not ready is in its handshake.
        return Stage.CONTENT if self._ready else Stage.TLS

    # Replies.

    def _read_reply(self, due: Await, reply: PeerReply) -> None:
        if reply.code == 421 and due is not Await.QUIT:
            self._service_ended(due, reply)
            return
        if self._read_mail_reply(due, reply):
            return
        match due:
            case Await.GREETING:
                if reply.code != 220:
                    self._refuse_session("greeting", reply, Stage.CONNECT)
                    return
                self._say_ehlo()
            case Await.EHLO | Await.HELO:
                self._hello_reply(due, reply)
            case Await.STARTTLS:
                self._starttls_reply(reply)
            case Await.AUTH:
                self._auth_reply(reply)
            case Await.RSET:
                if not taken(reply):
                    self._refuse_session("RSET", reply, Stage.MAIL)
                elif not self._pipelining:
                    self._write(*self._unwritten.popleft())
            case Await.QUIT:
                self._end(Verdict(Fate.LATER, None, "session ended"), "quit", clean=True)

    def _unexpected(self, reply: PeerReply) -> None:
        """A reply that nothing asked for: 421 before closing is legal, the rest is an attack."""
        if reply.code == 421:
            verdict = Verdict(Fate.LATER, 421, reply.text, self._stage)
            self._end(verdict, f"421 {reply.text}", clean=not self._busy)
        else:
            self.lost(f"reply without a command: {reply.code} {reply.text}")

    def _service_ended(self, due: Await, reply: PeerReply) -> None:
        """421: the peer is closing. What it answered is LATER, what came after is given back."""
        verdict = Verdict(Fate.LATER, 421, reply.text, STAGE_OF[due])
        if due is Await.END and self._content is not None:
            self._done(self._content, verdict)
            self._content = None
        elif due is Await.CHUNK:
            self._settle_chunked(verdict)
        self._give_back_chunked(verdict)
        self._end(verdict, f"421 {reply.text}", clean=self._ready)

    def _refuse_session(self, what: str, reply: PeerReply, stage: Stage) -> None:
        reason = f"{what} refused: {reply.code} {reply.text}"
        self._end(Verdict(Fate.LATER, reply.code, reply.text, stage), reason, clean=False)

    def _hello_reply(self, due: Await, reply: PeerReply) -> None:
        if reply.code != 250:
            if due is Await.EHLO and reply.code >= 500:  # RFC 5321 section 3.2
                self._write(Await.HELO, f"HELO {self._hello}\r\n".encode("ascii"))
            else:
                self._refuse_session(due.name, reply, Stage.HELLO)
            return
        lines = reply.raw.decode("ascii", "replace").split("\n")[1:]
        pairs = (line.strip().upper().partition(" ") for line in lines)
        self._offered({name: value.strip() for name, _, value in pairs})
        if self._starttls is not StartTls.NONE and not self._tls:
            if "STARTTLS" in self._extensions:
                self._write(Await.STARTTLS, b"STARTTLS\r\n")
                return
            if self._starttls is StartTls.REQUIRED:
                self.lost("5.7.10 TLS is required and the peer does not offer STARTTLS")
                return
        self._sign_in()

    def _starttls_reply(self, reply: PeerReply) -> None:
        if reply.code == 220:
            if self._reader.unread:  # injected before the handshake
                self.lost("data behind the reply to STARTTLS")
                return
            self._events.append(TlsWanted())
        elif self._starttls is StartTls.REQUIRED:
            self._refuse_session("STARTTLS", reply, Stage.TLS)
        else:
            self._sign_in()

    def _sign_in(self) -> None:
        """AUTH where there is a login: over TLS alone, and never without."""
        login = self.login
        if login is None:
            self._begin()
            return
        offered = self._extensions.get("AUTH", "")
        mechanism = mechanism_for(login, offered)
        if not (self._tls or self._secure):
            self._stop_at_auth("the password goes over TLS alone, and there is none")
        elif mechanism is None:
            wanted = login.mechanism or "PLAIN or LOGIN"
            self._stop_at_auth(f"the peer does not offer AUTH {wanted} (but {offered or 'none'})")
        else:
            self._auth_lines = lines_of(login, mechanism)
            self._write(Await.AUTH, next(self._auth_lines))

    def _auth_reply(self, reply: PeerReply) -> None:
        if reply.code == 235:
            self._begin()
            return
        line = next(self._auth_lines, None) if reply.code == 334 else None
        if line is None:
            self._refuse_session("AUTH", reply, Stage.AUTH)
        else:
            self._write(Await.AUTH, line)

    def _stop_at_auth(self, reason: str) -> None:
        self._end(Verdict(Fate.LATER, None, reason, Stage.AUTH), reason, clean=False)

    def _begin(self) -> None:
        self._ready = True
        self._events.append(SessionReady())
        self._continue()

    def _say_ehlo(self) -> None:
        self._offered({})
        self._write(Await.EHLO, f"EHLO {self._hello}\r\n".encode("ascii"))

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
        self._events.append(SessionEnded(reason, clean, verdict))


def _unknown(verdict: Verdict) -> Verdict:
    text = f"lost after its content had left: {verdict.text}"
    return Verdict(Fate.UNKNOWN, None, text, Stage.CONTENT)
