"""The two transports: stdio for an agent on this machine, HTTP for those elsewhere.

Over HTTP each request brings its own API key (`Authorization: Bearer my_…`) and is served with it
alone: there is no session that another key could step into. Which `Host` and `Origin` are taken is
a list, against DNS rebinding.
"""

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from mcp.server.transport_security import TransportSecuritySettings
from starlette.types import ASGIApp, Receive, Scope, Send

from mailyard import __version__
from mailyard.client import AsyncMailyard, ClientError
from mailyard.mcp.tools import build

PATH = "/mcp"
_HERE = ("127.0.0.1", "localhost", "[::1]")
_NO_KEY = (
    b'{"type":"https://mailyard.dev/problems/not-authenticated","title":"Who are you","status":401,'
    b'"detail":"send an API key: Authorization: Bearer my_\xe2\x80\xa6","code":"not_authenticated"}'
)


async def over_stdio(url: str, key: str) -> None:
    """Serve the agent at standard input and output, until it hangs up."""
    async with AsyncMailyard(url, key) as mailyard:

        @asynccontextmanager
        async def connect(_: Any) -> AsyncIterator[AsyncMailyard]:
            yield mailyard

        await build(connect, __version__).run_stdio_async()


async def over_http(url: str, listener: socket.socket, allowed_hosts: Sequence[str]) -> None:
    """Serve at `/mcp` of the listening socket until stopped."""
    import uvicorn

    config = uvicorn.Config(http_application(url, allowed_hosts), log_level="warning")
    await uvicorn.Server(config).serve(sockets=[listener])


def http_application(url: str, allowed_hosts: Sequence[str]) -> ASGIApp:
    """The ASGI application. `allowed_hosts`: names beyond this machine's own that clients use."""

    @asynccontextmanager
    async def connect(context: Any) -> AsyncIterator[AsyncMailyard]:
        headers = context.headers or {}
        async with AsyncMailyard(url, _key_of(headers.get("authorization", ""))) as mailyard:
            yield mailyard

    hosts = [*_HERE, *allowed_hosts]
    application = build(connect, __version__).streamable_http_app(
        streamable_http_path=PATH,
        stateless_http=True,
        transport_security=TransportSecuritySettings(
            allowed_hosts=[name for host in hosts for name in (host, f"{host}:*")],
            allowed_origins=[
                f"{scheme}://{name}"
                for scheme in ("http", "https")
                for host in hosts
                for name in (host, f"{host}:*")
            ],
        ),
    )
    return _KeyWanted(application)


class _KeyWanted:
    """Answers 401 to whoever shows no key, before anything is read."""

    def __init__(self, application: ASGIApp) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            try:
                _key_of(headers.get(b"authorization", b"").decode("latin-1"))
            except ClientError:
                await _refuse(send)
                return
        await self._application(scope, receive, send)


def _key_of(authorization: str) -> str:
    scheme, _, key = authorization.partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise ClientError("send an API key: Authorization: Bearer my_…")
    return key.strip()


async def _refuse(send: Send) -> None:
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"www-authenticate", b'Bearer realm="mailyard"'),
        (b"content-length", b"%d" % len(_NO_KEY)),
    ]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": _NO_KEY})
