"""Templates and signatures of a mailbox: texts that drafts begin with."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

import asyncpg
import msgspec

from mailyard.core import limits
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import Conflict, InvalidInput, NotFound
from mailyard.core.ids import MAILBOX_TEXT, type_id, uuid7
from mailyard.mailbox.inbox import Inboxes
from mailyard.mailbox.mailbox import Mailboxes
from mailyard.mailbox.mailbox_value import Held
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

QUERIES = load("draft")

NOTES_PER_MAILBOX = 200
NAME_CHARACTERS = 200
TEXT_CHARACTERS = 100_000
_KINDS = ["template", "signature"]

NoteKind = Literal["template", "signature"]


class Words(msgspec.Struct, frozen=True):
    """What a note says. `subject`: a template's. `default`: the signature of new drafts."""

    name: str
    text: str
    subject: str = ""
    default: bool = False


@dataclass(frozen=True, slots=True)
class Note:
    """A template or a signature."""

    id: UUID
    kind: NoteKind
    name: str
    subject: str
    text: str
    default: bool
    revision: int
    updated_at: datetime


class Notes:
    """The templates and signatures of all mailboxes."""

    def __init__(
        self,
        *,
        database: Database,
        inboxes: Inboxes,
        mailboxes: Mailboxes,
        clock: Clock | None = None,
    ) -> None:
        self._database = database
        self._inboxes = inboxes
        self._mailboxes = mailboxes
        self._clock = clock or SystemClock()

    async def list(self, workspace_id: UUID, inbox_id: UUID) -> Sequence[Note]:
        """All of a mailbox. Raises NotFound."""
        inbox = await self._inboxes.get(workspace_id, inbox_id)
        key = (workspace_id, inbox_id, inbox.retention_days)
        rows = await self._database.fetch(QUERIES.list, *key, _KINDS, 2 * NOTES_PER_MAILBOX)
        return sorted(map(_note, rows), key=lambda note: (note.kind, note.name.casefold()))

    async def get(self, workspace_id: UUID, inbox_id: UUID, note_id: UUID) -> Note:
        """Raises NotFound."""
        inbox = await self._inboxes.get(workspace_id, inbox_id)
        key = (workspace_id, inbox_id, inbox.retention_days)
        return _existing(await self._database.fetchrow(QUERIES.get, *key, note_id, _KINDS))

    async def signature(self, workspace_id: UUID, inbox_id: UUID) -> str:
        """The text of the signature that drafts begin with; empty without one."""
        for note in await self.list(workspace_id, inbox_id):
            if note.kind == "signature" and note.default:
                return note.text
        return ""

    async def add(
        self, workspace_id: UUID, inbox_id: UUID, kind: NoteKind, words: Words, *, tx: Connection
    ) -> Note:
        """Raises NotFound, InvalidInput, Conflict when there are too many."""
        _check(words)
        held = await self._mailboxes.hold(workspace_id, inbox_id, tx)
        count = await self._database.fetchval(QUERIES.count, *held.key, kind, tx=tx)
        if count >= NOTES_PER_MAILBOX:
            raise Conflict(f"a mailbox has at most {NOTES_PER_MAILBOX} of each kind")
        row = await self._database.fetchrow(
            QUERIES.add, *held.key, uuid7(), kind, _encode(words), None, self._clock.now(), tx=tx
        )
        note = _existing(row)
        await self._settle(held, note, "added")
        return note

    async def change(
        self, workspace_id: UUID, inbox_id: UUID, note_id: UUID, words: Words, *, tx: Connection
    ) -> Note:
        """Raises NotFound, InvalidInput."""
        _check(words)
        held = await self._mailboxes.hold(workspace_id, inbox_id, tx)
        _existing(await self._database.fetchrow(QUERIES.get, *held.key, note_id, _KINDS, tx=tx))
        row = await self._database.fetchrow(
            QUERIES.change, *held.key, note_id, _encode(words), self._clock.now(), tx=tx
        )
        note = _existing(row)
        await self._settle(held, note, "changed")
        return note

    async def delete(
        self, workspace_id: UUID, inbox_id: UUID, note_id: UUID, *, tx: Connection
    ) -> Note:
        """The note as it was. Raises NotFound."""
        held = await self._mailboxes.hold(workspace_id, inbox_id, tx)
        row = await self._database.fetchrow(QUERIES.get, *held.key, note_id, _KINDS, tx=tx)
        note = _existing(row)
        await self._database.execute(QUERIES.delete, *held.key, note_id, tx=tx)
        await self._mailboxes.tell(held, "note.deleted", {"id": type_id(MAILBOX_TEXT, note.id)})
        return note

    async def _settle(self, held: Held, note: Note, what: str) -> None:
        """Of several signatures one is the default."""
        if note.kind == "signature" and note.default:
            rows = await self._database.fetch(
                QUERIES.list, *held.key, ["signature"], 2 * NOTES_PER_MAILBOX, tx=held.tx
            )
            for other in map(_note, rows):
                if other.default and other.id != note.id:
                    words = Words(other.name, other.text, other.subject)
                    await self._database.fetchrow(
                        QUERIES.change,
                        *held.key,
                        other.id,
                        _encode(words),
                        other.updated_at,
                        tx=held.tx,
                    )
        await self._mailboxes.tell(held, f"note.{what}", {"id": type_id(MAILBOX_TEXT, note.id)})


def signed(body: str, signature: str, quoted: str) -> str:
    """A draft's text: what is written, the signature (RFC 3676 section 4.3), what is quoted."""
    parts = [body]
    if signature:
        parts.append(f"-- \n{signature}")
    if quoted:
        parts.append(quoted)
    return "\n\n".join(parts) if len(parts) > 1 else body


def _check(words: Words) -> None:
    if not 1 <= len(words.name) <= NAME_CHARACTERS or not words.name.isprintable():
        raise InvalidInput(f"1 to {NAME_CHARACTERS} characters without controls", field="name")
    if len(words.subject) > limits.SUBJECT_CHARACTERS or not words.subject.isprintable():
        raise InvalidInput("too long, or with control characters", field="subject")
    if len(words.text) > TEXT_CHARACTERS:
        raise InvalidInput(f"at most {TEXT_CHARACTERS} characters", field="text")
    if "\0" in words.text:
        raise InvalidInput("NUL is not allowed", field="text")


def _encode(words: Words) -> str:
    return msgspec.json.encode(words).decode()


def _existing(row: asyncpg.Record | None) -> Note:
    if row is None:
        raise NotFound("no such template or signature")
    return _note(row)


def _note(row: asyncpg.Record) -> Note:
    words = msgspec.json.decode(row["content"], type=Words)
    return Note(
        row["text_id"],
        row["kind"],
        words.name,
        words.subject,
        words.text,
        words.default,
        row["revision"],
        row["updated_at"],
    )
