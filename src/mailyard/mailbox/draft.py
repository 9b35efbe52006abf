"""Drafts: saved as they are written, by whoever writes them, from several windows at once.

Each save says which revision it was made from. When that is no longer the newest, somebody else
has saved meanwhile: then what comes is kept as a draft of its own, beside the other, and the answer
says so. Nothing that was typed is ever lost.

A draft that is sent waits for its undo window, as a job that is due at its end (mailbox/send.py).
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from mailyard.access.audit import Actor
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import Conflict, InvalidInput, NotFound
from mailyard.core.ids import DRAFT, MESSAGE, type_id, uuid7
from mailyard.mailbox.draft_value import (
    Content,
    Draft,
    Mode,
    Saved,
    Sent,
    SourceFile,
    check,
    draft_of,
    encode,
    request_of,
)
from mailyard.mailbox.inbox import Inboxes
from mailyard.mailbox.mailbox import Mailboxes
from mailyard.mailbox.mailbox_value import Held
from mailyard.mailbox.message import Messages
from mailyard.mailbox.note import Notes, signed
from mailyard.mailbox.reply import forward, reply
from mailyard.protocol.mime.message import parse
from mailyard.queue.engine import Engine
from mailyard.queue.job import EMAIL_SEND, NewJob
from mailyard.sending.request import prepare
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

QUERIES = load("draft")

SEND = "mailbox-send"
UNDO_S_MAX = 3_600.0
DRAFTS_PER_MAILBOX = 1_000
_DRAFT = ["draft"]


class Drafts:
    """The drafts of all mailboxes."""

    def __init__(
        self,
        *,
        database: Database,
        inboxes: Inboxes,
        messages: Messages,
        mailboxes: Mailboxes,
        notes: Notes,
        engine: Engine,
        clock: Clock | None = None,
    ) -> None:
        self._database = database
        self._inboxes = inboxes
        self._messages = messages
        self._mailboxes = mailboxes
        self._notes = notes
        self._engine = engine
        self._clock = clock or SystemClock()

    async def get(self, workspace_id: UUID, inbox_id: UUID, draft_id: UUID) -> Draft:
        """Raises NotFound."""
        inbox = await self._inboxes.get(workspace_id, inbox_id)
        key = (workspace_id, inbox_id, inbox.retention_days)
        row = await self._database.fetchrow(QUERIES.get, *key, draft_id, _DRAFT)
        return _existing(inbox_id, row)

    async def list(self, workspace_id: UUID, inbox_id: UUID) -> Sequence[Draft]:
        """All of a mailbox, the newest first. Raises NotFound."""
        inbox = await self._inboxes.get(workspace_id, inbox_id)
        key = (workspace_id, inbox_id, inbox.retention_days)
        rows = await self._database.fetch(QUERIES.list, *key, _DRAFT, DRAFTS_PER_MAILBOX)
        return [draft_of(inbox_id, row) for row in rows]

    async def start(
        self,
        workspace_id: UUID,
        inbox_id: UUID,
        mode: Mode,
        message_id: UUID | None = None,
        template_id: UUID | None = None,
    ) -> Content:
        """What a draft begins with: whom it answers, what it quotes, the mailbox's signature.

        Raises NotFound, InvalidInput.
        """
        inbox = await self._inboxes.get(workspace_id, inbox_id)
        template = None
        if template_id is not None:
            template = await self._notes.get(workspace_id, inbox_id, template_id)
        signature = await self._notes.signature(workspace_id, inbox_id)
        body = template.text if template is not None else ""
        if mode == "new":
            subject = template.subject if template is not None else ""
            return Content(subject=subject, text=signed(body, signature, ""))
        if message_id is None:
            raise InvalidInput("which message is missing", field="message_id")
        message = parse(await self._messages.raw(workspace_id, message_id, inbox_id))
        if mode == "forward":
            answering = forward(message)
            files = tuple(
                SourceFile(type_id(MESSAGE, message_id), file.index, file.filename)
                for file in message.attachments
            )
        else:
            answering, files = reply(message, inbox.address, mode == "reply_all"), ()
        return Content(
            to=answering.to,
            cc=answering.cc,
            subject=answering.subject,
            text=signed(body, signature, answering.quoted),
            mode=mode,
            source=type_id(MESSAGE, message_id),
            in_reply_to=answering.in_reply_to,
            references=answering.references,
            files=files,
        )

    async def create(
        self, workspace_id: UUID, inbox_id: UUID, content: Content, *, tx: Connection
    ) -> Draft:
        """Raises NotFound, InvalidInput, TooLarge, and Conflict when there are too many."""
        check(content)
        held = await self._mailboxes.hold(workspace_id, inbox_id, tx)
        return await self._add(held, content, None)

    async def save(
        self,
        workspace_id: UUID,
        inbox_id: UUID,
        draft_id: UUID,
        revision: int,
        said: Mapping[str, Any],
        *,
        tx: Connection,
    ) -> Saved:
        """Save what was made from `revision`: the fields of Content that are `said`. When somebody
        has saved since, it is kept as another version beside theirs. The same save again is one.

        Raises NotFound, InvalidInput, TooLarge, Conflict when the draft is on its way.
        """
        held = await self._mailboxes.hold(workspace_id, inbox_id, tx)
        draft = await self._held(held, draft_id)
        content = msgspec.structs.replace(draft.content, **said)
        check(content)
        if draft.content == content:
            return Saved(draft)
        if draft.revision != revision:
            return await self._beside(held, draft, content)
        if draft.send_at is not None:
            raise Conflict("this draft is being sent: take it back first")
        row = await self._database.fetchrow(
            QUERIES.change, *held.key, draft_id, encode(content), self._clock.now(), tx=tx
        )
        saved = _existing(inbox_id, row)
        await self._tell(held, "draft.saved", saved)
        return Saved(saved)

    async def discard(
        self, workspace_id: UUID, inbox_id: UUID, draft_id: UUID, *, tx: Connection
    ) -> Draft:
        """The draft as it was. Raises NotFound, Conflict when it has left."""
        held = await self._mailboxes.hold(workspace_id, inbox_id, tx)
        draft = await self._held(held, draft_id)
        if draft.leaving:
            raise Conflict("this draft has left")
        await self.remove(held, draft)
        await self._tell(held, "draft.deleted", draft)
        return draft

    async def send(
        self,
        workspace_id: UUID,
        inbox_id: UUID,
        draft_id: UUID,
        revision: int,
        undo_s: float,
        actor: Actor,
        *,
        tx: Connection,
    ) -> Draft:
        """Have the draft leave in `undo_s` seconds; until then it can be taken back.

        Raises NotFound, InvalidInput when it cannot be sent as it is, and Conflict when `revision`
        is not its newest or when it is on its way already.
        """
        if not 0 <= undo_s <= UNDO_S_MAX:
            raise InvalidInput(f"0 to {UNDO_S_MAX:.0f} seconds", field="undo_s")
        held = await self._mailboxes.hold(workspace_id, inbox_id, tx)
        draft = await self._held(held, draft_id)
        if draft.send_at is not None:
            raise Conflict("this draft is being sent already")
        if draft.revision != revision:
            raise Conflict("somebody has changed this draft since: look at it again")
        now = self._clock.now()
        prepare(request_of(held.inbox, draft.content, ()), None, now)
        send_at = now + timedelta(seconds=undo_s)
        row = await self._database.fetchrow(
            QUERIES.set_leaving, *held.key, draft_id, send_at, False, "", tx=tx
        )
        waiting = _existing(inbox_id, row)
        sent = Sent(inbox_id, draft_id, waiting.revision, actor.kind, actor.name)
        job = NewJob(
            queue=EMAIL_SEND,
            kind=SEND,
            payload=msgspec.json.encode(sent),
            workspace_id=workspace_id,
            run_at=send_at if undo_s else None,
        )
        await self._engine.enqueue([job], tx=tx)
        await self._tell(held, "draft.sending", waiting)
        return waiting

    async def take_back(
        self, workspace_id: UUID, inbox_id: UUID, draft_id: UUID, *, tx: Connection
    ) -> Draft:
        """Undo a send. Raises NotFound once it is sent, Conflict when it has left or was not to."""
        held = await self._mailboxes.hold(workspace_id, inbox_id, tx)
        draft = await self._held(held, draft_id)
        if draft.send_at is None:
            raise Conflict("this draft is not being sent")
        if draft.leaving:
            raise Conflict("this draft has left")
        return await self.put_back(held, draft, "")

    # For who sends them (mailbox/send.py) ---------------------------------------------------

    async def claim(self, held: Held, sent: Sent) -> Draft | None:
        """The draft, on its way from now on; None when it was taken back or has been sent."""
        row = await self._database.fetchrow(
            QUERIES.get, *held.key, sent.draft_id, _DRAFT, tx=held.tx
        )
        if row is None:
            return None
        draft = draft_of(held.inbox.id, row)
        if draft.leaving and draft.revision == sent.revision + 1:
            return draft  # a worker before us died with it
        if draft.send_at is None or draft.revision != sent.revision:
            return None
        row = await self._database.fetchrow(
            QUERIES.set_leaving, *held.key, draft.id, draft.send_at, True, "", tx=held.tx
        )
        return _existing(held.inbox.id, row)

    async def put_back(self, held: Held, draft: Draft, problem: str) -> Draft:
        """The draft is not sent after all."""
        row = await self._database.fetchrow(
            QUERIES.set_leaving, *held.key, draft.id, None, False, problem, tx=held.tx
        )
        back = _existing(held.inbox.id, row)
        await self._tell(held, "draft.refused" if problem else "draft.taken_back", back)
        return back

    async def remove(self, held: Held, draft: Draft) -> None:
        """The draft is no more; other versions of it are drafts of their own."""
        await self._database.execute(QUERIES.set_alone, *held.key, draft.id, tx=held.tx)
        await self._database.execute(QUERIES.delete, *held.key, draft.id, tx=held.tx)

    # -----------------------------------------------------------------------------------------

    async def _held(self, held: Held, draft_id: UUID) -> Draft:
        row = await self._database.fetchrow(QUERIES.get, *held.key, draft_id, _DRAFT, tx=held.tx)
        return _existing(held.inbox.id, row)

    async def _beside(self, held: Held, draft: Draft, content: Content) -> Saved:
        """Keep `content` beside `draft`, once."""
        of = draft.conflict_of or draft.id
        rows = await self._database.fetch(QUERIES.versions, *held.key, of, tx=held.tx)
        for version in (draft_of(held.inbox.id, row) for row in rows):
            if version.content == content:
                return Saved(version, draft)
        return Saved(await self._add(held, content, of), draft)

    async def _add(self, held: Held, content: Content, conflict_of: UUID | None) -> Draft:
        count = await self._database.fetchval(QUERIES.count, *held.key, "draft", tx=held.tx)
        if count >= DRAFTS_PER_MAILBOX:
            raise Conflict(f"a mailbox has at most {DRAFTS_PER_MAILBOX} drafts")
        row = await self._database.fetchrow(
            QUERIES.add,
            *held.key,
            uuid7(),
            "draft",
            encode(content),
            conflict_of,
            self._clock.now(),
            tx=held.tx,
        )
        draft = _existing(held.inbox.id, row)
        await self._tell(held, "draft.conflict" if conflict_of else "draft.created", draft)
        return draft

    async def _tell(self, held: Held, kind: str, draft: Draft) -> None:
        item = {"draft_id": type_id(DRAFT, draft.id), "revision": draft.revision}
        if draft.conflict_of is not None:
            item["conflict_of"] = type_id(DRAFT, draft.conflict_of)
        await self._mailboxes.tell(held, kind, item)


def _existing(inbox_id: UUID, row: asyncpg.Record | None) -> Draft:
    if row is None:
        raise NotFound("no such draft")
    return draft_of(inbox_id, row)
