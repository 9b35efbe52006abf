"""Drafts: written, saved by revision, sent with time to take it back."""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids, limits
from mailyard.mailbox import draft as drafts
from mailyard.mailbox.draft_value import Draft, Mode, SourceFile
from mailyard.web.api.emails import AttachmentItem, NewAttachment
from mailyard.web.api.mailboxes import mailbox_of
from mailyard.web.api.page import DraftId, InboxId, Input, MailboxTextId, MessageId, Moment, Output
from mailyard.web.api.route import Answer, Call, Route

TAG = "Drafts"

_To = Annotated[
    list[Annotated[str, Meta(max_length=1000)]], Meta(max_length=limits.RECIPIENTS_PER_EMAIL)
]
_Subject = Annotated[str, Meta(max_length=limits.SUBJECT_CHARACTERS)]
_Body = Annotated[str, Meta(max_length=limits.BODY_BYTES)]
_Revision = Annotated[int, Meta(ge=1, le=2**62, description="The revision that it was made from.")]


class FileOfMail(Input):
    """A file of a mail in this inbox that goes along."""

    message_id: MessageId
    index: Annotated[int, Meta(ge=0, le=10_000)]
    filename: Annotated[str, Meta(max_length=255)] = ""


class DraftChange(Input):
    """What a draft says. What is left out stays as it is."""

    to: _To | UnsetType = UNSET
    cc: _To | UnsetType = UNSET
    bcc: _To | UnsetType = UNSET
    subject: _Subject | UnsetType = UNSET
    text: _Body | UnsetType = UNSET
    html: _Body | UnsetType = UNSET
    files: Annotated[list[FileOfMail], Meta(max_length=50)] | UnsetType = UNSET
    attachments: Annotated[list[NewAttachment], Meta(max_length=50)] | UnsetType = UNSET


class NewDraft(DraftChange):
    """A draft to begin: empty, or as an answer to a mail or its forward. What is said here stands
    in the place of what it would begin with."""

    mode: Mode = "new"
    message_id: Annotated[MessageId, Meta(description="Which mail is answered.")] | None = None
    template_id: MailboxTextId | None = None


class DraftVersion(DraftChange, kw_only=True):
    """What is saved."""

    revision: _Revision


class DraftSending(Input):
    """How a draft is sent."""

    revision: _Revision
    undo_s: Annotated[
        float,
        Meta(
            ge=0,
            le=drafts.UNDO_S_MAX,
            description="For so many seconds it waits and can be taken back.",
        ),
    ] = 10.0


class DraftItem(Output):
    """A draft."""

    id: DraftId
    inbox_id: InboxId
    revision: int
    mode: str
    message_id: Annotated[MessageId | None, Meta(description="The mail that it answers.")]
    to: list[str]
    cc: list[str]
    bcc: list[str]
    subject: str
    text: str
    html: str
    files: list[FileOfMail]
    attachments: list[AttachmentItem]
    conflict_of: Annotated[
        DraftId | None, Meta(description="The draft that this is another version of.")
    ]
    send_at: Annotated[Moment | None, Meta(description="When it leaves; null while written.")]
    problem: Annotated[str, Meta(description="Why it could not be sent, when it was.")]
    updated_at: Moment


class SavedDraft(Output):
    """What was saved. `other`: somebody had saved before; theirs is kept too, and `draft` is now a
    version of its own."""

    draft: DraftItem
    other: DraftItem | None


class Drafts(Output):
    """All drafts of an inbox, the newest first."""

    items: list[DraftItem]


def item_of(draft: Draft) -> DraftItem:
    content = draft.content
    return DraftItem(
        id=ids.type_id(ids.DRAFT, draft.id),
        inbox_id=ids.type_id(ids.INBOX, draft.inbox_id),
        revision=draft.revision,
        mode=content.mode,
        message_id=content.source or None,
        to=list(content.to),
        cc=list(content.cc),
        bcc=list(content.bcc),
        subject=content.subject,
        text=content.text,
        html=content.html,
        files=[
            FileOfMail(message_id=file.message_id, index=file.index, filename=file.filename)
            for file in content.files
        ],
        attachments=[
            AttachmentItem(
                filename=one.filename,
                content_type=one.content_type,
                size_bytes=len(one.content),
            )
            for one in content.attachments
        ],
        conflict_of=None
        if draft.conflict_of is None
        else ids.type_id(ids.DRAFT, draft.conflict_of),
        send_at=draft.send_at,
        problem=draft.problem,
        updated_at=draft.updated_at,
    )


def _said(body: DraftChange) -> dict[str, Any]:
    """The fields that are there, as a draft's content keeps them."""
    said: dict[str, Any] = {}
    for name in ("to", "cc", "bcc", "subject", "text", "html", "attachments"):
        value = getattr(body, name)
        if value is not UNSET:
            said[name] = tuple(value) if isinstance(value, list) else value
    if not isinstance(body.files, UnsetType):
        said["files"] = tuple(
            SourceFile(file.message_id, file.index, file.filename) for file in body.files
        )
    return said


