"""The AUTH exchange (RFC 4954): PLAIN (RFC 4616), and LOGIN as old clients speak it.

    exchange, outcome = begin("PLAIN AGFkYQBteV8u")     # what follows `AUTH `
    while isinstance(outcome, Challenge): ...           # say 334, read a line
        outcome = exchange.line(line)

The outcome is a Challenge, Credentials, or Refused is raised: the exchange is over then.
"""

import binascii
from base64 import b64encode

from msgspec import Struct

from mailyard.protocol.smtp.command import Refused
from mailyard.protocol.smtp.reply import Reply

MECHANISMS = ("PLAIN", "LOGIN")

_BAD_BASE64 = Reply(501, "5.5.2", "Not base64")
_CANCELLED = Reply(501, "5.7.0", "Authentication cancelled")
_BAD_PLAIN = Reply(501, "5.5.2", "PLAIN is: authorization id, NUL, name, NUL, password")
_UNKNOWN = Reply(504, "5.5.4", f"Mechanism not known; there are {', '.join(MECHANISMS)}")
_TWICE_NAMED = Reply(535, "5.7.8", "Acting for somebody else is not possible")


class Credentials(Struct, frozen=True):
    """What was shown. The password is not in the repr."""

    name: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials(name={self.name!r})"


class Challenge(Struct, frozen=True):
    """Say 334 with this, already in base64."""

    text: str

    def encode(self) -> bytes:
        return f"334 {self.text}\r\n".encode("ascii")


_CONTINUE = Challenge("")
_NAME = Challenge(b64encode(b"Username:").decode("ascii"))
_PASSWORD = Challenge(b64encode(b"Password:").decode("ascii"))


class Exchange:
    """One AUTH command after its first line."""

    __slots__ = ("_name", "_plain")

    def __init__(self, *, plain: bool) -> None:
        self._plain = plain
        self._name: str | None = None

    def line(self, line: bytes) -> Challenge | Credentials:
        """The client's next line, without its CRLF. Raises Refused."""
        if line == b"*":
            raise Refused(_CANCELLED)
        return self.response(_decoded(line))

    def response(self, response: bytes) -> Challenge | Credentials:
        """The same, decoded."""
        if self._plain:
            return _plain(response)
        if self._name is None:
            self._name = _text(response)
            return _PASSWORD
        return Credentials(self._name, _text(response))


def begin(argument: str) -> tuple[Exchange, Challenge | Credentials]:
    """What follows `AUTH `: a mechanism and perhaps its first response. Raises Refused."""
    mechanism, _, initial = argument.strip(" ").partition(" ")
    if mechanism.upper() not in MECHANISMS:
        raise Refused(_UNKNOWN)
    plain = mechanism.upper() == "PLAIN"
    exchange = Exchange(plain=plain)
    if not initial:
        return exchange, _CONTINUE if plain else _NAME
    # "=" is an initial response that is empty (RFC 4954 section 4).
    response = b"" if initial == "=" else _decoded(initial.encode("utf-8"))
    return exchange, exchange.response(response)


def _plain(response: bytes) -> Credentials:
    pieces = response.split(b"\0")
    if len(pieces) != 3:
        raise Refused(_BAD_PLAIN)
    acting_for, name, password = map(_text, pieces)
    if acting_for not in ("", name):
        raise Refused(_TWICE_NAMED)
    return Credentials(name, password)


def _decoded(text: bytes) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        raise Refused(_BAD_BASE64) from None


def _text(response: bytes) -> str:
    try:
        return response.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused(_BAD_BASE64) from None
