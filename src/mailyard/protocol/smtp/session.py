"""What a server session is set up with, and what it asks of its shell."""

from collections.abc import Hashable
from typing import TypeAlias

from msgspec import Struct

from mailyard.core import limits
from mailyard.protocol.smtp.authentication import MECHANISMS, Credentials
from mailyard.protocol.smtp.command import MailCommand
from mailyard.protocol.smtp.envelope import Envelope, Peer
from mailyard.protocol.smtp.reply import Reply


class SessionConfig(Struct, frozen=True):
    """What a server says of itself and allows. Sizes in bytes.

    `errors_per_session` counts refused commands and recipients since the last message that was
    taken, so that guessing addresses ends soon and a long session between servers goes on.

    With `submission` (RFC 6409) nobody sends mail without AUTH (RFC 4954), which is there under TLS
    only. `logins_per_session` failed ones end the session.
    """

    hostname: str
    tls_offered: bool = False
    message_bytes: int = limits.SMTP_MESSAGE_BYTES
    line_bytes: int = limits.SMTP_TEXT_LINE_BYTES
    command_line_bytes: int = limits.SMTP_COMMAND_LINE_BYTES
    recipients_per_message: int = limits.SMTP_RECIPIENTS_PER_MESSAGE
    errors_per_session: int = limits.SMTP_ERRORS_PER_SESSION
    commands_per_session: int = limits.SMTP_COMMANDS_PER_SESSION
    submission: bool = False
    logins_per_session: int = limits.SMTP_LOGINS_PER_SESSION

    def capabilities(self, *, encrypted: bool) -> Reply:
        """The answer to EHLO (RFC 5321 section 4.1.1.1)."""
        lines = [self.hostname, "PIPELINING", f"SIZE {self.message_bytes}", "8BITMIME"]
        lines += ["SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING"]
        if self.tls_offered and not encrypted:
            lines.append("STARTTLS")
        if self.submission and encrypted:
            lines.append("AUTH " + " ".join(MECHANISMS))
        lines.append("HELP")
        return Reply(250, "", "\n".join(lines))


class MessageReceived(Struct, eq=False):
    """A whole message is here. Answer with `ServerSession.answer`."""

    envelope: Envelope
    content: bytes
    reply: bytes | None = None


class Transaction(Struct, eq=False):
    """What a session gathers from MAIL to the end of a message (RFC 5321 section 3.3).

    `asked` counts the recipients whose answer is open; a pipelined message may come before them,
    and what becomes of `message` is decided with the last of them.
    """

    mail: MailCommand
    recipients: list[str]
    asked: int = 0
    message: MessageReceived | None = None

    def envelope(self, peer: Peer) -> Envelope:
        """With the recipients that have been accepted so far."""
        mail = self.mail
        return Envelope(
            peer,
            mail.reverse_path,
            tuple(self.recipients),
            mail.declared_bytes,
            mail.eight_bit,
            mail.smtp_utf8,
        )


class RecipientAsked(Struct, eq=False):
    """Is this recipient taken? Answer with `ServerSession.answer`."""

    peer: Peer
    reverse_path: str
    address: str
    transaction: Transaction
    reply: bytes | None = None


class LoginAsked(Struct, eq=False):
    """Are these credentials good? Set `user` when they are, then `ServerSession.answer`."""

    peer: Peer
    credentials: Credentials
    user: Hashable | None = None
    reply: bytes | None = None


class TlsRequested(Struct, frozen=True):
    """220 was said to STARTTLS: write the output, do the handshake, then call `tls_started`."""


Question: TypeAlias = RecipientAsked | MessageReceived | LoginAsked
Event: TypeAlias = RecipientAsked | MessageReceived | LoginAsked | TlsRequested
