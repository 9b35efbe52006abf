"""The links in mail, as a raw ASGI application.

/c/<token>       302 to the stored address
/o/<token>.gif   a transparent pixel
/u/<token>       unsubscribe: POST acts (RFC 8058), GET shows a page
/p/<token>       the preference page

A hit is answered when the commit that holds it is done (docs/decisions/0021-tracking.md). What is
not ours, forged, unknown or asked for by another workspace's name has one answer: 404, without a
word of why. The one exception to "durable first": while the database is away, a reader who follows
a link that this process knows is led on, and the click is lost.
"""

from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit, urlunsplit
from uuid import UUID

import structlog

from mailyard.core.errors import MailyardError, Unavailable
from mailyard.protocol.address import ascii_domain
from mailyard.sending.track.link import Target
from mailyard.sending.track.token import CHARACTERS, CLICK, OPEN, PREFERENCES
from mailyard.web.protocol import Receive, Scope, Send
from mailyard.web.track.pages import Headers, Pages

if TYPE_CHECKING:
    from mailyard.app import Application

_LOG = structlog.get_logger("mailyard.tracking")
PATHS = frozenset(("/c/", "/o/", "/u/", "/p/"))
_GIF = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,"
    b"\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
)
_GIF_HEADERS: Headers = [
    (b"content-type", b"image/gif"),
    (b"content-length", b"%d" % len(_GIF)),
    (b"cache-control", b"no-store, max-age=0"),
]
_NO_BODY = {"type": "http.response.body", "body": b""}
_REDIRECTS = 20_000  # links that one process has at hand


class _Redirect:
    """A link's answer, made once."""

    __slots__ = ("start", "workspace_id")

    def __init__(self, target: Target) -> None:
        self.workspace_id = target.workspace_id
        url = target.url
        self.start = {
            "type": "http.response.start",
            "status": 302,
            "headers": [
                (b"location", url.encode() if url.isascii() else ascii_location(url)),
                (b"content-length", b"0"),
                (b"cache-control", b"no-store, max-age=0"),
            ],
        }


class TrackApp:
    """One a process."""

    def __init__(self, application: "Application") -> None:
        self._app = application
        self._tokens = application.tracking.tokens
        self._links = application.tracking.links
        self._names = application.tracking_names
        self._hits = application.hits
        self._pages = Pages(application)
        self._redirects: dict[bytes, _Redirect] = {}
        self._answers: dict[str, Callable[[Scope, str, Receive, Send], Awaitable[None]]] = {
            "/c/": self._click,
            "/o/": self._open,
            "/u/": self._preferences,
            "/p/": self._preferences,
        }

    async def is_link_host(self, scope: Scope) -> bool:
        """Whether the request came by a tracking name, which serves nothing but links."""
        if self._names.due:
            await self._names.refresh()
        owners = self._names.owners
        return bool(owners) and _host_of(scope) in owners

    async def not_found(self, scope: Scope, send: Send) -> None:
        """The page for what is not here."""
        await self._pages.not_found(scope, send)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        try:
            await self._answers[path[:3]](scope, path, receive, send)
        except Unavailable as error:
            _LOG.warning("tracking.unavailable", error=str(error))
            await self._pages.unavailable(scope, send)
        except MailyardError as error:
            _LOG.warning("tracking.failed", error=str(error))
            await self._pages.not_found(scope, send)

    async def _click(self, scope: Scope, path: str, receive: Receive, send: Send) -> None:
        del receive
        token = self._tokens.read(CLICK, path[3:])
        method = scope["method"]
        if token is None or method not in ("GET", "HEAD"):
            await self._pages.not_found(scope, send)
            return
        redirect = self._redirects.get(token.subject) or await self._find(token.subject)
        if redirect is None or not await self._may(scope, redirect.workspace_id):
            await self._pages.not_found(scope, send)
            return
        agent, peer = _client_of(scope)
        try:
            await self._hits.take(
                redirect.workspace_id, token.delivery, token.subject, method, agent, peer
            )
        except Unavailable as error:
            _LOG.warning("tracking.click_lost", error=str(error))
        await send(redirect.start)
        await send(_NO_BODY)

    async def _find(self, link: bytes) -> "_Redirect | None":
        target = await self._links.find(link)
        if target is None:
            return None
        redirect = _Redirect(target)
        if len(self._redirects) >= _REDIRECTS:
            self._redirects.clear()
        self._redirects[link] = redirect
        return redirect

    async def _open(self, scope: Scope, path: str, receive: Receive, send: Send) -> None:
        del receive
        method = scope["method"]
        token = None
        if path.endswith(".gif") and method in ("GET", "HEAD"):
            token = self._tokens.read(OPEN, path[3:-4])
        if token is None:
            await self._pages.not_found(scope, send)
            return
        workspace_id = UUID(bytes=token.subject)
        if not await self._may(scope, workspace_id):
            await self._pages.not_found(scope, send)
            return
        agent, peer = _client_of(scope)
        await self._hits.take(workspace_id, token.delivery, b"", method, agent, peer)
        await send({"type": "http.response.start", "status": 200, "headers": _GIF_HEADERS})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else _GIF})

    async def _preferences(self, scope: Scope, path: str, receive: Receive, send: Send) -> None:
        token = self._tokens.read(PREFERENCES, path[3:])
        if token is None or len(path) != 3 + CHARACTERS:
            await self._pages.not_found(scope, send)
            return
        workspace_id, delivery_id = UUID(bytes=token.subject), UUID(bytes=token.delivery)
        if not await self._may(scope, workspace_id):
            await self._pages.not_found(scope, send)
        elif path.startswith("/u/"):
            await self._pages.unsubscribe(scope, receive, send, workspace_id, delivery_id)
        else:
            await self._pages.preferences(scope, receive, send, workspace_id, delivery_id)

    async def _may(self, scope: Scope, workspace_id: UUID) -> bool:
        """Whether the name that the request came by may lead to what is this workspace's."""
        if self._names.due:
            await self._names.refresh()
        owners = self._names.owners
        return not owners or owners.get(_host_of(scope), workspace_id) == workspace_id


def ascii_location(url: str) -> bytes:
    """An address as it goes into a header: its host in the IDNA form, the rest percent-encoded."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    netloc = parts.netloc if host.isascii() else ascii_domain(host)
    if not host.isascii() and parts.port is not None:
        netloc = f"{netloc}:{parts.port}"
    whole = urlunsplit(parts._replace(netloc=netloc))
    return quote(whole, safe="!#$%&'()*+,-./:;=?@[]_~").encode("ascii")


def _host_of(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"host":
            host: str = value.decode("latin-1").lower()
            return host.partition(":")[0] if host[:1] != "[" else host
    return ""


def _client_of(scope: Scope) -> tuple[str, str]:
    """(user agent, address). Behind a proxy on this machine or in a private network the address is
    the one that the proxy names last."""
    agent = forwarded = b""
    for name, value in scope["headers"]:
        if name == b"user-agent":
            agent = value
        elif name == b"x-forwarded-for":
            forwarded = value
    client = scope.get("client")
    peer: str = client[0] if client else ""
    if forwarded and _is_near(peer):
        peer = forwarded.rpartition(b",")[2].strip().decode("latin-1")
    return agent.decode("latin-1"), peer


def _is_near(peer: str) -> bool:
    try:
        return ip_address(peer).is_private
    except ValueError:
        return False
