"""The way to a domain, found once for the mails of half a minute."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from mailyard.core.clock import Clock
from mailyard.net.mail_route import HostDane, MailRoute
from mailyard.protocol.mta_sts import StsPolicy
from mailyard.protocol.mx import Later, MxRoute, Never, Target, literal_address

ROADS_MAX = 20_000  # domains
_FOUND_S = 30.0  # the resolver's own cache holds as long as DNS says; this saves asking it
_NOT_FOUND_S = 5.0


@dataclass(frozen=True, slots=True)
class Road:
    """`policy`: what MTA-STS asks of its hosts; None when no policy holds.

    `shares`: who has the same may share connections. Where DANE may apply that is the domain alone,
    because a certificate may be good for one domain and not for its neighbour (RFC 7672 section
    3.2.2).
    """

    domain: str
    route: MxRoute
    targets: tuple[Target, ...]
    policy: StsPolicy | None

    @property
    def shares(self) -> tuple[str, StsPolicy | None, str]:
        return self.route.site, self.policy, self.domain if self.route.authenticated else ""


Found: TypeAlias = Road | Never | Later


class Router(Protocol):
    """Where mail goes (`net.mail_route.MailRouter`)."""

    async def find(self, domain: str) -> MailRoute | Never | Later: ...

    async def dane(self, route: MxRoute, target: Target) -> HostDane: ...


class StsPolicies(Protocol):
    """What MTA-STS asks for a domain (`sending.sts.StsCache`)."""

    async def policy_for(self, domain: str) -> StsPolicy | None: ...


class Roads:
    """Finds roads. One question for all who ask for a domain at the same time."""

    def __init__(self, router: Router, policies: StsPolicies | None, clock: Clock) -> None:
        self._router = router
        self._policies = policies
        self._clock = clock
        self._found: OrderedDict[str, tuple[Found, float]] = OrderedDict()

    def known(self, domain: str) -> Found | None:
        """What was found a moment ago."""
        kept = self._found.get(domain)
        if kept is None:
            return None
        found, until = kept
        if self._clock.monotonic() >= until:
            del self._found[domain]
            return None
        return found

    async def find(self, domain: str) -> Found:
        """Ask DNS, and the domain's MTA-STS policy beside it."""
        if self._policies is None or literal_address(domain) is not None:
            route, policy = await self._router.find(domain), None
        else:
            route, policy = await asyncio.gather(
                self._router.find(domain), self._policies.policy_for(domain)
            )
        found: Found
        if isinstance(route, MailRoute):
            found = Road(domain, route.route, route.targets.targets, policy)
        else:
            found = route
        holds_s = _FOUND_S if isinstance(found, Road) else _NOT_FOUND_S
        self._found[domain] = found, self._clock.monotonic() + holds_s
        while len(self._found) > ROADS_MAX:
            self._found.popitem(last=False)
        return found
