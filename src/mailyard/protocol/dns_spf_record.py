"""The grammar of SPF records (RFC 7208 section 12), and how to write a better one.

Errors say which term is wrong and what was probably meant: they are read by who owns the domain.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from mailyard.core.errors import InvalidInput

RECORD_CHARACTERS = 4_096
TERMS = 300

_EXPANDED = r"(?:0*[1-9][0-9]{0,2})?[rR]?[.\-+,/_=]*\}"
_LITERAL = r"[\x21-\x24\x26-\x7e]"
_MACRO = rf"%(?:\{{[slodiphvSLODIPHV]{_EXPANDED}|[%_\-])"  # c, r, t: explanations only (7.2)
_MACRO_STRING = re.compile(rf"(?:{_MACRO}|{_LITERAL})*")
_MACRO_END = re.compile(rf"{_MACRO}\Z")
_ANY_MACRO_STRING = re.compile(rf"(?:%(?:\{{[A-Za-z]{_EXPANDED}|[%_\-])|{_LITERAL})*")
_TOP_LABEL = re.compile(
    r"\.(?:[A-Za-z0-9]*[A-Za-z][A-Za-z0-9]*|[A-Za-z0-9]+-[A-Za-z0-9-]*[A-Za-z0-9])\.?\Z"
)
_TERM = re.compile(r"([+\-?~]?)([A-Za-z][A-Za-z0-9_.\-]*)(.*)", re.DOTALL)
_CIDR = re.compile(r"(?:/(0|[1-9][0-9]?))?(?://(0|[1-9][0-9]{0,2}))?\Z")
_DOMAIN_NEEDED = ("include", "exists")
_ASKING = ("include", "a", "mx", "ptr", "exists")

# What people write instead of what the grammar wants.
_MEANT = {"ip": "ip4", "ipv4": "ip4", "ipv6": "ip6", "includes": "include"}


@dataclass(frozen=True, slots=True)
class SpfTerm:
    """One term. `value`: domain-spec or network, '' when there is none; `text`: as written.

    Mechanisms have a qualifier (+ when none is written), modifiers have ''.
    """

    qualifier: str
    name: str
    value: str
    text: str

    @property
    def asks(self) -> bool:
        """Whether it counts among the LOOKUPS."""
        return self.name == "redirect" if not self.qualifier else self.name in _ASKING

    @property
    def prefixes(self) -> tuple[int, int]:
        """The bits of an IPv4 and of an IPv6 address that `a` and `mx` compare (section 5.6)."""
        cidr = _CIDR.search(self.text)
        four, six = cidr.groups() if cidr is not None else (None, None)
        return int(four or 32), int(six or 128)


@dataclass(frozen=True, slots=True)
class SpfRecord:
    """A record that follows the grammar, in the order of its terms."""

    terms: tuple[SpfTerm, ...]

    @property
    def all_qualifier(self) -> str | None:
        """The qualifier of `all`, None when it does not stand there."""
        return next((term.qualifier for term in self.terms if term.name == "all"), None)

    @property
    def redirect(self) -> str | None:
        """Where the record goes on; ignored beside `all` (section 6.1)."""
        if self.all_qualifier is not None:
            return None
        return next((term.value for term in self.terms if term.name == "redirect"), None)


def is_spf(text: str) -> bool:
    """Whether a TXT record is an SPF record: its version is exactly v=spf1 (section 4.5)."""
    return text.lower() == "v=spf1" or text[:7].lower() == "v=spf1 "


def parse_spf(text: str) -> SpfRecord:
    """The record's terms. Raises InvalidInput naming the first term that breaks the grammar
    (section 12) and, where it can be guessed, what was meant."""
    if len(text) > RECORD_CHARACTERS:
        raise InvalidInput(f"the SPF record is longer than {RECORD_CHARACTERS} characters")
    if not is_spf(text):
        raise InvalidInput("an SPF record begins with 'v=spf1' and a space")
    words = [word for word in text[6:].split(" ") if word]
    if len(words) > TERMS:
        raise InvalidInput(f"the SPF record has more than {TERMS} terms")
    terms = tuple(map(_term, words))
    for name in ("redirect", "exp"):
        if sum(term.name == name and not term.qualifier for term in terms) > 1:
            raise InvalidInput(f"{name}= stands more than once; it may stand once (section 6)")
    return SpfRecord(terms)


def merged(texts: Sequence[str], wanted: Sequence[str]) -> str:
    """One record to write in place of `texts`: their terms in order, `wanted` before `all`.

    The strictest `all` stays, ~all when there was none; `+all` is never kept. Terms that break
    the grammar are left out.
    """
    kept: dict[str, None] = {}
    ends: list[str] = []
    once: dict[str, str] = {}
    for word in (word for text in texts for word in text[6:].split(" ") if word):
        try:
            term = _term(word)
        except InvalidInput:
            continue
        if term.name == "all" and term.qualifier:
            ends.append(term.qualifier)
        elif not term.qualifier and term.name in ("redirect", "exp"):
            once.setdefault(term.name, term.text)
        else:
            kept.setdefault(term.text)
    for one in wanted:
        if not any(normal(one) == normal(text) for text in kept):
            kept.setdefault(one)
    end = next((f"{one}all" for one in "-~?" if one in ends), "~all")
    if not ends and "redirect" in once:
        end = once["redirect"]
    explanation = [once["exp"]] if "exp" in once else []
    return " ".join(["v=spf1", *kept, end, *explanation])


def normal(term: str) -> str:
    """One spelling: lower case, networks in their canonical form, hosts with full prefix."""
    kind, colon, value = term.lower().removeprefix("+").partition(":")
    if kind in ("ip4", "ip6"):
        try:
            return f"{kind}:{ip_network(value, strict=False)}"
        except ValueError:
            return term
    return f"{kind}{colon}{value.rstrip('.')}"


def _term(word: str) -> SpfTerm:
    match = _TERM.fullmatch(word)
    if match is None:
        raise InvalidInput(f"{_shown(word)} is no term of an SPF record")
    qualifier, name, rest = match[1], match[2].lower(), match[3]
    if rest.startswith("="):
        return _modifier(word, qualifier, name, rest[1:])
    value = rest[1:] if rest.startswith(":") else rest
    if name in ("ip4", "ip6"):
        _check_network(word, name, value, rest.startswith(":"))
    elif name == "all":
        if rest:
            raise InvalidInput(f"{_shown(word)}: all takes no value")
    elif name in ("a", "mx"):
        value = _check_host(word, rest)
    elif name in ("include", "exists", "ptr"):
        if rest and not rest.startswith(":"):
            raise InvalidInput(f"{_shown(word)}: write {name}:domain")
        if rest or name in _DOMAIN_NEEDED:
            _check_domain(word, value)
    else:
        meant = _MEANT.get(name)
        hint = f"; write {meant}" if meant else ""
        raise InvalidInput(f"{_shown(word)}: SPF knows no {name!r}{hint}")
    return SpfTerm(qualifier or "+", name, value, word)


def _modifier(word: str, qualifier: str, name: str, value: str) -> SpfTerm:
    if qualifier or name in ("all", *_ASKING, "ip4", "ip6"):
        raise InvalidInput(f"{_shown(word)}: {name} is written with a colon and not with =")
    if name in ("redirect", "exp"):
        _check_domain(word, value)
    elif name == "v" or not _ANY_MACRO_STRING.fullmatch(value):
        raise InvalidInput(f"{_shown(word)} is no term of an SPF record")
    return SpfTerm("", name, value, word)


def _check_network(word: str, name: str, value: str, colon: bool) -> None:
    network = IPv4Network if name == "ip4" else IPv6Network
    address, slash, prefix = value.partition("/")
    try:
        if not colon or not value or "%" in value:
            raise ValueError
        if slash and not re.fullmatch(r"0|[1-9][0-9]{0,2}", prefix):
            raise ValueError
        network(f"{address}/{prefix}" if slash else address, strict=False)
    except ValueError:
        example = "ip4:192.0.2.0/24" if name == "ip4" else "ip6:2001:db8::/32"
        raise InvalidInput(f"{_shown(word)} names no network; write one like {example}") from None


def _check_host(word: str, rest: str) -> str:
    """The domain of `a` or `mx`, '' when there is none."""
    cidr = _CIDR.search(rest)
    if cidr is None or (cidr[1] and int(cidr[1]) > 32) or (cidr[2] and int(cidr[2]) > 128):
        raise InvalidInput(f"{_shown(word)}: no prefix length like /24 or //64")
    domain = rest[: cidr.start()]
    if not domain:
        return ""
    if not domain.startswith(":"):
        raise InvalidInput(f"{_shown(word)}: write {word[:1]}:domain")
    _check_domain(word, domain[1:])
    return domain[1:]


def _check_domain(word: str, value: str) -> None:
    """domain-spec of section 7.1: ends with a label that is no number, or with a macro."""
    if not _MACRO_STRING.fullmatch(value):
        raise InvalidInput(f"{_shown(word)}: a macro or a character that cannot stand there")
    if not (_TOP_LABEL.search(value) or _MACRO_END.search(value)):
        raise InvalidInput(f"{_shown(word)}: {_shown(value)} is no domain")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")
