"""`/v1` as an ASGI application: from a request to the handler of its route, and back.

The order is the same for every route, so that it can be read once: find the route, know the
caller, count against the rate limit, check the scope, read and check the input, honour the
idempotency key, run the handler, answer. Whatever goes wrong on the way is a problem document.
"""

from collections.abc import Mapping
from hashlib import sha256
from time import perf_counter
from typing import TYPE_CHECKING, Any

import structlog

from mailyard.access.authenticate import Authenticator, Principal
from mailyard.access.feature import PERSON_LIMIT
from mailyard.access.idempotency import StoredAnswer, check_key
from mailyard.core.errors import InvalidInput, MailyardError, NotFound, Unavailable
from mailyard.observe import report, trace
from mailyard.observe.metrics import HTTP_ARRIVED, HTTP_SECONDS, HTTP_WAITING
from mailyard.observe.reason import trace_of
from mailyard.web.api.body import (
    ClientGone,
    collect,
    decode_json,
    decode_query,
    read_body,
)
from mailyard.web.api.problem import MethodNotAllowed, UnsupportedMediaType, answer_of
from mailyard.web.api.rate import FleetLimiter, PlanLimiter, RateLimiter
from mailyard.web.api.request import Request, send_answer, send_download
from mailyard.web.api.route import (
    Answer,
    Call,
    Download,
    Route,
    RouteTable,
    encode,
    read_parameters,
)
from mailyard.web.protocol import Receive, Scope, Send

if TYPE_CHECKING:
    from mailyard.app import Application

_LOG = structlog.get_logger("mailyard.api")

# Requests a second of one address that shows no good key, in one process.
STRANGER_PER_S = 20.0
STRANGER_BURST = 200


