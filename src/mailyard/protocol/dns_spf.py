"""An SPF record as its domain's owner must get it right (RFC 7208): grammar, cost, what it allows.

This does not evaluate SPF for a received mail; it reads a record, follows what it includes and says
what a receiver would stumble over. No DNS here: `spf_walk` is a generator that yields questions and
is sent their answers.

    walk = spf_walk("example.org")
    question = next(walk)
    try:
        while True:
            question = walk.send(answer_to(question))
    except StopIteration as end:
        report = end.value
"""

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, TypeAlias

from mailyard.core.errors import InvalidInput
from mailyard.protocol.dns_answer import (
    Answer,
    MxRecord,
    NoName,
    NoRecords,
    Result,
    TemporaryFailure,
)

LOOKUPS = 10  # section 4.6.4: terms that ask DNS, over all included records
VOID_LOOKUPS = 2  # section 4.6.4: of them that find nothing
MX_HOSTS = 10  # section 4.6.4: per `mx`
QUESTIONS = 60  # followed here: enough to tell by how much a record is over
RECORD_CHARACTERS = 4_096
TERMS = 300
_DEPTH = 12  # of includes; ten already break the limit

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


class SpfAsk(Enum):
    """What a walk wants to know of a name."""

    TXT = "TXT"
    MX = "MX"
    ADDRESSES = "A and AAAA"


@dataclass(frozen=True, slots=True)
class SpfQuestion:
    """The answer is a Result of str, MxRecord or Address, by `kind`."""

    name: str
    kind: SpfAsk


@dataclass(frozen=True, slots=True)
class SpfReport:
    """What a walk found.

    `found`: the SPF records at the domain itself, as text. `costs`: lookups by term of the domain's
    own record. `passing`: every term that makes a receiver pass, of this record and of those it
    includes, as `name:value`. `problems`: in words, each a reason for permerror; `warnings` are
    not. `unknown`: names that could not be asked about now.
    """

    domain: str
    found: tuple[str, ...]
    record: SpfRecord | None
    lookups: int
    voids: int
    costs: tuple[tuple[str, int], ...]
    passing: frozenset[str]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    unknown: tuple[str, ...]

    def allows(self, term: str) -> bool:
        """Whether `term` (`include:name`, `ip4:network` or `ip6:network`) is among what passes."""
        wanted = _normal(term)
        if wanted in self.passing:
            return True
        kind, _, value = wanted.partition(":")
        if kind not in ("ip4", "ip6"):
            return False
        return any(_holds(one.partition(":")[2], value) for one in self.passing if one[:3] == kind)


SpfWalk: TypeAlias = Generator[SpfQuestion, Result[Any], SpfReport]


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


def spf_walk(domain: str) -> SpfWalk:
    """Read the record of `domain` and of all that it includes; see the module's text."""
    walk = _Walk()
    result = yield SpfQuestion(domain, SpfAsk.TXT)
    texts = _spf_texts(result)
    record = walk.read(domain, result)
    if record is not None:
        yield from walk.follow(domain, record, (domain,), passes=True)
    if walk.lookups > LOOKUPS:
        costly = ", ".join(f"{term} costs {cost}" for term, cost in walk.costs[:5])
        walk.problems.insert(
            0,
            f"it needs {walk.lookups} DNS lookups where receivers stop at {LOOKUPS}: {costly}",
        )
    if walk.voids > VOID_LOOKUPS:
        walk.problems.append(
            f"{walk.voids} of its terms find nothing in DNS, receivers stop after {VOID_LOOKUPS}"
        )
    return SpfReport(
        domain,
        texts,
        record,
        walk.lookups,
        walk.voids,
        tuple(sorted(walk.costs, key=lambda cost: -cost[1])),
        frozenset(walk.passing),
        tuple(dict.fromkeys(walk.problems)),
        tuple(dict.fromkeys(walk.warnings)),
        tuple(walk.unknown),
    )


