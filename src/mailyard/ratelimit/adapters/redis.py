"""Buckets that the whole fleet shares, in Redis: a batch of takings is one step of a script.

Takings of many callers travel together: what is asked for in one turn of the event loop, and while
the batches before it are on their way, is the next batch. In a cluster a batch goes in pieces by
slot, pipelined. Time is Redis's own.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mailyard.core.clock import Clock
from mailyard.ratelimit.ratelimit import Drawn, Taking, check
from mailyard.storage.redis.link import RedisLink
from mailyard.storage.redis.script import Call, command, run, script_of, tag_of

_SCRIPT = "gcra"
TAKINGS_PER_CALL = 250  # what Redis does in one go, while nobody else is served
FLIGHTS = 2  # batches on their way: one is worked on while the other travels


@dataclass(slots=True)
class _Asked:
    """The takings of one caller, and where the answers go."""

    takings: Sequence[Taking]
    owed_s: Sequence[float]
    answer: "asyncio.Future[list[Drawn]]"


class RedisRateLimit:
    """Raises RedisAway when Redis is; see `FleetRateLimit` for what happens then."""

    def __init__(self, *, link: RedisLink, clock: Clock | None = None) -> None:
        self._link = link
        self._clock = clock
        self._script = script_of("mailyard.ratelimit.adapters", _SCRIPT)
        self._waiting: list[_Asked] = []
        self._flights: set[asyncio.Task[None]] = set()
        self._starting = False

    async def take(self, key: str, amount: float, per_s: float, burst: float) -> float:
        return (await self.draw(key, amount, per_s, burst)).wait_s

    async def draw(self, key: str, amount: float, per_s: float, burst: float) -> Drawn:
        return (await self.draw_many([Taking(key, amount, per_s, burst)]))[0]

    async def draw_many(self, takings: Sequence[Taking]) -> list[Drawn]:
        return await self.draw_owing(takings, [0.0] * len(takings))

    async def draw_owing(self, takings: Sequence[Taking], owed_s: Sequence[float]) -> list[Drawn]:
        """As `draw_many`; each bucket is first moved on by its part of `owed_s`, unasked: what was
        taken while Redis was away."""
        check(takings)
        if not takings:
            return []
        asked = _Asked(takings, owed_s, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        if not self._starting and len(self._flights) < FLIGHTS:
            self._starting = True
            asyncio.get_running_loop().call_soon(self._start)
        return await asked.answer

    async def forget(self, keys: Sequence[str]) -> None:
        await self._link.run([command("UNLINK", self._name(key)) for key in keys])

    # -----------------------------------------------------------------------------------------

    def _start(self) -> None:
        """A batch of all that waits."""
        self._starting = False
        asked, self._waiting = self._waiting, []
        if asked:
            flight = asyncio.get_running_loop().create_task(self._fly(asked))
            self._flights.add(flight)
            flight.add_done_callback(self._landed)

    def _landed(self, flight: "asyncio.Task[None]") -> None:
        self._flights.discard(flight)
        if self._waiting and not self._starting:
            self._start()

    async def _fly(self, asked: list[_Asked]) -> None:
        try:
            drawn = await self._ask(
                [taking for one in asked for taking in one.takings],
                [owed for one in asked for owed in one.owed_s],
            )
        except Exception as error:  # RedisAway, most likely: each caller is told
            for one in asked:
                if not one.answer.done():
                    one.answer.set_exception(error)
            return
        begin = 0
        for one in asked:
            end = begin + len(one.takings)
            if not one.answer.done():
                one.answer.set_result(drawn[begin:end])
            begin = end

    async def _ask(self, takings: list[Taking], owed_s: list[float]) -> list[Drawn]:
        """The takings in as few calls as may be. Their order is kept for each bucket."""
        spread = self._link.spread
        groups: defaultdict[str, list[int]] = defaultdict(list)
        for at, taking in enumerate(takings):
            groups[tag_of(taking.key) if spread else ""].append(at)
        now = "" if self._clock is None else repr(self._clock.now().timestamp())
        calls: list[Call] = []
        places: list[int] = []
        for group in groups.values():
            for begin in range(0, len(group), TAKINGS_PER_CALL):
                piece = group[begin : begin + TAKINGS_PER_CALL]
                places += piece
                calls.append(self._call(now, [(takings[at], owed_s[at]) for at in piece]))
        answers = await self._link.run(calls)
        drawn: list[Any] = [None] * len(takings)
        for at, answer in zip(places, (one for part in answers for one in part), strict=True):
            drawn[at] = Drawn(0.0, answer / 1e6) if answer >= 0 else Drawn(-answer / 1e6)
        return drawn

    def _call(self, now: str, pieces: list[tuple[Taking, float]]) -> Call:
        words: list[str] = [now]
        for taking, owed_s in pieces:
            allowed_s = max(taking.burst, taking.amount) / taking.per_s
            words += (repr(taking.amount / taking.per_s), repr(allowed_s), repr(owed_s))
        return run(self._script, [self._name(taking.key) for taking, _ in pieces], words)

    def _name(self, key: str) -> str:
        return self._link.key("b", tag_of(key), key)
