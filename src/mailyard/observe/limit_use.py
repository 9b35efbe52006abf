"""How much of what others allow us is used: a provider's rate, a model's, a mailbox's.

Two ways to tell, by what the limit is. Of an even rate (so many a second) every process counts what
it took, and who looks at all of them adds up. Of a window with a burst (so many in 100 s) the
bucket knows how full it is: a process keeps the fullest that it has seen since it last told.
"""

from dataclasses import dataclass

NAMES_KEPT = 200  # of limits; what comes after them is not told


@dataclass(slots=True)
class _Rate:
    taken: float = 0.0
    per_s: float = 0.0


class LimitUse:
    """One a process."""

    def __init__(self) -> None:
        self._rates: dict[str, _Rate] = {}
        self._fullest: dict[str, float] = {}

    def took(self, name: str, amount: float, per_s: float) -> None:
        """`amount` of the limit `name`, which is `per_s` a second over all processes."""
        rate = self._rates.get(name)
        if rate is None:
            if len(self._rates) >= NAMES_KEPT:
                return
            rate = self._rates[name] = _Rate()
        rate.taken += amount
        rate.per_s = per_s

    def refused(self, name: str) -> None:
        """Whoever holds the limit, or our own bucket, has said that it is used up."""
        self.filled(name, 1.0)

    def filled(self, name: str, share: float) -> None:
        """The bucket of the limit `name` is so full, 0 to 1."""
        if share > self._fullest.get(name, 0.0) and (
            name in self._fullest or len(self._fullest) < NAMES_KEPT
        ):
            self._fullest[name] = share

    def rates(self) -> dict[str, tuple[float, float]]:
        """By name: taken since this process began, and how much is allowed a second."""
        return {name: (round(one.taken, 3), one.per_s) for name, one in self._rates.items()}

    def fullest(self) -> dict[str, float]:
        """By name, since this was asked before."""
        told, self._fullest = self._fullest, {}
        return {name: round(share, 4) for name, share in told.items()}


LIMIT_USE = LimitUse()
