"""Taking mail to send: checked, then durable, then answered (DESIGN idea 1).

One commit holds the content (`email`), one `delivery` row a recipient, the `deliver` job and, when
the caller gave an idempotency key, the key with the answer. Concurrent callers share the commit.
Sending through the same key again gives the first answer and sends nothing.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from mailyard.access.idempotency import IdempotencyInProgress
from mailyard.core import ids, limits
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import (
    Conflict,
    IdempotencyMismatch,
    InvalidInput,
    MailyardError,
    NotFound,
)
from mailyard.queue.engine import Engine
from mailyard.queue.job import EMAIL_SEND, NewJob
from mailyard.sending.delivery import millisecond_range, recipient_key
from mailyard.sending.group import GroupCommit
from mailyard.sending.request import (
    EmailContent,
    EmailRequest,
    Prepared,
    prepare,
    template_of,
)
from mailyard.sending.states import State
from mailyard.sending.suppress import ALL
from mailyard.sending.template import Templates
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("sending")
_SUPPRESSION_SQL = load("suppression")
_LAST_ID = UUID(int=(1 << 128) - 1)

DELIVER = "deliver"
ATTEMPTS = 36  # with the backoff of deliver.py: about five days
GROUP_EMAILS = 2 * limits.EMAILS_PER_BATCH
ACCEPTED_STATUS = 202


@dataclass(frozen=True, slots=True)
class Idempotency:
    """The caller's key and the SHA-256 of the body that came with it."""

    key: str
    body_hash: bytes


class AcceptedRecipient(msgspec.Struct, frozen=True):
    """A recipient's delivery and the state that it was born with."""

    delivery_id: UUID
    recipient: str
    state: str


class Accepted(msgspec.Struct, frozen=True):
    """What the caller is answered for one email."""

    id: UUID
    recipients: list[AcceptedRecipient]


@dataclass(frozen=True, slots=True)
class Answer:
    """The accepted emails in order. `replayed`: they were accepted before, under the same key."""

    emails: list[Accepted]
    replayed: bool


@dataclass(frozen=True, slots=True)
class Email:
    """An accepted request as it is read back. `content` is None in lists."""

    id: UUID
    workspace_id: UUID
    type: str
    sender: str
    subject: str
    content: EmailContent | None
    send_at: datetime | None
    expires_at: datetime | None

    @property
    def accepted_at(self) -> datetime:
        return ids.time_of(self.id)


@dataclass(slots=True)
class _Unit:
    """What one call brings into the group: its emails stand or fall together."""

    workspace_id: UUID
    email_ids: list[UUID]
    emails: list[Prepared]
    idempotency: Idempotency | None


