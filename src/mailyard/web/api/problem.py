"""Problem documents (RFC 9457): every error of the API has this one form."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from mailyard.access.region import AtHomeElsewhere
from mailyard.core.errors import MailyardError, OutOfReach, RateLimited, Unavailable
from mailyard.storage.blob import BlobMissing
from mailyard.web.api.route import Answer
from mailyard.web.protocol import Scope

MEDIA_TYPE = b"application/problem+json"
_TYPE = "https://mailyard.dev/problems/"
_UNAVAILABLE_RETRY_S = 2

TITLES = {
    307: "At home in another region",
    400: "The request cannot be read",
    401: "Who are you",
    402: "The plan allows no more",
    403: "Not allowed",
    404: "Not found",
    405: "This path has no such method",
    409: "Conflict",
    413: "Too large",
    415: "Wrong media type",
    422: "Invalid input",
    429: "Too many requests",
    500: "Internal error",
    503: "Not available now",
}


class Problem(Struct, omit_defaults=True):
    """What went wrong, for people and programs (RFC 9457)."""

    type: Annotated[str, Meta(description="A URI that names the kind of problem, as `code` does.")]
    title: Annotated[str, Meta(description="The kind of problem in a few words.")]
    status: Annotated[int, Meta(ge=307, le=599, description="The HTTP status again.")]
    detail: Annotated[str, Meta(description="What went wrong this time, and what to do.")]
    code: Annotated[str, Meta(description="Stable, for programs: `invalid_input`, `not_found`, …")]
    field: Annotated[
        str | None,
        Meta(description="The offending input as a dotted path: `to.0`, `attachments.2.filename`."),
    ] = None
    request_id: Annotated[
        str | None, Meta(description="Name this request by it when asking for help.")
    ] = None


class Malformed(MailyardError):
    """The body or the address of the request cannot be read at all."""

    code = "malformed_request"
    status = 400


class MethodNotAllowed(MailyardError):
    code = "method_not_allowed"
    status = 405

    def __init__(self, allowed: str) -> None:
        super().__init__(f"this path has {allowed}")
        self.allowed = allowed


class UnsupportedMediaType(MailyardError):
    code = "unsupported_media_type"
    status = 415


def answer_of(error: MailyardError, request_id: str, scope: Scope | None = None) -> Answer:
    """The error as an answer. What an internal error says stays in the log. `scope`: the request,
    for who is told where to repeat it."""
    status = error.status
    detail = error.message if status != 500 else "the error was logged under the request's id"
    headers: list[tuple[bytes, bytes]] = []
    if isinstance(error, RateLimited | OutOfReach):
        headers.append((b"retry-after", b"%d" % max(1, round(error.retry_after_s + 0.5))))
    elif isinstance(error, Unavailable | BlobMissing):
        headers.append((b"retry-after", b"%d" % _UNAVAILABLE_RETRY_S))
    elif isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allowed.encode()))
    elif isinstance(error, AtHomeElsewhere):
        headers.append((b"mailyard-region", error.region.name.encode()))
        if scope is not None:
            headers.append((b"location", _there(error, scope)))
    elif status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="mailyard"'))
    problem = Problem(
        type=_TYPE + error.code.replace("_", "-"),
        title=TITLES.get(status, "Error"),
        status=status,
        detail=detail,
        code=error.code,
        field=error.field,
        request_id=request_id,
    )
    return Answer(status, msgspec.json.encode(problem), MEDIA_TYPE, headers)


def _there(error: AtHomeElsewhere, scope: Scope) -> bytes:
    """The same request at the region's own address."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    return error.region.api.encode() + path.partition(b"?")[0] + (b"?" + query if query else b"")
