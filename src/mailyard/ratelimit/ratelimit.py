"""The port of the rate limiter, and its rule as a pure function.

GCRA, the generic cell rate algorithm (ITU-T I.371 annex A): a bucket is one instant, the
theoretical arrival time `tat`. Taking `amount` moves it on by amount / per_s; the taking conforms
when the moved instant is at most burst / per_s ahead of now.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Drawn:
    """`wait_s` 0.0: taken, and the bucket is full again `ahead_s` from now. Else nothing was."""

    wait_s: float
    ahead_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Taking:
    """One taking of a batch: see `RateLimit.take`."""

    key: str
    amount: float
    per_s: float
    burst: float


class RateLimit(Protocol):
    """Buckets by key, shared by whoever uses the same adapter and store."""

    async def draw(self, key: str, amount: float, per_s: float, burst: float) -> Drawn:
        """As `take`, telling how far the bucket is from full."""
        ...

    async def draw_many(self, takings: Sequence[Taking]) -> list[Drawn]:
        """As `draw` for each, in their order, at once; each is taken or refused for itself.

        Raises ValueError when a key stands twice.
        """
        ...

    async def take(self, key: str, amount: float, per_s: float, burst: float) -> float:
        """Take `amount` from the bucket `key`, all or nothing.

        0.0: taken. More: not taken, try again in that many seconds. `amount` may be the sum of a
        batch; one that is above `burst` is taken from a full bucket only, and puts it in debt.
        """
        ...

    async def forget(self, keys: Sequence[str]) -> None:
        """The buckets are full again."""
        ...


def check(takings: Sequence[Taking]) -> None:
    """Raises ValueError on what `draw_many` does not take."""
    if len({one.key for one in takings}) != len(takings):
        raise ValueError("each taking of a batch has a key of its own")
    if any(one.amount < 0 or one.per_s <= 0 or one.burst <= 0 for one in takings):
        raise ValueError("amount must be at least 0; per_s and burst must be above 0")


def gcra(
    tat_s: float, now_s: float, amount: float, per_s: float, burst: float
) -> tuple[float, float]:
    """(new tat, wait in seconds) of taking `amount` at `now_s`; a wait above 0 leaves tat as is.

    Raises ValueError on an amount below 0, or a rate or burst that is not above 0.
    """
    if amount < 0 or per_s <= 0 or burst <= 0:
        raise ValueError("amount must be at least 0; per_s and burst must be above 0")
    start_s = max(tat_s, now_s)
    # What asks for more than the burst may go when the bucket is full.
    allowed_s = max(burst, amount) / per_s
    moved_s = start_s + amount / per_s
    wait_s = moved_s - allowed_s - now_s
    if wait_s > 1e-9:
        return tat_s, wait_s
    return moved_s, 0.0
