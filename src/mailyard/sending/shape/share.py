"""What one worker takes of the limits that hold over all workers, and when it is void.

    rate         Wanted -> Taking -> RateLimit.draw_many -> Dispatch.drawn
                 A killed worker's permits are gone; the bucket fills again within a second.
    connections  what waits -> Claim -> Leases.hold -> Holding -> Dispatch.leased
                 A killed worker's connections are free again when its lease is void.

Leases are judged by the worker's own monotonic clock from before the call began, so that a worker
that was stopped for minutes finds its leases void before anybody else does anything with them.
"""

from dataclasses import dataclass

from mailyard.ratelimit.lease import Claim, Lease
from mailyard.ratelimit.ratelimit import Taking
from mailyard.sending.shape.dispatch import Wanted
from mailyard.sending.shape.receiver import Limits
from mailyard.sending.shape.site import HELD_PER_CONNECTION, Site, connections_at

VOID_MARGIN_S = 5.0  # for closing before the lease is void


@dataclass(frozen=True, slots=True)
class Holding:
    """A lease as its holder sees it. `void_at_s`: monotonic, of this process."""

    held: int = 0
    target: int = 0
    void_at_s: float = 0.0

    def usable(self, monotonic_s: float) -> int:
        """How many may be open, now that is; whatever is above it is to be closed at once."""
        if monotonic_s >= self.void_at_s - VOID_MARGIN_S:
            return 0
        return min(self.held, self.target)


def taking(wanted: Wanted) -> Taking:
    """The draw of a site, as the bucket of all workers takes it."""
    draw = wanted.draw
    return Taking(wanted.key, draw.amount, draw.per_s, draw.burst)


def claim(
    now_s: float, key: str, site: Site, limits: Limits, open_connections: int, waiting: int
) -> Claim:
    """What to claim for a site with `waiting` mails in its line and on their way."""
    most = connections_at(now_s, site, limits)
    useful = -(-waiting // HELD_PER_CONNECTION)
    return Claim(key, open_connections, min(most, useful), most)


def holding(asked_at_monotonic_s: float, lease: Lease, ttl_s: float) -> Holding:
    """The lease that was asked for at that instant."""
    return Holding(lease.held, lease.target, asked_at_monotonic_s + ttl_s)
