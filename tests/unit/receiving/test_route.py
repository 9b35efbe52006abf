"""Questions about recipients whose database fails in a way that no waiting mends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from mailyard.core.errors import Unavailable
from mailyard.protocol.smtp.reply import Reply
from mailyard.receiving.later import Later
from mailyard.receiving.route import Router
from mailyard.storage.database import Database

NOBODY = Reply(550, "5.1.1", "No such inbox here")


class _FailsOnce:
    """Refuses the first query."""

    def __init__(self) -> None:
        self.queries = 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[None]:
        yield

    async def fetch(self, *_: object, **__: object) -> list[Any]:
        self.queries += 1
        if self.queries == 1:
            raise RuntimeError("canceling statement due to user request")
        return []


async def test_who_asks_again_the_moment_it_is_refused_is_answered_too() -> None:
    router = Router(database=cast("Database", _FailsOnce()), answer=lambda _address, _route: NOBODY)
    heard: list[Reply | Exception] = []
    second: list[Later] = []

    def refused(outcome: Reply | Exception) -> None:
        heard.append(outcome)
        second.append(router.find("bob@example.com"))  # as a session with a pipelined RCPT does

    router.find("ada@example.com").then(refused)
    async with asyncio.timeout(5):
        await router.close()
        assert isinstance(heard[0], Unavailable)
        assert await second[0] == NOBODY
