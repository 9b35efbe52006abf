"""The API's rate limits: so many requests a second for each key in all API processes together, and
for each stranger in one.

Both count by the generic cell rate algorithm (GCRA, ATM Forum TM 4.0), which needs one number a
caller. A key's is shared (`ratelimit`); since asking for it would cost more than the request, a
process takes a share of some requests at a time and counts those off by itself. What all processes
let through never passes the limit; what one has taken and does not use is a share at most.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from time import monotonic
from uuid import UUID

from mailyard.access.plan import Plans
from mailyard.core.errors import RateLimited
from mailyard.ratelimit.ratelimit import RateLimit

CALLERS_MAX = 50_000
SHARE_S = 0.1  # a share is what the rate allows in so long, at most
SHARE_OF_BURST = 0.1
SHUT_S = 1.0  # who was refused is asked about so often: somebody may have filled his bucket again
PLAN_BURST_S = 10.0  # of a plan's rate may come at once
_ROUNDING = 1e-6  # of one request: what floats lose must not refuse the last one of a burst


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left now: `remaining` requests at once, all of them again in `reset_s`."""

    limit: int
    window_s: int
    remaining: int
    reset_s: int

    def headers(self) -> list[tuple[bytes, bytes]]:
        """As in draft-ietf-httpapi-ratelimit-headers-10."""
        return [
            (b"ratelimit-policy", b'"key";q=%d;w=%d' % (self.limit, self.window_s)),
            (b"ratelimit", b'"key";r=%d;t=%d' % (self.remaining, self.reset_s)),
        ]


@dataclass(slots=True)
class _Share:
    """What this process may let through for a caller, and how full the bucket was at `seen_at`."""

    left: int = 0
    ahead_s: float = 0.0
    seen_at: float = 0.0
    shut_until: float = 0.0
    ask_at: float = 0.0  # while it is shut
    drawing: asyncio.Lock = field(default_factory=asyncio.Lock)


class FleetLimiter:
    """`per_s` requests a second for each caller, `burst` at once, over all processes."""

    def __init__(
        self,
        *,
        limits: RateLimit,
        per_s: float,
        burst: int,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._limits = limits
        self._per_s = per_s
        self._burst = burst
        self._window_s = max(1, round(burst / per_s))
        self._clock = clock
        self._share = max(1, int(min(per_s * SHARE_S, burst * SHARE_OF_BURST)))
        self._shares: dict[str, _Share] = {}

    async def take(self, caller: str) -> Allowance:
        """Count one request. Raises RateLimited with the wait until the next may come."""
        share = self._shares.get(caller)
        if share is None:
            if len(self._shares) >= CALLERS_MAX:
                self._shares.clear()  # each loses a share at most
            share = self._shares[caller] = _Share()
        if share.left < 1:
            async with share.drawing:
                if share.left < 1:  # who waited here finds what the one before has drawn
                    await self._draw(caller, share)
        share.left -= 1
        return self._allowance(share)

    async def _draw(self, caller: str, share: _Share) -> None:
        """Take a share, or what is left of one in the bucket."""
        now = self._clock()
        if now < share.shut_until and now < share.ask_at:
            raise RateLimited("too many requests", retry_after_s=share.shut_until - now)
        wanted = self._share
        while wanted >= 1:
            drawn = await self._limits.draw(f"api:{caller}", wanted, self._per_s, self._burst)
            if drawn.wait_s == 0.0:
                share.left, share.ahead_s, share.seen_at = wanted, drawn.ahead_s, self._clock()
                return
            # The wait says by how many the share was too large.
            short = max(1, ceil(drawn.wait_s * self._per_s - _ROUNDING))
            wait_s = drawn.wait_s - (wanted - 1) / self._per_s
            wanted -= short
        now = self._clock()
        share.shut_until, share.ask_at = now + wait_s, now + SHUT_S
        raise RateLimited("too many requests", retry_after_s=wait_s)

    def _allowance(self, share: _Share) -> Allowance:
        """As far as this process knows: the others may have drawn since."""
        ahead_s = share.ahead_s - (self._clock() - share.seen_at)
        used = max(0.0, ahead_s * self._per_s - share.left)
        return Allowance(
            self._burst,
            self._window_s,
            max(0, int(self._burst - used + _ROUNDING)),
            ceil(used / self._per_s - _ROUNDING),
        )


class PlanLimiter:
    """What the plan of a workspace allows of requests a second, by all its keys together."""

    def __init__(self, *, plans: Plans, limits: RateLimit) -> None:
        self._plans = plans
        self._limits = limits
        self._by_rate: dict[float, FleetLimiter] = {}

    async def take(self, workspace_id: UUID) -> None:
        """Count one request. Raises RateLimited with the wait until the next may come."""
        plan = self._plans.known(workspace_id) or await self._plans.of(workspace_id)
        per_s = plan.requests_per_s
        if per_s is None:
            return
        limiter = self._by_rate.get(per_s)
        if limiter is None:
            burst = max(1, ceil(per_s * PLAN_BURST_S))
            limiter = FleetLimiter(limits=self._limits, per_s=per_s, burst=burst)
            self._by_rate[per_s] = limiter
        await limiter.take(f"plan:{workspace_id.hex}")


class RateLimiter:
    """`per_s` requests a second for each caller, `burst` at once, in this process."""

    def __init__(self, *, per_s: float, burst: int, clock: Callable[[], float] = monotonic) -> None:
        self._interval_s = 1.0 / per_s
        self._depth_s = burst / per_s
        self._burst = burst
        self._window_s = max(1, round(burst / per_s))
        self._clock = clock
        self._arrivals: dict[str, float] = {}  # caller -> theoretical arrival time

    def take(self, caller: str) -> Allowance:
        """Count one request. Raises RateLimited with the wait until the next may come."""
        now = self._clock()
        arrival = max(self._arrivals.get(caller, now), now) + self._interval_s
        ahead_s = arrival - now
        if ahead_s > self._depth_s + _ROUNDING * self._interval_s:
            raise RateLimited("too many requests", retry_after_s=ahead_s - self._depth_s)
        if len(self._arrivals) >= CALLERS_MAX:
            self._arrivals = {key: at for key, at in self._arrivals.items() if at > now}
            if len(self._arrivals) >= CALLERS_MAX:
                self._arrivals.clear()
        self._arrivals[caller] = arrival
        return Allowance(
            self._burst,
            self._window_s,
            int((self._depth_s - ahead_s) / self._interval_s + _ROUNDING),
            int(ahead_s + 0.999),
        )
