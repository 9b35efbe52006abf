"""Whether other mail servers find this installation and know it: DNS, and TLS on SMTP."""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from mailyard.fleet.readiness import needs
from mailyard.fleet.readiness.front import renewal
from mailyard.fleet.readiness.item import Item, met, missing, thin
from mailyard.net.dns import Resolver
from mailyard.net.mail_route import run_check
from mailyard.net.smtp_probe import TlsFinding, TlsState, probe_tls
from mailyard.protocol.dns_answer import Address, Answer, TemporaryFailure
from mailyard.protocol.dns_check import check_addresses
from mailyard.protocol.dns_records import State
from mailyard.receiving.domain import GOOD, UNKNOWN, judge_mx
from mailyard.sending.return_path import is_public


@dataclass(frozen=True, slots=True)
class MailNames:
    """What the settings say. `returns`: the domain of return-paths, empty without one."""

    host: str
    inboxes: str
    returns: str
    addresses: Sequence[Address]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that DNS does not say as it should. `unknown`: it could not be asked now."""

    text: str
    unknown: bool = False


async def see_dns(names: MailNames, resolver: Resolver) -> list[Fault]:
    """All that is wrong, the worst first. Raises nothing."""
    faults = [
        Fault(f"{name!r} is no name of the Internet ({setting})")
        for name, setting in (
            (names.host, "MAILYARD_HOSTNAME"),
            (names.inboxes, "MAILYARD_INBOX_DOMAIN"),
        )
        if not is_public(name)
    ]
    if faults:
        return faults
    found = await resolver.addresses(names.host)
    if not isinstance(found, Answer):
        faults.append(Fault(f"{names.host} has no address", isinstance(found, TemporaryFailure)))
    for domain in dict.fromkeys((names.inboxes, names.returns)):
        if domain:
            state, why = judge_mx(names.host, await resolver.mx(domain))
            if state != GOOD:
                faults.append(Fault(f"{domain}: {why}", state == UNKNOWN))
    if names.addresses:
        verdicts = await run_check(check_addresses(names.addresses, names.host), resolver)
        faults += [
            Fault(f"{one.name}: {one.problem}", one.state is State.UNKNOWN)
            for one in verdicts
            if one.state is not State.GOOD
        ]
    return sorted(faults, key=lambda one: one.unknown)


def judge_dns(names: MailNames, faults: Sequence[Fault]) -> Item:
    """Mail comes here, and the names of our addresses are our own."""
    if not faults:
        found = f"mail for {names.inboxes} comes to {names.host}"
        if not names.addresses:
            fix = "MAILYARD_SENDING_ADDRESSES: what our mail leaves from, so that PTR is checked"
            return thin(needs.DNS, f"{found}; names of sending addresses were not asked", fix)
        return met(needs.DNS, f"{found}; {len(names.addresses)} sending addresses have its name")
    text = "; ".join(one.text for one in faults[:3])
    if faults[0].unknown:
        return thin(needs.DNS, f"DNS could not say: {text}", "see MAILYARD_DNS_SERVERS; ask again")
    return missing(needs.DNS, text, "set these records; docs/DELIVERY.md has the whole list")


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate file: whom it names, and until when."""

    names: frozenset[str]
    until: datetime


def read_certificate(file: Path) -> Certificate:
    """The first certificate of a PEM file. Raises OSError, ValueError."""
    own = x509.load_pem_x509_certificate(file.read_bytes())
    try:
        said = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = frozenset(name.lower() for name in said.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        names = frozenset()
    return Certificate(names, own.not_valid_after_utc)


def covers(names: frozenset[str], host: str) -> bool:
    """Whether a certificate for `names` is one for `host` (RFC 9525 section 6.3)."""
    host = host.lower()
    return host in names or f"*.{host.partition('.')[2]}" in names


async def see_smtp_tls(
    host: str, resolver: Resolver, *, port: int = 25, context: ssl.SSLContext | None = None
) -> TlsFinding:
    """What a stranger's mail server is offered. Raises nothing."""
    return await probe_tls(host, resolver, hello=host, port=port, context=context)


def judge_smtp_tls(host: str, file: Path | None, seen: TlsFinding | None, now: datetime) -> Item:
    """`seen` is None where nobody outside can be asked, because `host` is no public name."""
    fix = "MAILYARD_TLS_CERT and MAILYARD_TLS_KEY: one of an authority, for MAILYARD_HOSTNAME"
    if file is None:
        return missing(needs.SMTP_TLS, "the certificate is made by this machine for itself", fix)
    try:
        own = read_certificate(file)
    except (OSError, ValueError) as error:
        return missing(needs.SMTP_TLS, f"{file}: {error}", fix)
    if not covers(own.names, host):
        told = ", ".join(sorted(own.names)) or "nobody"
        return missing(needs.SMTP_TLS, f"{file} is for {told}, and not for {host}", fix)
    if seen is None or seen.state is TlsState.VERIFIED:
        return renewal(needs.SMTP_TLS, f"{file} for {host}", own.until, now)
    if seen.state is TlsState.AWAY:
        return thin(needs.SMTP_TLS, f"not seen from here: {seen.why}", "look from elsewhere")
    return missing(needs.SMTP_TLS, f"strangers see: {seen.why}", fix)
