"""Buckets of one process."""

from collections.abc import Sequence

from mailyard.core.clock import Clock
from mailyard.ratelimit.ratelimit import Drawn, Taking, check, gcra

_SWEEP_EVERY = 10_000  # takings between two removals of buckets that are full again


class MemoryRateLimit:
    """Exact within the process; another process has its own buckets."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._tat_s: dict[str, float] = {}
        self._takings = 0

    async def take(self, key: str, amount: float, per_s: float, burst: float) -> float:
        return (await self.draw(key, amount, per_s, burst)).wait_s

    async def draw_many(self, takings: Sequence[Taking]) -> list[Drawn]:
        check(takings)
        return [await self.draw(one.key, one.amount, one.per_s, one.burst) for one in takings]

    async def draw(self, key: str, amount: float, per_s: float, burst: float) -> Drawn:
        now_s = self._clock.monotonic()
        tat_s, wait_s = gcra(self._tat_s.get(key, now_s), now_s, amount, per_s, burst)
        if wait_s == 0.0:
            self._tat_s[key] = tat_s
        self._takings += 1
        if self._takings % _SWEEP_EVERY == 0:
            self._tat_s = {name: tat for name, tat in self._tat_s.items() if tat > now_s}
        return Drawn(wait_s, 0.0 if wait_s else tat_s - now_s)

    async def forget(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._tat_s.pop(key, None)
