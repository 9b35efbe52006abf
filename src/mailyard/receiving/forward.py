"""Forwarding: what routes lead to other addresses leaves through the sending side's queue.

Mail of a route that forwards lies in the route's own inbox, so that nothing is lost whatever
becomes of the forwarding. Ingest's transaction enqueues one job a message; the job hands the bytes
as they came to whoever sends (`Outbox`), under a key that lets a job that runs again send nothing
twice.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

import msgspec
import structlog

from mailyard.core.errors import MailyardError
from mailyard.protocol.arc import ChainStatus
from mailyard.protocol.authentication import Verdict
from mailyard.protocol.authentication_results import said
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.engine import Engine
from mailyard.queue.job import EMAIL_SEND, LeasedJob, NewJob
from mailyard.receiving.ingest import Arrival
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load
from mailyard.storage.raw_mail import IN_ROWS, RawMail

_SQL = load("receiving_domain")
_LOG = structlog.get_logger(__name__)

FORWARD_JOB = "forward"
_ATTEMPTS_FOR_VERDICT = 3  # a mail is sealed with what its checks came to; longer nobody waits
_VERDICT_WAIT_S = 5.0


class Task(msgspec.Struct, array_like=True):
    """A message that goes on: where it came to, and where it goes."""

    message_id: UUID
    route_id: UUID
    address: str
    forward_to: list[str]


class Forwarded(NamedTuple):
    """A mail to send on. `checks`: what its checks came to, as a field of Authentication-Results
    says it; `chain`: what became of its ARC chain; empty and None where nobody knows."""

    raw: bytes
    reverse_path: str
    address: str
    recipients: Sequence[str]
    checks: str
    chain: ChainStatus | None
    key: str


class Outbox(Protocol):
    """Who sends mail on (`sending.forwarded` fits)."""

    async def forward(self, workspace_id: UUID, mail: Forwarded) -> str:
        """Durable on return. Why it was not sent on, empty when it was. Raises MailyardError."""
        ...


class VerdictOf(Protocol):
    """Who knows what a mail's checks came to (`receiving.verdict.Verdicts` fits)."""

    async def get(self, workspace_id: UUID, message_id: UUID) -> Verdict | None: ...


_TASK = msgspec.json.Decoder(Task)


class ForwardFollower:
    """Enqueues what is to be forwarded (`receiving.ingest.Follower`): one question a batch."""

    def __init__(self, *, database: Database, engine: Engine) -> None:
        self._database = database
        self._engine = engine

    async def follow(self, arrivals: Sequence[Arrival], tx: Connection) -> None:
        workspaces = list({one.workspace_id for one in arrivals})
        inboxes = list({one.inbox_id for one in arrivals})
        rows = await self._database.fetch(_SQL.forwards_of, workspaces, inboxes, tx=tx)
        if not rows:
            return
        routes = {(row["workspace_id"], row["filed_in"]): row for row in rows}
        jobs = []
        for one in arrivals:
            route = routes.get((one.workspace_id, one.inbox_id))
            if route is not None:
                task = Task(one.message_id, route["id"], one.recipient, route["forward_to"])
                payload = msgspec.json.encode(task)
                jobs.append(NewJob(EMAIL_SEND, FORWARD_JOB, payload, one.workspace_id))
        await self._engine.enqueue(jobs, tx)


class Forwarder:
    """Handles `forward` jobs."""

    def __init__(
        self,
        *,
        database: Database,
        outbox: Outbox,
        verdicts: VerdictOf,
        raw_mail: RawMail = IN_ROWS,
    ) -> None:
        self._database = database
        self._raw_mail = raw_mail
        self._outbox = outbox
        self._verdicts = verdicts

    def handler(self) -> Handler:
        """What the worker runs."""
        return Handler(FORWARD_JOB, EMAIL_SEND, self.handle, batch_size=10, concurrency=2)

    async def handle(self, batch: Batch) -> None:
        """Send on what the jobs name."""
        for job in batch.jobs:
            try:
                task = _TASK.decode(job.payload)
            except msgspec.DecodeError as error:
                await batch.bury([job], f"the payload is no forwarding: {error}")
                continue
            await self._forward(batch, job, task)

    async def _forward(self, batch: Batch, job: LeasedJob, task: Task) -> None:
        workspace_id = job.workspace_id
        if workspace_id is None:
            await batch.bury([job], "a forwarding is a workspace's")
            return
        row = await self._database.fetchrow(_SQL.message_to_forward, workspace_id, task.message_id)
        if row is None:
            return  # it was deleted meanwhile
        verdict = await self._verdicts.get(workspace_id, task.message_id)
        if verdict is None and job.attempt < _ATTEMPTS_FOR_VERDICT:
            await batch.retry([job], _VERDICT_WAIT_S, "its checks are not done yet")
            return
        try:
            raw = await self._raw_mail.of(row)
        except MailyardError as error:
            await batch.fail([job], error)
            return
        mail = Forwarded(
            raw,
            row["reverse_path"],
            task.address,
            task.forward_to,
            said(verdict.methods()) if verdict is not None else "",
            verdict.arc.status if verdict is not None else None,
            f"forward:{task.message_id.hex}:{task.route_id.hex}",
        )
        try:
            why = await self._outbox.forward(workspace_id, mail)
        except MailyardError as error:
            await batch.fail([job], error)
            return
        if why:
            _LOG.warning("mail is not forwarded", why=why, message=str(task.message_id))
