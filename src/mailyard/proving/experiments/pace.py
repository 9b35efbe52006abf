"""Load that comes when it is due, whether what came before has been answered or not.

An open loop: a load that waits for answers becomes lighter just when it matters.
"""

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter

_EVERY_S = 0.01


class Pace:
    """Hands out numbers from `first` on, `per_s(t)` a second, t in seconds since `run` began."""

    def __init__(self, per_s: Callable[[float], float], until_s: float, first: int = 0) -> None:
        self._per_s = per_s
        self._until_s = until_s
        self._due: asyncio.Queue[tuple[int, float]] = asyncio.Queue()
        self._first = first
        self.handed = 0  # numbers that were due so far
        self.over = asyncio.Event()

    def stop(self) -> None:
        """End it now; what is due is still taken."""
        self._until_s = 0.0

    async def run(self) -> None:
        """Until the end; what is due then is still taken."""
        began = last = perf_counter()
        owed = 0.0
        while last - began < self._until_s:
            await asyncio.sleep(_EVERY_S)
            now = perf_counter()
            owed += self._per_s(now - began) * (now - last)
            last = now
            while owed >= 1.0:
                owed -= 1.0
                self._due.put_nowait((self._first + self.handed, now))
                self.handed += 1
        self.over.set()

    @property
    def waiting(self) -> int:
        """Due, and nobody has begun with it."""
        return self._due.qsize()

    async def take(self) -> tuple[int, float] | None:
        """The next number and when it was due; None when there is no more."""
        while True:
            if not self._due.empty():
                return self._due.get_nowait()
            if self.over.is_set():
                return None
            try:
                async with asyncio.timeout(0.1):
                    return await self._due.get()
            except TimeoutError:
                continue


async def drive(
    pace: Pace,
    run: Callable[[Pace], Awaitable[None]],
    at_the_end: Callable[[], None] = lambda: None,
) -> None:
    """Run a load at `pace` until everything that was due is done; `at_the_end`: of the pace."""

    async def paced() -> None:
        await pace.run()
        at_the_end()

    await asyncio.gather(paced(), run(pace))
