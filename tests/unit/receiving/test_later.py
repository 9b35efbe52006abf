"""A reply that is not there yet, and who waits for it."""

import asyncio

import pytest

from mailyard.core.errors import Unavailable
from mailyard.protocol.smtp.reply import Reply
from mailyard.receiving.later import Later

STORED = Reply(250, "2.0.0", "Stored")
REFUSED = Reply(451, "4.3.0", "Try again later")


def test_who_waits_is_called_once_with_the_first_answer() -> None:
    later = Later()
    heard: list[object] = []
    later.then(heard.append)
    assert heard == []
    later.settle(STORED)
    later.settle(REFUSED)
    assert heard == [STORED]


def test_who_comes_after_the_answer_hears_it_at_once() -> None:
    later = Later()
    later.settle(STORED)
    heard: list[object] = []
    later.then(heard.append)
    assert heard == [STORED]


def test_what_fails_in_one_who_waits_is_nothing_to_who_settles() -> None:
    def broken(_: object) -> None:
        raise ValueError("a bug")

    first, second = Later(), Later()
    heard: list[object] = []
    first.then(broken)
    second.then(heard.append)
    for later in (first, second):
        later.settle(STORED)
    assert heard == [STORED]


async def test_it_can_be_awaited_before_and_after_the_answer() -> None:
    later = Later()
    waiting = asyncio.ensure_future(later)
    await asyncio.sleep(0)
    assert not waiting.done()
    later.settle(STORED)
    assert await waiting == STORED
    assert await later == STORED


async def test_who_awaits_a_failure_is_told_its_reason() -> None:
    later = Later()
    waiting = asyncio.ensure_future(later)
    await asyncio.sleep(0)
    later.settle(Unavailable("no database"))
    with pytest.raises(Unavailable):
        await waiting


async def test_one_who_gave_up_does_not_disturb_who_settles() -> None:
    later = Later()
    waiting = asyncio.ensure_future(later)
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    later.settle(STORED)
    assert await later == STORED
