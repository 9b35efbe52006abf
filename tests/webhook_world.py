"""Webhooks as the program wires them, and endpoints on loopback that do as they are told."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from mailyard.access.vault import Vault
from mailyard.bus.adapters.memory import MemoryBus
from mailyard.bus.filter import make_filter
from mailyard.bus.live import START, LiveEvent, LiveEvents, StoredEvent
from mailyard.core.clock import ManualClock
from mailyard.net.guard import networks
from mailyard.net.http import HttpClient
from mailyard.queue.batch import Batch, Handle
from mailyard.queue.engines.postgres import PostgresEngine
from mailyard.queue.job import WEBHOOKS, KeyPolicy, LeasedJob
from mailyard.queue.settle import Settler
from mailyard.storage.database import Database
from mailyard.webhooks.call import Caller
from mailyard.webhooks.endpoint import Webhook, Webhooks, Wish
from mailyard.webhooks.fan_out import SLOW_PLACES, TELL, FanOut
from mailyard.webhooks.log import Delivery, WebhookLog
from mailyard.webhooks.notice import NOTICE
from mailyard.webhooks.replay import REPLAY, Replays
from mailyard.webhooks.tell import Teller

VAULT = Vault(lambda: [b"m" * 32])
KIND = "delivery.changed"


@dataclass
class Asked:
    """A request as an endpoint got it."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Endpoint:
    """Answers each request with what `answer` says: a status, or the bytes of an answer, or None
    for none at all."""

    answer: Callable[[Asked], int | bytes | None] = lambda asked: 200
    asked: list[Asked] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    port: int = 0

    def __post_init__(self) -> None:
        self.goes = asyncio.Event()
        self.goes.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def numbers(self) -> list[int]:
        return [asked.json["data"]["n"] for asked in self.asked]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                first, *lines = head.split("\r\n")[:-2]
                headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                asked = Asked(first.split()[1], headers, body)
                self.asked.append(asked)
                self.at_once += 1
                self.most_at_once = max(self.at_once, self.most_at_once)
                try:
                    await self.goes.wait()
                finally:
                    self.at_once -= 1
                said = self.answer(asked)
                if said is None:
                    return
                if isinstance(said, int):
                    said = b"HTTP/1.1 %d X\r\ncontent-length: 2\r\n\r\nok" % said
                writer.write(said)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


