"""Failed logins by address: each is answered late, and after some the address must wait.

An API key has 240 random bits, so nobody guesses one; this keeps the tries from costing us. Counted
in all processes together; a process remembers which address is shut until when.
"""

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable

from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import MailyardError
from mailyard.ratelimit.ratelimit import RateLimit

FAILURES = 10  # at once, from one address
FAILURES_PER_S = 1 / 60
LATE_S = 2.0
REMEMBERED = 10_000
_IPV6_PREFIX = 64  # what one customer has


class LoginGuard:
    """One a process."""

    def __init__(
        self,
        *,
        rate_limit: RateLimit,
        clock: Clock | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rate_limit = rate_limit
        self._clock = clock or SystemClock()
        self._sleep = sleep
        self._shut: dict[str, float] = {}

    def shut_s(self, address: str) -> float:
        """How long the address must wait; 0.0 when it may try."""
        until = self._shut.get(_network(address))
        return 0.0 if until is None else max(0.0, until - self._clock.monotonic())

    async def failed(self, address: str) -> None:
        """Count a failure, and return late."""
        network = _network(address)
        try:
            wait_s = await self._rate_limit.take(
                f"login:{network}", 1.0, FAILURES_PER_S, float(FAILURES)
            )
        except MailyardError:
            wait_s = LATE_S  # nobody can count now
        if wait_s > 0:
            if len(self._shut) >= REMEMBERED:
                self._shut.clear()
            self._shut[network] = self._clock.monotonic() + wait_s
        await self._sleep(LATE_S)


def _network(address: str) -> str:
    """What is counted as one: an IPv4 address, or the /64 of an IPv6 one."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, _IPV6_PREFIX), strict=False))