@dataclass(slots=True)
class _Walk:
    """What has been counted so far."""

    lookups: int = 0
    voids: int = 0
    asked: int = 0
    costs: list[tuple[str, int]] = field(default_factory=list)
    passing: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def read(self, domain: str, result: Result[Any]) -> SpfRecord | None:
        """The one record of `domain`, or None with the reason noted."""
        if isinstance(result, TemporaryFailure):
            self.unknown.append(domain)
            return None
        texts = _spf_texts(result)
        if len(texts) != 1:
            many = f"{len(texts)} SPF records, where one may stand" if texts else "no SPF record"
            self.problems.append(f"{domain} has {many}")
            return None
        try:
            return parse_spf(texts[0])
        except InvalidInput as error:
            self.problems.append(f"the SPF record of {domain}: {error.message}")
            return None

    def follow(
        self, domain: str, record: SpfRecord, path: tuple[str, ...], *, passes: bool
    ) -> Generator[SpfQuestion, Result[Any], None]:
        """Count the terms of `record`. `path`: the domains on the way here, this one last."""
        for term in record.terms:
            before = self.lookups
            if term.asks and (term.qualifier or record.redirect is not None):
                self.lookups += 1
                yield from self.ask(domain, term, path, passes)
            if passes and term.qualifier == "+":
                self.passing.add(_normal(f"{term.name}:{term.value}" if term.value else term.name))
            if len(path) == 1 and self.lookups > before:
                self.costs.append((term.text, self.lookups - before))
            if term.name == "all" and term.qualifier:
                return  # nothing behind it is looked at (section 5.1)

    def ask(
        self, domain: str, term: SpfTerm, path: tuple[str, ...], passes: bool
    ) -> Generator[SpfQuestion, Result[Any], None]:
        """Put the question of one term, and follow where it leads."""
        name = (term.value or domain).lower().rstrip(".")
        if term.name == "ptr":
            self.warnings.append(f"{domain} uses ptr, which receivers may ignore (section 5.5)")
            return
        if "%" in name:
            return  # depends on the mail: counted, but nobody can follow it beforehand
        if term.name in ("include", "redirect"):
            yield from self.into(name, term, path, passes)
            return
        kind = SpfAsk.MX if term.name == "mx" else SpfAsk.ADDRESSES
        result = yield from self.question(name, kind)
        if isinstance(result, NoName | NoRecords):
            self.voids += 1
            self.warnings.append(f"{term.text} of {domain} finds nothing in DNS")
        if isinstance(result, Answer) and kind is SpfAsk.MX:
            hosts = sum(isinstance(record, MxRecord) for record in result.records)
            if hosts > MX_HOSTS:
                self.problems.append(
                    f"{name} has {hosts} MX hosts, {term.text} may have {MX_HOSTS}"
                )

    def into(
        self, name: str, term: SpfTerm, path: tuple[str, ...], passes: bool
    ) -> Generator[SpfQuestion, Result[Any], None]:
        """Go into another domain's record."""
        if name in path:
            self.problems.append(f"{' includes '.join([*path, name])}: it never ends")
            return
        if len(path) >= _DEPTH:
            return
        result = yield from self.question(name, SpfAsk.TXT)
        if result is None:
            return
        if isinstance(result, NoName | NoRecords):
            self.voids += 1
        record = self.read(name, result)
        if record is not None:
            inside = passes and term.qualifier in ("+", "")
            yield from self.follow(name, record, (*path, name), passes=inside)

    def question(
        self, name: str, kind: SpfAsk
    ) -> Generator[SpfQuestion, Result[Any], Result[Any] | None]:
        """The answer, or None when no more may be asked."""
        if self.asked >= QUESTIONS:
            return None
        self.asked += 1
        result = yield SpfQuestion(name, kind)
        if isinstance(result, TemporaryFailure) and kind is not SpfAsk.TXT:
            self.unknown.append(name)
        return result


def _spf_texts(result: Result[Any]) -> tuple[str, ...]:
    if not isinstance(result, Answer):
        return ()
    return tuple(text for text in result.records if is_spf(text))


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


def _normal(term: str) -> str:
    """One spelling: lower case, networks in their canonical form, hosts with full prefix."""
    kind, colon, value = term.lower().removeprefix("+").partition(":")
    if kind in ("ip4", "ip6"):
        try:
            return f"{kind}:{ip_network(value, strict=False)}"
        except ValueError:
            return term
    return f"{kind}{colon}{value.rstrip('.')}"


def _holds(outer: str, inner: str) -> bool:
    try:
        one, other = ip_network(outer), ip_network(inner)
    except ValueError:
        return False
    if isinstance(one, IPv4Network) and isinstance(other, IPv4Network):
        return other.subnet_of(one)
    return isinstance(one, IPv6Network) and isinstance(other, IPv6Network) and other.subnet_of(one)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")


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
        if not any(_normal(one) == _normal(text) for text in kept):
            kept.setdefault(one)
    end = next((f"{one}all" for one in "-~?" if one in ends), "~all")
    if not ends and "redirect" in once:
        end = once["redirect"]
    explanation = [once["exp"]] if "exp" in once else []
    return " ".join(["v=spf1", *kept, end, *explanation])
