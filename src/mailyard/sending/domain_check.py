"""The DNS records of a sending domain: which to set, how each stands, and how our own hosts do.

`wanted` is what a page shows to copy. `look` asks DNS and our own mail servers at once, and has a
verdict on every record: what is wrong with it, and what to write instead.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from mailyard.core.errors import InvalidInput
from mailyard.net.dns import Resolver
from mailyard.net.mail_route import run_check
from mailyard.net.smtp_probe import TlsFinding, TlsState, probe_tls
from mailyard.protocol.dns_answer import Address, MxRecord
from mailyard.protocol.dns_check import check_addresses, check_domain
from mailyard.protocol.dns_dmarc import record_name
from mailyard.protocol.dns_organisation import organisational, policy_names
from mailyard.protocol.dns_records import (
    DkimKey,
    Purpose,
    SendingSetup,
    State,
    Verdict,
    WantedRecord,
    wanted_records,
)
from mailyard.sending.domain import RETIRED, WAITING, Domain

RETURN_PREFERENCE = 10
_SPF = (Purpose.SPF, Purpose.RETURN_PATH_SPF)
_BESIDE = (Purpose.ALIGNMENT, Purpose.ADDRESS_NAME, Purpose.TLS)
_TLS_STATES = {
    TlsState.VERIFIED: State.GOOD,
    TlsState.UNVERIFIED: State.WARNING,
    TlsState.NONE: State.WRONG,
    TlsState.AWAY: State.UNKNOWN,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnSide:
    """What the installation brings to the records of all domains.

    `hello`: the name of our mail server, '' when it has none that others could find. `spf_terms`:
    what SPF must allow for our mail; empty when only the owner of a relay knows. `takes_returns`:
    whether mail may come back to a name of a domain's own; `return_domain`: a name with MX and SPF
    to which such a one may be an alias. `addresses`: those that we send from, as far as known.
    `names`: what some of them say in EHLO instead of `hello`.
    """

    hello: str = ""
    spf_terms: tuple[str, ...] = ()
    takes_returns: bool = False
    return_domain: str = ""
    addresses: tuple[Address, ...] = ()
    names: Mapping[Address, str] = field(default_factory=dict)
    smtp_port: int = 25

    def by_name(self) -> Mapping[str, list[Address]]:
        """The addresses that we send from, by what they say in EHLO."""
        found: dict[str, list[Address]] = {}
        for address in self.addresses:
            found.setdefault(self.names.get(address, self.hello), []).append(address)
        return found


UNCHECKED = "unchecked"
READY = "ready"
WRONG = "wrong"
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Stand:
    """A record to set, and what the last check said of it."""

    wanted: WantedRecord
    verdict: Verdict | None

    @property
    def state(self) -> str:
        return self.verdict.state.value if self.verdict else UNCHECKED


@dataclass(frozen=True, slots=True)
class Report:
    """How a domain stands: its records, and what was found beside them."""

    status: str
    records: tuple[Stand, ...]
    beside: tuple[Verdict, ...]


def report(domain: Domain, own: OwnSide) -> Report:
    """The records to set and the last check's verdicts, together."""
    verdicts = {(one.purpose, one.name): one for one in domain.verdicts}
    records = tuple(
        Stand(record, verdicts.get((record.purpose, record.name))) for record in wanted(domain, own)
    )
    known = {(one.wanted.purpose, one.wanted.name) for one in records}
    beside = tuple(one for key, one in verdicts.items() if key not in known and _says(one))
    return Report(_status(domain, records), records, beside)


def _says(verdict: Verdict) -> bool:
    """Whether a verdict without a record to set is shown: not that of a key that is gone."""
    return verdict.purpose in _BESIDE or (verdict.purpose in _SPF and verdict.state.value != "good")


def _status(domain: Domain, records: Sequence[Stand]) -> str:
    """Keys that wait while others sign do no harm: a rotation is no fault."""
    if domain.checked_at is None:
        return UNCHECKED
    waiting = {key.record_name for key in domain.keys if domain.signs and key.state == WAITING}
    states = {
        one.state for one in records if one.wanted.required and one.wanted.name not in waiting
    }
    if states & {State.MISSING.value, State.WRONG.value, UNCHECKED}:
        return WRONG
    return UNKNOWN if State.UNKNOWN.value in states else READY


