"""A request as it goes through the server's steps, and how its answer is sent."""

import re

from mailyard.core import ids
from mailyard.web.api.body import collect
from mailyard.web.api.route import Answer, Download, Route
from mailyard.web.protocol import Scope, Send

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

# What every answer of the API carries: it is data for programs, never a page.
SECURITY_HEADERS: list[tuple[bytes, bytes]] = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class Request:
    """What is known of a request as it goes through the steps."""

    __slots__ = ("headers", "id", "route", "sent_headers")

    def __init__(self, scope: Scope) -> None:
        self.headers = collect(scope["headers"])
        given = self.headers.get(b"x-request-id")
        self.id = (
            given.decode("ascii")
            if given is not None and _REQUEST_ID.fullmatch(given)
            else f"{ids.random_64_bits():016x}"
        )
        self.route: Route | None = None
        self.sent_headers: list[tuple[bytes, bytes]] = []


async def send_answer(request: Request, scope: Scope, answer: Answer, send: Send) -> None:
    """Send a whole answer; to HEAD without its body."""
    headers = [
        (b"x-request-id", request.id.encode()),
        *SECURITY_HEADERS,
        *request.sent_headers,
        *answer.headers,
    ]
    if answer.body:
        headers.append((b"content-type", answer.media_type))
    if answer.status != 204:
        headers.append((b"content-length", b"%d" % len(answer.body)))
    body = b"" if scope["method"] == "HEAD" else answer.body
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_download(request: Request, scope: Scope, file: Download, send: Send) -> None:
    """Send a file, piece by piece where it comes so."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", file.file_name)[:150] or "file"
    headers = [
        (b"x-request-id", request.id.encode()),
        *SECURITY_HEADERS,
        *request.sent_headers,
        (b"content-type", file.media_type.encode()),
        (b"content-disposition", f'attachment; filename="{name}"'.encode()),
    ]
    content = file.content
    if isinstance(content, bytes):
        headers.append((b"content-length", b"%d" % len(content)))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if scope["method"] == "HEAD":
        content = b""
    if not isinstance(content, bytes):
        async for piece in content:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        content = b""
    await send({"type": "http.response.body", "body": content})
