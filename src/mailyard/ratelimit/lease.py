"""The port of leases: how many of something that is limited everywhere may this process have?

Connections to a site are limited over all workers. A rate is a bucket (`ratelimit`); a number of
things that are open at once is a lease: each holder's part is recorded with an instant at which it
is void, so that the part of a killed worker comes back by itself.

The store never takes away what a holder has open: it gives what is free, and tells who has more
than a fair part to close some (`target`). So the sum of what is open never exceeds the limit, also
while parts move from one holder to another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

LEASE_TTL_S = 30.0  # parts of a dead worker are free after that
LEASE_RENEW_S = 10.0  # renewals before it, of which two may be lost
CLAIMS_PER_CALL = 1_000


@dataclass(frozen=True, slots=True)
class Claim:
    """One key. `open`: what is open or being opened now; `wanted`: what would be used.

    `limit` is for all holders together. `wanted` 0 and `open` 0: the key is given back.
    """

    key: str
    open: int
    wanted: int
    limit: int


@dataclass(frozen=True, slots=True)
class Part:
    """What another holder has."""

    held: int
    wanted: int


@dataclass(frozen=True, slots=True)
class Lease:
    """Up to `held` may be open until the lease is void; what is above `target` is to be closed."""

    held: int
    target: int


class Leases(Protocol):
    """Parts by key and holder, shared by whoever uses the same adapter and store."""

    async def hold(self, holder: UUID, claims: Sequence[Claim], ttl_s: float) -> list[Lease]:
        """Renew the holder's parts and take what is free, for each claim its lease, in order.

        A lease is void `ttl_s` seconds after the call *began*: by then everything is closed, or the
        call was made again. While a call is under way nothing more is opened than `open` said.
        At most CLAIMS_PER_CALL claims, each with a key of its own; raises ValueError otherwise.
        """
        ...

    async def release(self, holder: UUID) -> None:
        """Give back every part of `holder`: it has closed everything."""
        ...


def part_of(claim: Claim, others: Sequence[Part]) -> Lease:
    """The rule. `others`: the parts of the other holders that are not void.

    Whoever has less than a fair part and wants more is hungry; then those above the fair part are
    told to shrink to it. With more holders than places each place stays where it is.
    """
    free = max(0, claim.limit - claim.open - sum(one.held for one in others))
    wanting = (claim.wanted > 0) + sum(one.wanted > 0 for one in others)
    fair = max(1, claim.limit // max(1, wanting))
    hungry = any(one.held < min(one.wanted, fair) for one in others)
    beside = claim.limit - sum(one.held for one in others)
    target = min(claim.wanted, fair if hungry else max(fair, beside))
    return Lease(claim.open + max(0, min(target - claim.open, free)), target)


def check(claims: Sequence[Claim], ttl_s: float) -> None:
    """Raises ValueError on what `Leases.hold` does not take."""
    if len(claims) > CLAIMS_PER_CALL or len({one.key for one in claims}) != len(claims):
        raise ValueError(f"at most {CLAIMS_PER_CALL} claims, each with a key of its own")
    if ttl_s <= 0 or any(min(one.open, one.wanted, one.limit) < 0 for one in claims):
        raise ValueError("ttl_s must be above 0; open, wanted and limit at least 0")
