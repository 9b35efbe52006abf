"""check_host (RFC 7208 section 4): a generator that asks DNS and is sent the answers.

    check = check_host(sender, sender.domain, now_s)
    question = next(check)
    try:
        while True:
            question = check.send(answer_to(question))
    except StopIteration as end:
        result = end.value

Nothing is raised for what a mail or DNS says. Questions are bounded by section 4.6.4.
"""

from collections.abc import Generator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv6Address, ip_network
from typing import Any, TypeAlias

from mailyard.core.errors import InvalidInput
from mailyard.protocol.address import ascii_domain
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
)
from mailyard.protocol.dns_spf import LOOKUPS, MX_HOSTS, VOID_LOOKUPS
from mailyard.protocol.dns_spf_record import SpfRecord, SpfTerm, is_spf, parse_spf
from mailyard.protocol.spf.macro import (
    Sender,
    Values,
    explanation,
    is_name,
    target_name,
    uses,
)

PTR_NAMES = 10  # section 4.6.4: of a PTR answer, the rest is not looked at
_EXPLANATION_CHARACTERS = 500
_RECORDS_REMEMBERED = 2048


class SpfStatus(StrEnum):
    """Section 2.6, in the words of RFC 8601 section 2.7.2."""

    NONE = "none"
    NEUTRAL = "neutral"
    PASS = "pass"
    FAIL = "fail"
    SOFTFAIL = "softfail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


_BY_QUALIFIER = {
    "+": SpfStatus.PASS,
    "-": SpfStatus.FAIL,
    "~": SpfStatus.SOFTFAIL,
    "?": SpfStatus.NEUTRAL,
}


@dataclass(frozen=True, slots=True)
class SpfResult:
    """`domain` is whose record was asked; `reason` says in words that are safe in a header field
    what decided; `explanation` is the domain's own word to who fails, ASCII and bounded."""

    status: SpfStatus
    domain: str
    reason: str = ""
    explanation: str = ""


Check: TypeAlias = Generator[Question, Result[Any], SpfResult]
_Asking: TypeAlias = Generator[Question, Result[Any], Result[Any]]
_Matching: TypeAlias = Generator[Question, Result[Any], bool]


