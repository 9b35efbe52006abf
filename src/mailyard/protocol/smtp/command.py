"""The arguments of MAIL, RCPT and BDAT (RFC 5321 sections 4.1.1.2, 4.1.1.3; RFC 3030).

Liberal in one thing that every server grants: a space after the colon. Strict in the rest.
"""

import re
from functools import lru_cache

from msgspec import Struct

from mailyard.core.errors import InvalidInput, MailyardError
from mailyard.protocol.address import PLAIN, PLAIN_BYTES, split_address
from mailyard.protocol.smtp.reply import Reply

_PATH = r'<((?:"(?:[^"\\]|\\.)*"|[^<>\s"\\])*)>'
_MAIL = re.compile(rf"FROM: ?{_PATH}(?: +(\S.*))?", re.IGNORECASE)
_RCPT = re.compile(rf"TO: ?{_PATH}(?: +(\S.*))?", re.IGNORECASE)
# What nearly all say, read in one go.
_PLAIN_MAIL = re.compile(rf"[Ff][Rr][Oo][Mm]:<({PLAIN})>(?: (\S.*))?")
_PLAIN_RCPT = re.compile(rf"[Tt][Oo]:<({PLAIN})>")
_ROUTE = re.compile(r"(?:@[^,:@]+,)*@[^,:@]+:")
_SIZE = re.compile(r"[0-9]{1,20}")
_BDAT = re.compile(r"([0-9]{1,20})( +LAST)? *", re.IGNORECASE | re.ASCII)

_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")  # RFC 3461 section 4

_SYNTAX = "5.5.4"


class Refused(MailyardError):
    """A command that cannot be taken, with the reply that says why."""

    code = "smtp_refused"
    status = 422

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.text)
        self.reply = reply


class MailCommand(Struct, frozen=True):
    """MAIL FROM with its parameters."""

    reverse_path: str
    declared_bytes: int | None
    eight_bit: bool
    smtp_utf8: bool


class _Parameters(Struct, frozen=True):
    """Those of MAIL."""

    declared_bytes: int | None = None
    eight_bit: bool = False
    smtp_utf8: bool = False


_NO_PARAMETERS = _Parameters()


def parse_mail(argument: str, submission: bool = False) -> MailCommand:
    """What follows `MAIL `. Raises Refused.

    With `submission` the AUTH parameter is taken (RFC 4954 section 5), and not believed.
    """
    plain = _PLAIN_MAIL.fullmatch(argument)
    if plain is not None:
        path, text = plain.groups()
        if len(path) <= PLAIN_BYTES:
            said = _parameters(text, submission) if text else _NO_PARAMETERS
            return MailCommand(path, said.declared_bytes, said.eight_bit, said.smtp_utf8)
    match = _MAIL.fullmatch(argument.rstrip(" "))
    if match is None:
        raise Refused(Reply(501, _SYNTAX, "Syntax: MAIL FROM:<address>"))
    path, text = match.groups()
    said = _parameters(text, submission) if text else _NO_PARAMETERS
    if path:
        path = _checked(path, said.smtp_utf8, "5.1.7")
    return MailCommand(path, said.declared_bytes, said.eight_bit, said.smtp_utf8)


@lru_cache(maxsize=256)  # paths are many, parameters are few
def _parameters(text: str, submission: bool) -> _Parameters:
    declared_bytes: int | None = None
    eight_bit = smtp_utf8 = False
    for parameter in text.split():
        name, _, value = parameter.upper().partition("=")
        if name == "SIZE" and _SIZE.fullmatch(value) and declared_bytes is None:
            declared_bytes = int(value)
        elif name == "BODY" and value in ("7BIT", "8BITMIME"):
            eight_bit = value == "8BITMIME"
        elif name == "SMTPUTF8" and parameter.isalnum():
            smtp_utf8 = True
        elif name == "AUTH" and submission and _XTEXT.fullmatch(parameter[5:]):
            pass
        else:
            raise Refused(Reply(555, _SYNTAX, f"MAIL parameter not recognised: {parameter[:80]}"))
    return _Parameters(declared_bytes, eight_bit, smtp_utf8)


def parse_recipient(argument: str, smtp_utf8: bool, hostname: str) -> str:
    """The address in what follows `RCPT `. Raises Refused.

    `<postmaster>` without a domain is this host's (RFC 5321 section 4.5.1).
    """
    plain = _PLAIN_RCPT.fullmatch(argument)
    if plain is not None and len(plain[1]) <= PLAIN_BYTES:
        return plain[1]
    match = _RCPT.fullmatch(argument.rstrip(" "))
    if match is None:
        raise Refused(Reply(501, _SYNTAX, "Syntax: RCPT TO:<address>"))
    path, parameters = match.groups()
    if parameters:
        raise Refused(Reply(555, _SYNTAX, f"RCPT parameter not recognised: {parameters[:80]}"))
    if path.lower() == "postmaster":
        return f"{path}@{hostname}"
    return _checked(path, smtp_utf8, "5.1.3")


def parse_chunk(argument: str) -> tuple[int, bool]:
    """(octets, last) of what follows `BDAT `. Raises Refused."""
    match = _BDAT.fullmatch(argument)
    if match is None:
        raise Refused(Reply(501, _SYNTAX, "Syntax: BDAT octets [LAST]"))
    return int(match.group(1)), match.group(2) is not None


def _checked(path: str, smtp_utf8: bool, enhanced: str) -> str:
    if path.startswith("@"):  # a source route is accepted and ignored (RFC 5321 appendix C)
        route = _ROUTE.match(path)
        path = path[route.end() :] if route else path
    try:
        split_address(path)
    except InvalidInput as error:
        raise Refused(Reply(553, enhanced, f"Bad address: {error.message}")) from None
    if not smtp_utf8 and not path.isascii():
        raise Refused(Reply(553, "5.6.7", "Address needs SMTPUTF8"))
    return path
