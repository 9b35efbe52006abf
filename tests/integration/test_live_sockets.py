"""Live connections over real sockets: WebSockets and event streams of one server, side by side."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop
from api_platform import Platform, services, start

from mailyard.access.authenticate import SESSION_COOKIE
from mailyard.bus.live import LiveEvent
from mailyard.core.ids import INBOX, type_id, uuid7
from mailyard.core.limits import LIVE_BUFFER_BYTES
from mailyard.storage.database import Database
from mailyard.web.asgi import build
from mailyard.web.live import stream as stream_module
from mailyard.web.serve import HttpServer

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy. fixture")

KIND = "delivery.changed"
_MORE = (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.PONG)


class Server:
    """An API process of the platform, and a browser or program that connects to it."""

    def __init__(self, platform: Platform, front: Any = None) -> None:
        self.platform = platform
        self.front = front or platform.asgi
        self.server = HttpServer(self.front, host="127.0.0.1", port=0, on_stop=self.front.drain)
        self.client = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(sock_read=60))

    @property
    def live(self) -> Any:
        return self.front._live

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    async def happens(self, *numbers: int, **more: Any) -> None:
        await self.platform.app.live.publish(
            [LiveEvent(self.platform.workspace_id, KIND, {"n": n, **more}) for n in numbers]
        )

    async def socket(self, query: str = "", **arguments: Any) -> aiohttp.ClientWebSocketResponse:
        if "protocols" not in arguments and "headers" not in arguments:
            arguments["headers"] = {"authorization": f"Bearer {self.platform.key}"}
        opened = await self.client.ws_connect(f"{self.url}/v1/events?{query}", **arguments)
        first = await opened.receive_json()
        assert first["type"] == "stream.open"
        return opened

    async def refused(self, **arguments: Any) -> tuple[int, Any]:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await self.client.ws_connect(f"{self.url}/v1/events", **arguments)
        return caught.value.status, caught.value.headers

    async def stream(self, after: str = "") -> aiohttp.ClientResponse:
        headers = {"authorization": f"Bearer {self.platform.key}"}
        if after:
            headers["last-event-id"] = after
        return await self.client.get(f"{self.url}/v1/events?kinds={KIND}", headers=headers)

    async def close(self) -> None:
        await self.client.close()
        await self.server.stop()


async def events(response: aiohttp.ClientResponse, count: int) -> list[tuple[str, Any]]:
    """The next events of a stream, each with its id."""
    found: list[tuple[str, Any]] = []
    name = ""
    async with asyncio.timeout(60):
        async for line in response.content:
            if line.startswith(b"id: "):
                name = line[4:].decode().strip()
            elif line.startswith(b"data: "):
                found.append((name, json.loads(line[6:])))
                if len(found) == count:
                    break
    return found


async def numbers(socket: aiohttp.ClientWebSocketResponse, count: int) -> list[int]:
    return [one["data"]["n"] for one in await messages(socket, count)]


async def messages(socket: aiohttp.ClientWebSocketResponse, count: int) -> list[Any]:
    """The next messages of a WebSocket, without the heartbeats between them."""
    found: list[Any] = []
    async with asyncio.timeout(60):
        while len(found) < count:
            message = await socket.receive_json()
            if message["type"] != "stream.heartbeat":
                found.append(message)
    return found


async def goodbye(socket: aiohttp.ClientWebSocketResponse) -> int:
    """The code that the server closes with, behind what else it says."""
    async with asyncio.timeout(60):
        while (message := await socket.receive()).type in _MORE:
            pass
    assert message.type is aiohttp.WSMsgType.CLOSE, message
    return int(message.data)


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    """The event loop of the product: its transports are others than asyncio's."""
    return uvloop.EventLoopPolicy()


def descriptors() -> int:
    """How many this process has open."""
    return len(list(Path("/dev/fd").iterdir()))


@pytest.fixture
async def server(database: Database) -> AsyncIterator[Server]:
    platform = await start(database)
    server = Server(platform)
    await server.server.start()
    yield server
    await server.close()
    await platform.close()


