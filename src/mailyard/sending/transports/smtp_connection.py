"""One SMTP connection: feeds its session, writes what it says, keeps time, and tells its owner."""

import asyncio
from typing import Protocol, cast

from msgspec import Struct

from mailyard.protocol.smtp.client import ClientSession
from mailyard.protocol.smtp.client_mail import (
    ClientMail,
    MailDone,
    MailReturned,
    SessionEnded,
    SessionReady,
    TlsWanted,
    Verdict,
)
from mailyard.protocol.smtp.client_mails import REPLY_TIMEOUT_S

_CONTENT_S = 180.0  # between two blocks of a long content (RFC 5321 section 4.5.3.2.5)


class Patience(Struct, frozen=True):
    """Seconds: `reply_s` caps the time limits of RFC 5321 section 4.5.3.2, `idle_s` is how long a
    connection is kept with nothing to do."""

    reply_s: float
    idle_s: float


class Owner(Protocol):
    """What a connection tells, and asks for."""

    def settle(self, mail: ClientMail, verdicts: list[Verdict], connection: "Connection") -> None:
        """`mail` has its verdicts, one a recipient."""
        ...

    def give_back(self, mail: ClientMail, verdict: Verdict, connection: "Connection") -> None:
        """The session ended before any content of `mail` was sent."""
        ...

    def ready(self, connection: "Connection") -> None:
        """EHLO is done."""
        ...

    def gone(self, connection: "Connection", end: SessionEnded) -> None:
        """The connection has ended; `connection.ready` says whether it had ever been of use."""
        ...

    def run_handshake(self, connection: "Connection", plain: asyncio.Transport) -> None:
        """Do the TLS handshake over `plain`, then call `connection.tls_started` or `fail`."""
        ...


class Connection(asyncio.Protocol):
    """One connection: feeds its session, writes what it says, keeps time."""

    def __init__(
        self,
        owner: Owner,
        loop: asyncio.AbstractEventLoop,
        session: ClientSession,
        patience: Patience,
    ) -> None:
        self._owner = owner
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._session = session
        self._patience = patience
        self._write_paused = False
        self._progress_seen = (0, 0)  # replies read, bytes of a long content not sent yet
        self._progress_at = loop.time()
        self.ready = False
        self.closed: asyncio.Future[None] = loop.create_future()

    @property
    def idle(self) -> bool:
        return self._session.idle

    @property
    def takes_mail(self) -> bool:
        return self._session.takes_mail

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self.closed.done():
            self._transport.abort()
            return
        self._progress_at = self._loop.time()

    def data_received(self, data: bytes) -> None:
        self._session.receive(data)
        self._act()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.fail(f"connection lost: {exc}" if exc else "connection closed by the peer")

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        self._content_flushed()

    # What the pool calls.

    def poke(self) -> None:
        """A mail waits."""
        if self._session.idle:
            self._progress_at = self._loop.time()
        self._session.poke()
        self._act()

    def quit(self) -> None:
        self._session.quit()
        self._act()

    def fail(self, reason: str, *, retry_now: bool = False) -> None:
        """The connection is gone or must go. `retry_now`: the destination itself is well."""
        self.ready = self.ready or retry_now
        self._session.lost(reason)
        self._act()

    def tls_started(self, secure: asyncio.Transport) -> None:
        self._transport = secure
        self._session.tls_started()
        self._act()

    def check_deadlines(self, now: float) -> None:
        session = self._session
        unsent_bytes = 0
        if session.holds_end and self._transport is not None:
            unsent_bytes = self._transport.get_write_buffer_size()
        if (session.replies_read, unsent_bytes) != self._progress_seen:
            self._progress_seen = (session.replies_read, unsent_bytes)
            self._progress_at = now
            return
        waited_s = now - self._progress_at
        awaits = session.awaits
        if awaits is not None:
            if waited_s > min(REPLY_TIMEOUT_S[awaits], self._patience.reply_s):
                self.fail(f"no reply within {waited_s:.0f} s ({awaits.name})")
        elif session.holds_end:
            if waited_s > min(_CONTENT_S, self._patience.reply_s):
                self.fail(f"the peer took none of the content for {waited_s:.0f} s")
        elif session.idle and waited_s > self._patience.idle_s:
            self.quit()

    # The work.

    def _act(self) -> None:
        """Write first, so that the pipe stays full, then tell."""
        session, transport = self._session, self._transport
        output = session.take_output()
        if output and transport is not None:
            transport.write(output)
            if session.holds_end:
                self._loop.call_soon(self._content_flushed)
        for event in session.take_events():
            if type(event) is MailDone:
                self._owner.settle(event.mail, event.verdicts, self)
            elif type(event) is MailReturned:
                self._owner.give_back(event.mail, event.verdict, self)
            elif type(event) is SessionReady:
                self.ready = True
                self._owner.ready(self)
            elif type(event) is TlsWanted:
                self._want_tls()
            elif type(event) is SessionEnded:
                self._ended(event)

    def _want_tls(self) -> None:
        if self._transport is not None:
            self._owner.run_handshake(self, self._transport)

    def _content_flushed(self) -> None:
        if self._session.holds_end and not self._write_paused:
            self._session.content_flushed()
            self._act()

    def _ended(self, event: SessionEnded) -> None:
        if self._transport is not None:
            if event.clean:
                self._transport.close()
            else:
                self._transport.abort()
        if not self.closed.done():
            self.closed.set_result(None)
            self._owner.gone(self, event)
