"""Signing in at a relay (RFC 4954): PLAIN (RFC 4616), LOGIN, XOAUTH2.

LOGIN has no standard (draft-murchison-sasl-login-00), XOAUTH2 is described by Google and Microsoft
(developers.google.com/gmail/imap/xoauth2-protocol): a 334 then carries the error, and wants an
empty answer before the refusal comes.
"""

from base64 import b64encode
from collections.abc import Iterator

from msgspec import Struct

PLAIN = "PLAIN"
LOGIN = "LOGIN"
XOAUTH2 = "XOAUTH2"
_BY_PASSWORD = (PLAIN, LOGIN)  # in the order of our choice
LINE_BYTES = 12_288  # RFC 4954 section 4: of AUTH with its initial response


class Login(Struct, frozen=True):
    """Who signs in. `secret` is a password, or an access token for XOAUTH2. Without a `mechanism`
    it is the first for passwords that the peer offers."""

    username: str
    secret: str
    mechanism: str = ""

    def __repr__(self) -> str:  # a secret is not for logs
        return f"Login({self.username!r}, mechanism={self.mechanism!r})"


def mechanism_for(login: Login, offered: str) -> str | None:
    """What to sign in by; None when the peer offers nothing that fits. `offered`: the words behind
    AUTH in its answer to EHLO."""
    words = offered.upper().split()
    wanted = (login.mechanism,) if login.mechanism else _BY_PASSWORD
    return next((one for one in wanted if one in words), None)


def lines_of(login: Login, mechanism: str) -> Iterator[bytes]:
    """The command, then an answer to each 334. It ends when nothing more is to be said."""
    if mechanism == PLAIN:
        response = _base64(f"\0{login.username}\0{login.secret}")
        yield from _with_initial(PLAIN, response)
    elif mechanism == LOGIN:
        yield b"AUTH LOGIN\r\n"
        yield _base64(login.username) + b"\r\n"
        yield _base64(login.secret) + b"\r\n"
    else:
        token = f"user={login.username}\x01auth=Bearer {login.secret}\x01\x01"
        yield from _with_initial(XOAUTH2, _base64(token))
        yield b"\r\n"


def _with_initial(mechanism: str, response: bytes) -> Iterator[bytes]:
    """The response with the command, or behind it where the line would be too long."""
    line = b"AUTH %b %b\r\n" % (mechanism.encode(), response)
    if len(line) <= LINE_BYTES:
        yield line
    else:
        yield b"AUTH %b\r\n" % mechanism.encode()
        yield response + b"\r\n"


def _base64(text: str) -> bytes:
    return b64encode(text.encode())