async def test_a_program_shows_its_key_a_browser_a_token_or_its_cookie_from_our_own_page(
    server: Server,
) -> None:
    key = server.platform.key
    session = await server.platform.app.sessions.start(
        server.platform.first.user_id, server.platform.workspace_id, "a browser"
    )
    cookie = f"{SESSION_COOKIE}={session.token}"
    opened = [
        await server.socket(headers={"authorization": f"Bearer {key}"}),
        await server.socket(protocols=["mailyard.v1", f"bearer.{key}"]),
        await server.socket(headers={"cookie": cookie, "origin": server.url}),
    ]
    assert [socket.protocol for socket in opened] == [None, "mailyard.v1", None]
    await server.happens(1)
    for socket in opened:
        assert await numbers(socket, 1) == [1]
        await socket.close()
    assert (await server.refused())[0] == 401
    assert (await server.refused(protocols=["mailyard.v1", "bearer.my_wrong"]))[0] == 401
    for origin in ("https://evil.example", "null", f"{server.url}.evil.example"):
        headers = {"cookie": cookie, "origin": origin}
        assert (await server.refused(headers=headers))[0] == 403
    assert (await server.refused(headers={"cookie": cookie}))[0] == 403
    weak = await server.platform.key_with("emails:read")
    assert (await server.refused(headers={"authorization": f"Bearer {weak}"}))[0] == 403


async def test_both_forms_tell_the_same_and_one_goes_on_in_another_process_where_the_other_was(
    server: Server, database: Database
) -> None:
    socket, stream = await server.socket(), await server.stream()
    await server.happens(1, 2, 3, text="Grüße\u2028")
    told = await events(stream, 3)
    said = await messages(socket, 3)
    assert [(one["id"], one["data"]) for one in said] == told
    assert {one["type"] for one in said} == {KIND}
    await socket.close()
    stream.close()

    app = services(database)
    front = build(app, pages=server.front._pages)
    await front.start()
    other = Server(server.platform, front)
    await other.server.start()
    await server.happens(4)
    resumed = await other.socket(f"after={told[0][0]}")
    assert await numbers(resumed, 3) == [2, 3, 4]
    again = await other.stream(after=said[1]["id"])
    assert [item["n"] for _, item in await events(again, 2)] == [3, 4]
    await other.server.stop()
    assert await goodbye(resumed) == 1012, "it comes back, to another process"
    await other.client.close()
    await app.templates.close()


async def test_a_listener_hears_of_its_mailbox_or_what_fits_its_filter_and_may_change_it(
    server: Server,
) -> None:
    ada, ben = (type_id(INBOX, uuid7()) for _ in range(2))
    of_ada = await server.socket(f"inboxes={ada}")
    invoices = await server.socket("where=subject:*invoice*&where=n:7")
    await server.happens(1, inbox_id=ada, subject="Hello")
    await server.happens(7, inbox_id=ben, subject="Your INVOICE")
    await server.happens(8, inbox_id=ada, subject="Your invoice")
    assert await numbers(of_ada, 2) == [1, 8]
    assert await numbers(invoices, 1) == [7]
    await of_ada.send_json({"filter": {"inboxes": [ben]}})
    while True:  # what was on its way when the filter changed may still come
        await server.happens(9, inbox_id=ada)
        await server.happens(10, inbox_id=ben)
        if await numbers(of_ada, 1) == [10]:
            break
    await of_ada.send_str("nonsense")
    assert await goodbye(of_ada) == 1007
    wrong = await server.client.get(
        f"{server.url}/v1/events?where=nothing",
        headers={"authorization": f"Bearer {server.platform.key}"},
    )
    assert (wrong.status, (await wrong.json())["field"]) == (422, "where")


