"""What drafts are made from: the templates and signatures of an inbox."""

from typing import Annotated, Any

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids, limits
from mailyard.mailbox.note import NAME_CHARACTERS, TEXT_CHARACTERS, Note, NoteKind, Words
from mailyard.web.api.drafts import TAG
from mailyard.web.api.mailboxes import mailbox_of
from mailyard.web.api.page import Input, MailboxTextId, Moment, Output
from mailyard.web.api.route import Answer, Call, Route


class NoteText(Input):
    """A template or a signature."""

    name: Annotated[str, Meta(min_length=1, max_length=NAME_CHARACTERS)]
    text: Annotated[str, Meta(max_length=TEXT_CHARACTERS)] = ""
    subject: Annotated[
        str, Meta(max_length=limits.SUBJECT_CHARACTERS, description="A template's.")
    ] = ""
    default: Annotated[bool, Meta(description="The signature that drafts begin with.")] = False


class NewNote(NoteText):
    """A template or a signature to keep."""

    kind: NoteKind = "template"


class NoteItem(Output):
    """A template or a signature of an inbox."""

    id: MailboxTextId
    kind: NoteKind
    name: str
    subject: str
    text: str
    default: bool
    revision: int
    updated_at: Moment


class Notes(Output):
    """All templates and signatures of an inbox."""

    items: list[NoteItem]


def _note(note: Note) -> NoteItem:
    return NoteItem(
        id=ids.type_id(ids.MAILBOX_TEXT, note.id),
        kind=note.kind,
        name=note.name,
        subject=note.subject,
        text=note.text,
        default=note.default,
        revision=note.revision,
        updated_at=note.updated_at,
    )


def _words(body: NoteText) -> Words:
    return Words(body.name, body.text, body.subject, body.default)


def _noted(call: Call[Any, Any], what: str, note: Note) -> Change:
    said = {"inbox": ids.type_id(ids.INBOX, call.ids["inbox_id"]), "name": note.name}
    return Change(f"note.{what}", ids.type_id(ids.MAILBOX_TEXT, note.id), None, said)


async def list_notes(call: Call[None, None]) -> Notes:
    return Notes(items=[_note(one) for one in await call.app.notes.list(*mailbox_of(call))])


async def create_note(call: Call[NewNote, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        note = await call.app.notes.add(*mailbox_of(call), call.body.kind, _words(call.body), tx=tx)
        answer = await call.done(tx, _note(note), _noted(call, "create", note))
    call.app.mailboxes.announced()
    return answer


async def change_note(call: Call[NoteText, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        note = await call.app.notes.change(
            *mailbox_of(call), call.ids["note_id"], _words(call.body), tx=tx
        )
        answer = await call.done(tx, _note(note), _noted(call, "change", note))
    call.app.mailboxes.announced()
    return answer


async def delete_note(call: Call[None, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        note = await call.app.notes.delete(*mailbox_of(call), call.ids["note_id"], tx=tx)
        answer = await call.done(tx, None, _noted(call, "delete", note))
    call.app.mailboxes.announced()
    return answer


_NOTES = "/v1/inboxes/{inbox_id:ibx}/notes"
_NOTE = f"{_NOTES}/{{note_id:txt}}"

ROUTES = (
    Route(
        "GET",
        _NOTES,
        list_notes,
        "listNotes",
        TAG,
        "List an inbox's templates and signatures",
        scope.INBOXES_READ,
        answer=Notes,
    ),
    Route(
        "POST",
        _NOTES,
        create_note,
        "createNote",
        TAG,
        "Keep a template or a signature",
        scope.INBOXES_WRITE,
        status=201,
        answer=NoteItem,
        body=NewNote,
        errors=(409,),
    ),
    Route(
        "PUT",
        _NOTE,
        change_note,
        "changeNote",
        TAG,
        "Change a template or a signature",
        scope.INBOXES_WRITE,
        answer=NoteItem,
        body=NoteText,
    ),
    Route(
        "DELETE",
        _NOTE,
        delete_note,
        "deleteNote",
        TAG,
        "Delete a template or a signature",
        scope.INBOXES_WRITE,
        status=204,
    ),
)
