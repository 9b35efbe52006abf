"""The job `mailbox-send`: a draft leaves, and its mail lies in the folder `sent`, in its thread.

Three steps, each durable, so that whoever dies in between has a successor that goes on:

1. the draft is claimed: from here it cannot be taken back;
2. sending accepts the mail, under a key made of the draft and its revision, so that a second try
   gets the first one's answer and sends nothing;
3. in one transaction the mail is stored in its mailbox as it was accepted, the draft goes and the
   job is done.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from uuid import UUID

import msgspec

from mailyard.access.audit import Actor
from mailyard.core import ids
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import InvalidInput, MailyardError, NotFound
from mailyard.mailbox.draft import SEND, Drafts
from mailyard.mailbox.draft_value import Draft, Sent, request_of
from mailyard.mailbox.follow import Follower, NewLine
from mailyard.mailbox.mailbox import WAKE, Mailboxes
from mailyard.mailbox.mailbox_value import Asleep, Held
from mailyard.mailbox.message import Messages
from mailyard.mailbox.state import SENT
from mailyard.mailbox.strand import strand_of
from mailyard.protocol.address import parse_mailbox
from mailyard.protocol.mime.summary import Summary, parse_summary
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.job import EMAIL_SEND, MAILBOX_SYNC, LeasedJob
from mailyard.receiving.ingest import Arrival
from mailyard.receiving.ingest import Follower as Indexer
from mailyard.sending.accept import Emails
from mailyard.sending.answer import Idempotency
from mailyard.sending.compose import compose
from mailyard.sending.request import Attachment
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load
from mailyard.storage.raw_mail import IN_ROWS, RawMail

QUERIES = load("draft")

SENT_KIND = "message.sent"
_ADDRESS_CHARACTERS = 320


@dataclass(frozen=True, slots=True)
class _Copy:
    """A sent mail as its sender keeps it. `blob`: where it lies, if not in its row."""

    message_id: UUID
    raw: bytes
    blob: str | None = None


class Sender:
    """Handles `mailbox-send` jobs. `indexers` follow what was sent too: the search."""

    def __init__(
        self,
        *,
        database: Database,
        drafts: Drafts,
        mailboxes: Mailboxes,
        messages: Messages,
        follower: Follower,
        emails: Emails,
        hostname: str,
        indexers: Sequence[Indexer] = (),
        raw_mail: RawMail = IN_ROWS,
        clock: Clock | None = None,
    ) -> None:
        self._database = database
        self._drafts = drafts
        self._mailboxes = mailboxes
        self._messages = messages
        self._follower = follower
        self._emails = emails
        self._hostname = hostname
        self._indexers = tuple(indexers)
        self._raw_mail = raw_mail
        self._clock = clock or SystemClock()

    def handler(self) -> Handler:
        """What a worker needs to run this."""
        return Handler(kind=SEND, queue=EMAIL_SEND, handle=self.handle, batch_size=1, concurrency=4)

    async def handle(self, batch: Batch) -> None:
        for job in batch.jobs:
            sent = msgspec.json.decode(job.payload, type=Sent)
            await self._send(batch, job, sent)

    async def _send(self, batch: Batch, job: LeasedJob, sent: Sent) -> None:
        assert job.workspace_id is not None, "a mailbox belongs to a workspace"
        try:
            draft = await self._claim(job.workspace_id, sent)
        except NotFound:  # the inbox has ended
            return
        if draft is None:
            return
        try:
            email_id = await self._accept(job.workspace_id, draft, sent)
        except MailyardError as error:
            if error.retryable and job.attempt < job.max_attempts:
                raise
            await self._refuse(job.workspace_id, draft, error)
            return
        copied = await self._copied(job.workspace_id, draft, email_id)
        async with self._database.transaction() as tx:
            if not await batch.complete([job], tx=tx):
                return  # it is another worker's by now, and it goes on
            await self._store(job.workspace_id, draft, email_id, copied, tx)
        self._mailboxes.announced()

    async def _claim(self, workspace_id: UUID, sent: Sent) -> Draft | None:
        async with self._database.transaction() as tx:
            held = await self._mailboxes.hold(workspace_id, sent.inbox_id, tx)
            return await self._drafts.claim(held, sent)

    async def _accept(self, workspace_id: UUID, draft: Draft, sent: Sent) -> UUID:
        """The id under which sending has taken the mail. Raises what `Emails.accept` raises."""
        inbox = await self._mailboxes.inbox(workspace_id, draft.inbox_id)
        files = []
        for place, file in enumerate(draft.content.files):
            message_id = ids.parse_type_id(ids.MESSAGE, file.message_id)
            try:
                found = await self._messages.attachment(
                    workspace_id, message_id, file.index, draft.inbox_id
                )
            except NotFound:
                raise InvalidInput(
                    f"the file {file.filename} is gone with its mail", field=f"files.{place}"
                ) from None
            name = found.attachment.filename or f"file-{file.index}"
            files.append(Attachment(name[:255], found.content, found.attachment.content_type))
        key = f"mailbox:{draft.id}:{sent.revision}"
        answer = await self._emails.accept(
            workspace_id,
            request_of(inbox, draft.content, files),
            Idempotency(key, sha256(key.encode()).digest()),
            Actor(sent.actor_kind, sent.actor, workspace_id),
        )
        return answer.emails[0].id

    async def _refuse(self, workspace_id: UUID, draft: Draft, error: MailyardError) -> None:
        """It can never be sent as it is: a draft again, that says why."""
        async with self._database.transaction() as tx:
            held = await self._mailboxes.hold(workspace_id, draft.inbox_id, tx)
            said = f"{error.field}: {error.message}" if error.field else error.message
            await self._drafts.put_back(held, draft, said[:500])
        self._mailboxes.announced()

    async def _copied(self, workspace_id: UUID, draft: Draft, email_id: UUID) -> _Copy:
        """The mail as its sender keeps it; large ones are outside by now. Raises BlobsAway."""
        raw = await self._composed(workspace_id, email_id)
        copied = _Copy(ids.uuid7(), raw)
        if not self._raw_mail.goes_outside(len(raw)):
            return copied
        try:
            inbox = await self._mailboxes.inbox(workspace_id, draft.inbox_id)
        except NotFound:  # it has ended meanwhile: nobody keeps the copy
            return copied
        key = await self._raw_mail.put(workspace_id, inbox.retention_days, copied.message_id, raw)
        return _Copy(copied.message_id, raw, key)

    async def _store(
        self, workspace_id: UUID, draft: Draft, email_id: UUID, copied: _Copy, tx: Connection
    ) -> None:
        summary = parse_summary(copied.raw)
        try:
            held = await self._mailboxes.hold(workspace_id, draft.inbox_id, tx)
        except NotFound:
            return  # the inbox has ended meanwhile: the mail is sent, and has no place here
        to = [parse_mailbox(text).address for text in draft.content.to or draft.content.cc]
        message_id = await self._line(held, copied, summary, to[0] if to else "")
        await self._drafts.remove(held, draft)
        line = NewLine(
            inbox_id=draft.inbox_id,
            message_id=message_id,
            workspace_id=workspace_id,
            retention_days=held.inbox.retention_days,
            strand=strand_of(summary, to[0] if to else None),
            folder=SENT,
            seen=True,
            kind=SENT_KIND,
        )
        await self._mailboxes.tell(
            held,
            "draft.sent",
            {
                "draft_id": ids.type_id(ids.DRAFT, draft.id),
                "email_id": ids.type_id(ids.EMAIL, email_id),
                "message_id": ids.type_id(ids.MESSAGE, message_id),
            },
        )
        await self._follower.place([line], tx)

    async def _composed(self, workspace_id: UUID, email_id: UUID) -> bytes:
        """The mail as its recipients get it, before signatures: sending composes the same."""
        email = await self._emails.get(workspace_id, email_id)
        parts = email.content
        assert parts is not None, "one email is read with its content"
        return compose(
            sender=parse_mailbox(parts.sender),
            to=[parse_mailbox(text) for text in parts.to],
            cc=[parse_mailbox(text) for text in parts.cc],
            reply_to=[parse_mailbox(text) for text in parts.reply_to],
            subject=parts.subject,
            text=parts.text,
            html=parts.html,
            headers=parts.headers,
            attachments=parts.attachments,
            date=ids.time_of(email_id),
            message_id=f"{ids.type_id(ids.EMAIL, email_id)}@{self._hostname}",
        ).content

    async def _line(self, held: Held, copied: _Copy, summary: Summary, to: str) -> UUID:
        """The stored message, in its inbox and in the search."""
        message_id = copied.message_id
        inbox = held.inbox
        await self._database.execute(
            QUERIES.store_sent,
            *held.key,
            message_id,
            copied.raw if copied.blob is None else b"",
            inbox.address,
            inbox.name,
            to[:_ADDRESS_CHARACTERS],
            summary.subject,
            summary.preview,
            summary.sent_at,
            summary.message_id,
            min(summary.attachments, 32_767),
            len(copied.raw),
            copied.blob,
            tx=held.tx,
        )
        arrival = Arrival(
            inbox_id=inbox.id,
            message_id=message_id,
            workspace_id=held.workspace_id,
            retention_days=inbox.retention_days,
            message_retention_days=inbox.retention_days,
            recipient=to,
            summary=summary,
            size_bytes=len(copied.raw),
        )
        for indexer in self._indexers:
            await indexer.follow([arrival], held.tx)
        return message_id


class Waker:
    """Handles `mailbox-wake` jobs: what was snoozed comes back."""

    def __init__(
        self, *, database: Database, mailboxes: Mailboxes, clock: Clock | None = None
    ) -> None:
        self._database = database
        self._mailboxes = mailboxes
        self._clock = clock or SystemClock()

    def handler(self) -> Handler:
        """What a worker needs to run this."""
        return Handler(
            kind=WAKE, queue=MAILBOX_SYNC, handle=self.handle, batch_size=1, concurrency=2
        )

    async def handle(self, batch: Batch) -> None:
        for job in batch.jobs:
            asleep = msgspec.json.decode(job.payload, type=Asleep)
            assert job.workspace_id is not None, "a mailbox belongs to a workspace"
            early_s = (asleep.until - self._clock.now()).total_seconds()
            if early_s > 0:
                await batch.release([job], early_s)
                continue
            async with self._database.transaction() as tx:
                if await batch.complete([job], tx=tx):
                    await self._mailboxes.wake(asleep, job.workspace_id, tx)
            self._mailboxes.announced()
