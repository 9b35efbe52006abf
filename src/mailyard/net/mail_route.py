"""The questions of the pure decisions, asked: where a mail goes, whether DANE binds a host, how a
sending domain stands."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from random import Random

from mailyard.net.dns import Resolver
from mailyard.protocol.dane import DaneOff, DanePlan, dane_plan
from mailyard.protocol.dns_answer import Address, Answer, Result
from mailyard.protocol.dns_check import Check
from mailyard.protocol.dns_records import Verdict
from mailyard.protocol.mx import (
    Later,
    MxHost,
    MxRoute,
    Never,
    Target,
    Targets,
    literal_address,
    mx_route,
    mx_targets,
    site_of,
)


@dataclass(frozen=True, slots=True)
class MailRoute:
    """What to connect to for a domain, and the site whose limits that shares."""

    route: MxRoute
    targets: Targets


@dataclass(frozen=True, slots=True)
class HostDane:
    """What DANE asks of a target. `base`: the name under which the records stand (RFC 7672
    section 2.2.2), the first of the `names` that a certificate under DANE-TA may have."""

    plan: DanePlan
    names: tuple[str, ...]


class MailRouter:
    """Finds the way of mail for a domain. `may_connect`: the policy on addresses."""

    def __init__(
        self,
        resolver: Resolver,
        random: Random,
        own_names: Collection[str],
        own_addresses: Collection[Address],
        may_connect: Callable[[Address], bool],
    ) -> None:
        self._resolver = resolver
        self._random = random
        self._own_names = frozenset(own_names)
        self._own_addresses = frozenset(own_addresses)
        self._may_connect = may_connect

    async def find(self, domain: str) -> MailRoute | Never | Later:
        """Where mail for `domain` (lower case, ASCII, or an address literal) goes now."""
        literal = literal_address(domain)
        if literal is not None:
            route = MxRoute(domain, (MxHost(domain, 0),), True, False, site_of((domain,)), ())
            answer_of = {domain: Answer((literal,), 0.0, False, domain)}
            return self._with_targets(route, answer_of)
        answer = await self._resolver.mx(domain)
        decision = mx_route(domain, answer, self._own_names, self._random)
        if not isinstance(decision, MxRoute):
            return decision
        names = [host.name for host in decision.hosts]
        results = await asyncio.gather(*map(self._resolver.addresses, names))
        return self._with_targets(decision, dict(zip(names, results, strict=True)))

    async def dane(self, route: MxRoute, target: Target) -> HostDane:
        """Whether DANE binds `target`. Nothing is asked where it cannot."""
        host = target.host.name
        for base in dict.fromkeys((target.canonical, host)):
            tlsa = None
            if route.authenticated and target.authenticated:
                tlsa = await self._resolver.tlsa(base)
            plan = dane_plan(route.authenticated, target.authenticated, tlsa)
            if not isinstance(plan, DaneOff):
                return HostDane(plan, tuple(dict.fromkeys((base, route.domain, host))))
        return HostDane(DaneOff(), ())

    def _with_targets(
        self, route: MxRoute, found: Mapping[str, Result[Address]]
    ) -> MailRoute | Never | Later:
        targets = mx_targets(route, found, self._own_addresses, self._may_connect)
        return MailRoute(route, targets) if isinstance(targets, Targets) else targets


async def run_check(check: Check, resolver: Resolver) -> tuple[Verdict, ...]:
    """Ask what `check` wants to know, a round at a time, and return its verdicts."""
    questions = next(check)
    while True:
        results = await asyncio.gather(*map(resolver.answer, questions))
        try:
            questions = check.send(dict(zip(questions, results, strict=True)))
        except StopIteration as end:
            verdicts: tuple[Verdict, ...] = end.value
            return verdicts
