"""Where a domain's mail goes: RFC 5321 section 5.1, RFC 7505 (null MX). Pure decisions.

Two steps, since addresses are asked for only once the hosts are known:

    route = mx_route(domain, mx_answer, own_names, random)      # MxRoute, Never or Later
    targets = mx_targets(route, {host: address_answer}, ...)    # Targets, Never or Later

A destination is tried in the order of `Targets.targets`. Domains whose MX hosts are the same have
the same `site`: they share connections and limits.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import AddressValueError, IPv4Address, IPv6Address, IPv6Network
from itertools import chain, groupby, zip_longest
from random import Random
from typing import TypeAlias

from mailyard.protocol.dns_answer import (
    Address,
    Answer,
    MxRecord,
    NoName,
    NoRecords,
    Result,
    TemporaryFailure,
)

HOSTS_TRIED = 10  # Postfix tries 5 addresses; the largest receivers publish 5 to 8 hosts
ADDRESSES_PER_HOST = 6  # three of each family: one dead host must not use up the whole attempt
ADDRESSES_TRIED = 20
_SITE_CHARACTERS = 200  # it stands in keys, metrics and pages

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_NUMBERS = re.compile(r"[0-9]+(?:\.[0-9]+)*")
# IPv6 addresses that carry an IPv4 address, which is what the packets reach: NAT64 (RFC 6052) and
# 6to4 (RFC 3056). Mapped addresses (::ffff:0:0/96) are asked through the standard library.
_NAT64 = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class MxHost:
    """One host of a route. Lower preferences come first."""

    name: str
    preference: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """A host or an address that is not tried, and why: shown in a delivery's history."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class MxRoute:
    """Hosts in the order to try, at most HOSTS_TRIED. `implicit`: no MX, the domain's own address.

    `authenticated`: the MX records were validated with DNSSEC, which DANE needs (RFC 7672 2.2.1).
    """

    domain: str
    hosts: tuple[MxHost, ...]
    implicit: bool
    authenticated: bool
    site: str
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """One address to connect to. `canonical`: the host's name after its aliases (RFC 7672 2.2.2).

    `authenticated`: the address records were validated, so that DANE may be asked for.
    """

    host: MxHost
    address: Address
    canonical: str
    authenticated: bool


@dataclass(frozen=True, slots=True)
class Targets:
    """What to connect to, in order, at most ADDRESSES_TRIED; never empty."""

    targets: tuple[Target, ...]
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True, slots=True)
class Never:
    """The mail cannot be delivered, however often it is tried; `status` as in RFC 3463."""

    status: str
    text: str


@dataclass(frozen=True, slots=True)
class Later:
    """DNS could not say; the same question may be answered later."""

    status: str
    text: str


Decision: TypeAlias = MxRoute | Never | Later


def mx_route(
    domain: str, answer: Result[MxRecord], own_names: Collection[str], random: Random
) -> Decision:
    """The hosts that take mail for `domain` (lower case, ASCII), given the answer to its MX.

    Inside one preference the order is random (RFC 5321 section 5.1). `own_names`: our own host
    names; from the first of them on, the list is cut, for the mail would come back to us.
    """
    if isinstance(answer, TemporaryFailure):
        return Later(
            "4.4.3", f"the mail servers of {domain} could not be looked up: {_why(answer)}"
        )
    if isinstance(answer, NoName):
        return Never("5.1.2", f"the domain {domain} does not exist")
    if isinstance(answer, NoRecords):
        if domain in own_names:
            return Never("5.4.6", f"{domain} is this server and has no mail server of its own")
        host = MxHost(domain, 0)
        return MxRoute(domain, (host,), True, answer.authenticated, site_of((domain,)), ())
    if all(record.host == "." for record in answer.records):
        return Never("5.1.10", f"the domain {domain} takes no mail (null MX)")
    return _route_by_mx(domain, answer, own_names, random)


def mx_targets(
    route: MxRoute,
    found: Mapping[str, Result[Address]],
    own_addresses: Collection[Address],
    may_connect: Callable[[Address], bool],
) -> Targets | Never | Later:
    """The addresses to try, given the answer for each host that was asked about.

    Hosts stay in their order; inside one, IPv6 and IPv4 take turns, IPv6 first (RFC 8305 section
    4), so that a broken family costs one try. `may_connect` is the policy on addresses:
    `is_public` unless an operator has allowed others. From a host at one of `own_addresses` on,
    the list is cut as for our own names.
    """
    targets: list[Target] = []
    skipped = list(route.skipped)
    failure: TemporaryFailure | None = None
    cut_at: int | None = None
    for host in route.hosts:
        result = found.get(host.name)
        if isinstance(result, Answer) and any(one in own_addresses for one in result.records):
            cut_at = host.preference
            break
        if isinstance(result, TemporaryFailure):
            failure = result
        if isinstance(result, Answer):
            chosen = [one for one in in_turns(result.records) if may_connect(one)]
            if not chosen:
                skipped.append(Skipped(host.name, "none of its addresses is public"))
            targets += [
                Target(host, address, result.name, result.authenticated)
                for address in chosen[:ADDRESSES_PER_HOST]
            ]
        elif result is not None:
            skipped.append(Skipped(host.name, _why(result)))
    if cut_at is not None:
        targets = [target for target in targets if target.host.preference < cut_at]
        skipped.append(Skipped(route.domain, f"this server itself stands at preference {cut_at}"))
    if targets:
        return Targets(tuple(targets[:ADDRESSES_TRIED]), tuple(skipped))
    return _nothing_to_try(route, failure, cut_at is not None, skipped)