class World:
    """One platform's webhooks; `clock` stands until it is moved."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = ManualClock(datetime.now(UTC))
        self.bus = MemoryBus()
        self.live = LiveEvents(database=database, bus=self.bus)
        self.http = HttpClient(allowed=networks(["127.0.0.0/8"]))
        self.engine = PostgresEngine(database=database, bus=self.bus, clock=self.clock, upkeep_s=0)
        self.webhooks = Webhooks(
            database=database,
            vault=VAULT,
            bus=self.bus,
            clock=self.clock,
            allowed=networks(["127.0.0.0/8"]),
        )
        self.mail: dict[str, Any] | None = {"text": "Your code is 4711"}
        self.caller = Caller(
            http=self.http,
            contents=self._contents,
            page_url="https://mail.example.org",
            clock=self.clock,
        )
        self.log = WebhookLog(
            database=database, webhooks=self.webhooks, caller=self.caller, clock=self.clock
        )
        self.fan_out = self.fan_out_on(database)
        self.teller = self.teller_on(database)
        self.replays = Replays(
            database=database, engine=self.engine, webhooks=self.webhooks, clock=self.clock
        )
        self.workspace_id = UUID(int=0)
        self.notices: list[LeasedJob] = []
        self.servers: list[asyncio.Server] = []

    def fan_out_on(self, database: Database) -> FanOut:
        return FanOut(database=database, engine=self.engine, bus=self.bus, clock=self.clock)

    def teller_on(self, database: Database) -> Teller:
        return Teller(
            database=database,
            engine=self.engine,
            webhooks=self.webhooks,
            caller=self.caller,
            live=self.live,
            clock=self.clock,
            random=Random(1),
        )

    async def _contents(
        self, workspace_id: UUID, item: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        return self.mail

    async def endpoint(self, **behaviour: Any) -> Endpoint:
        endpoint = Endpoint(**behaviour)
        server = await asyncio.start_server(endpoint.serve, "127.0.0.1", 0)
        self.servers.append(server)
        endpoint.port = server.sockets[0].getsockname()[1]
        return endpoint

    async def tell(
        self, url: str, workspace_id: UUID | None = None, **wish: Any
    ) -> tuple[Webhook, str]:
        """A webhook to `url`, and its secret."""
        wanted = make_filter(
            wish.pop("kinds", [KIND]), wish.pop("inboxes", ()), wish.pop("where", None)
        )
        async with self.database.transaction() as tx:
            return await self.webhooks.create(
                workspace_id or self.workspace_id, Wish("a hook", url, wanted, **wish), tx
            )

    async def happens(
        self, *numbers: int, workspace_id: UUID | None = None, kind: str = KIND, **more: Any
    ) -> None:
        await self.live.publish(
            [LiveEvent(workspace_id or self.workspace_id, kind, {"n": n, **more}) for n in numbers]
        )

    async def deal(self, count: int | None = None) -> None:
        """Put what is settled into lines: `count` deliveries more, or what there is."""
        wanted = None if count is None else await self.total() + count
        async with asyncio.timeout(60):
            while True:
                more = await self.fan_out.look()
                if not more and (wanted is None or await self.total() >= wanted):
                    return
                await asyncio.sleep(0.005)

    async def total(self) -> int:
        async with self.database.connection() as connection:
            return int(await connection.fetchval("SELECT count(*) FROM webhook_delivery"))

    async def work(self, teller: Teller | None = None) -> int:
        """Run the jobs that are there, once each; how many there were. Notices are only kept."""
        jobs = list(await self.engine.lease([WEBHOOKS], 100, 0.0, "test"))
        self.notices += [job for job in jobs if job.kind == NOTICE]
        handlers = {TELL: (teller or self.teller).handle, REPLAY: self.replays.handle}
        await asyncio.gather(
            *(self._run(handlers[job.kind], job) for job in jobs if job.kind in handlers)
        )
        return len(jobs)

    async def _run(self, handle: Handle, job: LeasedJob) -> None:
        batch = self.batch([job])
        await handle(batch)
        await batch.complete(batch.unsettled)

    def batch(self, jobs: list[LeasedJob]) -> Batch:
        return Batch(jobs, Settler(self.engine), asyncio.Event())

    async def later(self, seconds: float) -> int:
        """Some time passes, what is due is woken and worked on; how many lines that were."""
        self.clock.advance(seconds)
        await self.engine.rescue()
        await self.fan_out.look()
        return await self.work()

    async def deliveries(self, webhook: Webhook, state: str = "") -> list[Delivery]:
        found = await self.log.page(webhook.workspace_id, webhook.id, state=state)
        return list(reversed(found))

    async def states(self, webhook: Webhook) -> list[str]:
        return [one.state for one in await self.deliveries(webhook)]

    async def events(self, kind: str) -> list[StoredEvent]:
        """What the stream tells of `kind`, once anything is settled."""
        async with asyncio.timeout(60):
            while not (
                found := [one for one in await self.live.read_after(START) if one.kind == kind]
            ):
                await asyncio.sleep(0.02)
        return found

    async def again(self, webhook: Webhook) -> Webhook:
        return await self.webhooks.get(webhook.workspace_id, webhook.id)


@asynccontextmanager
async def webhook_world(database: Database) -> AsyncIterator[World]:
    world = World(database)
    async with database.connection() as connection:
        world.workspace_id = await connection.fetchval(
            "INSERT INTO workspace (id, name) VALUES (gen_random_uuid(), 'w') RETURNING id"
        )
    await world.engine.limit_keys(WEBHOOKS, KeyPolicy(concurrency=SLOW_PLACES))
    yield world
    await world.http.close()
    for server in world.servers:
        server.close()


def days(count: float) -> float:
    return timedelta(days=count).total_seconds()
