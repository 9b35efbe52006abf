"""Leases of one process."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from mailyard.core.clock import Clock
from mailyard.ratelimit.lease import Claim, Lease, Part, check, part_of


@dataclass(frozen=True, slots=True)
class _Row:
    part: Part
    void_at_s: float


class MemoryLeases:
    """Exact within the process; another process has leases of its own."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._rows: dict[str, dict[UUID, _Row]] = {}

    async def hold(self, holder: UUID, claims: Sequence[Claim], ttl_s: float) -> list[Lease]:
        check(claims, ttl_s)
        now_s = self._clock.monotonic()
        return [self._hold(holder, claim, now_s, now_s + ttl_s) for claim in claims]

    async def release(self, holder: UUID) -> None:
        for key in list(self._rows):
            self._keep(key, {one: row for one, row in self._rows[key].items() if one != holder})

    def _hold(self, holder: UUID, claim: Claim, now_s: float, void_at_s: float) -> Lease:
        rows = {
            one: row
            for one, row in self._rows.get(claim.key, {}).items()
            if one != holder and row.void_at_s > now_s
        }
        lease = part_of(claim, [row.part for row in rows.values()])
        if claim.open or claim.wanted:
            rows[holder] = _Row(Part(lease.held, claim.wanted), void_at_s)
        self._keep(claim.key, rows)
        return lease

    def _keep(self, key: str, rows: dict[UUID, _Row]) -> None:
        if rows:
            self._rows[key] = rows
        else:
            self._rows.pop(key, None)