class Emails:
    """Accepts, reads and cancels transactional mail."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        templates: Templates,
        clock: Clock | None = None,
    ) -> None:
        self._database = database
        self._engine = engine
        self._templates = templates
        self._clock = clock or SystemClock()
        self._group: GroupCommit[_Unit, Answer | MailyardError] = GroupCommit(
            self._commit, weight_max=GROUP_EMAILS
        )

    async def accept(
        self,
        workspace_id: UUID,
        request: EmailRequest,
        idempotency: Idempotency | None = None,
    ) -> Answer:
        """Take one email: durable when this returns.

        Raises InvalidInput or TooLarge naming the field, NotFound for the template,
        IdempotencyMismatch, Unavailable.
        """
        prepared = await self._prepare(workspace_id, request)
        return await self._submit(workspace_id, [prepared], idempotency)

    async def accept_many(
        self,
        workspace_id: UUID,
        requests: Sequence[EmailRequest],
        idempotency: Idempotency | None = None,
    ) -> Answer:
        """Take up to EMAILS_PER_BATCH emails: all of them, or none and an error.

        Raises as `accept` does, with the field as `emails.<index>.<field>`.
        """
        if not 1 <= len(requests) <= limits.EMAILS_PER_BATCH:
            raise InvalidInput(f"1 to {limits.EMAILS_PER_BATCH} emails", field="emails")
        prepared = []
        for index, request in enumerate(requests):
            try:
                prepared.append(await self._prepare(workspace_id, request))
            except MailyardError as error:
                inner = f".{error.field}" if error.field else ""
                error.field = f"emails.{index}{inner}"
                raise
        return await self._submit(workspace_id, prepared, idempotency)

    async def get(self, workspace_id: UUID, email_id: UUID) -> Email:
        """One accepted email with its content. Raises NotFound."""
        row = await self._database.fetchrow(_SQL.get_email, workspace_id, email_id)
        if row is None:
            raise NotFound("no such email")
        content = msgspec.json.decode(row["content"], type=EmailContent)
        return Email(**{**row, "content": content})

    async def page(
        self,
        workspace_id: UUID,
        *,
        since: datetime | None = None,
        before: UUID | None = None,
        limit: int = limits.API_PAGE_ITEMS,
    ) -> list[Email]:
        """Accepted emails, newest first, with ids below `before`; of the last 90 days."""
        since = since or self._clock.now() - timedelta(days=90)
        rows = await self._database.fetch(
            _SQL.list_emails, workspace_id, ids.lowest_at(since), before or _LAST_ID, limit
        )
        return [Email(**row, content=None) for row in rows]

    async def cancel(self, workspace_id: UUID, email_id: UUID) -> list[str]:
        """Withdraw an email; the recipients that it is now not sent to.

        Raises NotFound, and Conflict when nothing is left to withdraw: every recipient has been
        handed over, or has ended in another way.
        """
        low, high = millisecond_range(ids.unix_ms_of(email_id))
        rows = await self._database.fetch(_SQL.cancel_email, workspace_id, email_id, low, high)
        if not rows:
            await self.get(workspace_id, email_id)
            raise Conflict("every recipient has been handed over or settled already")
        return [row["recipient"] for row in rows]

    async def _prepare(self, workspace_id: UUID, request: EmailRequest) -> Prepared:
        template_id = template_of(request)
        rendered = None
        if template_id is not None:
            rendered = await self._templates.render(workspace_id, template_id, request.data)
        return prepare(request, rendered, self._clock.now())

    async def _submit(
        self, workspace_id: UUID, emails: list[Prepared], idempotency: Idempotency | None
    ) -> Answer:
        unit = _Unit(workspace_id, [ids.uuid7() for _ in emails], emails, idempotency)
        answer = await self._group.submit(unit, weight=len(emails))
        if isinstance(answer, MailyardError):
            raise answer
        return answer

    async def _commit(self, units: Sequence[_Unit]) -> list[Answer | MailyardError]:
        async with self._database.transaction() as tx:
            rows = _Rows(units, await self._suppressed(units, tx))
            before = await _claim_keys(self._database, units, rows.answers, self._clock.now(), tx)
            fresh = [index for index in range(len(units)) if index not in before]
            if fresh:
                await rows.insert(self._database, self._engine, fresh, tx)
        return [
            before.get(index, Answer(rows.answers[index], False)) for index in range(len(units))
        ]

    async def _suppressed(self, units: Sequence[_Unit], tx: Connection) -> set[tuple[UUID, str]]:
        pairs = {
            (unit.workspace_id, key)
            for unit in units
            for email in unit.emails
            for key in email.keys
        }
        asked = list(pairs)
        rows = await self._database.fetch(
            _SUPPRESSION_SQL.check_suppressions,
            [workspace_id for workspace_id, _ in asked],
            [key for _, key in asked],
            ALL,
            tx=tx,
        )
        return {(row[0], row[1]) for row in rows}


class _Rows:
    """The rows of a group, as columns, and each unit's answer."""

    def __init__(self, units: Sequence[_Unit], suppressed: set[tuple[UUID, str]]) -> None:
        self._units = units
        self.answers: list[list[Accepted]] = []
        for unit in units:
            self.answers.append(
                [
                    Accepted(email_id, _recipients(unit.workspace_id, email_id, email, suppressed))
                    for email_id, email in zip(unit.email_ids, unit.emails, strict=True)
                ]
            )

    async def insert(
        self, database: Database, engine: Engine, chosen: Sequence[int], tx: Connection
    ) -> None:
        """Write the units `chosen` (indexes): emails, deliveries, jobs and counters."""
        emails: list[tuple[Any, ...]] = []
        deliveries: list[tuple[Any, ...]] = []
        jobs: list[NewJob] = []
        counts: Counter[tuple[UUID, str]] = Counter()
        for index in chosen:
            unit = self._units[index]
            for email, accepted in zip(unit.emails, self.answers[index], strict=True):
                emails.append(_email_row(unit.workspace_id, accepted.id, email))
                for made, key in zip(accepted.recipients, email.keys, strict=True):
                    deliveries.append(
                        _delivery_row(unit.workspace_id, accepted.id, email, made, key)
                    )
                    counts[unit.workspace_id, f"delivery.{made.state}"] += 1
                if any(made.state == State.QUEUED for made in accepted.recipients):
                    jobs.append(_job(unit.workspace_id, accepted.id, email))
        await database.execute(_SQL.insert_emails, *zip(*emails, strict=True), tx=tx)
        await database.execute(_SQL.insert_deliveries, *zip(*deliveries, strict=True), tx=tx)
        await engine.enqueue(jobs, tx=tx)
        await database.execute(
            _SQL.insert_counter_deltas,
            [workspace_id for workspace_id, _ in counts],
            [name for _, name in counts],
            [workspace_id for workspace_id, _ in counts],
            list(counts.values()),
            tx=tx,
        )


