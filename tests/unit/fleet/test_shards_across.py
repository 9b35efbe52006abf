"""A page out of several clusters: merged by id, bounded in rows and time, not lost for one."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from mailyard.core.errors import Unavailable
from mailyard.fleet.shards.across import across


def having(*numbers: int) -> Callable[[int], Awaitable[Sequence[UUID]]]:
    async def ask(limit: int) -> Sequence[UUID]:
        return [UUID(int=number) for number in sorted(numbers, reverse=True)][:limit]

    return ask


async def away(_: int) -> Sequence[UUID]:
    raise Unavailable("nobody there")


async def silent(_: int) -> Sequence[UUID]:
    await asyncio.sleep(60)
    return []


def itself(one: UUID) -> UUID:
    return one


async def test_rows_are_merged_newest_first_and_name_their_cluster() -> None:
    page = await across({"a": having(1, 4, 5), "b": having(2, 3)}, itself, limit=4)
    assert [(name, one.int) for name, one in page.items] == [("a", 5), ("a", 4), ("b", 3), ("b", 2)]
    assert page.more and page.away == {}


async def test_who_does_not_answer_is_named_and_waited_for_no_longer() -> None:
    asked = {"a": having(1), "b": away, "c": silent}
    async with asyncio.timeout(2):
        page = await across(asked, itself, limit=10, ask_s=0.05)
    assert [one.int for _, one in page.items] == [1]
    assert page.away == {"b": "nobody there", "c": "no answer within 0.05 s"}
    assert not page.more
