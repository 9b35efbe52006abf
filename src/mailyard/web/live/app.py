"""The live routes, as a raw ASGI application: event streams and waits for mail.

They have a ceiling of their own. Past it the answer is 503 with Retry-After, given before anything
is looked up, so that no place and no query is taken from `/v1` and `/health`.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from urllib.parse import parse_qs
from uuid import UUID, uuid4

from mailyard.access import scope as scopes
from mailyard.access.authenticate import Principal
from mailyard.bus.live import Cursor, LiveEvents
from mailyard.core.errors import InvalidInput, MailyardError, NotFound, RateLimited, Unavailable
from mailyard.core.ids import INBOX, MESSAGE, lowest_at, parse_type_id
from mailyard.core.limits import LIVE_CONNECTIONS, LIVE_HEARTBEAT_S, WAIT_TIMEOUT_S
from mailyard.mailbox.message import Messages, ReadMessage
from mailyard.observe import metrics
from mailyard.web.api.problem import MethodNotAllowed, answer_of
from mailyard.web.api.route import Answer
from mailyard.web.live.stream import Stream, Streams
from mailyard.web.live.tail import Tail
from mailyard.web.live.wait import Waits
from mailyard.web.protocol import Message, Receive, Scope, Send

EVENTS_PATH = "/v1/events"
_WAIT_PATH = re.compile(r"/v1/inboxes/([^/]+)/wait")
_KIND = re.compile(r"[a-z]+(?:\.[a-z]+)*")
_KINDS = 20
_WAIT_DEFAULT_S = 30.0
_FIRST_INSTANT = datetime(1970, 1, 1, tzinfo=UTC)  # of an id
_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]

Authenticate = Callable[[Scope], Awaitable[Principal]]
Present = Callable[[UUID, ReadMessage], Awaitable[bytes]]


class TooManyLive(RateLimited):
    """The ceiling of live connections is reached."""

    code = "too_many_live_connections"
    status = 503


def is_live(scope: Scope) -> bool:
    """Whether this request is for the live routes, and so a long one."""
    path: str = scope["path"]
    return path == EVENTS_PATH or _WAIT_PATH.fullmatch(path) is not None


def build_live(
    *,
    live: LiveEvents,
    messages: Messages,
    authenticate: Authenticate,
    present: Present,
    connections: int = LIVE_CONNECTIONS,
    heartbeat_s: float = LIVE_HEARTBEAT_S,
) -> "Live":
    """The live routes. Call `start` before the first request and `drain` at the end.

    `authenticate` raises NotAuthenticated; `present` makes the JSON of a workspace's message.
    """
    return Live(live, messages, authenticate, present, connections, heartbeat_s)


class Live:
    """One a process."""

    def __init__(
        self,
        live: LiveEvents,
        messages: Messages,
        authenticate: Authenticate,
        present: Present,
        connections: int,
        heartbeat_s: float,
    ) -> None:
        self._authenticate = authenticate
        self._present = present
        self._connections = connections
        self._heartbeat_s = heartbeat_s
        self._streams = Streams(live=live)
        self._waits = Waits(messages=messages)
        self._tail = Tail(live=live, hearers=(self._streams.hear, self._waits.hear))
        self._heartbeat: asyncio.Task[None] | None = None
        self._waiting: set[asyncio.Task[ReadMessage | None]] = set()
        self._draining = False
        self.open = 0

    async def start(self) -> None:
        """Be ready to follow the stream of events."""
        self._heartbeat = asyncio.create_task(self._beat(), name="live-heartbeat")
        self._tail.start()

    async def drain(self) -> None:
        """End every stream and every wait at once, and take no more."""
        self._draining = True
        self._streams.end_all()
        for waiting in list(self._waiting):
            waiting.cancel()
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            await asyncio.gather(self._heartbeat, return_exceptions=True)
        await self._tail.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._draining or self.open >= self._connections:
            await _refuse(send, TooManyLive("every live place is taken", retry_after_s=5.0))
            return
        self.open += 1
        try:
            await self._answer(scope, receive, send)
        except MailyardError as error:
            await _refuse(send, error)
        finally:
            self.open -= 1

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "GET":
            raise MethodNotAllowed("GET")
        principal = await self._authenticate(scope)
        path: str = scope["path"]
        query = _Query(scope["query_string"])
        if path == EVENTS_PATH:
            principal.require(scopes.EVENTS_READ)
            await self._stream(scope, principal, query, receive, send)
            return
        wait = _WAIT_PATH.fullmatch(path)
        if wait is None:
            raise NotFound(f"there is nothing at {path[:200]}")
        principal.require(scopes.INBOXES_READ)
        await self._wait(principal, parse_type_id(INBOX, wait[1]), query, receive, send)

    # -----------------------------------------------------------------------------------------

    async def _stream(
        self,
        scope: Scope,
        principal: Principal,
        query: "_Query",
        receive: Receive,
        send: Send,
    ) -> None:
        kinds = query.kinds()
        given = query.one("after") or _header(scope, b"last-event-id")
        query.refuse_others("after", "kinds")
        after = Cursor.decode(given, "after") if given else None
        await send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
        stream = Stream(principal.workspace_id, kinds)
        gone = _when_gone(receive, stream.end)
        with metrics.LIVE_CONNECTIONS.labels("stream").track_inprogress():
            try:
                await self._streams.serve(stream, after, self._tail, send)
            except MailyardError:
                stream.end()  # the database went away while catching up: the listener comes back
            finally:
                gone.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _wait(
        self,
        principal: Principal,
        inbox_id: UUID,
        query: "_Query",
        receive: Receive,
        send: Send,
    ) -> None:
        timeout_s = query.timeout_s()
        from_, subject, after = query.one("from"), query.one("subject"), query.after()
        query.refuse_others("timeout_s", "from", "subject", "after")
        waiting = asyncio.create_task(
            self._waits.first(
                principal.workspace_id,
                inbox_id,
                from_=from_,
                subject=subject,
                after=after,
                timeout_s=timeout_s,
                tail=self._tail,
            )
        )
        self._waiting.add(waiting)
        gone = _when_gone(receive, waiting.cancel)
        with metrics.LIVE_CONNECTIONS.labels("wait").track_inprogress():
            try:
                message = await waiting
            except asyncio.CancelledError:
                if not self._draining:
                    raise
                raise Unavailable("shutting down: ask again") from None
            finally:
                gone.cancel()
                self._waiting.discard(waiting)
        if message is None:
            await _send(send, Answer(204))
        else:
            await _send(send, Answer(200, await self._present(principal.workspace_id, message)))

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s)
            self._streams.beat()


class _Query:
    """The query string, each name once."""

    def __init__(self, text: bytes) -> None:
        try:
            self._values = parse_qs(
                text.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=20
            )
        except (UnicodeDecodeError, ValueError):
            raise InvalidInput("the query is not URL-encoded UTF-8") from None

    def one(self, name: str) -> str:
        values = self._values.get(name, [""])
        if len(values) > 1:
            raise InvalidInput("given more than once", field=name)
        if "\0" in values[0]:
            raise InvalidInput("no NUL", field=name)
        return values[0]

    def kinds(self) -> frozenset[str]:
        """`kinds=message.received,campaign.progress`; empty for all."""
        given = [kind for kind in self.one("kinds").split(",") if kind]
        if len(given) > _KINDS or not all(_KIND.fullmatch(kind) for kind in given):
            raise InvalidInput("expected kinds like message.received,…", field="kinds")
        return frozenset(given)

    def timeout_s(self) -> float:
        given = self.one("timeout_s")
        try:
            timeout_s = float(given) if given else _WAIT_DEFAULT_S
        except ValueError:
            timeout_s = -1.0
        if not 0.0 <= timeout_s <= WAIT_TIMEOUT_S:  # NaN included
            raise InvalidInput(f"expected seconds, 0 to {WAIT_TIMEOUT_S:.0f}", field="timeout_s")
        return timeout_s

    def after(self) -> UUID | None:
        """A message's id, or an instant (RFC 3339)."""
        given = self.one("after")
        if not given:
            return None
        if given.startswith(f"{MESSAGE}_"):
            return parse_type_id(MESSAGE, given, "after")
        try:
            # A "+" that was not encoded arrives as a space.
            moment = datetime.fromisoformat(given.replace(" ", "+") if "T" in given else given)
        except ValueError:
            raise InvalidInput("expected a message's id or an instant", field="after") from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return lowest_at(max(moment, _FIRST_INSTANT))

    def refuse_others(self, *known: str) -> None:
        for name in self._values:
            if name not in known:
                raise InvalidInput("no such parameter", field=name[:60])


def _when_gone(receive: Receive, act: Callable[[], object]) -> asyncio.Task[None]:
    """Call `act` when the client has hung up."""

    async def watch() -> None:
        with suppress(OSError, RuntimeError):
            while (await receive())["type"] != "http.disconnect":
                pass
        act()

    return asyncio.create_task(watch())


def _header(scope: Scope, name: bytes) -> str:
    for key, value in scope["headers"]:
        if key.lower() == name:
            text: str = value.decode("latin-1")
            return text
    return ""


async def _refuse(send: Send, error: MailyardError) -> None:
    await _send(send, answer_of(error, uuid4().hex))


async def _send(send: Send, answer: Answer) -> None:
    headers = [(b"content-length", b"%d" % len(answer.body)), *answer.headers]
    if answer.body:
        headers.append((b"content-type", answer.media_type))
    start: Message = {"type": "http.response.start", "status": answer.status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": answer.body})
