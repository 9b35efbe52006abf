"""Questions that go together: one under way, the others wait for the next."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from mailyard.storage.written import Together


class Server:
    """Answers when it is let, with the round in which it was asked."""

    def __init__(self) -> None:
        self.rounds: list[list[str]] = []
        self.go = asyncio.Event()
        self.fails = False

    async def ask(self, keys: Sequence[str]) -> Mapping[str, int]:
        self.rounds.append(sorted(keys))
        number = len(self.rounds)
        await self.go.wait()
        if self.fails:
            raise ConnectionError("away")
        return dict.fromkeys(keys, number)


async def test_who_asks_while_one_is_under_way_gets_an_answer_asked_after_he_came() -> None:
    server = Server()
    together = Together(server.ask)
    first = asyncio.create_task(together("a"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    later = [asyncio.create_task(together(key)) for key in ("a", "b", "a")]
    await asyncio.sleep(0)
    server.go.set()
    assert await first == 1
    assert await asyncio.gather(*later) == [2, 2, 2]
    assert server.rounds == [["a"], ["a", "b"]]


async def test_under_load_a_question_is_asked_at_most_so_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Server()
    server.go.set()
    pauses: list[float] = []
    together = Together(server.ask, every_s=60.0)
    assert await together("a") == 1, "the first goes at once"

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("mailyard.storage.written.asyncio.sleep", sleep)
    assert await asyncio.gather(together("a"), together("b"), together("a")) == [2, 2, 2]
    assert server.rounds == [["a"], ["a", "b"]]
    assert len(pauses) == 1 and 59.0 < pauses[0] <= 60.0


async def test_a_failure_is_each_ones_and_the_next_question_is_asked_anew() -> None:
    server = Server()
    together = Together(server.ask)
    server.go.set()
    server.fails = True
    with pytest.raises(ConnectionError):
        await together("a")
    server.fails = False
    assert await together("a") == 2


async def test_one_who_leaves_takes_no_other_along() -> None:
    server = Server()
    together = Together(server.ask)
    leaves, stays = asyncio.create_task(together("a")), asyncio.create_task(together("a"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    leaves.cancel()
    server.go.set()
    assert await stays == 1
