"""The API over real services, called as a server calls it: in this process, without a socket."""

import asyncio
import json as json_module
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from mailyard.access.account import Accounts
from mailyard.access.audit import Actor, Audit
from mailyard.access.bootstrap import FirstStart, bootstrap
from mailyard.access.business import BusinessFigures
from mailyard.access.feature import Features
from mailyard.access.idempotency import Idempotency
from mailyard.access.key import ApiKeys
from mailyard.access.letter import Letter
from mailyard.access.limit_notice import LimitNotices
from mailyard.access.member import Members
from mailyard.access.plan import NO_PLANS, PlanBook, Plans
from mailyard.access.region import NO_REGIONS
from mailyard.access.session import Sessions
from mailyard.access.usage import Allowance, Usage
from mailyard.access.user import Users
from mailyard.access.vault import Vault
from mailyard.access.workspace import Workspaces
from mailyard.analysis.analyses import Analyses
from mailyard.analysis.analyst import Analyst
from mailyard.analysis.book import ModelBook
from mailyard.analysis.meaning import Meanings
from mailyard.analysis.models.kinds import make
from mailyard.analysis.policy import Policies
from mailyard.analysis.results import Results
from mailyard.app.route_inboxes import RouteInboxes
from mailyard.bus.adapters.memory import MemoryBus
from mailyard.bus.live import MAILBOX_CHANGED, MESSAGE_RECEIVED, LiveEvents
from mailyard.cache.adapters.memory import MemoryCache
from mailyard.cache.layered import LayeredCache
from mailyard.campaigns.audience import Audiences
from mailyard.campaigns.behaviour import Behaviour
from mailyard.campaigns.campaign import Campaigns
from mailyard.campaigns.contact import Contacts
from mailyard.campaigns.contact_list import Lists
from mailyard.campaigns.importing import Imports
from mailyard.campaigns.personal import CachedPersonal
from mailyard.campaigns.preference import PreferenceCenter
from mailyard.campaigns.preflight_facts import Preflights
from mailyard.campaigns.progress import ProgressEvents
from mailyard.campaigns.segment import Segments
from mailyard.campaigns.topic import Topics
from mailyard.core.clock import SystemClock
from mailyard.core.errors import Unavailable
from mailyard.fleet.alerts.board import AlertBoard
from mailyard.fleet.alerts.rule import read_rules
from mailyard.fleet.autoscale.book import DecisionBook
from mailyard.fleet.autoscale.policy import read_policies
from mailyard.fleet.autoscale.scaler import settled
from mailyard.fleet.monitor import Monitor
from mailyard.fleet.shards.overview import Overview
from mailyard.mailbox.draft import Drafts
from mailyard.mailbox.ending import Endings
from mailyard.mailbox.follow import Follower
from mailyard.mailbox.inbox import Inboxes
from mailyard.mailbox.mail_file import MailFiles
from mailyard.mailbox.mailbox import Mailboxes
from mailyard.mailbox.message import Messages
from mailyard.mailbox.note import Notes
from mailyard.mailbox.purge import Purges
from mailyard.mailbox.reservation import Reservations
from mailyard.mailbox.search.index import Indexer
from mailyard.mailbox.search.reindex import Reindexer
from mailyard.mailbox.search.search import Search
from mailyard.mailbox.search.vectors import Vectors
from mailyard.net.dns import Resolver
from mailyard.net.dns_servers import DnsServer
from mailyard.net.guard import networks
from mailyard.net.http import HttpClient
from mailyard.proving.demo import Demos
from mailyard.proving.load_test import LoadTests
from mailyard.queue.admin import QueueAdmin
from mailyard.queue.engines.postgres import PostgresEngine
from mailyard.ratelimit import policy as limit_policy
from mailyard.ratelimit.adapters.memory import MemoryRateLimit
from mailyard.receiving.domain import ReceivingDomains
from mailyard.receiving.domain_route import InboundRoutes
from mailyard.receiving.ingest import Ingest
from mailyard.receiving.policy import MailPolicies
from mailyard.receiving.reports import Reports
from mailyard.receiving.verdict import Verdicts
from mailyard.sending.accept import Emails
from mailyard.sending.allowance import Allowances
from mailyard.sending.delivery import Deliveries
from mailyard.sending.domain import Domains
from mailyard.sending.domain_check import OwnSide
from mailyard.sending.imprint import Imprints
from mailyard.sending.provider import ProviderBook
from mailyard.sending.provider_health import ProviderWatch
from mailyard.sending.provider_trial import Trials
from mailyard.sending.returns.hook import ProviderHooks
from mailyard.sending.returns.intake import HookIntake
from mailyard.sending.routing import Routing
from mailyard.sending.shape.book import shipped
from mailyard.sending.shaping import Shaping
from mailyard.sending.sign import Signing
from mailyard.sending.source_file import alone
from mailyard.sending.source_pool import SourcePool
from mailyard.sending.suppress import Suppressions
from mailyard.sending.suppress_file import SuppressionFiles
from mailyard.sending.template import Templates
from mailyard.sending.tls_count import TlsCounter
from mailyard.sending.track.domain import TrackingDomains, TrackingNames
from mailyard.sending.track.hit import HitCollector
from mailyard.sending.track.link import Links
from mailyard.sending.track.report import TrackingReport
from mailyard.sending.track.token import Tokens
from mailyard.sending.track.tracking import Tracking
from mailyard.sending.transports.kinds import Workshop
from mailyard.sending.upkeep import Shelf
from mailyard.settings import Settings
from mailyard.storage.backup.record import BackupLog
from mailyard.storage.database import Database
from mailyard.web.asgi import Front, build
from mailyard.web.protocol import Receive, Scope, Send
from mailyard.webhooks.call import Caller
from mailyard.webhooks.endpoint import Webhooks
from mailyard.webhooks.log import WebhookLog
from mailyard.webhooks.replay import Replays

