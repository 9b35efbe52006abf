"""The hand-off window: how many recipients a process may have named and not yet recorded.

Intent comes before bytes (DESIGN idea 4): a fenced commit names a recipient before it is handed
to a transport, so a process that dies leaves at most the window's size of recipients of whom nobody
knows whether they got their mail. One statement records what is finished and names what comes
next; the places of what it records can be used by what it names, and by nobody else before it has
committed, because until then both could be found unrecorded after a crash.
"""

import asyncio
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One statement: it records `recorded` recipients and names `named` new ones."""

    recorded: int
    named: int


class Window:
    """`size` places, shared by everything in this process that hands off on one lane."""

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError("a window has at least one place")
        self.size = size
        self._taken = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def taken(self) -> int:
        """Recipients that may be named and unrecorded now. Never more than `size`."""
        return self._taken

    @property
    def room(self) -> int:
        return self.size - self._taken

    def begin(self, recorded: int, wanted: int) -> Step:
        """Plan a statement that records `recorded` and names up to `wanted`; may name none."""
        named = min(wanted, self.room + recorded)
        self._taken += max(0, named - recorded)
        return Step(recorded, named)

    def committed(self, step: Step) -> None:
        """The statement stands: what it recorded is free again."""
        self._give_back(max(0, step.recorded - step.named))

    def rolled_back(self, step: Step) -> None:
        """The statement did nothing: what it recorded is still unrecorded, it named nobody."""
        self._give_back(max(0, step.named - step.recorded))

    def forget(self, unrecorded: int) -> None:
        """Named recipients passed to somebody else (a newer fence): no longer this process's."""
        self._give_back(unrecorded)

    async def opened(self) -> None:
        """Wait until there is room for at least one."""
        while self.room < 1:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)

    def _give_back(self, places: int) -> None:
        self._taken -= places
        if self._taken < 0:
            raise AssertionError("more places given back than were taken")
        while self._waiters and self.room > 0:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
