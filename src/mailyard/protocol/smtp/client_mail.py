"""What a client session is given and what it tells: mails, fates of recipients, its own turns."""

from collections.abc import Sequence
from enum import Enum, StrEnum, auto
from typing import Any, TypeAlias

from msgspec import Struct


class StartTls(Enum):
    """Whether to encrypt: never, when offered, or not at all without it."""

    NONE = "none"
    OPPORTUNISTIC = "opportunistic"
    REQUIRED = "required"


class Fate(StrEnum):
    """What became of one recipient."""

    ACCEPTED = auto()
    LATER = auto()
    NEVER = auto()
    UNKNOWN = auto()


class Stage(StrEnum):
    """How far the session was when a verdict was reached."""

    HERE = "here"  # the peer was not asked
    CONNECT = "connect"
    HELLO = "hello"
    TLS = "tls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    CONTENT = "content"


class Verdict(Struct, frozen=True):
    """`code` is the peer's reply code, None when the verdict was reached here."""

    fate: Fate
    code: int | None
    text: str
    stage: Stage = Stage.HERE


class ClientMail(Struct, eq=False):
    """One mail to send; `token` is the caller's. Content has CRLF line ends, not stuffed."""

    reverse_path: str
    recipients: Sequence[str]
    content: bytes
    eight_bit: bool
    smtp_utf8: bool
    token: Any

    @property
    def can_be_written(self) -> bool:
        """No control character in an address, and nothing outside ASCII without SMTPUTF8."""
        text = self.reverse_path + "".join(self.recipients)
        return text.isprintable() and (self.smtp_utf8 or text.isascii()) and bool(self.recipients)


class MailDone(Struct, frozen=True):
    """One verdict per recipient, in their order."""

    mail: ClientMail
    verdicts: list[Verdict]


class MailReturned(Struct, frozen=True):
    """The session ended before any content of this mail was sent: free to go another way."""

    mail: ClientMail
    verdict: Verdict


class TlsWanted(Struct, frozen=True):
    """Do the handshake, then call `tls_started`."""


class SessionReady(Struct, frozen=True):
    """EHLO is done, mails are taken from now on."""


class SessionEnded(Struct, frozen=True):
    """Close the connection. `clean`: after QUIT, or by a 421 with everything answered.

    `verdict`: what the end says to mails that wait for a session.
    """

    reason: str
    clean: bool
    verdict: Verdict = Verdict(Fate.LATER, None, "")


ClientEvent: TypeAlias = MailDone | MailReturned | TlsWanted | SessionReady | SessionEnded
