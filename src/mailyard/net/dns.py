"""The resolver: every question that Mailyard puts to DNS, with a cache, bounds and closed answers.

    resolver = Resolver(servers, clock)
    result = await resolver.mx("example.org")     # Answer | NoName | NoRecords | TemporaryFailure

It is a stub over recursive servers. Nothing is raised for what DNS says or fails to say. The same
question asked by many at once goes out once, and goes on when one of them gives up. A server that
does not answer goes behind the others and is tried by one question at a time until it answers.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
from dns.rdatatype import RdataType

from mailyard.core.clock import Clock
from mailyard.core.errors import InvalidInput
from mailyard.core.limits import MIB
from mailyard.net.dns_cache import DnsCache
from mailyard.net.dns_exchange import Malformed, Unanswered, exchange
from mailyard.net.dns_read import AliasLoop, AskNext, Found, read, text_of
from mailyard.net.dns_servers import DnsServer
from mailyard.protocol.address import ascii_domain
from mailyard.protocol.dane import tlsa_name
from mailyard.protocol.dns_answer import (
    Address,
    Answer,
    Ask,
    MxRecord,
    NoName,
    NoRecords,
    Question,
    Result,
    TemporaryFailure,
    TlsaRecord,
    Trouble,
)

_AWAY_S = 30.0  # how long a server that failed stands behind the others before it is tried again

# Of several servers' troubles the one that says most about the name is told.
_TELLING = (
    Trouble.SERVER_FAILURE,
    Trouble.MALFORMED,
    Trouble.REFUSED,
    Trouble.TIMEOUT,
    Trouble.UNREACHABLE,
)

_KIND = {
    Ask.A: RdataType.A,
    Ask.AAAA: RdataType.AAAA,
    Ask.MX: RdataType.MX,
    Ask.TXT: RdataType.TXT,
    Ask.CNAME: RdataType.CNAME,
    Ask.PTR: RdataType.PTR,
    Ask.TLSA: RdataType.TLSA,
    Ask.NS: RdataType.NS,
}

_Key: TypeAlias = tuple[str, RdataType]


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsLimits:
    """How long a question may take and how long an answer is kept, in seconds.

    A resolver that must not rely on what it heard before (the page that checks a domain's records)
    has ceilings of 0.
    """

    try_timeout_s: float = 2.0  # one server, one try; recursive servers give up after 1.5 to 5
    deadline_s: float = 10.0  # one question in all
    rounds: int = 2  # over the servers that did not answer
    open_questions: int = 1_000  # each has a socket; tries after the first have a quarter of it
    cache_entries: int = 50_000
    cache_bytes: int = 32 * MIB  # of messages as they came
    ttl_floor_s: float = 5.0  # a TTL of 0 must not make every mail a question
    ttl_ceiling_s: float = 86_400.0
    negative_ceiling_s: float = 900.0  # RFC 2308 section 5 allows up to three hours
    failure_s: float = 5.0  # RFC 2308 section 7 allows up to five minutes


@dataclass(slots=True)
class _Effort:
    """What one question has cost so far."""

    tries: int = 0
    size_bytes: int = 0


class _Failed(Exception):
    """No server gave an answer that can be used."""

    def __init__(self, notes: Sequence[tuple[Trouble, str]]) -> None:
        troubles = [trouble for trouble, _ in notes]
        self.trouble = next(one for one in _TELLING if one in troubles)
        self.detail = "; ".join(dict.fromkeys(detail for _, detail in notes))


class Resolver:
    """Asks `servers` in their order. One for a process: its cache and its bounds are shared."""

    def __init__(
        self, servers: Sequence[DnsServer], clock: Clock, limits: DnsLimits = DnsLimits()
    ) -> None:
        self._servers = tuple(servers)
        self._clock = clock
        self._limits = limits
        self._cache: DnsCache[_Key, Result[Any]] = DnsCache(
            limits.cache_entries, limits.cache_bytes
        )
        self._open: dict[_Key, asyncio.Task[Result[Any]]] = {}
        # Names whose servers are silent never hold the places of first tries for longer than one.
        self._first_tries = asyncio.Semaphore(limits.open_questions)
        self._later_tries = asyncio.Semaphore(max(1, limits.open_questions // 4))
        self._away_since: dict[DnsServer, float] = {}

    async def mx(self, domain: str) -> Result[MxRecord]:
        """The mail exchangers of `domain`, as the server ordered them."""
        return await self._ask(domain, RdataType.MX)

    async def addresses(self, host: str) -> Result[Address]:
        """IPv6 and IPv4 addresses of `host`, asked for together. One family is enough for an
        Answer, which is authenticated when every record in it is."""
        six, four = await asyncio.gather(
            self._ask(host, RdataType.AAAA), self._ask(host, RdataType.A)
        )
        return _both(six, four, self._limits.failure_s)

    async def txt(self, name: str) -> Result[str]:
        """TXT records, the strings of each joined."""
        return await self._ask(name, RdataType.TXT)

    async def ptr(self, address: Address) -> Result[str]:
        """The names of `address` in in-addr.arpa or ip6.arpa."""
        return await self._ask(address.reverse_pointer, RdataType.PTR)

    async def tlsa(self, host: str, port: int = 25) -> Result[TlsaRecord]:
        """The TLSA records of a host's service. Only authenticated answers mean anything."""
        return await self._ask(tlsa_name(host, port), RdataType.TLSA)

    async def cname(self, name: str) -> Result[str]:
        """What `name` itself is an alias for."""
        return await self._ask(name, RdataType.CNAME)

    async def ns(self, domain: str) -> Result[str]:
        """The name servers of `domain`."""
        return await self._ask(domain, RdataType.NS)

    async def answer(self, question: Question) -> Result[Any]:
        """The result of a question that a decision has asked."""
        if question.ask is Ask.ADDRESSES:
            return await self.addresses(question.name)
        return await self._ask(question.name, _KIND[question.ask])

    def kept(self, question: Question) -> Result[Any] | None:
        """The result of a question as far as it is remembered; asks nobody. None: it is not."""
        key = (question.name.removesuffix(".").lower(), _KIND[question.ask])
        found = self._cache.get(key, self._clock.monotonic())
        return found[0] if found is not None else None

    async def close(self) -> None:
        """Give up what is open; those who wait for it are cancelled."""
        tasks = list(self._open.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, text: str, kind: RdataType) -> Result[Any]:
        key = (text.removesuffix(".").lower(), kind)
        kept = self._cache.get(key, self._clock.monotonic())
        if kept is not None:
            result, left_s = kept
            return result if isinstance(result, TemporaryFailure) else replace(result, ttl_s=left_s)
        task = self._open.get(key)
        if task is None:
            name = _name_of(key[0])
            if name is None:
                return NoName(self._limits.negative_ceiling_s, False)  # cannot stand in DNS at all
            task = asyncio.create_task(self._settle(key, name), name=f"dns {key[0]} {kind.name}")
            self._open[key] = task
            task.add_done_callback(lambda _: self._open.pop(key, None))
        return await asyncio.shield(task)

    async def _settle(self, key: _Key, name: dns.name.Name) -> Result[Any]:
        """Find out within the deadline, and keep what was found."""
        result: Result[Any]
        effort = _Effort()
        try:
            async with asyncio.timeout(self._limits.deadline_s):
                result = await self._resolve(name, key[1], effort)
        except TimeoutError:
            trouble = Trouble.TIMEOUT if effort.tries else Trouble.BUSY
            result = TemporaryFailure(trouble, f"nothing within {self._limits.deadline_s:g} s")
        holds_s = self._limits.failure_s if isinstance(result, TemporaryFailure) else result.ttl_s
        if holds_s > 0:
            self._cache.put(key, result, self._clock.monotonic() + holds_s, effort.size_bytes)
        return result

    async def _resolve(self, name: dns.name.Name, kind: RdataType, effort: _Effort) -> Result[Any]:
        """Ask, and ask on where an alias leads."""
        asked_for, authenticated, aliases = name, True, 0
        ttl_s = float("inf")
        while True:
            try:
                response, server = await self._ask_servers(name, kind, effort)
                step = read(response, name, kind, aliases)
            except _Failed as failed:
                return TemporaryFailure(failed.trouble, failed.detail)
            except AliasLoop as loop:
                return TemporaryFailure(Trouble.ALIAS_LOOP, f"{text_of(asked_for)}: {loop}")
            authenticated &= server.validates and bool(response.flags & dns.flags.AD)
            ttl_s = min(ttl_s, step.ttl_s)
            if isinstance(step, AskNext):
                name, aliases = step.name, step.aliases
                continue
            if isinstance(step, Found):
                holds_s = self._held_s(ttl_s, self._limits.ttl_ceiling_s)
                return Answer(step.records, holds_s, authenticated, text_of(step.name))
            holds_s = self._held_s(ttl_s, self._limits.negative_ceiling_s)
            nothing = NoRecords if step.exists else NoName
            return nothing(holds_s, authenticated)

    def _held_s(self, ttl_s: float, ceiling_s: float) -> float:
        return min(max(ttl_s, self._limits.ttl_floor_s), ceiling_s)

    async def _ask_servers(
        self, name: dns.name.Name, kind: RdataType, effort: _Effort
    ) -> tuple[dns.message.Message, DnsServer]:
        """The first answer of NOERROR or NXDOMAIN, and who gave it. Raises _Failed.

        A server that answered with an error is not asked again; one that did not answer is.
        """
        notes: list[tuple[Trouble, str]] = []
        remaining = self._in_order()
        for _ in range(self._limits.rounds):
            silent = []
            for server in remaining:
                places = self._later_tries if notes else self._first_tries
                async with places:
                    effort.tries += 1
                    outcome = await self._try(server, name, kind, effort)
                if isinstance(outcome, dns.message.Message):
                    self._away_since.pop(server, None)
                    problem = _problem_with(outcome)
                    if problem is None:
                        return outcome, server
                    notes.append((problem[0], f"{server} {problem[1]}"))
                else:
                    self._away_since[server] = self._clock.monotonic()
                    notes.append(outcome)
                    silent.append(server)
            remaining = silent
        raise _Failed(notes)

    async def _try(
        self, server: DnsServer, name: dns.name.Name, kind: RdataType, effort: _Effort
    ) -> dns.message.Message | tuple[Trouble, str]:
        """What `server` answered, or why it did not."""
        try:
            async with asyncio.timeout(self._limits.try_timeout_s):
                response, size_bytes = await exchange(server, name, kind)
        except TimeoutError:
            return Trouble.TIMEOUT, f"{server} did not answer"
        except Malformed as error:
            return Trouble.MALFORMED, str(error)
        except (OSError, Unanswered) as error:
            return Trouble.UNREACHABLE, f"{server}: {error}"
        effort.size_bytes += size_bytes
        return response

    def _in_order(self) -> list[DnsServer]:
        """Servers that answer first; one that is away for long gets this question as its trial."""
        now = self._clock.monotonic()
        for server in self._servers:
            since = self._away_since.get(server)
            if since is not None and now >= since + _AWAY_S:
                self._away_since[server] = now  # nobody else tries it meanwhile
                return [server, *(one for one in self._servers if one != server)]
        return sorted(self._servers, key=lambda server: server in self._away_since)


def _name_of(text: str) -> dns.name.Name | None:
    """`text` as a name, label by label (no escapes), or None when no name is like that."""
    try:
        labels = ascii_domain(text).encode("ascii").split(b".")
        return dns.name.Name([*labels, b""])
    except (InvalidInput, UnicodeError, dns.exception.DNSException):
        return None


def _problem_with(response: dns.message.Message) -> tuple[Trouble, str] | None:
    """Why an answer says nothing about the name, or None."""
    rcode = response.rcode()
    if rcode in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        if _is_referral(response):
            return Trouble.REFUSED, "does not look names up for others (it only refers)"
        return None
    said = f"said {dns.rcode.to_text(rcode)}{_extended(response)}"
    if rcode == dns.rcode.SERVFAIL:
        return Trouble.SERVER_FAILURE, said
    return Trouble.REFUSED, said


def _is_referral(response: dns.message.Message) -> bool:
    """No answer, name servers elsewhere instead: no recursive server (RFC 2308 section 2.2)."""
    if response.answer or response.flags & dns.flags.AA or response.flags & dns.flags.RA:
        return False
    kinds = {rrset.rdtype for rrset in response.authority}
    return RdataType.NS in kinds and RdataType.SOA not in kinds


def _extended(response: dns.message.Message) -> str:
    """What the server adds to its error (RFC 8914): why DNSSEC failed, for example."""
    for option in response.options:
        if isinstance(option, dns.edns.EDEOption):
            code = dns.edns.EDECode.to_text(option.code)
            return f" ({code}{': ' + option.text[:200] if option.text else ''})"
    return ""


def _both(six: Result[Address], four: Result[Address], failure_s: float) -> Result[Address]:
    """The two families as one result."""
    answers = [one for one in (six, four) if isinstance(one, Answer)]
    failures = [one for one in (six, four) if isinstance(one, TemporaryFailure)]
    negatives = [one for one in (six, four) if isinstance(one, NoName | NoRecords)]
    if not answers and failures:
        return failures[0]
    if answers:
        # A family that failed must not take `authenticated` away: whoever can drop packets could
        # switch DANE off so.
        authenticated = all(one.authenticated for one in answers)
        ttl_s = min([one.ttl_s for one in answers] + ([failure_s] if failures else []))
        records = tuple(record for one in answers for record in one.records)
        return Answer(records, ttl_s, authenticated, answers[0].name)
    ttl_s = min(one.ttl_s for one in negatives)
    nothing = NoName if all(isinstance(one, NoName) for one in negatives) else NoRecords
    return nothing(ttl_s, all(one.authenticated for one in negatives))
