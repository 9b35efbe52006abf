"""How far a replica is behind, in seconds, by one clock.

The replica's own figure (`pg_last_xact_replay_timestamp`) grows while nobody writes, and compares
two machines' clocks. Instead: at which instant did the primary first have something that the
replica lacks now? That long it is behind. Pure: instants and positions are handed in.
"""

from bisect import bisect_right
from collections import deque

REMEMBERED_S = 120.0


class LagClock:
    """Where the primary's write-ahead log stood when."""

    def __init__(self, remembered_s: float = REMEMBERED_S) -> None:
        self._remembered_s = remembered_s
        self._seen: deque[tuple[float, int]] = deque()  # instants and positions, both rising

    def note(self, at_s: float, position: int) -> None:
        """The primary stood at `position` at the instant `at_s`. An instant before is ignored."""
        if self._seen and position < self._seen[-1][1]:
            self._seen.clear()  # another primary, which has less
        if not self._seen or position > self._seen[-1][1]:
            self._seen.append((at_s, position))
        while len(self._seen) > 1 and self._seen[1][0] < at_s - self._remembered_s:
            self._seen.popleft()

    def behind_s(self, position: int, now_s: float) -> float:
        """For how long a replica at `position` has lacked something; 0 when it has all."""
        index = bisect_right([seen for _, seen in self._seen], position)
        if index == len(self._seen):
            return 0.0
        return max(0.0, now_s - self._seen[index][0])
