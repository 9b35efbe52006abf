"""The live routes, as a raw ASGI application: event streams, WebSockets and waits for mail.

They have places of their own (`places`), so that none is taken from `/v1` and `/health`.
"""

import asyncio
import re
import resource
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from uuid import UUID, uuid4

from mailyard.access import scope as scopes
from mailyard.access.authenticate import Principal
from mailyard.bus.live import LiveEvents
from mailyard.core.errors import MailyardError, NotFound, Unavailable
from mailyard.core.ids import INBOX, parse_type_id
from mailyard.core.limits import LIVE_CHECK_S, LIVE_CONNECTIONS, LIVE_HEARTBEAT_S, LIVE_SPARE_FILES
from mailyard.mailbox.message import Messages
from mailyard.mailbox.message_value import ReadMessage
from mailyard.observe import metrics
from mailyard.web.api.problem import MethodNotAllowed, answer_of
from mailyard.web.api.route import Answer
from mailyard.web.live import socket
from mailyard.web.live.ask import Ask
from mailyard.web.live.collector import Collector
from mailyard.web.live.descriptor import Descriptors
from mailyard.web.live.form import EVENT_STREAM, FRAMES, MESSAGES
from mailyard.web.live.guests import Guests
from mailyard.web.live.places import Place, Places, TooManyLive
from mailyard.web.live.stream import TURNS, End, Stream, Streams
from mailyard.web.live.tail import Tail
from mailyard.web.live.wait import Waits
from mailyard.web.live.wire import Wire
from mailyard.web.protocol import Message, Receive, Scope, Send

EVENTS_PATH = "/v1/events"
_WAIT_PATH = re.compile(r"/v1/inboxes/([^/]+)/wait")
_GOODBYE_S = 2.0
_TEND_S = 1.0
_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]

Authenticate = Callable[[Scope], Awaitable[Principal]]
Present = Callable[[UUID, ReadMessage], Awaitable[bytes]]
MostOf = Callable[[UUID], Awaitable[int | None]]


def is_live(scope: Scope) -> bool:
    """Whether this request is for the live routes, and so a long one."""
    path: str = scope["path"]
    return path == EVENTS_PATH or _WAIT_PATH.fullmatch(path) is not None


async def _any_number(_workspace_id: UUID) -> int | None:
    return None


def build_live(
    *,
    live: LiveEvents,
    messages: Messages,
    authenticate: Authenticate,
    present: Present,
    connections: int = LIVE_CONNECTIONS,
    heartbeat_s: float = LIVE_HEARTBEAT_S,
    most_of: MostOf = _any_number,
    origin: str = "",
) -> "Live":
    """The live routes. Call `start` before the first request and `drain` at the end.

    `authenticate` raises NotAuthenticated; `present` makes the JSON of a workspace's message.
    `most_of`: how many connections a workspace may hold here, None: any number. `origin`: where the
    pages are, whose visitors may open WebSockets by their cookie.
    """
    places = Places(_ceiling(connections))
    # A WebSocket takes a second file when there is one for it.
    descriptors = Descriptors(_files() - LIVE_SPARE_FILES - places.ceiling)
    return Live(
        live,
        messages,
        authenticate,
        present,
        places,
        descriptors,
        heartbeat_s,
        most_of,
        origin,
    )


def _ceiling(connections: int) -> int:
    return min(connections, _files() - LIVE_SPARE_FILES)


