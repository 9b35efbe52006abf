"""Which lines to ask next, and from which place on: pure decisions, kept in each process's memory.

A line is the jobs of one workspace at one priority of a queue, ordered by place. Leasing takes from
the front, so behind a long-lived snapshot the front fills with dead rows; who always began at zero
would walk over all of them. Each line therefore has two marks:

`hot`   behind the last place that this process saw taken. New jobs have larger places.
`low`   behind which nothing can be missing: a transaction that drew a place and commits late (a
        straggler) lies above it. It follows the oldest running transaction.

Most leases begin at `hot`; one begins at `low` every few milliseconds, at most a twentieth of the
time. Marks are hints: what may be leased is decided by the rows, and once in a while a lease begins
at zero, for what another process locked and then gave up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

_PROBED = 64  # lines that one statement asks
_FROM_LOW_EVERY_S = 0.02
_FROM_ZERO_EVERY_S = 30.0
_SHARE_OF_TIME = 20.0  # looking for stragglers takes at most one part in so many


@dataclass(slots=True)
class Line:
    """One line, and what this process knows of it. `live`: the last look found something."""

    id: int
    queue: str
    priority: int
    workspace_id: UUID | None
    hot: int = 0
    low: int = 0
    live: bool = True
    low_due_s: float = 0.0
    zero_due_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask `line` for up to `share` jobs behind `after`; nothing below `safe` can come late."""

    line: Line
    after: int
    share: int
    safe: int
    from_low: bool


class Lines:
    """The lines of all queues, and whose turn it is."""

    def __init__(self, straggle_every_s: float = _FROM_LOW_EVERY_S) -> None:
        self._straggle_every_s = straggle_every_s
        self._by_id: dict[int, Line] = {}
        self._by_key: dict[tuple[str, int, UUID | None], Line] = {}
        self._turns: dict[str, list[Line]] = {}
        self._marks: list[tuple[int, int]] = []  # (next transaction, last place drawn before it)
        self._last_place = 0
        self._marked = 0
        self.safe = 0

    def find(self, queue: str, priority: int, workspace_id: UUID | None) -> Line | None:
        return self._by_key.get((queue, priority, workspace_id))

    def of_id(self, line_id: int) -> Line:
        return self._by_id[abs(line_id)]

    def knows(self, line_id: int) -> bool:
        return abs(line_id) in self._by_id

    @property
    def last_id(self) -> int:
        return max(self._by_id, default=0)

    def add(self, line_id: int, queue: str, priority: int, workspace_id: UUID | None) -> None:
        if line_id in self._by_id:
            return
        line = Line(line_id, queue, priority, workspace_id)
        self._by_id[line_id] = line
        self._by_key[(queue, priority, workspace_id)] = line
        turns = self._turns.setdefault(queue, [])
        turns.append(line)
        turns.sort(key=lambda each: each.priority)

    def of_queue(self, queue: str) -> Sequence[Line]:
        return self._turns.get(queue, [])

    @property
    def wants_mark(self) -> bool:
        """Whether the next `settle` needs `next_xid`: places were drawn since the last mark."""
        return self._last_place > self._marked

    def settle(self, xmin: int, next_xid: int, last_place: int) -> None:
        """Move `safe`: places drawn before `next_xid` was are settled once all below it ended.

        All transactions below `xmin` have. A place may be drawn an instant before its transaction
        has a number, so the place that is marked is the one of the call before.
        """
        if self.wants_mark:
            self._marks.append((next_xid, self._last_place))
            self._marked = self._last_place
        self._last_place = last_place
        while self._marks and self._marks[0][0] <= xmin:
            self.safe = max(self.safe, self._marks.pop(0)[1])
        del self._marks[1:-100]  # a very long transaction: fewer marks do as well

    def plan(self, queues: Sequence[str], limit: int, now_s: float, done: set[int]) -> list[Probe]:
        """The next lines to ask, first priority first; `done` are those already asked this time."""
        probes: list[Probe] = []
        groups: dict[int, list[Line]] = {}
        for queue in queues:
            for line in self._turns.get(queue, ()):
                if line.id not in done:
                    groups.setdefault(line.priority, []).append(line)
        for priority in sorted(groups):
            group = groups[priority]
            live = sum(line.live for line in group)
            share = -(-limit // max(1, live))
            group.sort(key=lambda line: not line.live)
            for line in group[: _PROBED - len(probes)]:
                probes.append(self._probe(line, share, now_s))
            if len(probes) >= _PROBED:
                break
        return probes

    def _probe(self, line: Line, share: int, now_s: float) -> Probe:
        if now_s >= line.zero_due_s:
            return Probe(line, 0, share, self.safe, True)
        if now_s >= line.low_due_s:
            return Probe(line, line.low, share, self.safe, True)
        return Probe(line, line.hot, share, self.safe, False)

    def answered(
        self,
        probes: Sequence[Probe],
        taken: dict[int, tuple[int, int]],
        room: int,
        now_s: float,
        took_s: float,
    ) -> None:
        """Learn from an answer: `taken` is line id -> (jobs, last place).

        `room` is how many more jobs would have fitted: with none, lines at the end were not asked,
        and one was perhaps cut short.
        """
        for probe in probes:
            line = probe.line
            jobs, last = taken.get(line.id, (0, 0))
            if not jobs and not room:
                continue
            line.live = jobs > 0
            line.hot = max(line.hot, last)
            if not probe.from_low:
                continue
            # Drained: whatever comes is above `safe`. Else the line goes on behind the last taken.
            drained = jobs < probe.share and room > 0
            if drained:
                line.low = max(line.low, probe.safe)
            elif probe.after:
                line.low = max(line.low, min(probe.safe, last))
            else:  # more was left behind the marks than one share: they go back to it
                line.low, line.hot = min(probe.safe, last), last
            if probe.after == 0:
                line.zero_due_s = now_s + max(_FROM_ZERO_EVERY_S, took_s * _SHARE_OF_TIME)
                if self._straggle_every_s == 0.0:
                    line.zero_due_s = 0.0
            line.low_due_s = now_s + max(self._straggle_every_s, took_s * _SHARE_OF_TIME)
            line.hot = max(line.hot, line.low)
        self._turn(probes, taken)

    def _turn(self, probes: Sequence[Probe], taken: dict[int, tuple[int, int]]) -> None:
        """Those that were served, or have nothing, go to the end of their priority."""
        served = {
            probe.line.id for probe in probes if probe.line.id in taken or not probe.line.live
        }
        for queue in {probe.line.queue for probe in probes}:
            turns = self._turns[queue]
            if len(turns) > 1:
                turns.sort(key=lambda line: (line.priority, line.id in served))
