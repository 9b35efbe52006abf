"""Group commit: callers that come while one commit runs share the next one.

A commit with fsync costs the same for one row as for five hundred, so the collector never waits
for more callers: it commits what came in since the last commit. There is one commit at a time:
a second one beside it would halve the groups, and what a group costs is mostly the same for a small
one (measured: 4,300 against 5,000 requests a second). One bad item must not fail its neighbours, so
a group that the database refuses is cut in halves until the bad one stands alone.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from mailyard.core.errors import Unavailable

Item = TypeVar("Item")
Result = TypeVar("Result")


class GroupCommit(Generic[Item, Result]):
    """`commit` makes a group durable in one transaction and answers for each item, in order.

    It raises nothing for a single item's fault that it can see (it answers with a value); what it
    does raise fails the whole group, which is then bisected, unless the database is away. A group
    weighs at most `weight_max` in all.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        weight_max: int,
    ) -> None:
        self._commit = commit
        self._weight_max = weight_max
        # (item, its weight, the caller's answer)
        self._waiting: deque[tuple[Item, int, asyncio.Future[Result]]] = deque()
        self._committing: asyncio.Task[None] | None = None

    def submit(self, item: Item, weight: int = 1) -> "asyncio.Future[Result]":
        """Await it: durable then. Raises what `commit` raised for this item alone."""
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, weight, answer))
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_all())
        return answer

    async def _commit_all(self) -> None:
        try:
            # Let every caller that is ready on this turn of the loop join the first group.
            await asyncio.sleep(0)
            while self._waiting:
                await self._settle(self._take())
        finally:
            self._committing = None

    def _take(self) -> "list[tuple[Item, int, asyncio.Future[Result]]]":
        group = [self._waiting.popleft()]
        weight = group[0][1]
        while self._waiting and weight + self._waiting[0][1] <= self._weight_max:
            weight += self._waiting[0][1]
            group.append(self._waiting.popleft())
        return group

    async def _settle(self, group: "list[tuple[Item, int, asyncio.Future[Result]]]") -> None:
        try:
            results = await self._commit([item for item, _, _ in group])
        except Exception as error:
            if len(group) > 1 and not isinstance(error, Unavailable):
                middle = len(group) // 2
                await self._settle(group[:middle])
                await self._settle(group[middle:])
                return
            for _, _, answer in group:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, _, answer), result in zip(group, results, strict=True):
            if not answer.done():  # its caller may have gone; the mail stands all the same
                answer.set_result(result)