def _change(call: Call[Any, Any], what: str, draft: Draft) -> Change:
    """A change for the audit log: that it was, and its revision; not what was written."""
    said = {
        "inbox": ids.type_id(ids.INBOX, call.ids["inbox_id"]),
        "revision": draft.revision,
        "send_at": draft.send_at,
    }
    return Change(f"draft.{what}", ids.type_id(ids.DRAFT, draft.id), None, said)


async def create_draft(call: Call[NewDraft, None]) -> Answer:
    body = call.body
    content = await call.app.drafts.start(
        *mailbox_of(call),
        body.mode,
        None
        if body.message_id is None
        else ids.parse_type_id(ids.MESSAGE, body.message_id, "message_id"),
        None
        if body.template_id is None
        else ids.parse_type_id(ids.MAILBOX_TEXT, body.template_id, "template_id"),
    )
    content = msgspec.structs.replace(content, **_said(body))
    async with call.app.database.transaction() as tx:
        draft = await call.app.drafts.create(*mailbox_of(call), content, tx=tx)
        answer = await call.done(tx, item_of(draft), _change(call, "create", draft))
    call.app.mailboxes.announced()
    return answer


async def list_drafts(call: Call[None, None]) -> Drafts:
    return Drafts(items=[item_of(one) for one in await call.app.drafts.list(*mailbox_of(call))])


async def get_draft(call: Call[None, None]) -> DraftItem:
    return item_of(await call.app.drafts.get(*mailbox_of(call), call.ids["draft_id"]))


async def save_draft(call: Call[DraftVersion, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        saved = await call.app.drafts.save(
            *mailbox_of(call), call.ids["draft_id"], call.body.revision, _said(call.body), tx=tx
        )
        result = SavedDraft(
            draft=item_of(saved.draft),
            other=None if saved.other is None else item_of(saved.other),
        )
        answer = await call.done(tx, result, _change(call, "save", saved.draft))
    call.app.mailboxes.announced()
    return answer


async def delete_draft(call: Call[None, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        gone = await call.app.drafts.discard(*mailbox_of(call), call.ids["draft_id"], tx=tx)
        answer = await call.done(tx, None, _change(call, "delete", gone))
    call.app.mailboxes.announced()
    return answer


async def send_draft(call: Call[DraftSending, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        draft = await call.app.drafts.send(
            *mailbox_of(call),
            call.ids["draft_id"],
            call.body.revision,
            call.body.undo_s,
            call.principal.actor,
            tx=tx,
        )
        answer = await call.done(tx, item_of(draft), _change(call, "send", draft))
    call.app.mailboxes.announced()
    return answer


async def take_back(call: Call[None, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        draft = await call.app.drafts.take_back(*mailbox_of(call), call.ids["draft_id"], tx=tx)
        answer = await call.done(tx, item_of(draft), _change(call, "take_back", draft))
    call.app.mailboxes.announced()
    return answer


_BOX = "/v1/inboxes/{inbox_id:ibx}"
_DRAFT = f"{_BOX}/drafts/{{draft_id:dft}}"
_LARGE = 40 * limits.MIB

ROUTES = (
    Route(
        "POST",
        f"{_BOX}/drafts",
        create_draft,
        "createDraft",
        TAG,
        "Begin a draft: a new mail, an answer, a forward",
        scope.INBOXES_WRITE,
        status=201,
        answer=DraftItem,
        body=NewDraft,
        body_bytes=_LARGE,
    ),
    Route(
        "GET",
        f"{_BOX}/drafts",
        list_drafts,
        "listDrafts",
        TAG,
        "List drafts",
        scope.INBOXES_READ,
        answer=Drafts,
    ),
    Route(
        "GET",
        _DRAFT,
        get_draft,
        "getDraft",
        TAG,
        "Read a draft",
        scope.INBOXES_READ,
        answer=DraftItem,
    ),
    Route(
        "PUT",
        _DRAFT,
        save_draft,
        "saveDraft",
        TAG,
        "Save a draft",
        scope.INBOXES_WRITE,
        answer=SavedDraft,
        body=DraftVersion,
        body_bytes=_LARGE,
        errors=(409,),
        description="When somebody has saved since `revision`, both versions are kept: yours as a "
        "draft of its own, which the answer names.",
    ),
    Route(
        "DELETE",
        _DRAFT,
        delete_draft,
        "deleteDraft",
        TAG,
        "Delete a draft",
        scope.INBOXES_WRITE,
        status=204,
        errors=(409,),
    ),
    Route(
        "POST",
        f"{_DRAFT}/send",
        send_draft,
        "sendDraft",
        TAG,
        "Send a draft, with time to take it back",
        scope.EMAILS_SEND,
        status=202,
        answer=DraftItem,
        body=DraftSending,
        errors=(409,),
    ),
    Route(
        "POST",
        f"{_DRAFT}/take-back",
        take_back,
        "takeBackDraft",
        TAG,
        "Take back a draft that has not left",
        scope.EMAILS_SEND,
        answer=DraftItem,
        errors=(409,),
    ),
)
