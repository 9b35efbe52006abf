"""Who follows the links of mail: a browser, a scanner, a mail program; and the jobs behind it."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from html import unescape
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode, urlsplit

from sending_world import World, tracking_over

from mailyard.access.audit import Audit
from mailyard.campaigns.preference import PreferenceCenter
from mailyard.campaigns.topic import Topics
from mailyard.queue.worker import Worker
from mailyard.sending.suppress import Suppressions
from mailyard.sending.track.hit import HitCollector
from mailyard.sending.track.judge import shipped_rules
from mailyard.sending.track.record import Recorder
from mailyard.web.track.app import TrackApp

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
_HREF = re.compile(r'(?:href|src)="([^"]*)"')


class Visit:
    """One answer."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""

    @property
    def location(self) -> str:
        return self.headers[b"location"].decode()


class Visitor:
    """Asks the application of links, as a server would call it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.topics = Topics(database=world.database)
        self.suppressions = Suppressions(database=world.database)
        self.preferences = PreferenceCenter(
            database=world.database,
            engine=world.engine,
            suppressions=self.suppressions,
            topics=self.topics,
            audit=Audit(database=world.database),
            clock=world.clock,
        )
        self.tracking = tracking_over(world.database, world.clock)
        self.acts: list[Any] = []
        self.app = TrackApp(
            SimpleNamespace(  # type: ignore[arg-type]
                tracking=self.tracking,
                tracking_names=self.tracking.names,
                hits=HitCollector(engine=world.engine, clock=world.clock),
                preferences=self.preferences,
            )
        )

    async def ask(
        self,
        url: str,
        method: str = "GET",
        *,
        agent: str = FIREFOX,
        peer: str = "203.0.113.77",
        form: dict[str, Any] | None = None,
        body: bytes | None = None,
        kind: str = "application/x-www-form-urlencoded",
        host: str | None = None,
    ) -> Visit:
        parts = urlsplit(url)
        if form is not None:
            body = urlencode(form, doseq=True).encode()
        headers = [
            (b"host", (host or parts.netloc).encode()),
            (b"user-agent", agent.encode()),
            (b"content-type", kind.encode()),
        ]
        visit = Visit()

        async def receive() -> Any:
            return {"type": "http.request", "body": body or b"", "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                visit.status, visit.headers = message["status"], dict(message["headers"])
            else:
                visit.body += message["body"]

        scope = {
            "type": "http",
            "method": method,
            "path": parts.path,
            "headers": headers,
            "client": (peer, 4000),
        }
        await self.app(scope, receive, send)
        return visit

    async def record(self, acts: Any, tx: Any) -> None:
        """The port that contacts' behaviour goes through."""
        self.acts += acts

    async def settle(self) -> None:
        """Have the jobs done that are due."""
        recorder = Recorder(
            database=self.world.database,
            engine=self.world.engine,
            live=self.world.live,
            rules=shipped_rules(),
            acts=self,
            clock=self.world.clock,
        )
        worker = Worker(
            engine=self.world.engine,
            handlers=[recorder.handler(), self.preferences.handler()],
            name="events",
        )
        async with _running(worker), asyncio.timeout(30):
            while await self._due():
                await asyncio.sleep(0.01)

    async def _due(self) -> bool:
        async with self.world.database.connection() as connection:
            return bool(
                await connection.fetchval(
                    "SELECT (SELECT count(*) FROM job)"
                    " > (SELECT count(*) FROM job_scheduled WHERE run_at > $1)",
                    self.world.clock.now(),
                )
            )

    async def totals(self, subject: Any) -> dict[str, int]:
        """The counters of a campaign, a link or the workspace that are not zero."""
        async with self.world.database.connection() as connection:
            rows = await connection.fetch(
                "SELECT name, sum(amount)::int AS amount FROM counter_delta"
                " WHERE subject = $1 AND (name LIKE 'track.%' OR name LIKE 'link.%')"
                " GROUP BY name HAVING sum(amount) <> 0",
                subject,
            )
        return {row["name"].partition(".")[2]: row["amount"] for row in rows}


@asynccontextmanager
async def _running(worker: Worker) -> AsyncIterator[None]:
    task = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        worker.drain()
        await task


def mail_of(content: bytes) -> EmailMessage:
    mail = message_from_bytes(content, policy=policy.default)
    assert isinstance(mail, EmailMessage)
    return mail


def html_of(content: bytes) -> str:
    part = mail_of(content).get_body(("html",))
    assert part is not None
    return str(part.get_content())


def links_of(content: bytes) -> list[str]:
    """The addresses in a mail's HTML, in order, images too."""
    return [unescape(found) for found in _HREF.findall(html_of(content))]
