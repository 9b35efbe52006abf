"""A client of the live routes, without a server: one request, and what has come back so far."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from mailyard.access.audit import Actor
from mailyard.access.authenticate import Principal
from mailyard.core.errors import NotAuthenticated
from mailyard.mailbox.message_value import ReadMessage
from mailyard.web.live.app import Live


@dataclass
class Client:
    """One request against the ASGI application, and what came back."""

    app: Live
    workspace_id: UUID | None
    path: str = "/v1/events"
    query: str = ""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    method: str = "GET"
    status: int = 0
    answer_headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    finished: bool = False

    def __post_init__(self) -> None:
        self.reading = asyncio.Event()
        self.reading.set()
        self._changed = asyncio.Event()
        self._gone = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        scope = {
            "type": "http",
            "method": self.method,
            "path": self.path,
            "query_string": self.query.encode(),
            "headers": self.headers,
            "workspace_id": self.workspace_id,
        }
        await self.app(scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        await self.reading.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.answer_headers = dict(message["headers"])
        else:
            self.body += message["body"]
            self.finished = not message.get("more_body", False)
        self._changed.set()

    def hang_up(self) -> None:
        self._gone.set()

    async def until(self, count: int) -> list[dict[str, str]]:
        """The events so far, as soon as there are `count`."""
        async with asyncio.timeout(60):
            while len(self.events()) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.events()

    async def opened(self) -> None:
        await self.until_says(b"\n\n")

    async def until_says(self, wanted: bytes) -> None:
        """As soon as that has come."""
        async with asyncio.timeout(60):
            while wanted not in self.body:
                self._changed.clear()
                await self._changed.wait()

    def frames(self) -> list[dict[str, str]]:
        found = []
        for frame in self.body.decode().split("\n\n")[:-1]:
            lines = [line.partition(": ") for line in frame.split("\n")]
            found.append({name: value for name, _, value in lines if name})
        return found

    def events(self) -> list[dict[str, str]]:
        return [frame for frame in self.frames() if "data" in frame]

    def last_id(self) -> str:
        return [frame["id"] for frame in self.frames() if "id" in frame][-1]


async def authenticate(scope: Any) -> Principal:
    if scope["workspace_id"] is None:
        raise NotAuthenticated("who are you")
    actor = Actor("key", "test", scope["workspace_id"])
    return Principal(scope["workspace_id"], actor, frozenset({"events:read", "inboxes:read"}))


async def present(workspace_id: UUID, message: ReadMessage) -> bytes:
    return json.dumps({"subject": message.summary.subject}).encode()
