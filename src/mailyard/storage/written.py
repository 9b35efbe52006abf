"""Up to where each caller has written, for readers in any process.

After a change, and before its answer leaves, the place of the write-ahead log is remembered under
the caller (an API key, a session). Who reads for that caller asks for it, and where the primary is
now, with one small statement; all who ask at once share it. The table is unlogged: a place is of
use for seconds, until every replica that is read from has passed it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from mailyard.storage.database import Database
from mailyard.storage.queries import load

QUERIES = load("replica")
KEEP_S = 600.0
# A process asks the primary at most so often for places, whatever is read: each question wakes a
# backend there, which costs about as much as a third of the list that a replica then reads.
FIND_EVERY_S = 0.010

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the primary stands (`head`), and where it stood when the caller wrote last (`own`)."""

    head: int
    own: int


class Together(Generic[K, V]):
    """Questions that come while one is under way go together in the next.

    What answers a question was therefore asked after it came. `every_s`: at most one is begun in
    so many seconds; the first after a pause is asked at once.
    """

    def __init__(
        self, ask: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]], every_s: float = 0.0
    ) -> None:
        self._ask = ask
        self._every_s = every_s
        self._begun_at = float("-inf")
        self._waiting: dict[K, asyncio.Future[V]] = {}
        self._running: asyncio.Task[None] | None = None

    async def __call__(self, key: K) -> V:
        """The answer for `key`. Raises what asking raises."""
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = asyncio.get_running_loop().create_future()
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="together")
        return await asyncio.shield(waiting)

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._pause()
                asked, self._waiting = self._waiting, {}
                try:
                    answers = await self._ask(list(asked))
                    for key, waiting in asked.items():
                        waiting.set_result(answers[key])
                except Exception as error:
                    for waiting in asked.values():
                        if not waiting.done():
                            waiting.set_exception(error)
                            waiting.exception()  # whoever waited may be gone: no complaint then
        finally:
            self._running = None

    async def _pause(self) -> None:
        """Until the next may be begun; who comes meanwhile goes along."""
        now = asyncio.get_running_loop().time()
        wait_s = self._begun_at + self._every_s - now
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        self._begun_at = max(now, now + wait_s)


class WrittenPlaces:
    """The callers' places, in the primary. Always asks the primary itself."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._note = Together(self._note_many)
        self._find = Together(self._find_many, FIND_EVERY_S)

    async def note(self, caller: bytes) -> int:
        """The caller has written until now; the place. Raises Unavailable."""
        return await self._note(caller)

    async def find(self, caller: bytes) -> Place:
        """Where the primary is, and where it was at the caller's last write. Raises Unavailable."""
        return await self._find(caller)

    async def _note_many(self, callers: Sequence[bytes]) -> Mapping[bytes, int]:
        rows = await self._database.fetch(QUERIES.note_places, sorted(callers))
        return {row["caller"]: row["position"] for row in rows}

    async def _find_many(self, callers: Sequence[bytes]) -> Mapping[bytes, Place]:
        rows = await self._database.fetch(QUERIES.find_places, list(callers))
        return {row["caller"]: Place(row["head"], row["position"] or 0) for row in rows}


async def forget_places(database: Database) -> int:
    """Remove the places of which nothing can depend any more; how many."""
    tag = await database.execute(QUERIES.forget_places, KEEP_S)
    return int(tag.rsplit(" ", 1)[-1])
