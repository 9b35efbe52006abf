"""Mail addresses: the envelope's (RFC 5321 section 4.1.2) and the headers' (RFC 5322 section 3.4).

One grammar for both: a local part is a dot-atom or a quoted string, a domain is host name labels,
an internationalised name (RFC 6531, IDNA 2008 with the mapping of UTS 46) or an address literal
(RFC 5321 section 4.1.3). Obsolete forms with white space or comments inside an address, or quoted
words joined by dots (RFC 5322 section 4.4), are refused: nothing sends them but attackers.

Work is linear in the text, which is bounded. CR, LF, NUL and other controls are always refused, so
that an address can be written into a header or a command as it is.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

import idna

from mailyard.core import limits
from mailyard.core.errors import InvalidInput

_ATEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\-"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
PLAIN = rf"[{_ATEXT}]+(?:\.[{_ATEXT}]+)*@{_LABEL}(?:\.{_LABEL})*"
"""A pattern: an address without quotes, literals and letters beyond ASCII."""
PLAIN_BYTES = limits.SMTP_LOCAL_PART_BYTES  # the shortest limit: with so many it breaks none

_PLAIN = re.compile(rf"([{_ATEXT}]+(?:\.[{_ATEXT}]+)*)@({_LABEL}(?:\.{_LABEL})*)")
_PLAIN_WHOLE = re.compile(PLAIN)
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_DOT_ATOM = re.compile(rf"[{_ATEXT}\u0080-\U0010ffff]+(?:\.[{_ATEXT}\u0080-\U0010ffff]+)*")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_WORD = re.compile(rf"[.{_ATEXT}\u0080-\U0010ffff]+")
_DOMAIN = re.compile(r"\[[^\[\]\\]*\]|[^\x00-\x20\x7f<>()@,;:\\\"\[\]]+")
_NAMED = re.compile(rf"({_WORD.pattern}(?: {_WORD.pattern})*) <([^<>]+)>")
_SPACE = re.compile(r"[ \t]+")
_SPECIAL_IN_COMMENT = re.compile(r"[()\\]")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_ROUTE = re.compile(r"@[^\x00-\x20<>()@,;:\\\"]+(?:,@[^\x00-\x20<>()@,;:\\\"]+)*:")


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A display name (as written, encoded words left alone; may be empty) and an address."""

    name: str
    address: str


def split_address(address: str) -> tuple[str, str]:
    """(local part, domain) of `address`, as written. Raises InvalidInput saying what is wrong."""
    plain = _PLAIN.fullmatch(address) if len(address) <= limits.SMTP_PATH_BYTES else None
    if plain is not None:
        local, domain = plain.groups()
    else:
        local, domain = _split_unusual(address)
        _check_domain(domain)
    if len(local.encode()) > limits.SMTP_LOCAL_PART_BYTES:
        raise InvalidInput(f"the part before @ is longer than {limits.SMTP_LOCAL_PART_BYTES} bytes")
    if len(domain) > limits.SMTP_DOMAIN_BYTES:
        raise InvalidInput(f"the domain is longer than {limits.SMTP_DOMAIN_BYTES} bytes")
    return local, domain


def normalise(address: str) -> str:
    """The one spelling under which `address` is stored, compared and counted.

    Lower-case domain in its ASCII form (IDNA), lower-case local part in NFC, no needless quoting.
    Raises InvalidInput.
    """
    if len(address) <= PLAIN_BYTES and _PLAIN_WHOLE.fullmatch(address):
        return address.lower()
    local, domain = split_address(address)
    if address.isascii() and local[0] != '"' and domain[0] != "[":
        return address.lower()
    if local[0] == '"':
        local = _ESCAPED.sub(r"\1", local[1:-1])
        if not _DOT_ATOM.fullmatch(local):
            local = _quote(local)
    return f"{unicodedata.normalize('NFC', local).lower()}@{ascii_domain(domain)}"


def domain_of(address: str) -> str:
    """The domain of `address`, lower-case and in its ASCII form. Raises InvalidInput."""
    return ascii_domain(split_address(address)[1])


def ascii_domain(domain: str) -> str:
    """`domain` as DNS and peers without SMTPUTF8 know it: A-labels, lower case (RFC 5890)."""
    if domain.isascii():
        return f"[{_literal(domain)}]" if domain.startswith("[") else domain.lower()
    try:
        return idna.encode(domain, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError) as error:
        raise InvalidInput(f"{_shown(domain)} is not a domain name: {error}") from None


def parse_mailbox(text: str) -> Mailbox:
    """`Ada <ada@example.com>`, `ada@example.com (Ada)` or a bare address. Raises InvalidInput."""
    # Nearly all are words before a plain address, or that alone: no need to read them in steps.
    named = _NAMED.fullmatch(text) if len(text) <= limits.SMTP_PATH_BYTES else None
    name, address = named.groups() if named is not None else ("", text)
    if _PLAIN.fullmatch(address):
        split_address(address)
        return Mailbox(name, address)
    scanner = _Scanner(_bounded(text))
    mailbox = scanner.mailbox()
    scanner.skip()
    if scanner.at < len(text):
        raise scanner.expected("the end of the address")
    return mailbox


def parse_mailbox_list(text: str) -> list[Mailbox]:
    """The mailboxes of a To or From value in order, groups flattened. Raises InvalidInput."""
    return list(_Scanner(_bounded(text)).mailboxes())


def _bounded(text: str) -> str:
    if len(text) > limits.MIME_HEADER_BYTES:
        raise InvalidInput(f"longer than {limits.MIME_HEADER_BYTES} characters")
    if _CONTROL.search(text):
        raise InvalidInput("a control character in an address")
    return text


