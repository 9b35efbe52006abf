"""The pages behind links in mail: unsubscribing, preferences, and the one for everything else.

No session, no cookie, no script: the link's token is all that is asked for, and changes are POSTs.
"""

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs
from uuid import UUID

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from mailyard.campaigns.preference import Holder
from mailyard.core import ids
from mailyard.core.errors import InvalidInput
from mailyard.web.protocol import Receive, Scope, Send

if TYPE_CHECKING:
    from mailyard.app import Application

Headers = list[tuple[bytes, bytes]]
_HEADERS: Headers = [
    (b"content-type", b"text/html; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-robots-tag", b"noindex, nofollow"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none';"
        b" frame-ancestors 'none'",
    ),
]
_BODY_BYTES = 64 * 1024


class Pages:
    """Answers for people, and for the mail programs that unsubscribe for them."""

    def __init__(self, application: "Application") -> None:
        self._center = application.preferences
        self._environment = Environment(
            loader=PackageLoader("mailyard.web.track", "templates"),
            autoescape=select_autoescape(default=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )

    async def not_found(self, scope: Scope, send: Send) -> None:
        """What is not ours."""
        await self._page(scope, send, 404, "not_found.html")

    async def unavailable(self, scope: Scope, send: Send) -> None:
        """The database is away."""
        await self._page(scope, send, 503, "unavailable.html", [(b"retry-after", b"5")])

    async def unsubscribe(
        self, scope: Scope, receive: Receive, send: Send, workspace_id: UUID, delivery_id: UUID
    ) -> None:
        """POST with `List-Unsubscribe=One-Click` acts, GET asks, HEAD does neither."""
        method = scope["method"]
        if method == "POST":
            form = await _form(scope, receive)
            if form.get("List-Unsubscribe") != ["One-Click"]:
                await self._page(scope, send, 400, "not_understood.html")
                return
            await self._center.unsubscribe(workspace_id, delivery_id)
            holder = await self._center.holder(workspace_id, delivery_id)
            await self._show(scope, send, "unsubscribed.html", holder)
        elif method in ("GET", "HEAD"):
            holder = await self._center.holder(workspace_id, delivery_id)
            await self._show(scope, send, "unsubscribe.html", holder)
        else:
            await self._wrong_method(scope, send)

    async def preferences(
        self, scope: Scope, receive: Receive, send: Send, workspace_id: UUID, delivery_id: UUID
    ) -> None:
        """What the address gets, and a form to change it."""
        method = scope["method"]
        if method not in ("GET", "HEAD", "POST"):
            await self._wrong_method(scope, send)
            return
        holder = await self._center.holder(workspace_id, delivery_id)
        if holder is None:
            await self.not_found(scope, send)
            return
        saved = False
        if method == "POST":
            form = await _form(scope, receive)
            if "everything" in form:
                await self._center.stop(holder)
            elif "save" in form:
                await self._center.save(holder, _topics(form))
            else:
                await self._page(scope, send, 400, "not_understood.html")
                return
            saved = True
        now = await self._center.read(holder)
        await self._show(scope, send, "preferences.html", holder, now=now, saved=saved)

    async def _wrong_method(self, scope: Scope, send: Send) -> None:
        await self._page(scope, send, 405, "not_understood.html", [(b"allow", b"GET, HEAD, POST")])

    async def _show(
        self, scope: Scope, send: Send, template: str, holder: Holder | None, **context: Any
    ) -> None:
        """A page that knows who asks. Its forms go to `/u/` and `/p/` with the same token."""
        token = scope["path"][3:]
        await self._page(
            scope,
            send,
            200,
            template,
            token=token,
            holder=holder,
            address=masked(holder.address) if holder is not None else "",
            topic_id=lambda one: ids.type_id(ids.TOPIC, one),
            **context,
        )

    async def _page(
        self,
        scope: Scope,
        send: Send,
        status: int,
        template: str,
        headers: Headers | None = None,
        **context: Any,
    ) -> None:
        body = self._environment.get_template(template).render(**context).encode()
        length = (b"content-length", b"%d" % len(body))
        sent = [*_HEADERS, *(headers or ()), length]
        await send({"type": "http.response.start", "status": status, "headers": sent})
        if scope["method"] == "HEAD":
            body = b""
        await send({"type": "http.response.body", "body": body})


def masked(address: str) -> str:
    """An address that its owner knows again, and nobody whom the mail was forwarded to learns."""
    local, _, domain = address.rpartition("@")
    return f"{local[:1]}{'•' * max(3, len(local) - 1)}@{domain}"


def _topics(form: dict[str, list[str]]) -> set[UUID]:
    found = set()
    for text in form.get("topic", ()):
        try:
            found.add(ids.parse_type_id(ids.TOPIC, text))
        except InvalidInput:
            continue  # a page that is older than the topic's removal
    return found


async def _form(scope: Scope, receive: Receive) -> dict[str, list[str]]:
    """A form's fields, urlencoded or multipart (RFC 8058 section 3.1 allows both); no files."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return {}
        body += message.get("body", b"")
        if len(body) > _BODY_BYTES:
            return {}
        if not message.get("more_body"):
            break
    kind = next(
        (value.decode("latin-1") for name, value in scope["headers"] if name == b"content-type"), ""
    )
    if kind.lower().startswith("multipart/form-data"):
        return _multipart_form(bytes(body), kind)
    try:
        return parse_qs(body.decode("utf-8", "replace"), max_num_fields=500)
    except ValueError:
        return {}


def _multipart_form(body: bytes, kind: str) -> dict[str, list[str]]:
    """The short fields of a multipart form (RFC 7578)."""
    boundary = kind.partition("boundary=")[2].partition(";")[0].strip().strip('"')
    form: dict[str, list[str]] = {}
    if not boundary:
        return form
    for piece in body.split(b"--" + boundary.encode("latin-1"))[1:]:
        head, _, value = piece.partition(b"\r\n\r\n")
        name = head.partition(b'name="')[2].partition(b'"')[0].decode("utf-8", "replace")
        if name:
            form.setdefault(name, []).append(value.removesuffix(b"\r\n").decode("utf-8", "replace"))
    return form
