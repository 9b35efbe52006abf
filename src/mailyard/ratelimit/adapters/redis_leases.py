"""Leases that the whole fleet shares, in Redis: the parts of a key are one hash, and taking what is
free of it is one step of a script. Time is Redis's own."""

from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

from mailyard.core.clock import Clock
from mailyard.ratelimit.lease import Claim, Lease, check
from mailyard.storage.redis.link import RedisLink
from mailyard.storage.redis.script import Call, command, run, script_of, tag_of

_SCRIPT = "leases"
CLAIMS_PER_SCRIPT = 250


class RedisLeases:
    """Raises RedisAway when Redis is; see `FleetLeases` for what happens then."""

    def __init__(self, *, link: RedisLink, clock: Clock | None = None) -> None:
        self._link = link
        self._clock = clock
        self._script = script_of("mailyard.ratelimit.adapters", _SCRIPT)
        self._keys: defaultdict[UUID, set[str]] = defaultdict(set)  # that a holder has parts of

    async def hold(self, holder: UUID, claims: Sequence[Claim], ttl_s: float) -> list[Lease]:
        check(claims, ttl_s)
        if not claims:
            return []
        self._remember(holder, claims)
        groups: defaultdict[str, list[int]] = defaultdict(list)
        for at, claim in enumerate(claims):
            groups[tag_of(claim.key) if self._link.spread else ""].append(at)
        calls: list[Call] = []
        places: list[int] = []
        for group in groups.values():
            for begin in range(0, len(group), CLAIMS_PER_SCRIPT):
                piece = group[begin : begin + CLAIMS_PER_SCRIPT]
                places += piece
                calls.append(self._call(holder, [claims[at] for at in piece], ttl_s))
        answers = await self._link.run(calls)
        leases = [Lease(0, 0)] * len(claims)
        numbers = [number for answer in answers for number in answer]
        for index, at in enumerate(places):
            leases[at] = Lease(int(numbers[2 * index]), int(numbers[2 * index + 1]))
        return leases

    async def release(self, holder: UUID) -> None:
        keys = self._keys.pop(holder, set())
        if keys:
            await self._link.run([command("HDEL", self._name(key), holder.hex) for key in keys])

    def _remember(self, holder: UUID, claims: Sequence[Claim]) -> None:
        keys = self._keys[holder]
        keys.update(claim.key for claim in claims if claim.open or claim.wanted)
        keys.difference_update(claim.key for claim in claims if not (claim.open or claim.wanted))

    def _call(self, holder: UUID, claims: Sequence[Claim], ttl_s: float) -> Call:
        now = "" if self._clock is None else f"{self._clock.now().timestamp() * 1000:.0f}"
        words: list[str | int] = [now, holder.hex, round(ttl_s * 1000)]
        for claim in claims:
            words += (claim.open, claim.wanted, claim.limit)
        return run(self._script, [self._name(claim.key) for claim in claims], words)

    def _name(self, key: str) -> str:
        return self._link.key("l", tag_of(key), key)