def _recipients(
    workspace_id: UUID, email_id: UUID, email: Prepared, suppressed: set[tuple[UUID, str]]
) -> list[AcceptedRecipient]:
    # The deliveries carry their email's millisecond, so that one range of ids finds them.
    unix_ms = ids.unix_ms_of(email_id)
    return [
        AcceptedRecipient(
            ids.uuid7(unix_ms),
            address,
            State.SUPPRESSED if (workspace_id, key) in suppressed else State.QUEUED,
        )
        for address, key in zip(email.recipients, email.keys, strict=True)
    ]


def _email_row(workspace_id: UUID, email_id: UUID, email: Prepared) -> tuple[Any, ...]:
    return (
        email_id,
        workspace_id,
        email.type,
        email.content.sender,
        email.content.subject,
        msgspec.json.encode(email.content),
        email.send_at,
        email.expires_at,
    )


def _delivery_row(
    workspace_id: UUID, email_id: UUID, email: Prepared, made: AcceptedRecipient, key: str
) -> tuple[Any, ...]:
    return (
        made.delivery_id,
        workspace_id,
        email_id,
        made.recipient,
        recipient_key(key),
        email.type,
        made.state,
        email.send_at,
        email.expires_at,
    )


def _job(workspace_id: UUID, email_id: UUID, email: Prepared) -> NewJob:
    return NewJob(
        queue=EMAIL_SEND,
        kind=DELIVER,
        payload=email_id.bytes,
        workspace_id=workspace_id,
        run_at=email.send_at,
        max_attempts=ATTEMPTS,
    )


async def _claim_keys(
    database: Database,
    units: Sequence[_Unit],
    answers: list[list[Accepted]],
    now: datetime,
    tx: Connection,
) -> dict[int, Answer | MailyardError]:
    """Claim the units' idempotency keys; what is answered for those that stood already.

    Keys are written in one order by everybody, so that two groups cannot wait for each other.
    """
    keyed = sorted(
        (unit.workspace_id, unit.idempotency.key, index)
        for index, unit in enumerate(units)
        if unit.idempotency is not None
    )
    first: dict[tuple[UUID, str], int] = {}
    for workspace_id, key, index in keyed:
        first.setdefault((workspace_id, key), index)
    if not first:
        return {}
    hashes = {
        index: unit.idempotency.body_hash
        for index, unit in enumerate(units)
        if unit.idempotency is not None
    }
    claimed = await database.fetch(
        _SQL.claim_idempotency_keys,
        [workspace_id for workspace_id, _ in first],
        [key for _, key in first],
        [hashes[index] for index in first.values()],
        [ACCEPTED_STATUS] * len(first),
        [msgspec.json.encode(answers[index]) for index in first.values()],
        [now + timedelta(seconds=limits.IDEMPOTENCY_KEEP_S)] * len(first),
        tx=tx,
    )
    mine = {(row["workspace_id"], row["key"]) for row in claimed}
    rows = await database.fetch(
        _SQL.read_idempotency_keys,
        [workspace_id for workspace_id, _, _ in keyed],
        [key for _, key, _ in keyed],
        tx=tx,
    )
    stored = {(row["workspace_id"], row["key"]): (row["body_hash"], row["answer"]) for row in rows}
    return {
        index: _replay(hashes[index], *stored[workspace_id, key])
        for workspace_id, key, index in keyed
        if (workspace_id, key) not in mine or first[workspace_id, key] != index
    }


def _replay(body_hash: bytes, stored_hash: bytes, answer: bytes) -> Answer | MailyardError:
    if body_hash != stored_hash:
        return IdempotencyMismatch(
            "this idempotency key was used with another request", field="Idempotency-Key"
        )
    if not answer:
        return IdempotencyInProgress(
            "a request with this idempotency key is running", field="Idempotency-Key"
        )
    return Answer(msgspec.json.decode(answer, type=list[Accepted]), replayed=True)