def refuse_without_host(return_path: str, own: OwnSide) -> None:
    """Raises InvalidInput when a return-path of a domain's own could lead nowhere."""
    if return_path and not own.takes_returns:
        raise InvalidInput(
            "no mail can come back to this installation: set MAILYARD_HOSTNAME to a name that "
            "others can find, and with a relay MAILYARD_RETURN_DOMAIN too",
            field="return_path",
        )


def wanted(domain: Domain, own: OwnSide) -> tuple[WantedRecord, ...]:
    """Every record to set for `domain`, the required ones first."""
    records = wanted_records(setup_of(domain, own))
    if own.spf_terms:
        return records
    return tuple(one for one in records if one.purpose not in _SPF)


async def look(domain: Domain, own: OwnSide, resolver: Resolver) -> tuple[Verdict, ...]:
    """A verdict on every record of `domain` now, then on our addresses and our mail server."""
    records, names, tls = await asyncio.gather(
        _look_at_records(domain, own, resolver),
        _look_at_addresses(own, resolver),
        _look_at_tls(own, resolver),
    )
    return (*records, *names, *tls)


def setup_of(domain: Domain, own: OwnSide) -> SendingSetup:
    """What `domain` is to be set up for."""
    target = own.return_domain
    hosts = () if target or not own.hello else (MxRecord(RETURN_PREFERENCE, own.hello),)
    return SendingSetup(
        domain=domain.name,
        dkim=tuple(_public_keys(domain)),
        spf_terms=own.spf_terms,
        return_path=domain.return_path,
        return_path_target=target,
        return_path_hosts=hosts,
        reports_to=f"postmaster@{domain.name}",  # which everybody has (RFC 2142 section 5)
    )


def _public_keys(domain: Domain) -> Iterable[DkimKey]:
    for key in domain.keys:
        if key.state != RETIRED:
            kind = key.algorithm.partition("-")[0]
            public = key.record.partition("p=")[2].partition(";")[0]
            yield DkimKey(key.selector, kind, public)


async def _look_at_records(domain: Domain, own: OwnSide, resolver: Resolver) -> tuple[Verdict, ...]:
    names = [record_name(name) for name in policy_names(domain.name)]
    results = await asyncio.gather(*map(resolver.txt, names))
    organisation = organisational(domain.name, dict(zip(names, results, strict=True)))
    verdicts = await run_check(check_domain(setup_of(domain, own), organisation), resolver)
    if own.spf_terms:
        return verdicts
    return tuple(_without_terms(one) if one.purpose in _SPF else one for one in verdicts)


def _without_terms(verdict: Verdict) -> Verdict:
    """Of SPF, where nobody has said what to allow: what is broken in a record is still broken."""
    if verdict.found:
        return verdict
    return Verdict(
        verdict.purpose,
        verdict.name,
        verdict.kind,
        State.UNKNOWN,
        "what our mail leaves from is not known here: name its SPF terms in MAILYARD_SPF (of a "
        "relay, its owner knows them)",
    )


async def _look_at_addresses(own: OwnSide, resolver: Resolver) -> tuple[Verdict, ...]:
    verdicts = await asyncio.gather(
        *(
            run_check(check_addresses(addresses, name), resolver)
            for name, addresses in own.by_name().items()
        )
    )
    return tuple(chain.from_iterable(verdicts))


async def _look_at_tls(own: OwnSide, resolver: Resolver) -> Sequence[Verdict]:
    """Of the mail server that takes what comes back, and of the other names that we send under: one
    of these that nobody answers at does nothing but send, and has nothing to show."""
    names = [one for one in dict.fromkeys((own.hello, *own.by_name())) if one]
    found = await asyncio.gather(
        *(probe_tls(name, resolver, hello=own.hello or name, port=own.smtp_port) for name in names)
    )
    return [
        tls_verdict(name, one)
        for name, one in zip(names, found, strict=True)
        if name == own.hello or one.state is not TlsState.AWAY
    ]


def tls_verdict(host: str, found: TlsFinding) -> Verdict:
    """What the probe of `host` found, as a verdict beside those on records."""
    return Verdict(Purpose.TLS, host, "SMTP", _TLS_STATES[found.state], found.why)
