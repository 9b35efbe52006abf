"""What the tests of sending stand on: a transport with a ledger, a workspace, workers."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

from mailyard.access.vault import Vault
from mailyard.bus.adapters.memory import MemoryBus
from mailyard.bus.live import LiveEvents
from mailyard.campaigns.audience import Audiences
from mailyard.campaigns.campaign import Campaigns
from mailyard.campaigns.campaign_value import NewCampaign
from mailyard.campaigns.chunk import ChunkSender
from mailyard.campaigns.plan import Planner
from mailyard.campaigns.progress import Progress, ProgressEvents
from mailyard.campaigns.retry import RetrySender
from mailyard.campaigns.segment import Segments
from mailyard.campaigns.start import Starter
from mailyard.campaigns.states import State
from mailyard.core import ids
from mailyard.core.clock import Clock, ManualClock, SystemClock
from mailyard.core.limits import LEASE_S
from mailyard.queue.engines.postgres import PostgresEngine
from mailyard.queue.worker import Worker
from mailyard.ratelimit.adapters.memory import MemoryRateLimit
from mailyard.sending.accept import Emails
from mailyard.sending.deliver import Deliverer
from mailyard.sending.delivery import Deliveries, Delivery, StoryEvent
from mailyard.sending.handoff import Window
from mailyard.sending.imprint import Imprints
from mailyard.sending.return_path import ReturnPaths
from mailyard.sending.sign import Signing
from mailyard.sending.template import Templates
from mailyard.sending.track.domain import TrackingNames
from mailyard.sending.track.link import Links
from mailyard.sending.track.token import Tokens
from mailyard.sending.track.tracking import Tracking
from mailyard.sending.transport import Chooser, Handoff, Outcome, Outgoing
from mailyard.storage.database import Database

HOSTNAME = "mail.example.org"
BASE = "https://mail.example.org"
VAULT = Vault(lambda: [b"m" * 32])


@dataclass
class Ledger:
    """Every recipient address that a transport was given, with how often: what truly left."""

    left: Counter[str] = field(default_factory=Counter)
    mails: list[Outgoing] = field(default_factory=list)
    outstanding: int = 0
    most_outstanding: int = 0


Answer = tuple[Outcome, int | None, str]
ACCEPTED: Answer = (Outcome.ACCEPTED, 250, "2.0.0 Ok")


class LedgerTransport:
    """Answers on a later turn of the loop, as `answers` says; writes down what it was given."""

    name = "ledger"

    def __init__(
        self, ledger: Ledger, answers: Callable[[str], Answer] = lambda address: ACCEPTED
    ) -> None:
        self.ledger = ledger
        self.answers = answers
        self.stuck = False  # answers are kept back
        self.kept: list[tuple[Callable[[Handoff], None], Handoff]] = []

    def submit(self, mail: Outgoing, done: Callable[[Handoff], None]) -> None:
        ledger = self.ledger
        ledger.mails.append(mail)
        loop = asyncio.get_running_loop()
        for recipient in mail.recipients:
            outcome, code, reply = self.answers(recipient.address)
            if outcome is Outcome.ACCEPTED:
                ledger.left[recipient.address] += 1
            ledger.outstanding += 1
            ledger.most_outstanding = max(ledger.most_outstanding, ledger.outstanding)
            handoff = Handoff(recipient.delivery_id, outcome, code, reply, self.name, stage="rcpt")
            if self.stuck:
                self.kept.append((done, handoff))
            else:
                loop.call_soon(self._answer, done, handoff)

    def _answer(self, done: Callable[[Handoff], None], handoff: Handoff) -> None:
        self.ledger.outstanding -= 1
        done(handoff)

    def let_go(self) -> None:
        """Give the answers that were kept back."""
        self.stuck = False
        for done, handoff in self.kept:
            self._answer(done, handoff)
        self.kept.clear()

    async def close(self, drain_s: float) -> None:
        pass


def tracking_over(database: Database, clock: ManualClock | SystemClock) -> Tracking:
    """Links as a process makes them."""
    return Tracking(
        tokens=Tokens(VAULT.keys_for),
        links=Links(database=database),
        names=TrackingNames(database=database, default=BASE, clock=clock),
        imprints=Imprints(database=database, clock=clock),
    )


class Process:
    """What one worker process has of its own: transport, windows, handlers."""

    def __init__(
        self,
        world: "World",
        transport: LedgerTransport,
        database: Database | None = None,
        places: int = 20,
        choose: Chooser | None = None,
    ) -> None:
        database = database or world.database
        clock = world.clock
        engine = PostgresEngine(database=database, bus=world.bus, clock=clock)
        live = LiveEvents(database=database, bus=world.bus)
        signing = Signing(database=database, vault=VAULT, clock=clock)
        tracking = tracking_over(database, clock)
        self.transport = transport
        self.deliverer = Deliverer(
            database=database,
            transport=transport,
            choose=choose,
            signing=signing,
            tracking=tracking,
            live=live,
            hostname=HOSTNAME,
            window=Window(places),
            clock=clock,
            return_paths=world.return_paths,
        )
        self.chunks = ChunkSender(
            database=database,
            engine=engine,
            transport=transport,
            live=live,
            window=Window(places),
            clock=clock,
            templates=world.templates,
            signing=signing,
            tracking=tracking,
            rate_limit=world.rate_limit,
            hostname=HOSTNAME,
            return_paths=world.return_paths,
        )
        self.retries = RetrySender(
            database=database,
            engine=engine,
            clock=clock,
            transport=transport,
            templates=world.templates,
            signing=signing,
            tracking=tracking,
            progress=self.chunks.progress,
            window=self.chunks.window,
            hostname=HOSTNAME,
            return_paths=world.return_paths,
        )
        self.planner = Planner(database=database, engine=engine, clock=clock)
        self.worker = Worker(
            engine=engine,
            handlers=[
                self.deliverer.handler(),
                self.chunks.handler(),
                self.retries.handler(),
                self.planner.handler(),
                Starter(campaigns=world.campaigns).handler(),
            ],
            name="test",
        )


class World:
    """One workspace on a database of its own."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self.database = database
        self.clock = cast("ManualClock", clock or ManualClock(datetime.now(UTC)))
        self.bus = MemoryBus()
        self.live = LiveEvents(database=database, bus=self.bus)
        self.engine = PostgresEngine(database=database, bus=self.bus, clock=self.clock)
        self.templates = Templates(database=database)
        self.rate_limit = MemoryRateLimit(clock=SystemClock())
        self.emails = Emails(
            database=database, engine=self.engine, templates=self.templates, clock=self.clock
        )
        self.campaigns = Campaigns(
            database=database,
            engine=self.engine,
            segments=Segments(database=database, audiences=Audiences(database=database)),
            templates=self.templates,
            progress=ProgressEvents(database=database, live=self.live),
            tracking=tracking_over(database, self.clock),
            imprints=Imprints(database=database, clock=self.clock),
            clock=self.clock,
        )
        self.workspace_id = ids.uuid7()
        self.list_id = ids.uuid7()
        self.ledger = Ledger()
        self.return_paths: ReturnPaths | None = None

    async def open(self) -> None:
        await self.bus.open()
        async with self.database.connection() as connection:
            await connection.execute(
                "INSERT INTO workspace (id, name) VALUES ($1, 'Test')", self.workspace_id
            )
            await connection.execute(
                "INSERT INTO contact_list (id, workspace_id, name) VALUES ($1, $2, 'All')",
                self.list_id,
                self.workspace_id,
            )

    async def add_contacts(
        self, count: int, attributes: str = '{"city": "Turin", "plan": "gold"}', first: int = 0
    ) -> list[str]:
        """Contacts person0@… with two attributes, members of the list; their addresses."""
        addresses = [f"person{first + number}@example.com" for number in range(count)]
        async with self.database.transaction() as tx:
            identifiers = [ids.uuid7() for _ in addresses]
            await tx.execute(
                "INSERT INTO contact (id, workspace_id, address, name, attributes)"
                " SELECT id, $1, address, 'Person', $4::jsonb"
                " FROM unnest($2::uuid[], $3::text[]) AS new (id, address)",
                self.workspace_id,
                identifiers,
                addresses,
                attributes,
            )
            await tx.execute(
                "INSERT INTO list_member (list_id, contact_id, workspace_id)"
                " SELECT $1, id, $2 FROM unnest($3::uuid[]) AS new (id)",
                self.list_id,
                self.workspace_id,
                identifiers,
            )
        return addresses

    async def template(
        self,
        subject: str = "News for {{ name }}",
        html: str = "<p>{{ name }} in {{ city }}</p>",
        text: str = "{{ name }}, {{ plan }}",
    ) -> UUID:
        """A template, written past the prover, which has tests of its own."""
        template_id = ids.uuid7()
        async with self.database.transaction() as tx:
            await tx.execute(
                "INSERT INTO template (id, workspace_id, name, version) VALUES ($1, $2, $3, 1)",
                template_id,
                self.workspace_id,
                str(template_id),
            )
            await tx.execute(
                "INSERT INTO template_version"
                " (template_id, version, workspace_id, subject, html, text, variables)"
                " VALUES ($1, 1, $2, $3, $4, $5, '{}')",
                template_id,
                self.workspace_id,
                subject,
                html,
                text,
            )
        return template_id

    async def campaign(
        self, template_id: UUID | None = None, rate: float | None = None, **more: Any
    ) -> UUID:
        """A draft to the list. `more`: other fields of NewCampaign, in the place of the usual."""
        template_id = template_id or await self.template()
        made = await self.campaigns.create(
            self.workspace_id,
            NewCampaign(
                **{
                    "name": "Spring",
                    "list": ids.type_id(ids.LIST, self.list_id),
                    "template": ids.type_id(ids.TEMPLATE, template_id),
                    "sender": "Shop <shop@example.org>",
                    "list_unsubscribe": "https://example.org/u/{delivery}",
                    "rate_per_s": rate,
                    **more,
                }
            ),
        )
        return made.id

    @asynccontextmanager
    async def workers(
        self, count: int = 1, answers: Callable[[str], Answer] = lambda address: ACCEPTED
    ) -> AsyncIterator[list[Process]]:
        """Worker processes on this loop; drained at the end."""
        processes = [Process(self, LedgerTransport(self.ledger, answers)) for _ in range(count)]
        tasks = [asyncio.create_task(process.worker.run()) for process in processes]
        try:
            yield processes
        finally:
            for process in processes:
                process.worker.drain()
            await asyncio.gather(*tasks)

    async def next_lease(self, seconds: float = LEASE_S + 1) -> None:
        """Let time pass, and give the jobs of the dead to the living."""
        self.clock.advance(seconds)
        await self.engine.rescue()

    async def progress(self, campaign_id: UUID) -> Progress:
        return await self.campaigns.progress(self.workspace_id, campaign_id)

    async def until(self, campaign_id: UUID, *states: State, timeout_s: float = 60.0) -> Progress:
        """Wait until the campaign is in one of `states`."""
        async with asyncio.timeout(timeout_s):
            while True:
                progress = await self.progress(campaign_id)
                if progress.state in states:
                    return progress
                await asyncio.sleep(0.02)

    async def states(self, where: str, *arguments: object) -> dict[str, str]:
        """Recipient -> state of the deliveries that `where` selects."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(
                f"SELECT recipient, state::text FROM delivery WHERE {where}", *arguments
            )
        return {row["recipient"]: row["state"] for row in rows}


def addresses_of(mails: Sequence[Outgoing]) -> list[str]:
    return [recipient.address for mail in mails for recipient in mail.recipients]


async def told(world: World) -> list[tuple[Delivery, list[StoryEvent]]]:
    """Every delivery of the workspace with its story."""
    deliveries = Deliveries(database=world.database)
    page = await deliveries.page(world.workspace_id)
    return [await deliveries.get(world.workspace_id, one.id) for one in page.items]


async def until_told(world: World, wanted: Callable[[list[Delivery]], bool]) -> list[Delivery]:
    """The deliveries, once they are as `wanted`; within 20 seconds."""
    async with asyncio.timeout(20):
        while True:
            found = [delivery for delivery, _ in await told(world)]
            if found and wanted(found):
                return found
            await asyncio.sleep(0.02)
