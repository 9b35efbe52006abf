"""A route as a value. The table of all routes is what the server dispatches on, what the OpenAPI
document is made from, and what the generated tests walk."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar
from uuid import UUID

import msgspec

from mailyard.access.audit import Change
from mailyard.access.authenticate import Principal
from mailyard.access.idempotency import IdempotencyInProgress, StoredAnswer
from mailyard.core import ids
from mailyard.core.limits import MIB
from mailyard.storage.database import Connection
from mailyard.web.protocol import Receive, Scope

if TYPE_CHECKING:
    from mailyard.app import Application

Body = TypeVar("Body")
Query = TypeVar("Query")

_ENCODER = msgspec.json.Encoder()
SMALL_BODY_BYTES = 1 * MIB
_PARAMETER = re.compile(r"\{([a-z_]+)(?::([a-z]{3}))?\}")


@dataclass(slots=True)
class Answer:
    """A whole answer, ready to be sent."""

    status: int
    body: bytes = b""
    media_type: bytes = b"application/json"
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Download:
    """Bytes as a file. The name is a plain ASCII name; anything else in it becomes `_`."""

    content: bytes | AsyncIterator[bytes]
    media_type: str
    file_name: str


@dataclass(frozen=True, slots=True)
class Media:
    """In a route's table of answers: a body that is not JSON."""

    media_type: str
    description: str


@dataclass(slots=True)
class Call(Generic[Body, Query]):
    """One request to one route, checked: who asks, for what, with which input.

    `kept`: the answer stands under the idempotency key already.
    """

    app: "Application"
    route: "Route"
    principal: Principal
    ids: Mapping[str, UUID]
    names: Mapping[str, str]
    query: Query
    body: Body
    scope: Scope
    receive: Receive
    request_id: str
    headers: Mapping[bytes, bytes]
    idempotency_key: str | None
    body_hash: bytes
    kept: bool = False

    @property
    def workspace_id(self) -> UUID:
        return self.principal.workspace_id

    async def done(self, tx: Connection, result: Any, *changes: Change) -> Answer:
        """End what the call changes in `tx`: the audit log's rows, and the answer under the
        request's idempotency key, commit with it.

        `changes` are those whose service writes no row itself. Raises IdempotencyInProgress when
        the key has been given to another request meanwhile: the caller's transaction rolls back.
        """
        await self.app.audit.record_many(self.principal.actor, changes, tx)
        answer = encode(self.route, result)
        if self.idempotency_key is not None:
            self.kept = await self.app.idempotency.finish(
                self.workspace_id,
                self.idempotency_key,
                self.body_hash,
                StoredAnswer(answer.status, answer.body),
                tx,
            )
            if not self.kept:
                raise IdempotencyInProgress(
                    "another request with this idempotency key was faster",
                    field="Idempotency-Key",
                )
        return answer


Handler = Callable[[Call[Any, Any]], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Route:
    """One operation of the API.

    `path`: `{inbox_id:ibx}` is a TypeID of that kind, `{name}` any text without a slash.
    `scope`: what the caller needs; None for a public route. `body`, `query`: Structs that the
    input is checked against. `answer`: what `status` carries; None for an empty body.
    `more_answers`: other good statuses, without a body, and what they mean.
    `errors`: problem statuses beyond those that follow from the rest (see `problem_statuses`).
    `counted`: whether each call of a public route counts against its caller's address, or only
    those that are refused do.
    `upload`: media types of a body that the handler reads from `call.receive` itself.
    `idempotency`: how a POST honours Idempotency-Key: the server keeps the `answer`, or the
    handler's service keeps it in its own commit (`own`), or not at all (`none`).
    """

    method: str
    path: str
    handler: Handler
    operation: str
    tag: str
    summary: str
    scope: str | None
    status: int = 200
    answer: type | Media | None = None
    more_answers: Mapping[int, str] = field(default_factory=dict)
    body: type | None = None
    body_bytes: int = SMALL_BODY_BYTES
    query: type | None = None
    description: str = ""
    errors: Sequence[int] = ()
    upload: Sequence[str] = ()
    idempotency: Literal["answer", "own", "none"] = "answer"
    counted: bool = True

    @property
    def takes_idempotency_key(self) -> bool:
        return self.method == "POST" and self.idempotency != "none" and not self.upload

    @property
    def problem_statuses(self) -> list[int]:
        """Every status that a problem document of this route may carry."""
        statuses = {503, 429, *self.errors}
        if self.scope is not None:
            statuses |= {307, 401, 403}  # 307: the key is another region's
        if self.body is not None or self.upload:
            statuses |= {400, 413, 415, 422}
        elif self.method in ("POST", "PUT", "PATCH"):
            statuses |= {400, 413, 422}
        if self.query is not None or "{" in self.path:
            statuses |= {400, 422}
        if "{" in self.path:
            statuses.add(404)
        if self.takes_idempotency_key:
            statuses |= {409, 422}
        return sorted(statuses)

    @property
    def parameters(self) -> list[tuple[str, str | None]]:
        """(name, TypeID prefix or None) of each path parameter, in order."""
        return [(found[1], found[2]) for found in _PARAMETER.finditer(self.path)]

    @property
    def public_path(self) -> str:
        """The path as OpenAPI writes it."""
        return _PARAMETER.sub(r"{\1}", self.path)


def encode(route: Route, result: Any) -> Answer:
    """The answer that a handler's result stands for."""
    if isinstance(result, Answer):
        return result
    return Answer(204) if result is None else Answer(route.status, _ENCODER.encode(result))


class _Node:
    __slots__ = ("below", "by_method", "parameter")

    def __init__(self) -> None:
        self.below: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.by_method: dict[str, Route] = {}


class RouteTable:
    """Finds the routes of a path in as many steps as the path has segments."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = tuple(routes)
        self._root = _Node()
        operations: set[str] = set()
        for route in routes:
            node = self._root
            for segment in route.path.split("/")[1:]:
                if segment.startswith("{"):
                    node.parameter = node.parameter or _Node()
                    node = node.parameter
                else:
                    node = node.below.setdefault(segment, _Node())
            assert route.method not in node.by_method, f"{route.method} {route.path} stands twice"
            assert route.operation not in operations, f"{route.operation} stands twice"
            node.by_method[route.method] = route
            operations.add(route.operation)

    def find(self, path: str) -> tuple[Mapping[str, Route], list[str]] | None:
        """The path's routes by method and the texts of its parameters; None for an unknown path."""
        node = self._root
        texts: list[str] = []
        for segment in path.split("/")[1:]:
            below = node.below.get(segment)
            if below is None:
                if node.parameter is None or not segment:
                    return None
                below = node.parameter
                texts.append(segment)
            node = below
        return (node.by_method, texts) if node.by_method else None


def read_parameters(route: Route, texts: Sequence[str]) -> tuple[dict[str, UUID], dict[str, str]]:
    """The path's parameters: ids by name, and texts by name. Raises InvalidInput naming one."""
    identifiers: dict[str, UUID] = {}
    names: dict[str, str] = {}
    if not texts:
        return identifiers, names
    for (name, prefix), text in zip(route.parameters, texts, strict=True):
        if prefix is None:
            names[name] = text
        else:
            identifiers[name] = ids.parse_type_id(prefix, text, field=name)
    return identifiers, names