def _split_unusual(address: str) -> tuple[str, str]:
    if not address:
        raise InvalidInput("an address is missing")
    if len(address) > limits.SMTP_PATH_BYTES:
        raise InvalidInput(f"the address is longer than {limits.SMTP_PATH_BYTES} characters")
    if not address.isprintable():
        raise InvalidInput(f"{_shown(address)} contains a control character")
    quoted = _QUOTED.match(address)
    local, at, domain = (
        (quoted.group(), address[quoted.end() : quoted.end() + 1], address[quoted.end() + 1 :])
        if quoted
        else address.partition("@")
    )
    if at != "@":
        raise InvalidInput(f"{_shown(address)} has no @ after its first part")
    if not quoted and not _DOT_ATOM.fullmatch(local):
        raise InvalidInput(f"the part before @ of {_shown(address)} is not a word, a dot, a word …")
    return local, domain


def _check_domain(domain: str) -> None:
    if not domain:
        raise InvalidInput("the domain after @ is missing")
    if domain.startswith("["):
        _literal(domain)
        return
    if not _HOST.fullmatch(domain if domain.isascii() else ascii_domain(domain)):
        raise InvalidInput(f"{_shown(domain)} is not a domain name")


def _literal(domain: str) -> str:
    """The inside of an address literal in its canonical spelling (RFC 5321 section 4.1.3)."""
    inside = domain[1:-1]
    try:
        if not domain.endswith("]"):
            raise AddressValueError("it is not closed")
        if inside[:5].lower() == "ipv6:" and "%" not in inside:
            return f"ipv6:{IPv6Address(inside[5:])}"
        return str(IPv4Address(inside))
    except AddressValueError:
        raise InvalidInput(f"{_shown(domain)} is not an address literal") from None


def _quote(text: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")


class _Scanner:
    """Reads a header value from left to right; `at` only grows."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def expected(self, what: str) -> InvalidInput:
        found = self.text[self.at : self.at + 61]
        return InvalidInput(f"expected {what}, found {_shown(found) if found else 'the end'}")

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def mailboxes(self) -> Iterator[Mailbox]:
        """mailbox *("," mailbox), groups allowed and flattened, empty elements passed over."""
        in_group = False
        while True:
            self.skip()
            mark = self.peek()
            if mark == ",":
                self.at += 1
            elif mark == ";" and in_group:
                self.at += 1
                in_group = False
            elif not mark:
                if in_group:
                    raise self.expected("; after a group")
                return
            elif not in_group and self.group_begins():
                in_group = True
            else:
                mailbox = self.mailbox()
                self.skip()
                if self.peek() not in ("", ",", ";" if in_group else ","):
                    raise self.expected(", between addresses")
                yield mailbox

    def group_begins(self) -> bool:
        """Pass over `name:` when that is what comes next."""
        start = self.at
        if self.words() and self.peek() == ":":
            self.at += 1
            return True
        self.at = start
        return False

    def mailbox(self) -> Mailbox:
        self.skip()
        words = self.words()
        mark = self.peek()
        if mark == "<":
            return Mailbox(" ".join(_plain_word(word) for word in words), self.angle())
        if mark == "@" and len(words) == 1 and self.text.endswith(words[0], 0, self.at):
            start = self.at - len(words[0])
            return Mailbox("", self.address(start))
        raise self.expected("an address")

    def words(self) -> list[str]:
        """Atoms and quoted strings, as written. Stops at an @ or right after white space."""
        words: list[str] = []
        while True:
            word = (_QUOTED if self.peek() == '"' else _WORD).match(self.text, self.at)
            if word is None:
                return words
            words.append(word.group())
            self.at = word.end()
            if self.peek() == "@":
                return words
            self.skip()

    def angle(self) -> str:
        """`<address>`, with a source route passed over (RFC 5321 appendix C)."""
        self.at += 1
        self.skip()
        route = _ROUTE.match(self.text, self.at)
        if route is not None:
            self.at = route.end()
        start = self.at
        local = (_QUOTED if self.peek() == '"' else _WORD).match(self.text, start)
        if local is None:
            raise self.expected("an address")
        self.at = local.end()
        address = self.address(start)
        self.skip()
        if self.peek() != ">":
            raise self.expected(">")
        self.at += 1
        return address

    def address(self, start: int) -> str:
        """The address that began at `start`; `at` is at its @."""
        if self.peek() != "@":
            raise self.expected("@")
        domain = _DOMAIN.match(self.text, self.at + 1)
        if domain is None:
            self.at += 1
            raise self.expected("a domain")
        self.at = domain.end()
        address = self.text[start : self.at]
        split_address(address)
        return address

    def skip(self) -> None:
        """White space and comments, which nest (RFC 5322 section 3.2.2)."""
        depth = 0
        text = self.text
        while self.at < len(text):
            if depth == 0:
                space = _SPACE.match(text, self.at)
                if space is not None:
                    self.at = space.end()
                elif text[self.at] == "(":
                    depth = 1
                    self.at += 1
                else:
                    return
                continue
            special = _SPECIAL_IN_COMMENT.search(text, self.at)
            if special is None:
                break
            mark = special.group()
            depth += (mark == "(") - (mark == ")")
            self.at = special.end() + (mark == "\\")
        if depth:
            self.at = len(text)
            raise self.expected(") after a comment")


def _plain_word(word: str) -> str:
    return _ESCAPED.sub(r"\1", word[1:-1]) if word.startswith('"') else word
