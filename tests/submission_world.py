"""A submission listener over real services, and what it made of the mails."""

import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from sending_world import World

from mailyard.access.audit import Actor, Audit
from mailyard.access.key import ApiKeys
from mailyard.net.tls import ensure_certificate, server_context
from mailyard.protocol.smtp.session import SessionConfig
from mailyard.receiving.listener import Listener
from mailyard.sending.login_guard import LoginGuard
from mailyard.sending.submission import Submission
from mailyard.sending.transport import Outgoing


@dataclass
class SubmissionWorld:
    """`port` speaks STARTTLS, `tls_port` TLS from the start. `late` notes how long failed logins
    were made to wait."""

    world: World
    port: int
    tls_port: int
    key: str
    key_id: UUID
    keys: ApiKeys
    late: list[float]
    certificate: Path

    @property
    def actor(self) -> Actor:
        return Actor("system", "test", self.world.workspace_id)

    async def key_with(self, *scopes: str) -> str:
        made = await self.keys.create(
            self.world.workspace_id, "test", list(scopes), actor=self.actor
        )
        return made.secret

    async def rows(self, query: str, *arguments: object) -> list[dict[str, object]]:
        async with self.world.database.connection() as connection:
            return [dict(row) for row in await connection.fetch(query, *arguments)]

    def mails(self) -> list[Outgoing]:
        return self.world.ledger.mails


@asynccontextmanager
async def submitting(world: World, folder: Path) -> AsyncIterator[SubmissionWorld]:
    keys = ApiKeys(database=world.database, audit=Audit(database=world.database))
    made = await keys.create(
        world.workspace_id,
        "app",
        ["emails:send"],
        actor=Actor("system", "test", world.workspace_id),
    )
    late: list[float] = []

    async def sleep(seconds: float) -> None:
        late.append(seconds)

    decider = Submission(
        keys=keys,
        emails=world.emails,
        guard=LoginGuard(rate_limit=world.rate_limit, sleep=sleep),
        sessions_per_key=6,
    )
    certificate, key_file = ensure_certificate(folder, "localhost")
    context: ssl.SSLContext = server_context(certificate, key_file)
    async with AsyncExitStack() as stack:
        ports = []
        for tls_on_connect in (False, True):
            listener = Listener(
                host="127.0.0.1",
                port=0,
                handler=decider,
                logins=decider,
                hostname="submit.example.org",
                tls_context=context,
                tls_on_connect=tls_on_connect,
                session=SessionConfig("submit.example.org", submission=True),
            )
            await listener.start()
            stack.push_async_callback(listener.drain, 0.2)
            ports.append(listener.port)
        yield SubmissionWorld(
            world, ports[0], ports[1], made.secret, made.key.id, keys, late, certificate
        )
