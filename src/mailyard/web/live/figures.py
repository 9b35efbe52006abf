"""`/monitoring/stream`: the figures and the open alerts every few seconds, as server-sent events.

A few operators follow it, so each stream asks for itself; the monitor looks once for all of them.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from uuid import uuid4

import msgspec

from mailyard.core.errors import MailyardError, NotAllowed, NotAuthenticated
from mailyard.web.api.problem import answer_of
from mailyard.web.live.places import TooManyLive
from mailyard.web.protocol import Receive, Scope, Send

EVERY_S = 5.0
STREAMS = 50
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class FigureStream:
    """`allow` raises for who may not follow, and is asked each time, for a key may be revoked;
    `read` gives what is told."""

    def __init__(
        self,
        *,
        allow: Callable[[Scope], Awaitable[None]],
        read: Callable[[], Awaitable[object]],
    ) -> None:
        self._allow = allow
        self._read = read
        self._open = 0
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """End all streams: this process stops."""
        self._draining.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._allow(scope)
            if self._open >= STREAMS or self._draining.is_set():
                raise TooManyLive("too many follow the figures here", retry_after_s=5.0)
        except MailyardError as error:
            answer = answer_of(error, uuid4().hex, scope)
            headers = [(b"content-type", answer.media_type), *answer.headers]
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            await send({"type": "http.response.body", "body": answer.body})
            return
        self._open += 1
        gone = asyncio.create_task(_gone(receive))
        ending = asyncio.create_task(self._draining.wait())
        try:
            await self._tell(scope, send, gone, ending)
        finally:
            gone.cancel()
            ending.cancel()
            self._open -= 1

    async def _tell(
        self,
        scope: Scope,
        send: Send,
        gone: "asyncio.Task[None]",
        ending: "asyncio.Task[bool]",
    ) -> None:
        """Until the listener goes, we stop, or what let it in is good no more."""
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        while not gone.done() and not ending.done():
            try:
                await self._allow(scope)
                told = b"event: figures\ndata: " + msgspec.json.encode(await self._read()) + b"\n\n"
            except (NotAuthenticated, NotAllowed):
                break
            except MailyardError:
                told = b": the database is away\n\n"
            await send({"type": "http.response.body", "body": told, "more_body": True})
            await asyncio.wait([gone, ending], timeout=EVERY_S, return_when=asyncio.FIRST_COMPLETED)
        if not gone.done():
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    with suppress(OSError, RuntimeError):
        while (await receive())["type"] != "http.disconnect":
            pass
