"""A listener whose key is another region's is told where to go on, by either form."""

from typing import Any, cast

import pytest

from mailyard.access.region import AtHomeElsewhere, Region
from mailyard.web.live.app import build_live
from mailyard.web.live.figures import FigureStream
from mailyard.web.protocol import Message, Scope

_EU = Region("eu", "https://eu.example")


async def _elsewhere(_scope: Scope) -> Any:
    raise AtHomeElsewhere(_EU, "this API key")


async def _nothing() -> Any:
    raise AssertionError("nothing is read for whoever is elsewhere")


def _live() -> Any:
    none = cast(Any, None)
    return build_live(live=none, messages=none, authenticate=_elsewhere, present=none)


def _scope(kind: str, path: str, query: bytes) -> dict[str, Any]:
    return {
        "type": kind,
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "headers": [],
    }


@pytest.mark.parametrize(
    ("app", "kind", "path", "query", "where"),
    [
        (_live(), "http", "/v1/events", b"kinds=x", "/v1/events?kinds=x"),
        (_live(), "http", "/v1/inboxes/ibx_1/wait", b"", "/v1/inboxes/ibx_1/wait"),
        (_live(), "websocket", "/v1/events", b"after=1", "/v1/events?after=1"),
        (
            FigureStream(allow=_elsewhere, read=_nothing),
            "http",
            "/monitoring/stream",
            b"",
            "/monitoring/stream",
        ),
    ],
)
async def test_the_answer_has_the_same_request_in_the_other_region(
    app: Any, kind: str, path: str, query: bytes, where: str
) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(_scope(kind, path, query), receive, send)
    headers = dict(sent[0]["headers"])
    assert sent[0]["status"] == 307
    assert headers[b"location"] == b"https://eu.example" + where.encode()
    assert headers[b"mailyard-region"] == b"eu"
