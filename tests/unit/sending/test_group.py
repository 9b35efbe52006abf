"""Group commit: who comes while one commit runs shares the next; one bad item harms nobody else."""

import asyncio
from collections.abc import Sequence

import pytest

from mailyard.core.errors import Unavailable
from mailyard.sending.group import GroupCommit


class Commits:
    """A commit that takes a turn of the loop, refuses groups with `bad` items, and keeps books."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error or ValueError("refused")
        self.groups: list[list[str]] = []
        self.under_way = self.most_under_way = 0
        self.may_go = asyncio.Event()
        self.may_go.set()

    async def __call__(self, items: Sequence[str]) -> Sequence[str]:
        self.groups.append(list(items))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.may_go.wait()
            await asyncio.sleep(0)
        finally:
            self.under_way -= 1
        if any(item.startswith("bad") for item in items):
            raise self.error
        return [item.upper() for item in items]


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_callers_of_one_turn_share_a_commit_and_get_their_own_answers() -> None:
    commits = Commits()
    group = GroupCommit(commits, weight_max=100)
    answers = await asyncio.gather(*(group.submit(f"item {number}") for number in range(10)))
    assert answers == [f"ITEM {number}" for number in range(10)]
    assert len(commits.groups) == 1


async def test_who_comes_while_a_commit_runs_is_in_the_next_one() -> None:
    commits = Commits()
    group = GroupCommit(commits, weight_max=100)
    commits.may_go.clear()
    first = asyncio.ensure_future(group.submit("first"))
    await turns()
    later = [asyncio.ensure_future(group.submit(f"later {number}")) for number in range(5)]
    await turns()
    assert commits.groups == [["first"]] and not first.done()
    commits.may_go.set()
    await asyncio.gather(first, *later)
    assert [len(items) for items in commits.groups] == [1, 5]
    assert commits.most_under_way == 1


async def test_a_group_weighs_no_more_than_it_may_unless_one_item_does() -> None:
    commits = Commits()
    group = GroupCommit(commits, weight_max=10)
    weights = {"a": 4, "b": 6, "c": 1, "d": 50, "e": 1}
    await asyncio.gather(*(group.submit(item, weight) for item, weight in weights.items()))
    assert commits.groups == [["a", "b"], ["c"], ["d"], ["e"]]


async def test_one_bad_item_fails_alone() -> None:
    commits = Commits()
    group = GroupCommit(commits, weight_max=100)
    items = ["a", "b", "c", "bad", "d", "e", "f"]
    answers = await asyncio.gather(*map(group.submit, items), return_exceptions=True)
    assert answers == ["A", "B", "C", commits.error, "D", "E", "F"]


async def test_a_database_that_is_away_fails_the_group_at_once() -> None:
    commits = Commits(Unavailable("PostgreSQL is away"))
    group = GroupCommit(commits, weight_max=100)
    answers = await asyncio.gather(*map(group.submit, ["bad", "b", "c"]), return_exceptions=True)
    assert answers == [commits.error] * 3
    assert len(commits.groups) == 1
    assert await group.submit("later") == "LATER"


async def test_a_caller_that_goes_away_leaves_the_others_their_answers() -> None:
    commits = Commits()
    group = GroupCommit(commits, weight_max=100)
    gone = asyncio.ensure_future(group.submit("gone"))
    stays = asyncio.ensure_future(group.submit("stays"))
    await turns(1)
    gone.cancel()
    assert await stays == "STAYS"
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert commits.groups == [["gone", "stays"]]
