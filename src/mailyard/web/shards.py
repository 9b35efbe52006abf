"""The front of an installation on several database clusters: each request goes to the application
of its caller's cluster.

Who calls is found by what he shows, in this order: an API key, a session, the token of a link. Who
shows nothing, or what nobody knows, is the home cluster's, which answers as it would alone. While a
workspace moves, what only reads goes on, and everything else is asked to come back (503).
"""

from base64 import urlsafe_b64decode
from binascii import Error as BinasciiError
from hashlib import sha256
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qs
from uuid import UUID, uuid4

from mailyard.access.authenticate import session_token
from mailyard.app.shards import Shards
from mailyard.core.errors import InvalidInput, MailyardError
from mailyard.protocol.address import normalise
from mailyard.settings import HOME, Settings
from mailyard.storage.database import Moving
from mailyard.web.api.problem import answer_of
from mailyard.web.asgi import Front, build
from mailyard.web.live import socket
from mailyard.web.protocol import Message, Receive, Scope, Send

if TYPE_CHECKING:
    pass

_READS = frozenset(("GET", "HEAD", "OPTIONS"))
_LINKS = frozenset(("/c/", "/o/", "/u/", "/p/"))
_BY_TOKEN = {
    "/sign-in/": "link",
    "/invitation/": "invitation",
    "/reset/": "reset",
}  # what stands in the path
_BY_ADDRESS = frozenset(("/sign-in", "/reset"))  # a form that names a person
_FORM_BYTES = 16 * 1024
_KEY = b"bearer my_"
_PREFIX_CHARACTERS = 10

Name = tuple[str, str]  # kind, and the name: see shard.find_workspaces


class ShardFront:
    """As `Front`, over all clusters."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._fronts: dict[str, Front] = {HOME: build(shards.applications[HOME])}

    async def start(self) -> None:
        """Begin to follow live events."""
        await self._fronts[HOME].start()

    def reload(self, settings: Settings) -> None:
        """Go by what may change while it works."""
        for front in self._fronts.values():
            front.reload(settings)

    async def drain(self) -> None:
        """End event streams and waits at once."""
        for front in list(self._fronts.values()):
            await front.drain()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._fronts[HOME](scope, receive, send)
            return
        try:
            name, receive = await self._name(scope, receive)
            shard = await self._shard_of(scope, name)
            front = self._fronts.get(shard) or await self._open(shard)
        except MailyardError as error:
            await _refuse(scope, receive, send, error)
            return
        await front(scope, receive, send)

    async def _shard_of(self, scope: Scope, name: Name | None) -> str:
        workspace_id = await self._shards.find(*name) if name is not None else None
        if workspace_id is None:
            return HOME
        place = await self._shards.place(workspace_id)
        if place.moving and scope.get("method", "GET") not in _READS:
            raise Moving("this workspace moves to another database cluster; ask again in a moment")
        return place.shard

    async def _open(self, shard: str) -> Front:
        """The front of a cluster, made for its first caller."""
        front = build(self._shards.application(shard))
        self._fronts[shard] = front
        await front.start()
        return front

    async def _name(self, scope: Scope, receive: Receive) -> tuple[Name | None, Receive]:
        """What the caller shows. A form that was read for it is there to be read again."""
        cookie = None
        for header, value in scope["headers"]:
            if header == b"authorization":
                return _key_of(value), receive
            if header == b"cookie":
                cookie = session_token(value.decode("latin-1"))
        path: str = scope["path"]
        if path[:3] in _LINKS:
            return _link_of(path[3:]), receive
        for head, kind in _BY_TOKEN.items():
            if path.startswith(head):
                return (kind, _hash(path.removeprefix(head))), receive
        if path.startswith("/v1/hooks/"):
            return ("hook", _hash(path.rpartition("/")[2])), receive
        if path in _BY_ADDRESS and scope.get("method") == "POST":
            return await _person(receive)
        return (None if cookie is None else ("session", _hash(cookie))), receive


def _key_of(authorization: bytes) -> Name | None:
    text = authorization.strip()
    if text[: len(_KEY)].lower() != _KEY:
        return None
    prefix = text[len(_KEY) : len(_KEY) + _PREFIX_CHARACTERS]
    return "key", prefix.decode("latin-1").replace("\0", "")


def _hash(token: str) -> str:
    return sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _link_of(token: str) -> Name | None:
    """The delivery that a link in a mail is of: the first sixteen bytes of its token."""
    text = token.partition(".")[0].partition("/")[0]
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (BinasciiError, ValueError):
        return None
    return ("delivery", str(UUID(bytes=raw[:16]))) if len(raw) > 16 else None


async def _person(receive: Receive) -> tuple[Name | None, Receive]:
    """The person that a form names, and the form once more."""
    messages: list[Message] = []
    body = b""
    while True:
        message = await receive()
        messages.append(message)
        body += message.get("body", b"")
        if message["type"] != "http.request" or not message.get("more_body"):
            break
        if len(body) > _FORM_BYTES:
            break

    async def again() -> Message:
        return messages.pop(0) if messages else await receive()

    fields = parse_qs(body[:_FORM_BYTES].decode("utf-8", "replace"))
    try:
        address = normalise(fields.get("email", [""])[0].strip())
    except InvalidInput:
        return None, again
    return ("person", address), again


async def _refuse(scope: Scope, receive: Receive, send: Send, error: MailyardError) -> None:
    answer = answer_of(error, uuid4().hex, scope)
    if scope["type"] == "websocket":
        if await socket.connected(receive):
            await socket.refuse(send, answer)
        return
    body, media_type = answer.body, answer.media_type
    if not scope["path"].startswith(("/v1", "/monitoring")):
        title = HTTPStatus(answer.status).phrase
        body, media_type = f"{title}: {error.message}\n".encode(), b"text/plain; charset=utf-8"
    headers = [
        (b"content-type", media_type),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
