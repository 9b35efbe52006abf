"""Taking mail to send: checked, then durable, then answered (DESIGN idea 1).

One commit holds the content (`email`), one `delivery` row a recipient, the `deliver` job and, when
the caller gave an idempotency key, the key with the answer. Concurrent callers share the commit.
Sending through the same key again gives the first answer and sends nothing.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf
from typing import Any
from uuid import UUID

import msgspec

from mailyard.access.audit import Actor
from mailyard.core import ids, limits
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import Conflict, InvalidInput, MailyardError, NotFound
from mailyard.protocol.address import normalise, parse_mailbox
from mailyard.queue.engine import Engine
from mailyard.queue.job import EMAIL_SEND, NewJob
from mailyard.sending.allowance import Allowances, Limits, Wanted
from mailyard.sending.answer import (
    Accepted,
    AcceptedRecipient,
    Answer,
    Caller,
    Claims,
    Idempotency,
)
from mailyard.sending.content import WholeMail, decode_content, encode_content
from mailyard.sending.delivery import millisecond_range, recipient_key
from mailyard.sending.group import GroupCommit
from mailyard.sending.recipient_clock import RecipientClocks
from mailyard.sending.render import Rendered
from mailyard.sending.request import (
    PRIORITIES,
    EmailContent,
    EmailRequest,
    Prepared,
    prepare,
    template_of,
)
from mailyard.sending.states import State
from mailyard.sending.stored_content import StoredContents
from mailyard.sending.template import Templates
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load
from mailyard.storage.raw_mail import IN_ROWS, RawMail

_SQL = load("sending")
_LAST_ID = UUID(int=(1 << 128) - 1)

DELIVER = "deliver"
# The type of mails of our own with links that let their recipients in: nobody reads them here.
PRIVATE = "mailyard.account"
_NOT_SHOWN = "(not shown: it has a link that lets its recipient in)"
ATTEMPTS = 36  # with the backoff of deliver.py: about five days
GROUP_EMAILS = 2 * limits.EMAILS_PER_BATCH
_WEIGHT_BYTES = 16 * limits.KIB  # of a whole mail weigh in a group as one more


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


class _Mail:
    """One email as the rows that it becomes, made when it comes: its group only joins them."""

    __slots__ = ("deliveries", "email", "id", "job")

    def __init__(self, workspace_id: UUID, email: Prepared, actor: Actor | None) -> None:
        self.id = ids.uuid7()
        self.email: tuple[Any, ...] = (
            self.id,
            workspace_id,
            email.type,
            email.content.sender,
            email.content.subject,
            encode_content(email.content),
            email.send_at,
            email.expires_at,
            actor.kind if actor is not None else None,
            actor.name if actor is not None else None,
        )
        # The deliveries carry their email's millisecond, so that one range of ids finds them.
        unix_ms = ids.unix_ms_of(self.id)
        self.deliveries = [
            (
                ids.uuid7(unix_ms),
                workspace_id,
                self.id,
                recipient,
                key,
                recipient_key(key),
                email.type,
                email.send_at,
                email.expires_at,
            )
            for recipient, key in zip(email.recipients, email.keys, strict=True)
        ]
        self.job = NewJob(
            queue=EMAIL_SEND,
            kind=DELIVER,
            payload=self.id.bytes,
            workspace_id=workspace_id,
            priority=PRIORITIES[email.priority],
            run_at=email.send_at,
            max_attempts=ATTEMPTS,
        )

    def hold(self, stored: bytes) -> None:
        """Have `stored` in the row in the place of the content."""
        self.email = (*self.email[:5], stored, *self.email[6:])

    def accepted(self, suppressed: set[UUID]) -> Accepted:
        """The answer, given which deliveries were born suppressed."""
        return Accepted(
            self.id,
            [
                AcceptedRecipient(
                    delivery_id,
                    recipient,
                    State.SUPPRESSED if delivery_id in suppressed else State.QUEUED,
                )
                for delivery_id, _, _, recipient, *_ in self.deliveries
            ],
        )

    def to_be_sent(self, suppressed: set[UUID]) -> bool:
        """Whether any recipient is not suppressed."""
        return any(delivery_id not in suppressed for delivery_id, *_ in self.deliveries)


@dataclass(frozen=True, slots=True)
class _Unit:
    """What one call brings into the group: its mails stand or fall together. `limits` are there
    when somebody has to count."""

    caller: Caller
    mails: list[_Mail]
    limits: Limits | None

    @property
    def wanted(self) -> Wanted:
        """What is to be counted."""
        assert self.limits is not None, "only who has limits is counted"
        recipients = sum(len(mail.deliveries) for mail in self.mails)
        return Wanted(self.caller.workspace_id, self.limits, recipients)


class Emails:
    """Accepts, reads and cancels transactional mail."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        templates: Templates,
        allowances: Allowances | None = None,
        raw_mail: RawMail = IN_ROWS,
        clock: Clock | None = None,
    ) -> None:
        self._contents = StoredContents(raw_mail)
        self._in_row_bytes: float = raw_mail.above_bytes if raw_mail.store is not None else inf
        self._allowances = allowances or Allowances(database=database, clock=clock)
        self._database = database
        self._engine = engine
        self._templates = templates
        self._clock = clock or SystemClock()
        self.clocks = RecipientClocks(
            database=database, allowances=self._allowances, clock=self._clock
        )
        self._group: GroupCommit[_Unit, Answer | MailyardError] = GroupCommit(
            self._commit, weight_max=GROUP_EMAILS
        )

    async def accept(
        self,
        workspace_id: UUID,
        request: EmailRequest,
        idempotency: Idempotency | None = None,
        actor: Actor | None = None,
    ) -> Answer:
        """Take one email: durable when this returns. `actor` is who sends it, for the audit log.

        Raises InvalidInput or TooLarge naming the field, NotFound for the template,
        RateLimited past the workspace's limits, IdempotencyMismatch, Unavailable (BlobsAway when
        it is large and its store is away).
        """
        prepared = await self._prepare(workspace_id, request)
        return await self._submit(workspace_id, [prepared], idempotency, actor)

    async def accept_prepared(
        self,
        workspace_id: UUID,
        prepared: Prepared,
        idempotency: Idempotency | None = None,
        actor: Actor | None = None,
    ) -> Answer:
        """Take what was checked elsewhere: mail that is submitted by SMTP. Raises as `accept`."""
        return await self._submit(workspace_id, [prepared], idempotency, actor)

    async def render(
        self, workspace_id: UUID, template: UUID | str, request: EmailRequest
    ) -> Rendered:
        """The mail of the template that `request` names, for its first recipient. Raises NotFound,
        InvalidInput."""
        to = ""
        if request.to:
            with suppress(InvalidInput):  # `prepare` says what is wrong with it
                to = normalise(parse_mailbox(request.to[0]).address)
        return await self._templates.render(workspace_id, template, request.data, to=to)

    async def accept_many(
        self,
        workspace_id: UUID,
        requests: Sequence[EmailRequest],
        idempotency: Idempotency | None = None,
        actor: Actor | None = None,
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
        return await self._submit(workspace_id, prepared, idempotency, actor)

    async def get(self, workspace_id: UUID, email_id: UUID, tx: Connection | None = None) -> Email:
        """One accepted email with its content. Raises NotFound."""
        row = await self._database.fetchrow(_SQL.get_email, workspace_id, email_id, tx=tx)
        if row is None:
            raise NotFound("no such email")
        content = decode_content(await self._contents.whole(row["content"]))
        if isinstance(content, WholeMail):
            content = content.view()
        if row["type"] == PRIVATE:
            content = msgspec.structs.replace(content, html="", text=_NOT_SHOWN)
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

    async def cancel(
        self, workspace_id: UUID, email_id: UUID, tx: Connection | None = None
    ) -> list[str]:
        """Withdraw an email; the recipients that it is now not sent to.

        Raises NotFound, and Conflict when nothing is left to withdraw: every recipient has been
        handed over, or has ended in another way.
        """
        low, high = millisecond_range(ids.unix_ms_of(email_id))
        rows = await self._database.fetch(
            _SQL.cancel_email, workspace_id, email_id, low, high, tx=tx
        )
        if not rows:
            await self.get(workspace_id, email_id, tx)
            raise Conflict("every recipient has been handed over or settled already")
        return [row["recipient"] for row in rows]

    async def cancel_delivery(
        self, workspace_id: UUID, delivery_id: UUID, tx: Connection | None = None
    ) -> State:
        """Withdraw an email from one recipient; the delivery's state before.

        Raises NotFound, and Conflict once the mail was handed over or is settled otherwise.
        """
        before = await self._database.fetchval(
            _SQL.cancel_delivery, workspace_id, delivery_id, tx=tx
        )
        if before is not None:
            return State(before)
        row = await self._database.fetchrow(_SQL.find_delivery, workspace_id, delivery_id, tx=tx)
        if row is None:
            raise NotFound("no such delivery")
        if row["email_id"] is None:
            raise Conflict("this is a campaign's mail: cancel the campaign")
        raise Conflict(f"the delivery is {row['state']}: nothing can be withdrawn")

    async def _prepare(self, workspace_id: UUID, request: EmailRequest) -> Prepared:
        template = template_of(request)
        rendered = None
        if template is not None:
            rendered = await self.render(workspace_id, template, request)
        prepared = prepare(request, rendered, self._clock.now())
        if request.local_time is None and not request.quiet_hours:
            return prepared
        return await self.clocks.place(
            workspace_id, prepared, request.local_time, quiet=request.quiet_hours
        )

    async def _submit(
        self,
        workspace_id: UUID,
        emails: list[Prepared],
        idempotency: Idempotency | None,
        actor: Actor | None,
    ) -> Answer:
        mails = [_Mail(workspace_id, email, actor) for email in emails]
        for mail in mails:
            if len(mail.email[5]) > self._in_row_bytes:
                mail.hold(await self._contents.put(workspace_id, mail.id, mail.email[5]))
        limits = self._allowances.known(workspace_id) or await self._allowances.of(workspace_id)
        unit = _Unit(Caller(workspace_id, idempotency), mails, limits if limits.counted else None)
        size = sum(len(mail.email[5]) for mail in mails)
        answer = await self._group.submit(unit, weight=len(mails) + size // _WEIGHT_BYTES)
        if isinstance(answer, MailyardError):
            raise answer
        return answer

    async def _commit(self, units: Sequence[_Unit]) -> list[Answer | MailyardError]:
        claims = Claims([unit.caller for unit in units])
        until = self._clock.now() + timedelta(seconds=limits.IDEMPOTENCY_KEEP_S)
        async with self._database.transaction() as tx:
            fresh = await claims.claim(self._database, until, tx)
            fresh = await self._within_limits(units, fresh, claims, tx)
            suppressed = await self._insert([m for i in fresh for m in units[i].mails], tx)
            made = {i: [mail.accepted(suppressed) for mail in units[i].mails] for i in fresh}
            await claims.keep(self._database, made, tx)
        return claims.answers(made)

    async def _within_limits(
        self, units: Sequence[_Unit], fresh: list[int], claims: Claims, tx: Connection
    ) -> list[int]:
        """Those of the callers whose workspaces may send so much now; the others are refused."""
        counted = [index for index in fresh if units[index].limits is not None]
        if not counted:
            return fresh
        errors = await self._allowances.draw([units[index].wanted for index in counted], tx)
        refused = {i: error for i, error in zip(counted, errors, strict=True) if error is not None}
        await claims.refuse(self._database, refused, tx)
        return [index for index in fresh if index not in refused]

    async def _insert(self, mails: Sequence[_Mail], tx: Connection) -> set[UUID]:
        """Write emails, deliveries, counters and jobs; the deliveries born suppressed."""
        if not mails:
            return set()
        rows = await self._database.fetch(
            _SQL.insert_accepted,
            *_columns([mail.email for mail in mails]),
            *_columns([delivery for mail in mails for delivery in mail.deliveries]),
            tx=tx,
        )
        suppressed = {row["id"] for row in rows}
        jobs = [mail.job for mail in mails if mail.to_be_sent(suppressed)]
        await self._engine.enqueue(jobs, tx=tx)
        return suppressed


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[Sequence[Any]]:
    """The columns of `rows`; one without any value is empty: the driver looks at each value."""
    columns = zip(*rows, strict=True)
    return [() if column.count(None) == len(column) else column for column in columns]
