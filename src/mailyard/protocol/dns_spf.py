"""An SPF record as its domain's owner must get it right (RFC 7208): its cost and what it allows.

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

from collections.abc import Generator
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, TypeAlias

from mailyard.core.errors import InvalidInput
from mailyard.protocol.dns_answer import (
    Answer,
    Ask,
    MxRecord,
    NoName,
    NoRecords,
    Question,
    Result,
    TemporaryFailure,
)
from mailyard.protocol.dns_spf_record import SpfRecord, SpfTerm, is_spf, normal, parse_spf

LOOKUPS = 10  # section 4.6.4: terms that ask DNS, over all included records
VOID_LOOKUPS = 2  # section 4.6.4: of them that find nothing
MX_HOSTS = 10  # section 4.6.4: per `mx`
QUESTIONS = 60  # followed here: enough to tell by how much a record is over
_DEPTH = 12  # of includes; ten already break the limit


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
        wanted = normal(term)
        if wanted in self.passing:
            return True
        kind, _, value = wanted.partition(":")
        if kind not in ("ip4", "ip6"):
            return False
        return any(_holds(one.partition(":")[2], value) for one in self.passing if one[:3] == kind)


SpfWalk: TypeAlias = Generator[Question, Result[Any], SpfReport]


def spf_walk(domain: str) -> SpfWalk:
    """Read the record of `domain` and of all that it includes; see the module's text."""
    walk = _Walk()
    result = yield Question(domain, Ask.TXT)
    texts = _spf_texts(result)
    record = walk.read(domain, result)
    if record is not None:
        yield from walk.follow(domain, record, (domain,), passes=True)
    costs = tuple(sorted(walk.costs, key=lambda cost: -cost[1]))
    if walk.lookups > LOOKUPS:
        costly = ", ".join(f"{term} costs {cost}" for term, cost in costs[:5])
        walk.problems.insert(
            0,
            f"it needs {walk.lookups} DNS lookups where receivers stop at {LOOKUPS}: {costly}. "
            "Leave out what no longer sends for this domain, or let it send for a subdomain",
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
        costs,
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
    ) -> Generator[Question, Result[Any], None]:
        """Count the terms of `record`. `path`: the domains on the way here, this one last."""
        for term in record.terms:
            before = self.lookups
            if term.asks and (term.qualifier or record.redirect is not None):
                self.lookups += 1
                yield from self.ask(domain, term, path, passes)
            if passes and term.qualifier == "+":
                self.passing.add(normal(f"{term.name}:{term.value}" if term.value else term.name))
            if len(path) == 1 and self.lookups > before:
                self.costs.append((term.text, self.lookups - before))
            if term.name == "all" and term.qualifier:
                return  # nothing behind it is looked at (section 5.1)

    def ask(
        self, domain: str, term: SpfTerm, path: tuple[str, ...], passes: bool
    ) -> Generator[Question, Result[Any], None]:
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
        ask = Ask.MX if term.name == "mx" else Ask.ADDRESSES
        result = yield from self.question(name, ask)
        if isinstance(result, NoName | NoRecords):
            self.voids += 1
            self.warnings.append(f"{term.text} of {domain} finds nothing in DNS")
        if isinstance(result, Answer) and ask is Ask.MX:
            hosts = sum(isinstance(record, MxRecord) for record in result.records)
            if hosts > MX_HOSTS:
                self.problems.append(
                    f"{name} has {hosts} MX hosts, {term.text} may have {MX_HOSTS}"
                )

    def into(
        self, name: str, term: SpfTerm, path: tuple[str, ...], passes: bool
    ) -> Generator[Question, Result[Any], None]:
        """Go into another domain's record."""
        if name in path:
            self.problems.append(f"{' includes '.join([*path, name])}: it never ends")
            return
        if len(path) >= _DEPTH:
            return
        result = yield from self.question(name, Ask.TXT)
        if result is None:
            return
        if isinstance(result, NoName | NoRecords):
            self.voids += 1
        record = self.read(name, result)
        if record is not None:
            inside = passes and term.qualifier in ("+", "")
            yield from self.follow(name, record, (*path, name), passes=inside)

    def question(self, name: str, ask: Ask) -> Generator[Question, Result[Any], Result[Any] | None]:
        """The answer, or None when no more may be asked."""
        if self.asked >= QUESTIONS:
            return None
        self.asked += 1
        result = yield Question(name, ask)
        if isinstance(result, TemporaryFailure) and ask is not Ask.TXT:
            self.unknown.append(name)
        return result


def _spf_texts(result: Result[Any]) -> tuple[str, ...]:
    if not isinstance(result, Answer):
        return ()
    return tuple(text for text in result.records if is_spf(text))


def _holds(outer: str, inner: str) -> bool:
    try:
        one, other = ip_network(outer), ip_network(inner)
    except ValueError:
        return False
    if isinstance(one, IPv4Network) and isinstance(other, IPv4Network):
        return other.subnet_of(one)
    return isinstance(one, IPv6Network) and isinstance(other, IPv6Network) and other.subnet_of(one)