def is_public(address: Address) -> bool:
    """Whether mail may go to `address`: what anybody writes into DNS must not reach inside."""
    if isinstance(address, IPv6Address):
        carried = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            carried = IPv4Address(int(address) & 0xFFFF_FFFF)
        if carried is not None:
            return is_public(carried)
    return address.is_global and not address.is_multicast


def literal_address(domain: str) -> Address | None:
    """The address of a domain that is an address literal (RFC 5321 section 4.1.3), or None."""
    if not (domain.startswith("[") and domain.endswith("]")):
        return None
    inside = domain[1:-1]
    try:
        if inside[:5].lower() == "ipv6:":
            return IPv6Address(inside[5:])
        return IPv4Address(inside)
    except AddressValueError:
        return None


def in_turns(addresses: Iterable[Address]) -> list[Address]:
    """IPv6, IPv4, IPv6, …, each family in its own order, without duplicates."""
    unique = list(dict.fromkeys(addresses))
    six = [one for one in unique if one.version == 6]
    four = [one for one in unique if one.version == 4]
    return [one for one in chain.from_iterable(zip_longest(six, four)) if one is not None]


def site_of(hosts: Iterable[str]) -> str:
    """The key under which domains with these MX hosts share connections and limits.

    Readable while it is short; preferences and order do not matter.
    """
    names = sorted(set(hosts))
    key = ",".join(names)
    if len(key) <= _SITE_CHARACTERS:
        return key
    digest = sha256(key.encode()).hexdigest()[:24]
    return f"{names[0][:150]}+{len(names) - 1}#{digest}"


def _route_by_mx(
    domain: str, answer: Answer[MxRecord], own_names: Collection[str], random: Random
) -> Decision:
    best: dict[str, int] = {}
    skipped: list[Skipped] = []
    for record in answer.records:
        problem = _problem_with(record.host)
        if problem:
            skipped.append(Skipped(record.host, problem))
        else:
            best[record.host] = min(record.preference, best.get(record.host, record.preference))
    if not best:
        return Never("5.4.4", f"no MX of {domain} names a host: {_listed(skipped)}")
    site = site_of(best)
    cut_at = min((best[name] for name in own_names if name in best), default=None)
    hosts = [MxHost(name, preference) for name, preference in best.items()]
    if cut_at is not None:
        skipped.append(Skipped(domain, f"this server itself stands at preference {cut_at}"))
        hosts = [host for host in hosts if host.preference < cut_at]
    if not hosts:
        return Never("5.4.6", f"this server is the best mail server of {domain}: it would loop")
    ordered = _in_order(hosts, random)
    skipped += [Skipped(host.name, "beyond the hosts tried") for host in ordered[HOSTS_TRIED:]]
    return MxRoute(
        domain, tuple(ordered[:HOSTS_TRIED]), False, answer.authenticated, site, tuple(skipped)
    )


def _in_order(hosts: Iterable[MxHost], random: Random) -> list[MxHost]:
    # By name first: the outcome depends on `random` alone, not on the server's order.
    ordered: list[MxHost] = []
    by_preference = sorted(hosts, key=lambda host: (host.preference, host.name))
    for _, same in groupby(by_preference, key=lambda host: host.preference):
        group = list(same)
        random.shuffle(group)
        ordered += group
    return ordered


def _problem_with(host: str) -> str | None:
    if host == ".":
        return "a null MX stands beside others (RFC 7505 section 3)"
    if _NUMBERS.fullmatch(host) or literal_address(host) is not None or ":" in host:
        return "an address where a host name must stand (RFC 1035 section 3.3.9)"
    if not _HOST.fullmatch(host):
        return "not a host name"
    return None


def _nothing_to_try(
    route: MxRoute, failure: TemporaryFailure | None, looped: bool, skipped: Sequence[Skipped]
) -> Never | Later:
    if failure is not None:
        return Later("4.4.3", f"no address of {route.domain} could be found: {_why(failure)}")
    if looped:
        return Never(
            "5.4.6", f"this server is the best mail server of {route.domain}: it would loop"
        )
    if route.implicit:
        return Never(
            "5.1.2", f"{route.domain} has neither an MX nor an address: {_listed(skipped)}"
        )
    return Never("5.4.4", f"no mail server of {route.domain} can be used: {_listed(skipped)}")


def _why(result: NoName | NoRecords | TemporaryFailure) -> str:
    if isinstance(result, TemporaryFailure):
        return (
            f"{result.trouble.value} ({result.detail})" if result.detail else result.trouble.value
        )
    return "no such name" if isinstance(result, NoName) else "it has no address"


def _listed(skipped: Sequence[Skipped]) -> str:
    shown = "; ".join(f"{one.name}: {one.why}" for one in skipped[:3])
    return shown + ("; …" if len(skipped) > 3 else "")