DOMAIN = "inbox.localhost"
VAULT = Vault(lambda: [b"m" * 32])


@dataclass(frozen=True, slots=True)
class Reply:
    """What was answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json_module.loads(self.body)


async def nothing_there(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def _no_certificate(url: str) -> bytes:
    raise Unavailable(f"nothing is fetched here: {url}")


def _ways_out(database: Database, bus: MemoryBus) -> dict[str, Any]:
    """What keeps providers and routes. Nothing private is ever connected to."""
    providers = ProviderBook(database=database, vault=VAULT, bus=bus)
    workshop = Workshop(
        hello="mail.yard.example",
        http=HttpClient,
        rate=MemoryRateLimit(clock=SystemClock()),
        clock=SystemClock(),
        random=Random(1),
        data=Path("nowhere"),
    )
    return {
        "providers": providers,
        "routing": Routing(database=database),
        "provider_watch": ProviderWatch(database=database),
        "provider_trials": Trials(
            providers=providers,
            shelf=Shelf(vault=VAULT, workshop=workshop),
            signing=Signing(database=database, vault=VAULT),
            suppressions=Suppressions(database=database),
            hostname="mail.yard.example",
        ),
    }


def _told(database: Database, bus: MemoryBus, engine: PostgresEngine) -> dict[str, Any]:
    """What tells other programs; it reaches nobody."""
    webhooks = Webhooks(database=database, vault=VAULT, bus=bus)
    caller = Caller(http=HttpClient(), contents=_no_mail, page_url="https://mail.example.org")
    return {
        "webhooks": webhooks,
        "webhook_caller": caller,
        "webhook_log": WebhookLog(database=database, webhooks=webhooks, caller=caller),
        "webhook_replays": Replays(database=database, engine=engine, webhooks=webhooks),
    }


def _analysis(database: Database, engine: PostgresEngine, live: LiveEvents) -> dict[str, Any]:
    """What analyses mail. Nothing outside is ever asked."""
    clock = SystemClock()
    policies, models = Policies(database=database), ModelBook(database=database, vault=VAULT)
    analyst = Analyst(
        database=database,
        book=models,
        policies=policies,
        results=Results(database=database, keys=lambda: VAULT.keys_for("analysis results")),
        make=lambda model: make(model, HttpClient(), clock),
        rate=MemoryRateLimit(clock=clock),
        clock=clock,
        random=Random(1),
    )
    return {
        "analysis_policies": policies,
        "models": models,
        "analyst": analyst,
        "analyses": Analyses(
            database=database, engine=engine, live=live, book=models, analyst=analyst
        ),
    }


async def _no_mail(workspace_id: UUID, item: Mapping[str, Any]) -> None:
    return None


async def _stays_inside(workspace_id: UUID) -> bool:
    """No mail of a test leaves the house."""
    return False


def services(database: Database, book: PlanBook = NO_PLANS) -> Any:
    """The services that routes ask of the application, over one database."""
    bus = MemoryBus()
    engine = PostgresEngine(database=database, bus=bus)
    audit = Audit(database=database)
    live = LiveEvents(database=database, bus=bus)
    hooks = ProviderHooks(database=database, vault=VAULT)
    of_mail = {MESSAGE_RECEIVED: "inbox_id", MAILBOX_CHANGED: "inbox_id"}
    cache = LayeredCache(database=database, bus=bus, followed=of_mail)
    members = Members(database=database, cache=cache)
    plans = Plans(database=database, audit=audit, book=book, cache=cache)
    usage = Usage(database=database, plans=plans)
    allowance = Allowance(database=database, plans=plans, usage=usage)
    inboxes = Inboxes(database=database, domains=[DOMAIN], cache=cache, allowance=allowance)
    vectors = Vectors(database=database, embedder=None)
    indexer = Indexer(database=database, engine=engine, vectors=vectors, cache=cache)
    follower = Follower(database=database, live=live)
    messages = Messages(database=database, inboxes=inboxes, follower=follower, cache=cache)
    mailboxes = Mailboxes(database=database, inboxes=inboxes, live=live, engine=engine)
    notes = Notes(database=database, inboxes=inboxes, mailboxes=mailboxes)
    personal = CachedPersonal(database=database, cache=MemoryCache())
    templates = Templates(database=database, personal=personal)
    suppressions = Suppressions(database=database)
    imprints, topics = Imprints(database=database), Topics(database=database)
    names = TrackingNames(database=database, default="https://mail.example.org")
    tracking = Tracking(
        tokens=Tokens(VAULT.keys_for),
        links=Links(database=database),
        names=names,
        imprints=imprints,
    )
    allowances = Allowances(database=database, plans=plans)
    domains = Domains(database=database, vault=VAULT)
    workspaces, users = (
        Workspaces(database=database, audit=audit),
        Users(database=database, audit=audit, members=members),
    )
    letters: list[Letter] = []

    async def post(letter: Letter, key: str) -> None:
        letters.append(letter)

    accounts = Accounts(
        database=database,
        engine=engine,
        audit=audit,
        users=users,
        workspaces=workspaces,
        plans=plans,
        limits=MemoryRateLimit(clock=SystemClock()),
        post=post,
        page_url="https://mail.example.org",
        may_sign_up=True,
    )
    return SimpleNamespace(
        letters=letters,
        limit_notices=LimitNotices(database=database, engine=engine, plans=plans, usage=usage),
        settings=Settings(),
        regions=NO_REGIONS,
        neighbours=None,
        clock=SystemClock(),
        database=database,
        bus=bus,
        fleet=None,
        engine=engine,
        live=live,
        audit=audit,
        limits=(buckets := MemoryRateLimit(clock=SystemClock())),
        limit_policies=limit_policy.Policies(book=limit_policy.shipped(), limits=buckets),
        features=Features(database=database, bus=bus, clock=SystemClock()),
        cache=cache,
        shards_overview=Overview({"home": database}, "home"),
        monitor=Monitor(database=database, engine=engine, data=None, budget=100, live_places=100),
        alert_board=AlertBoard(database=database, rules=read_rules()),
        alert_rules=read_rules(),
        decisions=DecisionBook(database=database),
        scale_policies=settled(read_policies(), {}, 4, 10),
        plans=plans,
        usage=usage,
        allowance=allowance,
        accounts=accounts,
        business=BusinessFigures(database=database, plans=plans),
        backup_log=BackupLog(database=database),
        workspaces=workspaces,
        users=users,
        sessions=Sessions(database=database, audit=audit, members=members, cache=cache),
        keys=ApiKeys(database=database, audit=audit, cache=cache),
        idempotency=Idempotency(database=database),
        inboxes=inboxes,
        mail_files=MailFiles(
            database=database, inboxes=inboxes, engine=engine, allowance=allowance
        ),
        meanings=Meanings(database=database),
        indexer=indexer,
        reindexer=Reindexer(database=database, engine=engine),
        search=Search(database=database, inboxes=inboxes, indexer=indexer, vectors=vectors),
        vectors=vectors,
        receiving_domains=ReceivingDomains(
            database=database, installation=[DOMAIN], host="mail.yard.example"
        ),
        inbound_routes=InboundRoutes(
            database=database, inboxes=RouteInboxes(inboxes), refused=[DOMAIN]
        ),
        endings=Endings(
            database=database, engine=engine, follower=follower, live=live, cache=cache
        ),
        purges=Purges(database=database, engine=engine, cache=cache),
        mail_policies=MailPolicies(database=database),
        reservations=Reservations(database=database, domains=[DOMAIN]),
        **_analysis(database, engine, live),
        verdicts=Verdicts(database=database, authserv_id="mx.inbox.localhost"),
        admitting=Ingest(database=database, live=live),
        reports=Reports(database=database, clock=SystemClock(), cache=cache),
        messages=messages,
        mailboxes=mailboxes,
        notes=notes,
        drafts=Drafts(
            database=database,
            inboxes=inboxes,
            messages=messages,
            mailboxes=mailboxes,
            notes=notes,
            engine=engine,
        ),
        mailbox_follower=follower,
        templates=templates,
        emails=Emails(database=database, engine=engine, templates=templates, allowances=allowances),
        allowances=allowances,
        deliveries=Deliveries(database=database),
        suppressions=suppressions,
        imprints=imprints,
        tracking=tracking,
        tracking_names=names,
        tracking_domains=TrackingDomains(database=database, target="mail.example.org"),
        tracking_report=TrackingReport(database=database, links=tracking.links),
        hits=HitCollector(engine=engine),
        topics=topics,
        preferences=PreferenceCenter(
            database=database,
            engine=engine,
            suppressions=suppressions,
            topics=topics,
            audit=audit,
        ),
        suppression_files=SuppressionFiles(database=database, suppressions=suppressions),
        provider_hooks=hooks,
        hook_intake=HookIntake(
            database=database, engine=engine, hooks=hooks, fetch=_no_certificate
        ),
        **_ways_out(database, bus),
        **_told(database, bus, engine),
        domains=domains,
        own_side=OwnSide(
            hello="mail.yard.example", spf_terms=("ip4:192.0.2.1",), takes_returns=True
        ),
        fresh_dns=Resolver([DnsServer("127.0.0.1", 9)], SystemClock()),  # nobody answers
        contacts=Contacts(database=database),
        lists=Lists(database=database),
        behaviour=Behaviour(database=database),
        segments=Segments(database=database, audiences=Audiences(database=database)),
        imports=Imports(database=database, engine=engine),
        preflights=Preflights(
            database=database,
            templates=templates,
            signing=Signing(database=database, vault=VAULT),
            tracking=tracking,
            domains=domains,
            imprints=imprints,
            http=HttpClient(allowed=networks(["127.0.0.0/8"])),
            outside=_stays_inside,
            hostname=DOMAIN,
            clock=SystemClock(),
        ),
        campaigns=Campaigns(
            database=database,
            engine=engine,
            segments=Segments(database=database, audiences=Audiences(database=database)),
            templates=templates,
            progress=ProgressEvents(database=database, live=live),
            tracking=tracking,
            imprints=imprints,
        ),
        demos=Demos(database=database, engine=engine),
        load_tests=LoadTests(database=database),
        queue_admin=QueueAdmin(engine=engine),
        shaping=Shaping(database=database, book=shipped()),
        tls_results=TlsCounter(database=database),
        source_pools={
            "default": SourcePool(sources=alone("me.example"), database=database),
        },
    )


class Platform:
    """A first start, its API, and a key that may do everything."""

    def __init__(self, app: Any, asgi: Front, first: FirstStart) -> None:
        self.app = app
        self.asgi = asgi
        self.first = first
        self.workspace_id: UUID = first.workspace_id
        self.actor = Actor("system", "test", first.workspace_id)
        self.key = first.api_key

    async def call(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        body: bytes | None = None,
        key: str | None = "",
        headers: Mapping[str, str] | None = None,
        pieces: list[bytes] | None = None,
        client: str = "127.0.0.1",
    ) -> Reply:
        """One request. `key`: an API key, "" for the first one, None for none."""
        sent = {name.lower(): value for name, value in (headers or {}).items()}
        if key is not None:
            sent.setdefault("authorization", f"Bearer {key or self.key}")
        if json is not None:
            body = json_module.dumps(json).encode()
            sent.setdefault("content-type", "application/json")
        if body is not None:
            sent.setdefault("content-length", str(len(body)))
        return await call_asgi(self.asgi, method, path, sent, pieces or [body or b""], client)

    async def key_with(self, *scopes: str, workspace_id: UUID | None = None) -> str:
        """A new key with these scopes."""
        made = await self.app.keys.create(
            workspace_id or self.workspace_id,
            "test",
            list(scopes),
            actor=Actor("system", "test", workspace_id or self.workspace_id),
        )
        return str(made.secret)

    async def other_workspace(self) -> tuple[UUID, str]:
        """Another tenant and a key that may do everything there."""
        other = await self.app.workspaces.create("Other", actor_kind="system", actor_name="test")
        return other.id, await self.key_with("admin", workspace_id=other.id)

    async def close(self) -> None:
        await self.asgi.drain()
        await self.app.templates.close()


async def start(
    database: Database,
    *,
    rate_per_s: float = 0.0,
    rate_burst: int = 10,
    with_pages: bool = False,
    book: PlanBook = NO_PLANS,
    sign_up: bool = False,
) -> Platform:
    """A platform on a fresh database."""
    app = services(database, book)
    app.settings = replace(
        app.settings, rate_per_s=rate_per_s, rate_burst=rate_burst, sign_up=sign_up
    )
    first = await bootstrap(
        database=database,
        workspaces=app.workspaces,
        users=app.users,
        keys=app.keys,
        sessions=app.sessions,
    )
    assert first is not None, "the database is fresh"
    front = build(app, pages=None if with_pages else nothing_there)
    await front.start()
    return Platform(app, front, first)


async def call_asgi(
    asgi: Front,
    method: str,
    path: str,
    headers: Mapping[str, str],
    pieces: list[bytes],
    client: str = "127.0.0.1",
) -> Reply:
    """Send one request to an ASGI application and gather its answer."""
    route, _, query = path.partition("?")
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": route,
        "raw_path": route.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
        "client": (client, 40000),
        "server": ("127.0.0.1", 8025),
    }
    waiting = list(pieces)
    status, received, answered = 0, bytearray(), {}
    whole = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0)
        if not waiting:
            await whole.wait()  # the client waits for its answer, and goes
            return {"type": "http.disconnect"}
        piece = waiting.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(waiting)}

    async def send(message: Any) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            answered.update((k.decode(), v.decode("latin-1")) for k, v in message["headers"])
        else:
            received.extend(message.get("body", b""))
            if not message.get("more_body"):
                whole.set()

    await asgi(scope, receive, send)
    return Reply(status, answered, bytes(received))
