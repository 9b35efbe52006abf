"""Answers compressed for whom that pays: text of a kilobyte and more, once, when it is whole.

Left as they are: event streams and whatever comes in pieces (a client waits for each), what is
compressed already, errors, answers to changes (they may show a secret, once), what says
`no-transform`.

Whoever can make a browser send requests, put text into the answers and measure their size can guess
what stands beside that text (BREACH). So nothing is compressed that another site made the browser
ask for (Sec-Fetch-Site), no page whose address has a query, which pages repeat, and the token
against forged requests stands in each page under another mask (`web/ui/frame.py`).
"""

import asyncio

from mailyard.web.coding import BROTLI, GZIP, ZSTD, choose, pack
from mailyard.web.protocol import Asgi, Message, Receive, Scope, Send

LEAST_BYTES = 1_024  # below this the answer is one packet with or without
MOST_BYTES = 8 * 1024 * 1024  # above: a file, whose sender knows best
ASIDE_BYTES = 128 * 1024  # from here on in a thread: the loop has others to serve
OFFERED = (ZSTD, BROTLI, GZIP)  # by what a byte saved costs
_TEXT = (
    b"text/html",
    b"text/plain",
    b"text/css",
    b"text/csv",
    b"text/javascript",
    b"application/json",
    b"application/problem+json",
    b"image/svg+xml",
)


class Compressed:
    """`app`, its answers compressed where that pays and is safe."""

    def __init__(self, app: Asgi) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        coding = _coding_for(scope)
        if coding is None:
            await self._app(scope, receive, send)
        else:
            await self._app(scope, receive, _Packer(scope, coding, send).send)


def _coding_for(scope: Scope) -> str | None:
    """What the answer may be in; None where it stays as it is, whatever it is."""
    if scope["type"] != "http" or scope["method"] != "GET":
        return None
    accepted, from_site = b"", b""
    for name, value in scope["headers"]:
        if name == b"accept-encoding":
            accepted += b"," + value
        elif name == b"sec-fetch-site":
            from_site = value
    if not accepted or from_site in (b"cross-site", b"same-site"):
        return None
    return choose(accepted.decode("latin-1"), OFFERED)


class _Packer:
    """Holds the beginning of one answer until it is known whether its body is packed."""

    def __init__(self, scope: Scope, coding: str, send: Send) -> None:
        self._repeats = bool(scope["query_string"])
        self._coding = coding
        self._send = send
        self._start: Message | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if _pays(message, repeats=self._repeats):
                self._start = message
                return
        elif self._start is not None:
            start, self._start = self._start, None
            body = message.get("body", b"")
            if not message.get("more_body", False) and len(body) >= LEAST_BYTES:
                body = await self._packed(start, body)
                message = {"type": "http.response.body", "body": body}
            await self._send(start)
        await self._send(message)

    async def _packed(self, start: Message, body: bytes) -> bytes:
        """The body in the coding, and the beginning told so; both as they were if it is not
        smaller."""
        if len(body) >= ASIDE_BYTES:
            packed = await asyncio.to_thread(pack, self._coding, body, once=False)
        else:
            packed = pack(self._coding, body, once=False)
        if len(packed) >= len(body):
            return body
        kept = [
            (name, b"W/" + value if name == b"etag" and value[:1] == b'"' else value)
            for name, value in start["headers"]
            if name.lower() not in (b"content-length", b"vary")
        ]
        start["headers"] = [
            *kept,
            (b"content-length", b"%d" % len(packed)),
            (b"content-encoding", self._coding.encode()),
            (b"vary", b", ".join([*_varies(start), b"accept-encoding"])),
        ]
        return packed


def _pays(start: Message, *, repeats: bool) -> bool:
    """Whether a body that begins so is worth it, and may be. `repeats`: the address has a query."""
    if start["status"] != 200:
        return False
    length = -1
    kind = b""
    for name, value in start["headers"]:
        lower = name.lower()
        if lower == b"content-encoding" or (
            lower == b"cache-control" and b"no-transform" in value.lower()
        ):
            return False
        if lower == b"content-length" and value.isdigit():
            length = int(value)
        elif lower == b"content-type":
            kind = value.partition(b";")[0].strip().lower()
    if repeats and kind == b"text/html":
        return False
    return LEAST_BYTES <= length <= MOST_BYTES and kind in _TEXT


def _varies(start: Message) -> list[bytes]:
    found = [value for name, value in start["headers"] if name.lower() == b"vary"]
    return [one for one in found if b"accept-encoding" not in one.lower()]
