"""Exponential backoff with full jitter.

The wait before attempt n is uniform in [0, min(cap, first * 2**n)]: "full jitter" of the AWS
Architecture Blog, "Exponential Backoff And Jitter" (2015). A floor keeps a lucky draw from
hammering a peer that has just said no.
"""

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Backoff:
    """`first_s` before the first retry, doubled each time up to `cap_s`."""

    first_s: float
    cap_s: float
    floor_share: float = 0.5

    def delay_s(self, attempt: int, random: Random) -> float:
        """Seconds to wait after the `attempt`-th failure (1 is the first)."""
        if attempt < 1:
            raise ValueError("attempts count from 1")
        ceiling = min(self.cap_s, self.first_s * 2.0 ** min(attempt - 1, 60))
        return ceiling * (self.floor_share + (1.0 - self.floor_share) * random.random())
