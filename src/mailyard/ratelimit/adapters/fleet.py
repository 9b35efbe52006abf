"""Limits of the fleet that hold on without Redis: each process then goes by its part of them.

    Redis there    the shared bucket decides, and each process notes how full it has seen it
    Redis away     a local bucket of rate / n and burst / n decides, n being the processes known;
                   it begins as full as the shared one was seen, so that what was used stays used
    Redis back     what was taken locally is first taken from the shared bucket, like it or not

Both parts are in seconds (how far a bucket is from full), which do not change when rate and burst
are divided alike. All processes together so never go faster than the limit; they go slower where
work is not spread evenly. Nobody waits: the first call that finds Redis away goes on locally.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mailyard.core.clock import Clock
from mailyard.observe.metrics import REDIS_FALLBACKS
from mailyard.ratelimit.ratelimit import Drawn, RateLimit, Taking, check, gcra
from mailyard.storage.redis.link import RedisAway

KEYS_NOTED = 50_000  # of buckets that are not full; about 10 MB at most
_TAKEN = REDIS_FALLBACKS.labels("limit")


class OwingRateLimit(RateLimit, Protocol):
    """Shared buckets that can be told of takings elsewhere."""

    async def draw_owing(
        self, takings: Sequence[Taking], owed_s: Sequence[float]
    ) -> list[Drawn]: ...


@dataclass(slots=True)
class _Local:
    """This process's part of a bucket. Monotonic instants at which it is full: now, and as it was
    seen at first."""

    full_at_s: float
    seen_at_s: float
    share: float

    def owed_s(self, now_s: float) -> float:
        """Of the whole bucket, what was taken here beyond what the shared one knows."""
        return max(0.0, self.full_at_s - max(now_s, self.seen_at_s)) * self.share


class FleetRateLimit:
    """`processes`: how many go by the limits, this one included, as far as is known."""

    def __init__(
        self, *, shared: OwingRateLimit, processes: Callable[[], int], clock: Clock
    ) -> None:
        self._shared = shared
        self._processes = processes
        self._clock = clock
        self._seen: dict[str, float] = {}  # key -> monotonic instant at which it is full
        self._local: dict[str, _Local] = {}

    async def take(self, key: str, amount: float, per_s: float, burst: float) -> float:
        return (await self.draw(key, amount, per_s, burst)).wait_s

    async def draw(self, key: str, amount: float, per_s: float, burst: float) -> Drawn:
        return (await self.draw_many([Taking(key, amount, per_s, burst)]))[0]

    async def draw_many(self, takings: Sequence[Taking]) -> list[Drawn]:
        check(takings)
        now_s = self._clock.monotonic()
        owed_s = [0.0] * len(takings)
        if self._local:
            owed_s = [self._owed(one.key, now_s) for one in takings]
        try:
            drawn = await self._shared.draw_owing(takings, owed_s)
        except RedisAway:
            _TAKEN.inc(len(takings))
            return [self._take(one) for one in takings]
        now_s = self._clock.monotonic()
        for taking, one in zip(takings, drawn, strict=True):
            if self._local:
                self._local.pop(taking.key, None)
            if one.wait_s == 0.0:
                self._note(taking.key, now_s + one.ahead_s, now_s)
        return drawn

    async def forget(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._seen.pop(key, None)
            self._local.pop(key, None)
        await self._shared.forget(keys)

    # -----------------------------------------------------------------------------------------

    def _owed(self, key: str, now_s: float) -> float:
        local = self._local.get(key)
        return 0.0 if local is None else local.owed_s(now_s)

    def _take(self, taking: Taking) -> Drawn:
        """From this process's part."""
        now_s = self._clock.monotonic()
        share = 1.0 / max(1, self._processes())
        local = self._local.get(taking.key)
        if local is None:
            seen_at_s = self._seen.get(taking.key, now_s)
            if len(self._local) >= KEYS_NOTED:
                self._local = {
                    key: one for key, one in self._local.items() if one.full_at_s > now_s
                }
            local = self._local[taking.key] = _Local(seen_at_s, seen_at_s, share)
        local.share = share
        local.full_at_s, wait_s = gcra(
            local.full_at_s, now_s, taking.amount, taking.per_s * share, taking.burst * share
        )
        return Drawn(wait_s, 0.0 if wait_s else local.full_at_s - now_s)

    def _note(self, key: str, full_at_s: float, now_s: float) -> None:
        if len(self._seen) >= KEYS_NOTED and key not in self._seen:
            self._seen = {one: at for one, at in self._seen.items() if at > now_s}
            if len(self._seen) >= KEYS_NOTED:
                self._seen.clear()  # then a local part begins full
        self._seen[key] = full_at_s
