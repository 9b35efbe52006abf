"""One page out of several database clusters.

Each cluster is asked for a page of its own at the same time, for so many rows and so long; what
they say is merged by id, newest first. A cluster that does not answer is named, and the page is
there.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

from mailyard.core.errors import MailyardError
from mailyard.core.limits import API_PAGE_ITEMS

ASK_S = 2.0
CLUSTERS_AT_ONCE = 16

T = TypeVar("T")
Ask = Callable[[int], Awaitable[Sequence[T]]]  # up to so many rows, newest first


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """`items`: (cluster, row), newest first. `away`: why clusters are missing. `more`: whether
    there are older ones, as far as those that answered know."""

    items: Sequence[tuple[str, T]]
    away: Mapping[str, str]
    more: bool


async def across(
    clusters: Mapping[str, Ask[T]],
    id_of: Callable[[T], UUID],
    *,
    limit: int = API_PAGE_ITEMS,
    ask_s: float = ASK_S,
) -> Page[T]:
    """The newest `limit` rows of all `clusters`. Takes at most about `ask_s` for each
    CLUSTERS_AT_ONCE of them; raises nothing because one is away."""
    places = asyncio.Semaphore(CLUSTERS_AT_ONCE)

    async def ask(name: str) -> Sequence[T] | str:
        try:
            async with places, asyncio.timeout(ask_s):
                return (await clusters[name](limit + 1))[: limit + 1]
        except TimeoutError:
            return f"no answer within {ask_s:g} s"
        except MailyardError as error:
            return error.message

    answers = dict(zip(clusters, await asyncio.gather(*map(ask, clusters)), strict=True))
    found = [
        (name, row)
        for name, answer in answers.items()
        if not isinstance(answer, str)
        for row in answer
    ]
    found.sort(key=lambda one: id_of(one[1]), reverse=True)
    away = {name: answer for name, answer in answers.items() if isinstance(answer, str)}
    return Page(found[:limit], away, len(found) > limit)