def _files() -> int:
    """How many files this process may come to have open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if hard == resource.RLIM_INFINITY else hard


class Live:
    """One a process."""

    def __init__(
        self,
        live: LiveEvents,
        messages: Messages,
        authenticate: Authenticate,
        present: Present,
        places: Places,
        descriptors: Descriptors,
        heartbeat_s: float,
        most_of: MostOf,
        origin: str,
    ) -> None:
        self._authenticate = authenticate
        self._present = present
        self._places = places
        self._descriptors = descriptors
        self._heartbeat_s = heartbeat_s
        self._most_of = most_of
        self._origin = origin
        self._streams = Streams(live=live)
        self._guests = Guests(authenticate, scopes.EVENTS_READ)
        self._waits = Waits(messages=messages)
        self._tail = Tail(live=live, hearers=(self._streams.hear, self._waits.hear))
        self._duties: list[asyncio.Task[None]] = []
        self._waiting: set[asyncio.Task[ReadMessage | None]] = set()
        self._draining = False

    @property
    def open(self) -> int:
        """How many connections are here."""
        return self._places.open

    def allow(self, connections: int) -> None:
        """So many from now on; who is here may stay."""
        self._places.ceiling = _ceiling(connections)
        self._descriptors.most = _files() - LIVE_SPARE_FILES - self._places.ceiling

    async def start(self) -> None:
        """Be ready to follow the stream of events."""
        self._duties = [
            asyncio.create_task(self._beat(), name="live-heartbeat"),
            asyncio.create_task(self._check(), name="live-check"),
            asyncio.create_task(self._tend(), name="live-collector"),
        ]
        self._tail.start()

    async def drain(self) -> None:
        """End every stream and every wait at once, and take no more."""
        self._draining = True
        self._streams.end_all()
        for waiting in list(self._waiting):
            waiting.cancel()
        for duty in self._duties:
            duty.cancel()
        await asyncio.gather(*self._duties, return_exceptions=True)
        await self._tail.close()
        await self._places.empty(_GOODBYE_S)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or one WebSocket's handshake and what follows."""
        is_socket = scope["type"] == "websocket"
        if is_socket and not await socket.connected(receive):
            return
        refuse = socket.refuse if is_socket else _send
        try:
            if self._draining:
                raise TooManyLive("shutting down: ask again", retry_after_s=1.0)
            self._places.enter()
        except MailyardError as error:
            await refuse(send, answer_of(error, uuid4().hex))
            return
        place = Place()
        try:
            if is_socket:
                await self._serve_socket(scope, place, receive, send)
            else:
                await self._answer(scope, place, receive, send)
        except MailyardError as error:
            await refuse(send, answer_of(error, uuid4().hex, scope))
        finally:
            self._places.gone(place)

    async def _answer(self, scope: Scope, place: Place, receive: Receive, send: Send) -> None:
        if scope["method"] != "GET":
            raise MethodNotAllowed("GET")
        principal = await self._authenticate(scope)
        path: str = scope["path"]
        ask = Ask(scope["query_string"])
        if path == EVENTS_PATH:
            principal.require(scopes.EVENTS_READ)
            await self._serve_stream(scope, place, principal, ask, receive, send)
            return
        wait = _WAIT_PATH.fullmatch(path)
        if wait is None:
            raise NotFound(f"there is nothing at {path[:200]}")
        principal.require(scopes.INBOXES_READ)
        inbox_id = parse_type_id(INBOX, wait[1])
        await self._serve_wait(place, principal, inbox_id, ask, receive, send)

    async def _seat(self, place: Place, principal: Principal) -> None:
        workspace_id = principal.workspace_id
        self._places.seat(place, workspace_id, await self._most_of(workspace_id))

    # -----------------------------------------------------------------------------------------

    async def _serve_stream(
        self,
        scope: Scope,
        place: Place,
        principal: Principal,
        ask: Ask,
        receive: Receive,
        send: Send,
    ) -> None:
        wanted, after = ask.filter(), ask.cursor(_header(scope, b"last-event-id"))
        ask.refuse_others("after", "kinds", "inboxes", "where")
        stream = Stream(principal.workspace_id, wanted, EVENT_STREAM)
        place.leave = lambda: stream.end(End.MADE_ROOM)
        await self._seat(place, principal)
        await send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})

        async def write(frames: Sequence[bytes]) -> None:
            body = frames[0] if len(frames) == 1 else b"".join(frames)
            await send({"type": "http.response.body", "body": body, "more_body": True})

        gone = _when_gone(receive, lambda: stream.end(End.LEFT))
        with (
            metrics.LIVE_CONNECTIONS.labels("stream").track_inprogress(),
            self._guests.listening(scope, stream),
        ):
            try:
                await self._streams.serve(stream, after, self._tail, write)
            except MailyardError:
                stream.end(End.SHUTDOWN)  # the database went away: the listener comes back
            finally:
                gone.cancel()
        if stream.end_reason is not End.UNREAD:  # nothing more can be said to who does not read
            with suppress(TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _serve_socket(self, scope: Scope, place: Place, receive: Receive, send: Send) -> None:
        if scope["path"] != EVENTS_PATH:
            raise NotFound(f"there is no WebSocket at {scope['path'][:200]}; see {EVENTS_PATH}")
        request = socket.as_request(scope, self._origin)
        principal = await self._authenticate(request)
        principal.require(scopes.EVENTS_READ)
        ask = Ask(scope["query_string"])
        wanted, after = ask.filter(), ask.cursor("")
        ask.refuse_others("after", "kinds", "inboxes", "where")
        copy = self._descriptors.copy_of(scope)
        try:
            stream = Stream(principal.workspace_id, wanted, MESSAGES if copy is None else FRAMES)
            place.leave = lambda: stream.end(End.MADE_ROOM)
            await self._seat(place, principal)
            await socket.accept(scope, send)
            line = (
                socket.Socket(stream, receive, send)
                if copy is None
                else await Wire.open(stream, copy)
            )
            with (
                metrics.LIVE_CONNECTIONS.labels("socket").track_inprogress(),
                self._guests.listening(request, stream),
            ):
                try:
                    await self._streams.serve(stream, after, self._tail, line.write)
                except MailyardError:
                    stream.end(End.SHUTDOWN)
                finally:
                    await line.close()
        finally:
            if copy is not None:
                copy.release()

    async def _serve_wait(
        self,
        place: Place,
        principal: Principal,
        inbox_id: UUID,
        ask: Ask,
        receive: Receive,
        send: Send,
    ) -> None:
        timeout_s = ask.timeout_s()
        from_, subject, after = ask.one("from"), ask.one("subject"), ask.after()
        ask.refuse_others("timeout_s", "from", "subject", "after")
        await self._seat(place, principal)
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
        place.leave = waiting.cancel
        self._waiting.add(waiting)
        gone = _when_gone(receive, waiting.cancel)
        with metrics.LIVE_CONNECTIONS.labels("wait").track_inprogress():
            try:
                message = await waiting
            except asyncio.CancelledError:
                if self._draining:
                    raise Unavailable("shutting down: ask again") from None
                if place.evicted:
                    raise self._places.full() from None
                raise
            finally:
                gone.cancel()
                self._waiting.discard(waiting)
        if message is None:
            await _send(send, Answer(204))
        else:
            await _send(send, Answer(200, await self._present(principal.workspace_id, message)))

    async def _beat(self) -> None:
        while True:
            for turn in range(TURNS):
                await asyncio.sleep(self._heartbeat_s / TURNS)
                self._streams.beat(turn)

    async def _tend(self) -> None:
        collector = Collector()
        while True:
            await asyncio.sleep(_TEND_S)
            collector.tend(self._places.open, self._places.came)

    async def _check(self) -> None:
        while True:
            await asyncio.sleep(LIVE_CHECK_S)
            await self._guests.look()


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


async def _send(send: Send, answer: Answer) -> None:
    headers = [(b"content-length", b"%d" % len(answer.body)), *answer.headers]
    if answer.body:
        headers.append((b"content-type", answer.media_type))
    start: Message = {"type": "http.response.start", "status": answer.status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": answer.body})