class _Over(Exception):
    """The check ends here (temperror or permerror)."""

    def __init__(self, status: SpfStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def check_host(sender: Sender, domain: str, now_s: float) -> Check:
    """Whether `sender.client` may send for `domain`, which is that of `sender.identity` when the
    sender's address is checked (section 2.4); see the module."""
    domain = _checkable(domain)
    if not domain:
        return SpfResult(SpfStatus.NONE, "", "there is no domain to check")
    client = sender.client
    if isinstance(client, IPv6Address) and client.ipv4_mapped is not None:
        sender = replace(sender, client=client.ipv4_mapped)
    check = _Check(sender, now_s)
    try:
        result = yield from check.record_of(domain, missing=SpfStatus.NONE)
    except _Over as over:
        return SpfResult(over.status, domain, over.reason)
    return SpfResult(result.status, domain, result.reason, result.explanation)


class _Check:
    """What one check has used up of its bounds."""

    def __init__(self, sender: Sender, now_s: float) -> None:
        self._sender = sender
        local, _, origin = sender.identity.rpartition("@")
        self._identity = f"{local}@{_checkable(origin) or origin}"
        self._now_s = now_s
        self._lookups = 0
        self._voids = 0
        self._validated: list[str] | None = None

    def record_of(self, domain: str, *, missing: SpfStatus) -> Check:
        """Sections 4.4 to 4.7 for `domain`. `missing`: what it is when there is no record."""
        result = yield Question(domain, Ask.TXT)
        if isinstance(result, TemporaryFailure):
            raise _Over(SpfStatus.TEMPERROR, f"DNS could not be asked about {domain}")
        texts = [one for one in result.records if is_spf(one)] if isinstance(result, Answer) else []
        if not texts:
            if missing is SpfStatus.PERMERROR:
                raise _Over(missing, f"{domain} has no SPF record")
            return SpfResult(missing, domain, f"{domain} has no SPF record")
        if len(texts) > 1:
            raise _Over(SpfStatus.PERMERROR, f"{domain} has {len(texts)} SPF records")
        record = _parsed(texts[0])
        if isinstance(record, str):
            raise _Over(SpfStatus.PERMERROR, f"the SPF record of {domain} cannot be read")
        return (yield from self._evaluate(domain, record))

    def _evaluate(self, domain: str, record: SpfRecord) -> Check:
        for term in record.terms:
            if not term.qualifier:
                continue
            if (yield from self._matches(domain, term)):
                status = _BY_QUALIFIER[term.qualifier]
                said = ""
                if status is SpfStatus.FAIL:
                    said = yield from self._explanation(domain, record)
                return SpfResult(status, domain, f"{domain} has {term.text}", said)
        if record.redirect is None:
            return SpfResult(SpfStatus.NEUTRAL, domain, f"{domain} says nothing of it")
        self._count()
        target = yield from self._target(domain, record.redirect)
        if not target:
            raise _Over(SpfStatus.PERMERROR, f"{domain} redirects to no domain")
        return (yield from self.record_of(target, missing=SpfStatus.PERMERROR))

    def _matches(self, domain: str, term: SpfTerm) -> _Matching:
        """Section 5."""
        if term.name == "all":
            return True
        if term.name in ("ip4", "ip6"):
            return _holds(term.value, self._sender.client)
        self._count()
        target = (yield from self._target(domain, term.value)) if term.value else domain
        if term.name == "include":
            return (yield from self._include(domain, target))
        if not target:
            return False
        if term.name == "a":
            return (yield from self._at_host(target, term))
        if term.name == "mx":
            return (yield from self._at_exchangers(target, term))
        if term.name == "ptr":
            names = yield from self._validated_names()
            return any(name == target or name.endswith(f".{target}") for name in names)
        found = yield from self._ask(target, Ask.A)
        return isinstance(found, Answer)

    def _include(self, domain: str, target: str) -> _Matching:
        """Section 5.2. A domain that cannot be asked is one without a record."""
        if not target:
            raise _Over(SpfStatus.PERMERROR, f"{domain} includes no domain")
        result = yield from self.record_of(target, missing=SpfStatus.PERMERROR)
        return result.status is SpfStatus.PASS

    def _at_host(self, host: str, term: SpfTerm) -> _Matching:
        found = yield from self._ask(host, self._family)
        return isinstance(found, Answer) and self._is_one_of(found.records, term)

    def _at_exchangers(self, domain: str, term: SpfTerm) -> _Matching:
        exchangers = yield from self._ask(domain, Ask.MX)
        if not isinstance(exchangers, Answer):
            return False
        hosts = [one.host for one in exchangers.records if isinstance(one, MxRecord)]
        for count, host in enumerate(hosts):
            if count == MX_HOSTS:
                raise _Over(SpfStatus.PERMERROR, f"{domain} has more than {MX_HOSTS} MX hosts")
            if host != "." and (yield from self._at_host(host, term)):
                return True
        return False

    def _validated_names(self) -> Generator[Question, Result[Any], list[str]]:
        """The client's names that lead back to it (section 5.5), for `ptr` and %{p}. A failure of
        DNS validates nothing."""
        if self._validated is not None:
            return self._validated
        self._validated = []
        client = self._sender.client
        found = yield Question(client.reverse_pointer, Ask.PTR)
        if not isinstance(found, Answer):
            self._void(found)
            return self._validated
        for name in found.records[:PTR_NAMES]:
            if not is_name(name):
                continue
            addresses = yield Question(name.lower(), self._family)
            if isinstance(addresses, Answer) and client in addresses.records:
                self._validated.append(name.lower())
        return self._validated

    def _target(self, domain: str, text: str) -> Generator[Question, Result[Any], str]:
        """The domain that `text` means in the record of `domain`; empty when it means none."""
        if uses(text, "sl") and not self._identity.isascii():
            return ""
        values = yield from self._values(domain, text)
        return target_name(text, values)

    def _values(self, domain: str, text: str) -> Generator[Question, Result[Any], Values]:
        values = Values(self._sender, self._identity, domain, now_s=self._now_s)
        if not uses(text, "p"):
            return values
        if self._validated is None:
            self._count()  # section 4.6.4: %{p} is one of the terms that ask
        names = yield from self._validated_names()
        own = [name for name in names if name == domain]
        below = [name for name in names if name.endswith(f".{domain}")]
        return replace(values, validated=(own + below + names or ["unknown"])[0])

    def _explanation(self, domain: str, record: SpfRecord) -> Generator[Question, Result[Any], str]:
        """Section 6.2: whatever goes wrong here, there is none."""
        place = next(
            (one.value for one in record.terms if one.name == "exp" and not one.qualifier), ""
        )
        if not place:
            return ""
        try:
            target = yield from self._target(domain, place)
            found = (yield Question(target, Ask.TXT)) if target else None
            if not isinstance(found, Answer) or len(found.records) != 1:
                return ""
            text = found.records[0]
            values = yield from self._values(domain, text)
        except _Over:
            return ""
        said = explanation(text, values)
        return said[:_EXPLANATION_CHARACTERS] if said.isascii() else ""

    @property
    def _family(self) -> Ask:
        return Ask.A if self._sender.client.version == 4 else Ask.AAAA

    def _ask(self, name: str, ask: Ask) -> _Asking:
        """An answer to a term's question; not now means temperror (section 5)."""
        result = yield Question(name, ask)
        if isinstance(result, TemporaryFailure):
            raise _Over(SpfStatus.TEMPERROR, f"DNS could not be asked about {name}")
        self._void(result)
        return result

    def _void(self, result: Result[Any]) -> None:
        if isinstance(result, NoName | NoRecords):
            self._voids += 1
            if self._voids > VOID_LOOKUPS:
                raise _Over(
                    SpfStatus.PERMERROR, f"more than {VOID_LOOKUPS} questions to DNS find nothing"
                )

    def _count(self) -> None:
        self._lookups += 1
        if self._lookups > LOOKUPS:
            raise _Over(SpfStatus.PERMERROR, f"more than {LOOKUPS} terms ask DNS")

    def _is_one_of(self, addresses: tuple[Address, ...], term: SpfTerm) -> bool:
        client = self._sender.client
        four, six = term.prefixes
        spare = (32 - four) if client.version == 4 else (128 - six)
        return any(
            one.version == client.version and int(one) >> spare == int(client) >> spare
            for one in addresses
        )


def _checkable(domain: str) -> str:
    """`domain` in ASCII when it can have a record (section 4.3): two labels or more and no address
    literal. Empty otherwise."""
    try:
        name = ascii_domain(domain).removesuffix(".")
    except InvalidInput:
        return ""
    return name if "." in name and name[0] != "[" and is_name(name) else ""


@lru_cache(_RECORDS_REMEMBERED)
def _parsed(text: str) -> SpfRecord | str:
    """The record, or what is wrong with it, remembered: few records stand behind most mail."""
    try:
        return parse_spf(text)
    except InvalidInput as error:
        return error.message


@lru_cache(4 * _RECORDS_REMEMBERED)
def _network(text: str) -> tuple[int, int, int]:
    """(version, spare bits, prefix) of a network as ip4 and ip6 have it."""
    network = ip_network(text, strict=False)
    spare = network.max_prefixlen - network.prefixlen
    return network.version, spare, int(network.network_address) >> spare


def _holds(network: str, client: Address) -> bool:
    version, spare, prefix = _network(network)
    return version == client.version and int(client) >> spare == prefix
