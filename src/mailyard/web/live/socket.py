"""WebSockets (RFC 6455): the same events as the event stream, a JSON object a message.

Who connects shows an API key in Authorization, or, where a browser cannot set headers, as a
subprotocol beside `mailyard.v1`: `bearer.<key>`. A browser with a session's cookie is taken when
its Origin is this site, for no other page may read along with the visitor's cookie.

The client may send `{"filter": {"kinds": […], "inboxes": […], "where": {…}}}` to want something
else from then on. It sends nothing else.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from urllib.parse import urlsplit

import msgspec

from mailyard.bus.filter import make_filter
from mailyard.core.errors import InvalidInput, NotAllowed
from mailyard.core.limits import (
    SOCKET_FRAMES_A_MINUTE,
    SOCKET_MESSAGE_BYTES,
    SOCKET_MESSAGES_A_MINUTE,
)
from mailyard.protocol.websocket import (
    NORMAL,
    POLICY,
    SERVICE_RESTART,
    TOO_BIG,
    TRY_AGAIN,
    UNREADABLE,
)
from mailyard.web.api.route import Answer
from mailyard.web.live.stream import End, Stream
from mailyard.web.protocol import Receive, Scope, Send

PROTOCOL = "mailyard.v1"
_TOKEN = "bearer."
GOODBYE_S = 1.0  # for which a client may take its time to say goodbye as well

_CODES: dict[End | None, int] = {
    End.SHUTDOWN: SERVICE_RESTART,
    End.MADE_ROOM: TRY_AGAIN,
    End.REVOKED: POLICY,
}


def code_of(reason: End | None) -> int:
    """What a connection is closed with."""
    return _CODES.get(reason, NORMAL)


class _Wanted(msgspec.Struct, forbid_unknown_fields=True):
    kinds: list[str] = msgspec.field(default_factory=list)
    inboxes: list[str] = msgspec.field(default_factory=list)
    where: dict[str, list[str]] = msgspec.field(default_factory=dict)


class _Said(msgspec.Struct, forbid_unknown_fields=True):
    filter: _Wanted


_SAID = msgspec.json.Decoder(_Said)


def as_request(scope: Scope, own_origin: str) -> Scope:
    """The handshake as the GET that it is, a key among its subprotocols moved to Authorization.

    Raises NotAllowed for a cookie alone from another site.
    """
    headers = [(name.lower(), value) for name, value in scope["headers"]]
    given = dict(headers)
    if b"authorization" not in given:
        token = next((one for one in scope.get("subprotocols", ()) if one.startswith(_TOKEN)), None)
        if token is not None:
            key = token.removeprefix(_TOKEN).encode()
            headers.append((b"authorization", b"Bearer " + key))
        elif b"cookie" in given:
            _check_origin(given, own_origin)
    return {**scope, "method": "GET", "headers": headers}


def _check_origin(headers: dict[bytes, bytes], own_origin: str) -> None:
    """Raises NotAllowed unless the page that connects is of this site."""
    origin = headers.get(b"origin", b"").decode("latin-1").lower()
    host = headers.get(b"host", b"").decode("latin-1").lower()
    own = urlsplit(own_origin)
    mine = {f"{own.scheme}://{own.netloc}".lower(), f"http://{host}", f"https://{host}"}
    if not origin or origin not in mine:
        raise NotAllowed(
            "a session is taken from this site's own pages only; elsewhere show an API key as the "
            f"subprotocol {_TOKEN}<key> beside {PROTOCOL}"
        )


async def accept(scope: Scope, send: Send) -> None:
    """Open the connection, in our subprotocol when it is offered."""
    offered = PROTOCOL in scope.get("subprotocols", ())
    await send({"type": "websocket.accept", "subprotocol": PROTOCOL if offered else None})


async def refuse(send: Send, answer: Answer) -> None:
    """Answer the handshake as any other request."""
    headers = [
        (b"content-length", b"%d" % len(answer.body)),
        (b"content-type", answer.media_type),
        *answer.headers,
    ]
    await send(
        {"type": "websocket.http.response.start", "status": answer.status, "headers": headers}
    )
    await send({"type": "websocket.http.response.body", "body": answer.body})


async def connected(receive: Receive) -> bool:
    """Whether the client is still there to be answered."""
    message = await receive()
    return bool(message["type"] == "websocket.connect")


class Talk:
    """What the client of one connection says: which events it wants from now on."""

    __slots__ = ("_frames", "_minute_s", "_said", "_stream")

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._said = self._frames = 0
        self._minute_s = monotonic()

    def count(self) -> int:
        """A frame that asks for nothing. The code to close with for too many, else 0."""
        now_s = monotonic()
        if now_s - self._minute_s > 60.0:
            self._said, self._frames, self._minute_s = 0, 0, now_s
        self._frames += 1
        return POLICY if self._frames > SOCKET_FRAMES_A_MINUTE else 0

    def take(self, text: str | bytes) -> int:
        """Follow what the client says. The code to close with for what it must not, else 0."""
        if code := self.count():
            return code
        self._said += 1
        if self._said > SOCKET_MESSAGES_A_MINUTE:
            return POLICY
        if len(text) > SOCKET_MESSAGE_BYTES:
            return TOO_BIG
        try:
            wanted = _SAID.decode(text).filter
            self._stream.filter = make_filter(wanted.kinds, wanted.inboxes, wanted.where)
        except (msgspec.DecodeError, InvalidInput, UnicodeError):
            return UNREADABLE
        return 0


class Socket:
    """One open connection that is read and written through the HTTP server."""

    def __init__(self, stream: Stream, receive: Receive, send: Send) -> None:
        self._stream = stream
        self._receive = receive
        self._send = send
        self._talk = Talk(stream)
        self._fault = 0
        self._listening = asyncio.create_task(self._listen())

    async def write(self, frames: Sequence[bytes]) -> None:
        for frame in frames:
            await self._send({"type": "websocket.send", "text": frame.decode()})

    async def close(self) -> None:
        """Say goodbye, and why, to a client that is there and reads."""
        self._listening.cancel()
        reason = self._stream.end_reason
        if self._fault or reason not in (End.LEFT, End.UNREAD):
            with suppress(OSError, RuntimeError):  # a time-out is an OSError
                async with asyncio.timeout(GOODBYE_S):
                    code = self._fault or code_of(reason)
                    await self._send({"type": "websocket.close", "code": code})

    async def _listen(self) -> None:
        """Until the client hangs up, or says what it must not."""
        with suppress(OSError, RuntimeError):
            while (message := await self._receive())["type"] != "websocket.disconnect":
                if message["type"] == "websocket.receive":
                    self._fault = self._talk.take(message.get("text") or message.get("bytes") or "")
                    if self._fault:
                        self._stream.end(End.REVOKED)
                        return
        self._stream.end(End.LEFT)
