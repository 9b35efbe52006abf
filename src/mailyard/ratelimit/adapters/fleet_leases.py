"""Leases of the fleet that hold on without Redis: each worker then has a fixed part of each place.

    Redis away     what is held is kept, down to the worker's part; nobody takes more than he held
                   until everybody has noticed (LEASE_RENEW_S), then up to his part
    Redis back     nobody takes more than his part until every lease was renewed (LEASE_TTL_S), for
                   a Redis that has forgotten does not know what the others hold

The part of a worker is limit / n, the rest going by turns that differ from key to key, so that a
place with a single connection has one worker that may use it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from uuid import UUID
from zlib import crc32

from mailyard.core.clock import Clock
from mailyard.observe.metrics import REDIS_FALLBACKS
from mailyard.ratelimit.lease import LEASE_RENEW_S, LEASE_TTL_S, Claim, Lease, Leases, check
from mailyard.storage.redis.link import RedisAway

_HELD = REDIS_FALLBACKS.labels("lease")


class FleetLeases:
    """`place`: which of how many workers this is, as far as is known: (0, 1) for the only one."""

    def __init__(
        self, *, shared: Leases, place: Callable[[], tuple[int, int]], clock: Clock
    ) -> None:
        self._shared = shared
        self._place = place
        self._clock = clock
        self._held: dict[tuple[UUID, str], int] = {}
        self._away_at_s: float | None = None
        self._careful_until_s = 0.0

    async def hold(self, holder: UUID, claims: Sequence[Claim], ttl_s: float) -> list[Lease]:
        check(claims, ttl_s)
        now_s = self._clock.monotonic()
        asked = claims
        if now_s < self._careful_until_s or self._away_at_s is not None:
            asked = [self._carefully(claim) for claim in claims]
        try:
            leases = await self._shared.hold(holder, asked, ttl_s)
        except RedisAway:
            _HELD.inc(len(claims))
            if self._away_at_s is None:
                self._away_at_s = now_s
            leases = [self._alone(holder, claim, now_s) for claim in claims]
        else:
            if self._away_at_s is not None:
                self._away_at_s, self._careful_until_s = None, now_s + LEASE_TTL_S
        for claim, lease in zip(claims, leases, strict=True):
            if claim.open or claim.wanted:
                self._held[holder, claim.key] = lease.held
            else:
                self._held.pop((holder, claim.key), None)
        return leases

    async def release(self, holder: UUID) -> None:
        for one, key in list(self._held):
            if one == holder:
                del self._held[one, key]
        try:
            await self._shared.release(holder)
        except RedisAway:
            return  # the parts run out by themselves

    # -----------------------------------------------------------------------------------------

    def _carefully(self, claim: Claim) -> Claim:
        return replace(claim, wanted=min(claim.wanted, max(claim.open, self._part(claim))))

    def _alone(self, holder: UUID, claim: Claim, now_s: float) -> Lease:
        assert self._away_at_s is not None, "noticed before"
        part = min(claim.wanted, self._part(claim))
        everybody_knows = now_s - self._away_at_s >= LEASE_RENEW_S or self._place()[1] <= 1
        most = part if everybody_knows else min(part, self._held.get((holder, claim.key), 0))
        return Lease(max(claim.open, most), part)

    def _part(self, claim: Claim) -> int:
        index, workers = self._place()
        workers = max(1, workers)
        turn = (index + crc32(claim.key.encode())) % workers
        return claim.limit // workers + (turn < claim.limit % workers)