class ApiServer:
    """Dispatches `/v1`. One a process."""

    def __init__(
        self,
        application: "Application",
        table: RouteTable,
        *,
        rate_per_s: float = 0.0,
        rate_burst: int = 1_000,
        user_limit: str = "",
    ) -> None:
        self._app = application
        self._table = table
        self._authenticator = Authenticator(
            keys=application.keys,
            sessions=application.sessions,
            neighbours=application.neighbours,
        )
        self._rate = (0.0, 0)
        self._limiter: FleetLimiter | None = None
        self._plan_limiter = (
            PlanLimiter(plans=application.plans, limits=application.limits)
            if application.plans.any
            else None
        )
        self._user_limit = ""
        self.reload(rate_per_s=rate_per_s, rate_burst=rate_burst, user_limit=user_limit)
        self._strangers = RateLimiter(per_s=STRANGER_PER_S, burst=STRANGER_BURST)
        self._seconds: dict[tuple[str, int], Any] = {}
        self._at_work = 0
        HTTP_WAITING.labels("at work").set_function(lambda: self._at_work)

    def reload(self, *, rate_per_s: float, rate_burst: int, user_limit: str) -> None:
        """Go by these limits from now on. Raises InvalidInput when there is no such limit."""
        if user_limit:
            self._app.limit_policies.policy(user_limit)  # said at once, not to the first caller
        self._user_limit = user_limit
        if (rate_per_s, rate_burst) != self._rate:
            self._rate = (rate_per_s, rate_burst)
            limits = self._app.limits
            self._limiter = (
                FleetLimiter(limits=limits, per_s=rate_per_s, burst=rate_burst)
                if rate_per_s > 0
                else None
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        HTTP_ARRIVED.inc()
        self._at_work += 1
        try:
            if trace.on():
                await self._followed(scope, receive, send)
            else:
                await self._serve(Request(scope), scope, receive, send)
        finally:
            self._at_work -= 1

    async def _followed(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As `_serve`, with a span that what is enqueued follows from."""
        request = Request(scope)
        above = trace.mark_of(request.headers.get(b"traceparent"))
        span = trace.begin("request", trace.SERVER, above, http__request__method=scope["method"])
        assert span is not None, "somebody traces"
        status = 499  # whoever asked has gone
        try:
            with trace.within(span.mark):
                status = await self._serve(request, scope, receive, send) or status
        finally:
            path = request.route.public_path if request.route else "none"
            span.end(
                "error" if status >= 500 else "",
                name=f"{scope['method']} {path}",
                http__route=path,
                http__response__status_code=status,
                mailyard__request=request.id,
            )

    async def _serve(
        self, request: Request, scope: Scope, receive: Receive, send: Send
    ) -> int | None:
        """The status that was answered; None: nobody was there any more."""
        started = perf_counter()
        try:
            answer = await self._answer(request, scope, receive)
        except ClientGone:
            return None
        except MailyardError as error:
            if error.status >= 500:
                _LOG.warning("request failed", request_id=request.id, error=str(error))
            answer = answer_of(error, request.id, scope)
        except Exception as error:
            report.note(error, f"api {request.route.operation}" if request.route else "api")
            # Without its words: they may be a mail's, as the variables of its frames are.
            _LOG.error(
                "request failed",
                request_id=request.id,
                operation=request.route.operation if request.route else None,
                trace=trace_of((type(error), error, error.__traceback__)),
            )
            answer = answer_of(MailyardError("internal error"), request.id)
        if isinstance(answer, Download):
            await send_download(request, scope, answer, send)
        else:
            await send_answer(request, scope, answer, send)
        status: int = getattr(answer, "status", 200)
        self._observe(request, status, perf_counter() - started)
        return status

    def _observe(self, request: Request, status: int, seconds: float) -> None:
        key = (request.route.operation if request.route else "none", status)
        histogram = self._seconds.get(key)
        if histogram is None:
            histogram = HTTP_SECONDS.labels(key[0], str(status))
            self._seconds[key] = histogram
        histogram.observe(seconds)

    async def _answer(self, request: Request, scope: Scope, receive: Receive) -> Answer | Download:
        path: str = scope["path"]
        found = self._table.find(path)
        if found is None:
            raise NotFound(f"there is nothing at {path[:200]}")
        by_method, texts = found
        method: str = scope["method"]
        route = by_method.get("GET" if method == "HEAD" else method)
        if route is None:
            return self._without_route(method, by_method)
        request.route = route
        principal = None
        if route.scope is None:
            if not route.counted:
                return await self._run_trusting(request, scope, receive, route, texts)
            self._count_stranger(scope)
        else:
            principal = await self.authenticate(scope, request.headers)
            if self._limiter is not None:
                allowance = await self._limiter.take(principal.actor.name)
                request.sent_headers = allowance.headers()
            if self._plan_limiter is not None:
                await self._plan_limiter.take(principal.workspace_id)
            if self._user_limit and principal.session is not None:
                await self._count_person(principal)
            principal.require(route.scope)
        return await self._run(request, scope, receive, route, texts, principal)

    async def _run_trusting(
        self, request: Request, scope: Scope, receive: Receive, route: Route, texts: list[str]
    ) -> Answer | Download:
        """A public route whose good callers come often: whoever is refused is counted."""
        try:
            return await self._run(request, scope, receive, route, texts, None)
        except MailyardError as error:
            if error.status in (401, 404):
                self._count_stranger(scope)
            raise

    def _without_route(self, method: str, by_method: Mapping[str, Route]) -> Answer:
        methods = {*by_method, "OPTIONS"} | ({"HEAD"} if "GET" in by_method else set())
        allowed = ", ".join(sorted(methods))
        if method != "OPTIONS":
            raise MethodNotAllowed(allowed)
        return Answer(204, headers=[(b"allow", allowed.encode())])

    async def authenticate(
        self, scope: Scope, headers: Mapping[bytes, bytes] | None = None
    ) -> Principal:
        """Who asks. Raises NotAuthenticated; strangers are counted by their address. Unavailable:
        nobody knows, so nobody is counted."""
        if headers is None:
            headers = collect(scope["headers"])
        try:
            return await self._authenticator.by_headers(
                scope["method"],
                _text(headers.get(b"authorization")),
                _text(headers.get(b"cookie")),
                _text(headers.get(b"x-csrf-token")),
            )
        except Unavailable:
            raise
        except MailyardError:
            self._count_stranger(scope)
            raise

    async def _count_person(self, principal: Principal) -> None:
        """Raises RateLimited when somebody who is signed in has made all his requests."""
        if await self._app.features.on(PERSON_LIMIT, principal.workspace_id):
            await self._app.limit_policies.admit(self._user_limit, principal.actor.name)

    def _count_stranger(self, scope: Scope) -> None:
        client = scope.get("client")
        self._strangers.take(client[0] if client else "")

    async def _run(
        self,
        request: Request,
        scope: Scope,
        receive: Receive,
        route: Route,
        texts: list[str],
        principal: Principal | None,
    ) -> Answer | Download:
        identifiers, names = read_parameters(route, texts)
        if any("\0" in text for text in texts):
            raise InvalidInput("an address has a NUL character in it")
        query = decode_query(route.query, scope["query_string"])
        raw = b""
        if not route.upload and scope["method"] not in ("GET", "HEAD"):
            raw = await read_body(receive, _length(request.headers), route.body_bytes)
        body = None
        if route.body is not None:
            body = decode_json(route.body, request.headers.get(b"content-type", b""), raw)
        elif raw:
            raise InvalidInput("this route takes no body")
        if route.upload:
            _check_upload(route, request.headers)
        key = _idempotency_key(route, request.headers)
        call: Call[Any, Any] = Call(
            app=self._app,
            route=route,
            principal=principal or _NOBODY,
            ids=identifiers,
            names=names,
            query=query,
            body=body,
            scope=scope,
            receive=receive,
            request_id=request.id,
            headers=request.headers,
            idempotency_key=key,
            body_hash=_hash(scope, raw) if key is not None else b"",
        )
        if key is None or route.idempotency == "own":
            return _whole(route, await route.handler(call))
        return await self._once(route, call, key)

    async def _once(self, route: Route, call: Call[Any, Any], key: str) -> Answer | Download:
        """Run the handler unless its answer is kept under the key already."""
        kept = self._app.idempotency
        stored = await kept.begin(call.workspace_id, key, call.body_hash)
        if stored is not None:
            return Answer(stored.status, stored.body, headers=[(b"idempotency-replayed", b"true")])
        try:
            answer = _whole(route, await route.handler(call))
        except BaseException:
            await kept.abandon(call.workspace_id, key, call.body_hash)
            raise
        if isinstance(answer, Answer) and not call.kept:
            await kept.finish(
                call.workspace_id, key, call.body_hash, StoredAnswer(answer.status, answer.body)
            )
        return answer


class _Nobody:
    """Stands for the caller of a public route, whose handler asks nothing of it."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"a public route has no caller, and its handler asked for {name}")


_NOBODY: Any = _Nobody()


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def _length(headers: Mapping[bytes, bytes]) -> int | None:
    text = headers.get(b"content-length")
    return int(text) if text is not None and text.isdigit() else None


def _check_upload(route: Route, headers: Mapping[bytes, bytes]) -> None:
    media_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode()
    if media_type not in route.upload:
        raise UnsupportedMediaType(f"send one of {', '.join(route.upload)}")


def _idempotency_key(route: Route, headers: Mapping[bytes, bytes]) -> str | None:
    text = _text(headers.get(b"idempotency-key"))
    if text is None or not route.takes_idempotency_key:
        return None
    return check_key(text)


def _hash(scope: Scope, raw: bytes) -> bytes:
    """What a repeated request must equal: the method, the path, the query, the body."""
    digest = sha256(f"{scope['method']} {scope['path']}?".encode())
    digest.update(scope["query_string"] + b"\n")
    digest.update(raw)
    return digest.digest()


def _whole(route: Route, result: Any) -> Answer | Download:
    return result if isinstance(result, Download) else encode(route, result)
