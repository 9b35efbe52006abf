"""One process of each kind is killed in turn, on a platform of one's own, whatever its stage.

The next turn comes when the kind is whole again: a platform that does not heal is found out. Names
of kinds are those of `victims_of`.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from mailyard.core.errors import Unavailable
from mailyard.proving.chaos import POSTGRES, SUPERVISOR, kill, victims_of
from mailyard.proving.own_platform import OwnPlatform

HEAL_S = 180.0  # a broker that finds its log torn needs a minute on a busy machine
GAP_S = 1.5
_LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Turn:
    """A process of `kind` was killed; `back_s` later there were as many as before."""

    kind: str
    pid: int
    back_s: float


class Turns:
    """Kills one of each kind, the database last. The supervisor stays: it is who heals."""

    def __init__(
        self,
        platform: OwnPlatform,
        *,
        log: Callable[[str], None],
    ) -> None:
        self._platform = platform
        self._log = log
        self.turns: list[Turn] = []

    async def run(self) -> None:
        """One turn for every kind that there is now. Raises Unavailable when one does not come
        back."""
        kinds = sorted(set(victims_of(self._platform)) - {SUPERVISOR}, key=_late)
        for kind in kinds:
            await asyncio.sleep(GAP_S)
            self.turns.append(await self._take(kind))

    async def _take(self, kind: str) -> Turn:
        before = victims_of(self._platform)[kind]
        victim = before[0]
        kill(victim)
        self._log(f"killed {kind} {victim}")
        struck = monotonic()
        while monotonic() - struck < HEAL_S:
            now = victims_of(self._platform).get(kind, [])
            if victim not in now and _enough(kind, now, before):
                back_s = monotonic() - struck
                self._log(f"{kind} is whole again after {back_s:.1f} s")
                return Turn(kind, victim, round(back_s, 2))
            await asyncio.sleep(_LOOK_S)
        raise Unavailable(f"{kind} did not come back within {HEAL_S:.0f} s of its kill")


def _late(kind: str) -> tuple[bool, str]:
    return (kind == POSTGRES, kind)


def _enough(kind: str, now: list[int], before: list[int]) -> bool:
    """As many as before; PostgreSQL has as many processes as it has clients."""
    return bool(now) if kind == POSTGRES else len(now) >= len(before)
