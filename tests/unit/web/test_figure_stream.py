"""The operators' stream of figures: its ceiling, and what lets a listener in is asked again."""

import asyncio
from typing import Any

import pytest

from mailyard.core.errors import MailyardError, NotAuthenticated, Unavailable
from mailyard.web.live.figures import STREAMS, FigureStream
from mailyard.web.protocol import Message, Scope

_SCOPE: dict[str, Any] = {
    "type": "http",
    "method": "GET",
    "path": "/monitoring/stream",
    "query_string": b"",
    "headers": [],
}


class Listener:
    """Says nothing and keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[Message] = []

    async def receive(self) -> Message:
        await asyncio.Event().wait()
        raise AssertionError("it never goes")

    async def send(self, message: Message) -> None:
        self.heard.append(message)

    @property
    def bodies(self) -> list[bytes]:
        return [message["body"] for message in self.heard[1:]]


async def _figures() -> object:
    return {"figures": {}}


async def test_a_key_that_is_revoked_ends_the_stream_and_a_database_away_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mailyard.web.live.figures.EVERY_S", 0.0)
    answers: list[MailyardError | None] = [
        None,  # at the door
        None,
        Unavailable("PostgreSQL is away"),
        None,
        NotAuthenticated("this API key is not known, or was revoked"),
    ]

    async def allow(_scope: Scope) -> None:
        if error := answers.pop(0):
            raise error

    listener = Listener()
    stream = FigureStream(allow=allow, read=_figures)
    await asyncio.wait_for(stream(_SCOPE, listener.receive, listener.send), 10)
    told, away, again, end = listener.bodies
    assert told == again == b'event: figures\ndata: {"figures":{}}\n\n'
    assert (away, end) == (b": the database is away\n\n", b"")


async def test_past_the_ceiling_the_answer_is_503_with_retry_after() -> None:
    async def allow(_scope: Scope) -> None:
        return None

    stream = FigureStream(allow=allow, read=_figures)
    listeners = [Listener() for _ in range(STREAMS)]
    open_ = [asyncio.create_task(stream(_SCOPE, one.receive, one.send)) for one in listeners]
    while not all(len(one.heard) == 2 for one in listeners):
        await asyncio.sleep(0)
    late = Listener()
    await stream(_SCOPE, late.receive, late.send)
    assert late.heard[0]["status"] == 503
    assert dict(late.heard[0]["headers"])[b"retry-after"].isdigit()
    stream.drain()
    await asyncio.wait_for(asyncio.gather(*open_), 10)
