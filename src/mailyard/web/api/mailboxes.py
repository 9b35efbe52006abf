"""Mailboxes: folders, labels, threads, people."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids, limits
from mailyard.mailbox import mailbox, state
from mailyard.mailbox.mailbox_value import Line, Wanted
from mailyard.web.api.message_item import MessageItem, item_of
from mailyard.web.api.page import (
    InboxId,
    Input,
    MessageId,
    Moment,
    NextCursor,
    Output,
    PageQuery,
    ThreadId,
    read_cursor,
    write_cursor,
)
from mailyard.web.api.route import Answer, Call, Route

TAG = "Mailboxes"

Name = Annotated[str, Meta(min_length=1, max_length=state.FOLDER_CHARACTERS)]
_Names = Annotated[list[Name], Meta(max_length=state.NAMES_PER_MAILBOX)]


class FolderItem(Output):
    """A folder, and how much in it nobody has read."""

    name: str
    unread: Annotated[
        int, Meta(description=f"Counted up to {mailbox.UNSEEN_COUNTED}: more is that, too.")
    ]


class MailboxItem(Output):
    """The mailbox of an inbox."""

    inbox_id: InboxId
    seq: Annotated[int, Meta(description="The last change's number: follow `changes` from here.")]
    folders: list[FolderItem]
    labels: Annotated[list[str], Meta(description="That have been used.")]


class MailboxChange(Input):
    """Folders and labels to offer. What is left out stays as it is."""

    folders: Annotated[
        _Names | None, Meta(description="Of its own; one that has mail cannot go.")
    ] = None
    labels: _Names | None = None


class ThreadItem(Output):
    """A conversation as a folder lists it: its newest mail there."""

    id: ThreadId
    mails: Annotated[int, Meta(description="How many it has, in all folders.")]
    muted: bool
    newest: MessageItem


class ThreadPage(Output):
    """Threads, the one with the newest mail first."""

    items: list[ThreadItem]
    next_cursor: NextCursor


class ThreadLine(MessageItem):
    """A mail of a thread."""

    muted: bool
    snoozed_until: Moment | None


class Thread(Output):
    """A conversation, oldest mail first."""

    id: ThreadId
    messages: list[ThreadLine]


class ThreadsQuery(PageQuery):
    """Which threads."""

    folder: Name = state.INBOX
    unread: Annotated[bool, Meta(description="Only those with a mail that nobody has read.")] = (
        False
    )


class PersonItem(Output):
    """Somebody whom the mailbox has mail from, or has written to."""

    address: str
    name: str
    mails: int
    last_message_id: MessageId


class People(Output):
    """The latest first."""

    items: list[PersonItem]


class PeopleQuery(Input):
    """Whom."""

    text: Annotated[str, Meta(max_length=200, description="In the name or the address.")] = ""
    limit: Annotated[int, Meta(ge=1, le=limits.API_PAGE_ITEMS_MAX)] = 50


def mailbox_of(call: Call[Any, Any]) -> tuple[UUID, UUID]:
    """The workspace and the inbox of a path below an inbox."""
    return call.workspace_id, call.ids["inbox_id"]


async def _mailbox(call: Call[Any, Any]) -> MailboxItem:
    found = await call.app.mailboxes.overview(*mailbox_of(call))
    return MailboxItem(
        inbox_id=ids.type_id(ids.INBOX, call.ids["inbox_id"]),
        seq=found.seq,
        folders=[FolderItem(name=name, unread=found.unseen[name]) for name in found.folders],
        labels=list(found.labels),
    )


async def get_mailbox(call: Call[None, None]) -> MailboxItem:
    return await _mailbox(call)


async def change_mailbox(call: Call[MailboxChange, None]) -> Answer:
    body = call.body
    before = await call.app.mailboxes.overview(*mailbox_of(call))
    async with call.app.database.transaction() as tx:
        await call.app.mailboxes.name(
            *mailbox_of(call), folders=body.folders, labels=body.labels, tx=tx
        )
        said = {"folders": before.folders, "labels": before.labels}
        changed = Change(
            "mailbox.change",
            ids.type_id(ids.INBOX, call.ids["inbox_id"]),
            said,
            {
                name: value
                for name, value in msgspec.structs.asdict(body).items()
                if value is not None
            },
        )
        answer = await call.done(tx, None, changed)
    call.app.mailboxes.announced()
    return answer


def _thread_item(line: Line) -> ThreadItem:
    return ThreadItem(
        id=ids.type_id(ids.THREAD, line.thread_id),
        mails=line.mails,
        muted=line.state.muted,
        newest=item_of(line.summary),
    )


async def list_threads(call: Call[None, ThreadsQuery]) -> ThreadPage:
    query = call.query
    page = await call.app.mailboxes.list(
        *mailbox_of(call),
        Wanted(folder=query.folder, unread=query.unread, threads=True),
        before=read_cursor(query.cursor),
        limit=query.limit,
    )
    return ThreadPage(
        items=[_thread_item(line) for line in page.items],
        next_cursor=write_cursor(page.next_before),
    )


async def get_thread(call: Call[None, None]) -> Thread:
    lines = await call.app.mailboxes.thread(*mailbox_of(call), call.ids["thread_id"])
    return Thread(
        id=ids.type_id(ids.THREAD, lines[0].thread_id),
        messages=[
            ThreadLine(
                **msgspec.structs.asdict(item_of(line.summary)),
                muted=line.state.muted,
                snoozed_until=line.state.snoozed_until,
            )
            for line in lines
        ],
    )


async def list_people(call: Call[None, PeopleQuery]) -> People:
    found = await call.app.mailboxes.people(*mailbox_of(call), call.query.text, call.query.limit)
    return People(
        items=[
            PersonItem(
                address=person.address,
                name=person.name,
                mails=person.mails,
                last_message_id=ids.type_id(ids.MESSAGE, person.newest),
            )
            for person in found
        ]
    )


_BOX = "/v1/inboxes/{inbox_id:ibx}"

ROUTES = (
    Route(
        "GET",
        f"{_BOX}/mailbox",
        get_mailbox,
        "getMailbox",
        TAG,
        "Read a mailbox: its folders, labels and last change",
        scope.INBOXES_READ,
        answer=MailboxItem,
    ),
    Route(
        "PATCH",
        f"{_BOX}/mailbox",
        change_mailbox,
        "changeMailbox",
        TAG,
        "Set the folders and labels that a mailbox offers",
        scope.INBOXES_WRITE,
        status=204,
        body=MailboxChange,
        errors=(409,),
    ),
    Route(
        "GET",
        f"{_BOX}/threads",
        list_threads,
        "listThreads",
        TAG,
        "List a folder by threads",
        scope.INBOXES_READ,
        answer=ThreadPage,
        query=ThreadsQuery,
    ),
    Route(
        "GET",
        f"{_BOX}/threads/{{thread_id:thr}}",
        get_thread,
        "getThread",
        TAG,
        "List the mails of a thread",
        scope.INBOXES_READ,
        answer=Thread,
        description="A thread that has become part of another is found by its former id.",
    ),
    Route(
        "GET",
        f"{_BOX}/people",
        list_people,
        "listPeople",
        TAG,
        "List whom a mailbox has mail from or has written to",
        scope.INBOXES_READ,
        answer=People,
        query=PeopleQuery,
        description=f"Among its newest {mailbox.PEOPLE_MAILS} mails.",
    ),
)