async def test_who_does_not_read_is_cut_and_its_place_is_free_and_others_hear_everything(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "_PATIENCE_S", 0.0)
    stream, socket = await server.stream(), await server.socket()
    quick = await server.socket()
    for response in (stream, socket._response):
        assert response.connection is not None
        response.connection.transport.pause_reading()
    assert server.live.open == 3
    filler = "x" * (LIVE_BUFFER_BYTES // 8)
    count = 0
    async with asyncio.timeout(100):
        while server.live.open > 1:  # the system's buffers fill before ours
            await server.happens(count, text=filler)
            assert await numbers(quick, 1) == [count]
            count += 1
    await server.happens(count)
    assert await numbers(quick, 1) == [count]


async def test_a_socket_is_served_on_a_descriptor_of_its_own_and_gives_it_back(
    server: Server,
) -> None:
    stream = await server.stream()
    before = descriptors()
    first, second = await server.socket(autoping=False), await server.socket()
    assert server.live._descriptors.open == 2
    await first.ping(b"are you there")
    answer = await first.receive()
    assert (answer.type, answer.data) == (aiohttp.WSMsgType.PONG, b"are you there")
    await first.close(code=4001)
    assert first.close_code == 4001, "the same comes back"
    assert second._response.connection is not None
    second._response.connection.transport.abort()
    async with asyncio.timeout(60):
        while server.live.open > 1 or descriptors() > before:
            await asyncio.sleep(0.01)
    assert server.live._descriptors.open == 0
    await server.happens(1)
    assert [item["n"] for _, item in await events(stream, 1)] == [1]


async def test_a_client_that_breaks_the_protocol_is_told_and_hung_up_on(server: Server) -> None:
    for wrong, code in (
        (b"\x81\x05Hello", 1002),  # not masked
        (b"\x81\xfe\xff\xff", 1009),
        (b"\x89\x80\0\0\0\0" * 601, 1008),  # pings, and nothing else
    ):
        socket = await server.socket()
        assert socket._response.connection is not None
        socket._response.connection.transport.write(wrong)
        assert await goodbye(socket) == code


async def test_where_files_are_scarce_a_socket_is_served_through_the_server(
    server: Server,
) -> None:
    server.live._descriptors._most = 1
    own, through = await server.socket(), await server.socket()
    await through.send_json({"filter": {"where": {"n": ["2"]}}})
    while True:  # the filter is taken when it is
        await server.happens(1, 2)
        if await numbers(through, 1) == [2]:
            break
        assert await numbers(through, 1) == [2]
    assert (await numbers(own, 2))[:2] == [1, 2]
    await through.send_str("nonsense")
    assert await goodbye(through) == 1007


async def test_a_revoked_key_and_an_ended_session_end_their_streams(server: Server) -> None:
    platform = server.platform
    made = await platform.app.keys.create(
        platform.workspace_id, "short", ["events:read"], actor=platform.actor
    )
    session = await platform.app.sessions.start(
        platform.first.user_id, platform.workspace_id, "a browser"
    )
    by_key = await server.socket(headers={"authorization": f"Bearer {made.secret}"})
    by_cookie = await server.client.get(
        f"{server.url}/v1/events", headers={"cookie": f"{SESSION_COOKIE}={session.token}"}
    )
    stays = await server.socket()
    await server.live._guests.look()
    assert server.live.open == 3
    await platform.app.keys.revoke(platform.workspace_id, made.key.id, actor=platform.actor)
    await platform.app.sessions.end(session.token)
    async with asyncio.timeout(60):
        while server.live.open > 1:
            await server.live._guests.look()
            await asyncio.sleep(0.05)
        assert await goodbye(by_key) == 1008
        assert await by_cookie.content.read() is not None
    await server.happens(1)
    assert await numbers(stays, 1) == [1]


async def test_past_the_ceiling_a_handshake_is_answered_503_with_retry_after(
    server: Server,
) -> None:
    server.live._places.ceiling = 1
    kept = await server.socket()
    headers = {"authorization": f"Bearer {server.platform.key}"}
    status, answered = await server.refused(headers=headers)
    assert status == 503
    assert int(answered["retry-after"]) >= 2
    # Another tenant gets its share, and who held more than that comes back later.
    _, theirs = await server.platform.other_workspace()
    server.live._places.ceiling = 2
    second = await server.socket()
    await server.socket(headers={"authorization": f"Bearer {theirs}"})
    assert await goodbye(kept) == 1013
    await server.happens(1)
    assert await numbers(second, 1) == [1]


async def test_the_setting_is_the_ceiling_and_what_is_not_live_is_answered_all_the_same(
    server: Server, database: Database
) -> None:
    app = services(database)
    app.settings = replace(app.settings, live_connections=2)
    front = build(app, pages=server.front._pages)
    await front.start()
    full = Server(server.platform, front)
    await full.server.start()
    here = [await full.socket(), await full.stream()]
    inbox = (await server.platform.call("POST", "/v1/inboxes", json={})).json
    headers = {"authorization": f"Bearer {server.platform.key}"}
    assert (await full.refused(headers=headers))[0] == 503
    for path, status in (
        ("/v1/events", 503),
        (f"/v1/inboxes/{inbox['id']}/wait", 503),
        (f"/v1/inboxes/{inbox['id']}", 200),
        ("/health/live", 200),
        ("/health/ready", 200),
    ):
        answer = await full.client.get(f"{full.url}{path}", headers=headers)
        assert answer.status == status, path
        assert ("retry-after" in answer.headers) is (status == 503)
    assert len(here) == full.live.open
    await full.close()
    await app.templates.close()
