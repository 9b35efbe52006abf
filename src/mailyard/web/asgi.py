"""One ASGI application of all that an API process serves, by the first letters of the path.

/v1/events, /v1/inboxes/{id}/wait   web/live: raw, thousands of them open at once
/v1/…                               web/api: the table of routes
/monitoring/…                       web/api too; its stream: web/live/figures
/health/… /metrics /stats           below: cheap, and alive when everything else is not
/c/… /o/… /u/… /p/…                 web/track: the links in mail
/docs, /v1/openapi.json             the API's documentation
everything else                     web/ui: the pages
"""

import os
import resource
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import msgspec
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from mailyard.access.business import exposition
from mailyard.access.scope import STATS_READ
from mailyard.core.errors import MailyardError
from mailyard.fleet.exposition import destinations
from mailyard.fleet.exposition import exposition as fleet_exposition
from mailyard.fleet.region_term import terms_of
from mailyard.mailbox.message_value import ReadMessage
from mailyard.observe.metrics import REGISTRY
from mailyard.queue.job import LANES
from mailyard.settings import Settings
from mailyard.storage.queries import load
from mailyard.web.api.docs import DOCS_HEADERS, render_docs
from mailyard.web.api.message_item import detail_of
from mailyard.web.api.openapi import document
from mailyard.web.api.problem import MethodNotAllowed, answer_of
from mailyard.web.api.request import SECURITY_HEADERS
from mailyard.web.api.route import RouteTable
from mailyard.web.api.routes import DOCUMENTED, ROUTES
from mailyard.web.api.server import ApiServer
from mailyard.web.live.app import Live, build_live, is_live
from mailyard.web.live.figures import FigureStream
from mailyard.web.overview import cache_figures
from mailyard.web.protocol import Asgi, Receive, Scope, Send
from mailyard.web.track.app import PATHS as LINK_PATHS
from mailyard.web.track.app import TrackApp

if TYPE_CHECKING:
    from mailyard.app import Application

_ACCESS = load("access")
_OVERVIEW = load("overview")
_MONITORING = load("monitoring")
_DESTINATIONS = 50
_STREAM = "/monitoring/stream"
_READY_S = 0.5  # how old an answer of /health/ready may be: probes do not load the database
_STATS_S = 1.0

Headers = list[tuple[bytes, bytes]]
_JSON: Headers = [(b"content-type", b"application/json"), *SECURITY_HEADERS]


def build(application: "Application", *, pages: Asgi | None = None) -> "Front":
    """Everything that an API process serves over `application`. `start` it before it serves.

    `pages`: the application for people; None for the one of `web/ui`.
    """
    if pages is None:
        from mailyard.web.ui.pages import build_pages

        pages = cast(Asgi, build_pages(application))
    settings = application.settings
    api = ApiServer(
        application,
        RouteTable(ROUTES),
        rate_per_s=settings.rate_per_s,
        rate_burst=settings.rate_burst,
        user_limit=settings.user_limit,
    )

    async def present(workspace_id: UUID, message: ReadMessage) -> bytes:
        return msgspec.json.encode(await detail_of(application, workspace_id, message))

    live = build_live(
        live=application.live,
        messages=application.messages,
        authenticate=api.authenticate,
        present=present,
        connections=settings.live_connections,
        most_of=application.allowance.live_connections,
        origin=settings.page_url,
    )
    return Front(application, api, live, pages)


