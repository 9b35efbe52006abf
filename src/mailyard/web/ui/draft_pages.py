"""Writing in a mailbox: a draft that saves itself, and its way out with a way back."""

from typing import Any
from uuid import UUID

from litestar import Response, get, post
from litestar.params import FromPath

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core.errors import InvalidInput
from mailyard.core.ids import DRAFT, INBOX, MAILBOX_TEXT, MESSAGE, parse_type_id, type_id
from mailyard.mailbox.draft_value import Draft, Mode
from mailyard.mailbox.note import NoteKind, Words
from mailyard.mailbox.reply import written
from mailyard.protocol.address import parse_mailbox_list
from mailyard.storage.database import Connection
from mailyard.web.ui.frame import Visit
from mailyard.web.ui.inbox_view import found_inbox, inbox_view

UNDO_S = 10.0
_MODES: tuple[Mode, ...] = ("new", "reply", "reply_all", "forward")
_PATH = "/inboxes/{inbox_id:str}/drafts/{draft_id:str}"


def _ids(visit: Visit, inbox_id: str, draft_id: str) -> tuple[UUID, UUID, UUID]:
    return (
        visit.principal.workspace_id,
        parse_type_id(INBOX, inbox_id),
        parse_type_id(DRAFT, draft_id),
    )


def _view(draft: Draft) -> dict[str, Any]:
    content = draft.content
    return {
        "id": type_id(DRAFT, draft.id),
        "revision": draft.revision,
        "to": ", ".join(content.to),
        "cc": ", ".join(content.cc),
        "bcc": ", ".join(content.bcc),
        "subject": content.subject,
        "text": content.text,
        "files": [file.filename for file in content.files]
        + [file.filename for file in content.attachments],
        "conflict_of": None if draft.conflict_of is None else type_id(DRAFT, draft.conflict_of),
        "send_at": draft.send_at,
        "leaving": draft.leaving,
        "problem": draft.problem,
        "updated_at": draft.updated_at,
    }


def _mailboxes(visit: Visit, name: str) -> tuple[str, ...]:
    """The addresses of a field. What cannot be read (yet) is kept as it was typed."""
    text = visit.field(name)
    if not text:
        return ()
    try:
        return tuple(written(mailbox) for mailbox in parse_mailbox_list(text))
    except InvalidInput:
        return tuple(one.strip() for one in text.split(",") if one.strip())


def _said(visit: Visit) -> dict[str, Any]:
    text = visit.form.get("text", "")
    return {
        "to": _mailboxes(visit, "to"),
        "cc": _mailboxes(visit, "cc"),
        "bcc": _mailboxes(visit, "bcc"),
        "subject": " ".join(visit.field("subject").split()),
        "text": text.replace("\r\n", "\n") if isinstance(text, str) else "",
    }


def _revision(visit: Visit) -> int:
    text = visit.field("revision")
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidInput("of which revision?", field="revision")
    return int(text)


async def _record(visit: Visit, what: str, draft: Draft, tx: Connection) -> None:
    said = {"revision": draft.revision, "send_at": draft.send_at}
    done = Change(f"draft.{what}", type_id(DRAFT, draft.id), None, said)
    await visit.application.audit.record_many(visit.principal.actor, [done], tx)


@get("/inboxes/{inbox_id:str}/drafts")
async def drafts(visit: Visit, inbox_id: FromPath[str]) -> Response[str]:
    visit.principal.require(scope.INBOXES_READ)
    inbox = await found_inbox(visit, inbox_id)
    found = await visit.application.drafts.list(visit.principal.workspace_id, inbox.id)
    notes = await visit.application.notes.list(visit.principal.workspace_id, inbox.id)
    return visit.page(
        "drafts.html",
        inbox=inbox_view(inbox),
        drafts=[_view(draft) for draft in found],
        notes=[
            {
                "id": type_id(MAILBOX_TEXT, note.id),
                "kind": note.kind,
                "name": note.name,
                "text": note.text,
                "default": note.default,
            }
            for note in notes
        ],
    )


@post("/inboxes/{inbox_id:str}/drafts", status_code=303)
async def begin(visit: Visit, inbox_id: FromPath[str]) -> Response[Any]:
    """A new mail, an answer, a forward, or a template's text."""
    visit.principal.require(scope.INBOXES_WRITE)
    inbox = await found_inbox(visit, inbox_id)
    workspace_id = visit.principal.workspace_id
    mode = next((mode for mode in _MODES if mode == (visit.field("mode") or "new")), None)
    if mode is None:
        raise InvalidInput("no such way to begin", field="mode")
    message, template = visit.field("message"), visit.field("template")
    content = await visit.application.drafts.start(
        workspace_id,
        inbox.id,
        mode,
        parse_type_id(MESSAGE, message, "message") if message else None,
        parse_type_id(MAILBOX_TEXT, template, "template") if template else None,
    )
    async with visit.application.database.transaction() as tx:
        draft = await visit.application.drafts.create(workspace_id, inbox.id, content, tx=tx)
        await _record(visit, "create", draft, tx)
    visit.application.mailboxes.announced()
    return visit.go(f"/inboxes/{inbox_id}/drafts/{type_id(DRAFT, draft.id)}")


