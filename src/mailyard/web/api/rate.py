"""The API's own rate limit: so many requests a second for each key, in this process.

The generic cell rate algorithm (GCRA, ATM Forum TM 4.0) needs one number a caller. It stays in the
process, because asking the database would cost more than the request. With n API processes a key
has n times the rate; it guards a process against being swamped, it is not a quota.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from mailyard.core.errors import RateLimited

CALLERS_MAX = 50_000
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


class RateLimiter:
    """`per_s` requests a second for each caller, `burst` at once."""

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