class Front:
    """Dispatches by path."""

    def __init__(self, application: "Application", api: ApiServer, live: Live, pages: Asgi) -> None:
        self._app = application
        self._api = api
        self._live = live
        self._pages = pages
        self._links = TrackApp(application)
        self._calls: Asgi = api
        if application.settings.database_replicas:
            from mailyard.storage.replicated import ReplicatedDatabase
            from mailyard.web.own_writes import OwnWrites

            database = application.database
            assert isinstance(database, ReplicatedDatabase), "the settings name replicas"
            self._calls, self._pages = OwnWrites(api, database), OwnWrites(pages, database)
        self._figures = FigureStream(allow=self._allow_figures, read=self._read_figures)
        self._started = monotonic()
        self._ready: tuple[float, bool] = (0.0, False)
        self._stats: tuple[float, bytes] = (0.0, b"")
        self._terms: tuple[float, bytes] = (0.0, b"")
        self._document = document(DOCUMENTED)
        self._openapi = msgspec.json.encode(self._document)
        self._docs = b""
        self._plain = {
            "/health/live": self._answer_live,
            "/health/ready": self._answer_ready,
            "/stats": self._answer_stats,
            "/health/regions": self._answer_regions,
            "/v1/openapi.json": self._answer_openapi,
            "/docs": self._answer_docs,
        }

    async def start(self) -> None:
        """Begin to follow live events."""
        await self._live.start()

    def reload(self, settings: Settings) -> None:
        """Go by what may change while it works."""
        self._api.reload(
            rate_per_s=settings.rate_per_s,
            rate_burst=settings.rate_burst,
            user_limit=settings.user_limit,
        )
        self._live.allow(settings.live_connections)

    async def drain(self) -> None:
        """End event streams and waits at once; give it to `HttpServer` as `on_stop`."""
        self._figures.drain()
        await self._live.drain()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._live(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        path: str = scope["path"]
        plain = self._plain.get(path)
        if path == "/metrics":
            plain = partial(self._answer_metrics, scope)
        if plain is not None:
            await self._answer_plain(scope, send, plain)
        elif path == _STREAM and scope["method"] == "GET":
            await self._figures(scope, receive, send)
        elif path.startswith(("/v1/", "/monitoring/")) or path == "/v1":
            await (self._live if is_live(scope) else self._calls)(scope, receive, send)
        elif path[:3] in LINK_PATHS:
            await self._links(scope, receive, send)
        elif await self._links.is_link_host(scope):
            await self._links.not_found(scope, send)
        else:
            await self._pages(scope, receive, send)

    async def _answer_plain(self, scope: Scope, send: Send, plain: Any) -> None:
        if scope["method"] in ("GET", "HEAD"):
            status, body, headers = await plain()
        elif scope["method"] == "OPTIONS":
            status, body, headers = 204, b"", [(b"allow", b"GET, HEAD, OPTIONS")]
        else:
            status, body, headers = _refused(MethodNotAllowed("GET, HEAD, OPTIONS"))
        if status != 204:
            headers = [*headers, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send(
            {"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body}
        )

    async def _answer_live(self) -> tuple[int, bytes, Headers]:
        """The event loop turns: that is all that being alive means."""
        return 200, b'{"status":"live"}', _JSON

    async def _answer_ready(self) -> tuple[int, bytes, Headers]:
        """The database answers and the first start is done."""
        at, ready = self._ready
        if monotonic() - at > _READY_S:
            try:
                ready = await self._app.database.fetchval(_ACCESS.any_workspace) is True
            except MailyardError:
                ready = False
            self._ready = (monotonic(), ready)
        if ready:
            return 200, b'{"status":"ready"}', _JSON
        return 503, b'{"status":"not ready"}', [*_JSON, (b"retry-after", b"1")]

    async def _answer_metrics(self, scope: Scope) -> tuple[int, bytes, Headers]:
        """This process's counters and the figures of the installation, in the text format of
        Prometheus; to whoever shows an operator's key also business and destinations."""
        body = generate_latest(REGISTRY)
        try:
            look, figures = await self._app.monitor.look()
            body += fleet_exposition(figures, look, self._app.monitor.slowest())
        except MailyardError:
            pass  # the database is away, which the process's own counters show
        if any(name == b"authorization" for name, _ in scope["headers"]):
            try:
                principal = await self._api.authenticate(scope)
                principal.require(STATS_READ)
                await self._app.workspaces.require_operator(principal.workspace_id)
                body += exposition(await self._app.business.figures())
                rows = await self._app.database.fetch(_MONITORING.destinations, _DESTINATIONS)
                body += destinations(
                    [(row["place"], row["accepted"], row["later"], row["refused"]) for row in rows]
                )
            except MailyardError as error:
                return _refused(error)
        return 200, body, [(b"content-type", CONTENT_TYPE_LATEST.encode()), *SECURITY_HEADERS]

    async def _allow_figures(self, scope: Scope) -> None:
        principal = await self._api.authenticate(scope)
        principal.require(STATS_READ)
        await self._app.workspaces.require_operator(principal.workspace_id)

    async def _read_figures(self) -> dict[str, Any]:
        _, figures = await self._app.monitor.look()
        alerts = await self._app.alert_board.list(only_open=True)
        return {
            "figures": figures,
            "alerts": [
                {
                    "rule": one.rule,
                    "subject": one.subject,
                    "level": one.level,
                    "about": one.about,
                    "since": one.since,
                }
                for one in alerts
            ],
        }

    async def _answer_stats(self) -> tuple[int, bytes, Headers]:
        """Queues and processes of the whole installation, for a person with curl."""
        at, body = self._stats
        if monotonic() - at > _STATS_S:
            try:
                body = msgspec.json.encode(await self._gather())
            except MailyardError as error:
                return _refused(error)
            self._stats = (monotonic(), body)
        return 200, body, _JSON

    async def _answer_regions(self) -> tuple[int, bytes, Headers]:
        """Which region this is and the latest terms it knows: neighbours ask for them."""
        at, body = self._terms
        if monotonic() - at > _STATS_S:
            try:
                body = msgspec.json.encode(await terms_of(self._app.database, self._app.regions))
            except MailyardError as error:
                return _refused(error)
            self._terms = (monotonic(), body)
        return 200, body, _JSON

    async def _gather(self) -> dict[str, Any]:
        rows = await self._app.database.fetch(_OVERVIEW.live_processes)
        return {
            "queues": await self._app.engine.depth(LANES),
            "processes": [
                {
                    "role": row["role"],
                    "host": row["host"],
                    "pid": row["pid"],
                    "started_at": row["started_at"],
                    "stats": msgspec.Raw(row["stats"].encode()),
                }
                for row in rows
            ],
            "cache": cache_figures(row["stats"] for row in rows),
            "redis": None if self._app.fleet is None else await self._app.fleet.figures(),
            "this": {
                "pid": os.getpid(),
                "up_s": round(monotonic() - self._started, 1),
                "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            },
        }

    async def _answer_openapi(self) -> tuple[int, bytes, Headers]:
        return 200, self._openapi, _JSON

    async def _answer_docs(self) -> tuple[int, bytes, Headers]:
        if not self._docs:
            self._docs = render_docs(self._document)
        return 200, self._docs, DOCS_HEADERS


def _refused(error: MailyardError) -> tuple[int, bytes, Headers]:
    """The error as an answer, with all that its headers say: when to come again, what to show."""
    answer = answer_of(error, "")
    headers = [(b"content-type", answer.media_type), *answer.headers, *SECURITY_HEADERS]
    return answer.status, answer.body, headers