@get(_PATH)
async def write(visit: Visit, inbox_id: FromPath[str], draft_id: FromPath[str]) -> Response[str]:
    visit.principal.require(scope.INBOXES_READ)
    inbox = await found_inbox(visit, inbox_id)
    draft = await visit.application.drafts.get(*_ids(visit, inbox_id, draft_id))
    people = await visit.application.mailboxes.people(visit.principal.workspace_id, inbox.id)
    others = [
        _view(one)
        for one in await visit.application.drafts.list(visit.principal.workspace_id, inbox.id)
        if one.id != draft.id
        and (one.conflict_of == draft.id or draft.conflict_of in (one.id, one.conflict_of))
        and (one.conflict_of or draft.conflict_of)
    ]
    return visit.page(
        "draft.html", inbox=inbox_view(inbox), draft=_view(draft), others=others, people=people
    )


@post(_PATH, status_code=303)
async def save(visit: Visit, inbox_id: FromPath[str], draft_id: FromPath[str]) -> Response[Any]:
    """Save. A page that saves by itself is told in JSON where its version lies now."""
    visit.principal.require(scope.INBOXES_WRITE)
    async with visit.application.database.transaction() as tx:
        saved = await visit.application.drafts.save(
            *_ids(visit, inbox_id, draft_id), _revision(visit), _said(visit), tx=tx
        )
        await _record(visit, "save", saved.draft, tx)
    visit.application.mailboxes.announced()
    kept = type_id(DRAFT, saved.draft.id)
    if not visit.field("quietly"):
        return visit.go(f"/inboxes/{inbox_id}/drafts/{kept}", "saved")
    answer = {
        "id": kept,
        "revision": saved.draft.revision,
        "other": None if saved.other is None else type_id(DRAFT, saved.other.id),
    }
    return Response(answer, status_code=200, media_type="application/json")


@post(_PATH + "/send", status_code=303)
async def send(visit: Visit, inbox_id: FromPath[str], draft_id: FromPath[str]) -> Response[Any]:
    """Save what is on the page, and send it if nobody has saved something else meanwhile."""
    visit.principal.require(scope.EMAILS_SEND)
    ids = _ids(visit, inbox_id, draft_id)
    async with visit.application.database.transaction() as tx:
        saved = await visit.application.drafts.save(*ids, _revision(visit), _said(visit), tx=tx)
        if saved.other is None:
            draft = await visit.application.drafts.send(
                *ids, saved.draft.revision, UNDO_S, visit.principal.actor, tx=tx
            )
            await _record(visit, "send", draft, tx)
        else:
            await _record(visit, "save", saved.draft, tx)
    visit.application.mailboxes.announced()
    if saved.other is not None:
        return visit.go(f"/inboxes/{inbox_id}/drafts/{type_id(DRAFT, saved.draft.id)}")
    return visit.go(f"/inboxes/{inbox_id}?sending={draft_id}")


@post(_PATH + "/take-back", status_code=303)
async def take_back(
    visit: Visit, inbox_id: FromPath[str], draft_id: FromPath[str]
) -> Response[Any]:
    visit.principal.require(scope.EMAILS_SEND)
    async with visit.application.database.transaction() as tx:
        draft = await visit.application.drafts.take_back(*_ids(visit, inbox_id, draft_id), tx=tx)
        await _record(visit, "take_back", draft, tx)
    visit.application.mailboxes.announced()
    return visit.go(f"/inboxes/{inbox_id}/drafts/{draft_id}")


@post(_PATH + "/delete", status_code=303)
async def discard(visit: Visit, inbox_id: FromPath[str], draft_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.INBOXES_WRITE)
    async with visit.application.database.transaction() as tx:
        draft = await visit.application.drafts.discard(*_ids(visit, inbox_id, draft_id), tx=tx)
        await _record(visit, "delete", draft, tx)
    visit.application.mailboxes.announced()
    return visit.go(f"/inboxes/{inbox_id}/drafts", "deleted")


@post("/inboxes/{inbox_id:str}/notes", status_code=303)
async def add_note(visit: Visit, inbox_id: FromPath[str]) -> Response[Any]:
    """Keep a template or a signature."""
    visit.principal.require(scope.INBOXES_WRITE)
    kind: NoteKind = "signature" if visit.field("kind") == "signature" else "template"
    words = Words(
        visit.field("name"),
        visit.field("text").replace("\r\n", "\n"),
        visit.field("subject"),
        default=kind == "signature" and bool(visit.field("default")),
    )
    async with visit.application.database.transaction() as tx:
        note = await visit.application.notes.add(
            visit.principal.workspace_id, parse_type_id(INBOX, inbox_id), kind, words, tx=tx
        )
        done = Change("note.create", type_id(MAILBOX_TEXT, note.id), None, {"name": note.name})
        await visit.application.audit.record_many(visit.principal.actor, [done], tx)
    visit.application.mailboxes.announced()
    return visit.go(f"/inboxes/{inbox_id}/drafts", "made")


@post("/inboxes/{inbox_id:str}/notes/{note_id:str}/delete", status_code=303)
async def drop_note(visit: Visit, inbox_id: FromPath[str], note_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.INBOXES_WRITE)
    async with visit.application.database.transaction() as tx:
        note = await visit.application.notes.delete(
            visit.principal.workspace_id,
            parse_type_id(INBOX, inbox_id),
            parse_type_id(MAILBOX_TEXT, note_id),
            tx=tx,
        )
        done = Change("note.delete", note_id, {"name": note.name}, None)
        await visit.application.audit.record_many(visit.principal.actor, [done], tx)
    visit.application.mailboxes.announced()
    return visit.go(f"/inboxes/{inbox_id}/drafts", "deleted")


HANDLERS = [drafts, begin, write, save, send, take_back, discard, add_note, drop_note]
