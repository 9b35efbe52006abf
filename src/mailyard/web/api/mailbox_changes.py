"""What is done to the mail of a mailbox, taken back, and followed by its number."""

# ruff: noqa: RUF012 (msgspec copies a default that is a list or an object)

from typing import Annotated, Any

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids, limits
from mailyard.mailbox import mailbox, state
from mailyard.mailbox.mailbox_value import Changed
from mailyard.mailbox.state import Act, Verb
from mailyard.web.api.mailboxes import TAG, Name, mailbox_of
from mailyard.web.api.page import Input, MessageId, Moment, Output, ThreadId
from mailyard.web.api.route import Answer, Call, Route

_Seq = Annotated[int, Meta(ge=0, description="The number of a change: from 1, without gaps.")]


class Action(Input):
    """Something done to mails, and to all mails of threads."""

    action: Annotated[
        Verb,
        Meta(description="`mute` and `unmute` are always of whole threads; `wake` ends a snooze."),
    ]
    message_ids: Annotated[list[MessageId], Meta(max_length=mailbox.LINES_PER_CHANGE)] = []
    thread_ids: Annotated[list[ThreadId], Meta(max_length=mailbox.LINES_PER_CHANGE)] = []
    folder: Annotated[str, Meta(max_length=100, description="Of a move.")] = ""
    labels: Annotated[
        list[Name],
        Meta(max_length=state.LABELS_PER_LINE, description="Of label and unlabel."),
    ] = []
    until: Annotated[Moment, Meta(description="Of a snooze.")] | None = None


class Undo(Input):
    """Which change to take back."""

    seq: Annotated[int, Meta(ge=1, le=2**62, description="The number that the change answered.")]


class ActionResult(Output):
    """What was changed. `seq` takes it back (`undo`); null when nothing was to be done."""

    seq: int | None
    message_ids: list[MessageId]


class ChangeItem(Output):
    """One change of the mailbox."""

    seq: _Seq
    at: Moment
    kind: Annotated[
        str,
        Meta(
            description="`message.arrived`, `message.sent`, `messages.deleted`, `lines.changed`, "
            "`thread.joined`, `names.changed`, `draft.…`, `note.…`"
        ),
    ]
    item: Annotated[
        dict[str, Any],
        Meta(description="Ids and states, before and after; never what a mail says."),
    ]


class ChangePage(Output):
    """Changes in order. None beyond `seq` were there: go on with `after` = the last one's `seq`."""

    items: list[ChangeItem]
    more: Annotated[bool, Meta(description="Whether to ask again at once.")]


class ChangesQuery(Input):
    """From where on."""

    after: Annotated[
        int, Meta(ge=0, le=2**62, description="The last number that you have seen.")
    ] = 0
    limit: Annotated[int, Meta(ge=1, le=mailbox.EVENTS_PER_PAGE)] = limits.API_PAGE_ITEMS


def _result(changed: Changed) -> ActionResult:
    return ActionResult(
        seq=changed.seq,
        message_ids=[ids.type_id(ids.MESSAGE, one) for one in changed.message_ids],
    )


async def act(call: Call[Action, None]) -> Answer:
    body = call.body
    async with call.app.database.transaction() as tx:
        changed = await call.app.mailboxes.change(
            *mailbox_of(call),
            Act(body.action, body.folder, tuple(body.labels), body.until),
            message_ids=[
                ids.parse_type_id(ids.MESSAGE, one, f"message_ids.{place}")
                for place, one in enumerate(body.message_ids)
            ],
            thread_ids=[
                ids.parse_type_id(ids.THREAD, one, f"thread_ids.{place}")
                for place, one in enumerate(body.thread_ids)
            ],
            tx=tx,
        )
        said = {"mails": len(changed.message_ids), "seq": changed.seq}
        subject = ids.type_id(ids.INBOX, call.ids["inbox_id"])
        done = Change(f"mailbox.{body.action}", subject, None, said)
        answer = await call.done(tx, _result(changed), done)
    call.app.mailboxes.announced()
    return answer


async def undo(call: Call[Undo, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        changed = await call.app.mailboxes.undo(*mailbox_of(call), call.body.seq, tx=tx)
        said = {"of": call.body.seq, "mails": len(changed.message_ids), "seq": changed.seq}
        subject = ids.type_id(ids.INBOX, call.ids["inbox_id"])
        done = Change("mailbox.undo", subject, None, said)
        answer = await call.done(tx, _result(changed), done)
    call.app.mailboxes.announced()
    return answer


async def list_changes(call: Call[None, ChangesQuery]) -> ChangePage:
    query = call.query
    found = await call.app.mailboxes.events(*mailbox_of(call), query.after, query.limit)
    return ChangePage(
        items=[
            ChangeItem(seq=event.seq, at=event.at, kind=event.kind, item=event.item)
            for event in found
        ],
        more=len(found) >= query.limit,
    )


ROUTES = (
    Route(
        "POST",
        "/v1/inboxes/{inbox_id:ibx}/actions",
        act,
        "changeMessages",
        TAG,
        "Move, label, star, read, snooze or mute mail",
        scope.INBOXES_WRITE,
        answer=ActionResult,
        body=Action,
        description="What is not there is passed over. The answer's `seq` takes it back.",
    ),
    Route(
        "POST",
        "/v1/inboxes/{inbox_id:ibx}/undo",
        undo,
        "undoChange",
        TAG,
        "Take back what was done to mail",
        scope.INBOXES_WRITE,
        answer=ActionResult,
        body=Undo,
        errors=(409,),
        description="Of each mail what nobody has changed since. An undo can be undone.",
    ),
    Route(
        "GET",
        "/v1/inboxes/{inbox_id:ibx}/changes",
        list_changes,
        "listChanges",
        TAG,
        "Follow the changes of a mailbox",
        scope.INBOXES_READ,
        answer=ChangePage,
        query=ChangesQuery,
        description="Numbers have no gaps: whoever has seen a change has seen all before it. The "
        "live event `mailbox.changed` says when there is something to read, and up to where.",
    ),
)
