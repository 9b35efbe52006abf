"""The port that the listener asks: is this recipient ours, is this message safely stored?

Both answers may be a Reply at once, a Later, or any awaitable. A Later costs the listener a call,
an awaitable a task; on the hot path prefer the first two. The session keeps order, so several
questions of one session may be outstanding.

Raising `Unavailable` (or any other error) makes the answer 451: the peer keeps the mail.
"""

from collections.abc import Awaitable
from typing import Protocol

from mailyard.protocol.smtp.envelope import Envelope, Peer
from mailyard.protocol.smtp.reply import Reply
from mailyard.protocol.smtp.session import LoginAsked
from mailyard.receiving.later import Later


class SessionHandler(Protocol):
    """What decides for a listener's sessions."""

    def accept_recipient(
        self, peer: Peer, reverse_path: str, address: str
    ) -> Reply | Later | Awaitable[Reply]:
        """The answer to RCPT: 250, or 4yz/5yz."""
        ...

    def accept_message(
        self, envelope: Envelope, content: bytes
    ) -> Reply | Later | Awaitable[Reply]:
        """The answer after the last byte of a message. 250 means durable.

        `content` has CRLF line ends only, ends with CRLF (unless it came empty or by BDAT without)
        and is not dot-stuffed.
        """
        ...


class LoginHandler(Protocol):
    """What decides who may sign in, where mail is submitted (RFC 6409)."""

    def authenticate(self, question: LoginAsked) -> Reply | Later | Awaitable[Reply]:
        """The answer to AUTH: 235 with `question.user` set, else 4yz/5yz."""
        ...
