"""Received mail: lists, searches, reading, raw bytes, attachments."""

from datetime import datetime, timedelta
from itertools import starmap
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids, limits
from mailyard.core.errors import InvalidInput, NotFound
from mailyard.mailbox.mailbox import Wanted
from mailyard.mailbox.message import Content, ReadMessage, Summary
from mailyard.protocol.meaning.finding import Findings
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
    since_epoch,
    write_cursor,
)
from mailyard.web.api.route import Answer, Call, Download, Media, Route
from mailyard.web.api.senders import Authentication, authentication_of

if TYPE_CHECKING:
    from mailyard.app import Application

TAG = "Messages"
_Search = Annotated[str, Meta(max_length=limits.SEARCH_CHARACTERS)]


class MessageItem(Output, gc=False):
    """A message as its inbox lists it. What it says of the sender proves nothing."""

    id: MessageId
    inbox_id: InboxId
    recipient: str
    received_at: Moment
    from_address: str
    from_name: str
    subject: str
    preview: str
    sent_at: Moment | None
    header_message_id: str
    size_bytes: int
    attachments: Annotated[int, Meta(description="How many.")]
    thread_id: ThreadId
    folder: Annotated[str, Meta(description="Where it lies in the mailbox.")]
    labels: list[str]
    read: bool
    starred: bool
    expires_at: Annotated[
        Moment | None, Meta(description="Its own end; null: it lives as its inbox lets it.")
    ]


class MessagePage(Output):
    """Messages, newest first."""

    items: list[MessageItem]
    next_cursor: NextCursor


class Header(Output, gc=False):
    """A header line, decoded."""

    name: str
    value: str


class FileItem(Output, gc=False):
    """An attachment; `index` fetches it."""

    index: int
    file_name: str
    content_type: str
    content_id: Annotated[str, Meta(description="The HTML shows it as `cid:…`; or empty.")]
    size_bytes: int


class EventItem(Output, gc=False):
    """An event of a calendar part, as the part tells of it; empty where it says nothing."""

    method: Annotated[str, Meta(description="What is asked: REQUEST, CANCEL, REPLY, …")]
    uid: str
    summary: str
    location: str
    starts: Annotated[
        str, Meta(description="As written: `20260105T120000Z`, or local to `zone`, or a day.")
    ]
    ends: str
    zone: str
    organizer: str
    status: str


class MessageContent(Output, gc=False):
    """What a message says."""

    headers: list[Header]
    text: str | None
    html: Annotated[
        str | None,
        Meta(
            description="Sanitised: nothing in it acts, remote images are not loaded. Null in a "
            "batch, for it costs ten times the rest."
        ),
    ]
    remote_images: Annotated[int, Meta(description="How many images it names and does not load.")]
    html_source: Annotated[
        str | None, Meta(description="HTML as it was sent: to compare, never to show.")
    ]
    files: list[FileItem]
    defects: Annotated[list[str], Meta(description="What is malformed in it.")]
    traits: Annotated[
        list[str],
        Meta(
            description="What it is besides: smime_signed, smime_encrypted, pgp_signed, "
            "pgp_encrypted, calendar, tnef, report. Recognised, not verified; empty in a batch."
        ),
    ]
    events: Annotated[
        list[EventItem], Meta(description="What an invitation tells; empty in a batch.")
    ]


class SpamRule(Output):
    """A rule that fired."""

    name: str
    points: float


class Spam(Output):
    """How much a message looks like spam, by rules."""

    points: Annotated[float, Meta(description="5 and more is what most would call spam.")]
    rules: Annotated[list[SpamRule], Meta(description="What fired, the heaviest first.")]


class MessageDetail(MessageItem, gc=False):
    """A message, read, with the envelope that it came in."""

    reverse_path: str
    peer: str
    helo: str
    content: MessageContent
    authentication: Annotated[
        Authentication | None, Meta(description="Who sent it. Null until that was found out.")
    ]
    spam: Spam
    meaning: Annotated[
        Findings, Meta(description="What rules find in it: codes, links, the reply, with evidence.")
    ]


class InboxesToRead(Input):
    """Inboxes to read at once."""

    inbox_ids: Annotated[list[InboxId], Meta(min_length=1, max_length=limits.INBOXES_PER_READ)]
    each: Annotated[
        int, Meta(ge=1, le=limits.API_PAGE_ITEMS_MAX, description="Newest messages of each.")
    ] = limits.API_PAGE_ITEMS
    headers: Annotated[
        bool, Meta(description="False: without the headers, where only what a mail says counts.")
    ] = True


class ReadMessageItem(MessageItem, gc=False):
    """A message of a batch, read."""

    content: MessageContent


class ReadMessages(Output):
    """The messages of the inboxes that exist, read."""

    items: list[ReadMessageItem]


class CountQuery(Input):
    """Of which inboxes."""

    label: Annotated[
        str, Meta(max_length=limits.INBOX_LABEL_CHARACTERS, description="Without it: of all.")
    ] = ""


class LinkQuery(Input):
    """For how long."""

    seconds: Annotated[
        int,
        Meta(ge=1, le=int(limits.BLOB_LINK_MAX_S), description="How long the address works."),
    ] = int(limits.BLOB_LINK_S)


class DownloadLink(Output):
    """Where the bytes of a message can be had without a key."""

    url: Annotated[
        str | None,
        Meta(description="null: the bytes lie in the database or in a folder; download `raw`."),
    ]
    expires_at: Moment | None
    sha256: Annotated[
        str | None, Meta(description="Of the bytes; null where they lie in the database.")
    ]
    size_bytes: int


class MessageCount(Output):
    """How many messages lie in them."""

    messages: int


class MessageChange(Input):
    """When a message ends: one of both."""

    ttl_s: (
        Annotated[
            float,
            Meta(ge=1, le=limits.INBOX_TTL_S, description="Seconds from now."),
        ]
        | UnsetType
    ) = UNSET
    expires_at: (
        Annotated[Moment | None, Meta(description="Null: it lives as its inbox lets it.")]
        | UnsetType
    ) = UNSET


class MessageEnd(Output):
    """When a message ends."""

    id: MessageId
    expires_at: Moment | None
    inboxes: Annotated[int, Meta(description="In how many inboxes it lies.")]


class DeletedMessages(Output):
    """How many inbox lines went."""

    deleted: int


class MessagesQuery(PageQuery):
    """Which messages to list. Searches look anywhere in the text, in any case."""

    from_: Annotated[_Search, Meta(description="In the sender's name or address.")] = msgspec.field(
        default="", name="from"
    )
    subject: _Search = ""
    since: Annotated[Moment, Meta(description="Received since.")] | None = None
    until: Annotated[Moment, Meta(description="Received before.")] | None = None
    folder: (
        Annotated[
            str, Meta(min_length=1, max_length=100, description="Without it: wherever they lie.")
        ]
        | None
    ) = None
    label: Annotated[str, Meta(min_length=1, max_length=100)] | None = None
    starred: Annotated[bool, Meta(description="Only those with a star.")] = False
    unread: Annotated[bool, Meta(description="With `folder`: only those nobody has read.")] = False


_Line = tuple[
    str, str, str, datetime, str, str, str, str, datetime | None, str, int, int, str, str,
    list[str], bool, bool, datetime | None,
]  # fmt: skip


def line_of(summary: Summary, inbox_id: str) -> _Line:
    """The fields of a MessageItem in order: a batch makes thousands of them."""
    return (
        ids.type_id(ids.MESSAGE, summary.id),
        inbox_id,
        summary.recipient,
        summary.received_at,
        summary.from_address,
        summary.from_name,
        summary.subject,
        summary.preview,
        summary.sent_at,
        summary.header_message_id,
        summary.size_bytes,
        summary.attachments,
        ids.type_id(ids.THREAD, summary.thread_id),
        summary.folder,
        list(summary.labels),
        summary.seen,
        summary.starred,
        summary.expires_at,
    )


def item_of(summary: Summary) -> MessageItem:
    """A message as its inbox lists it."""
    return MessageItem(*line_of(summary, ids.type_id(ids.INBOX, summary.inbox_id)))


def _content(content: Content) -> MessageContent:
    return MessageContent(
        headers=list(starmap(Header, content.headers)),
        text=content.text,
        html=content.html,
        remote_images=content.remote_images,
        html_source=content.html_source,
        files=[
            FileItem(
                index=index,
                file_name=file.filename,
                content_type=file.content_type,
                content_id=file.content_id,
                size_bytes=file.size_bytes,
            )
            for index, file in enumerate(content.attachments)
        ],
        defects=list(content.defects),
        traits=list(content.traits),
        events=[EventItem(*event) for event in content.events],
    )


async def list_messages(call: Call[None, MessagesQuery]) -> MessagePage:
    query = call.query
    if query.folder is not None or query.label is not None or query.starred or query.unread:
        return await _list_where(call)
    inbox_id = ids.type_id(ids.INBOX, call.ids["inbox_id"])
    page = await call.app.messages.list(
        call.workspace_id,
        call.ids["inbox_id"],
        from_=query.from_,
        subject=query.subject,
        since=since_epoch(query.since),
        until=since_epoch(query.until),
        before=read_cursor(query.cursor),
        limit=query.limit,
    )
    return MessagePage(
        items=[MessageItem(*line_of(summary, inbox_id)) for summary in page.items],
        next_cursor=write_cursor(page.next_before),
    )


async def _list_where(call: Call[None, MessagesQuery]) -> MessagePage:
    """The mails of a folder, with a label, or with a star: one of these, and nothing else."""
    query = call.query
    ways = [query.folder is not None, query.label is not None, query.starred]
    searched = (query.from_, query.subject, query.since, query.until) != ("", "", None, None)
    if sum(ways) != 1 or searched:
        raise InvalidInput(
            "one of folder, label and starred, without from, subject, since and until; to combine "
            "them, search",
            field="unread" if not any(ways) else "folder",
        )
    if query.unread and query.folder is None:
        raise InvalidInput("unread is for a folder", field="unread")
    page = await call.app.mailboxes.list(
        call.workspace_id,
        call.ids["inbox_id"],
        Wanted(query.folder or "", query.label or "", query.starred, query.unread),
        before=read_cursor(query.cursor),
        limit=query.limit,
    )
    return MessagePage(
        items=[item_of(line.summary) for line in page.items],
        next_cursor=write_cursor(page.next_before),
    )


async def detail_of(app: "Application", workspace_id: UUID, message: ReadMessage) -> MessageDetail:
    """A message, read, as the API gives it (a wait gives it too). Raises NotFound."""
    summary = message.summary
    return MessageDetail(
        *line_of(summary, ids.type_id(ids.INBOX, summary.inbox_id)),
        reverse_path=message.reverse_path,
        peer=message.peer,
        helo=message.helo,
        content=_content(message.content),
        authentication=await authentication_of(app, workspace_id, summary.id, summary.inbox_id),
        spam=Spam(message.spam.points, [SpamRule(*rule) for rule in message.spam.fired]),
        meaning=await app.meanings.of(workspace_id, summary.id),
    )


async def get_message(call: Call[None, None]) -> MessageDetail:
    message = await call.app.messages.read(call.workspace_id, call.ids["message_id"])
    return await detail_of(call.app, call.workspace_id, message)


async def get_raw(call: Call[None, None]) -> Download:
    message_id = call.ids["message_id"]
    raw = await call.app.messages.raw(call.workspace_id, message_id)
    return Download(raw, "message/rfc822", f"{ids.type_id(ids.MESSAGE, message_id)}.eml")


async def get_link(call: Call[None, LinkQuery]) -> DownloadLink:
    seconds = call.query.seconds
    link = await call.app.messages.link(call.workspace_id, call.ids["message_id"], seconds)
    return DownloadLink(link.url, link.expires_at, link.sha256, link.size_bytes)


async def get_attachment(call: Call[None, None]) -> Download:
    text = call.names["index"]
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise NotFound("no such attachment")
    file = await call.app.messages.attachment(call.workspace_id, call.ids["message_id"], int(text))
    # The type that the mail claims is in `content_type` of the message; the download is bytes, so
    # that no browser ever renders what a stranger has sent under our name.
    name = file.attachment.filename or f"attachment-{text}"
    return Download(file.content, "application/octet-stream", name)


async def change_message(call: Call[MessageChange, None]) -> Answer:
    body, message_id = call.body, call.ids["message_id"]
    if isinstance(body.ttl_s, UnsetType) == isinstance(body.expires_at, UnsetType):
        raise InvalidInput("either ttl_s or expires_at", field="ttl_s")
    if not isinstance(body.ttl_s, UnsetType):
        wanted: datetime | None = call.app.clock.now() + timedelta(seconds=body.ttl_s)
    else:
        wanted = None if isinstance(body.expires_at, UnsetType) else body.expires_at
    summary = (await call.app.messages.read(call.workspace_id, message_id)).summary
    async with call.app.database.transaction() as tx:
        ending = await call.app.endings.set(call.workspace_id, message_id, wanted, tx)
        subject = ids.type_id(ids.MESSAGE, message_id)
        before = {"expires_at": summary.expires_at}
        changed = Change("message.end", subject, before, {"expires_at": ending.expires_at})
        end = MessageEnd(id=subject, expires_at=ending.expires_at, inboxes=ending.inboxes)
        return await call.done(tx, end, changed)


async def delete_message(call: Call[None, None]) -> Answer:
    message_id = call.ids["message_id"]
    async with call.app.database.transaction() as tx:
        deleted = await call.app.messages.delete(call.workspace_id, [message_id], tx=tx)
        if not deleted:
            raise NotFound("no such message")
        subject = ids.type_id(ids.MESSAGE, message_id)
        gone = Change("message.delete", subject, {"inboxes": deleted}, None)
        return await call.done(tx, DeletedMessages(deleted=deleted), gone)


async def read_inboxes(call: Call[InboxesToRead, None]) -> ReadMessages:
    texts = {ids.parse_type_id(ids.INBOX, text, "inbox_ids"): text for text in call.body.inbox_ids}
    found = await call.app.messages.read_inboxes(
        call.workspace_id, list(texts), each=call.body.each, headers=call.body.headers
    )
    return ReadMessages(
        items=[
            ReadMessageItem(
                *line_of(message.summary, texts[message.summary.inbox_id]),
                _content(message.content),
            )
            for message in found
        ]
    )


async def count_messages(call: Call[None, CountQuery]) -> MessageCount:
    return MessageCount(messages=await call.app.messages.count(call.workspace_id, call.query.label))


ROUTES = (
    Route(
        "GET",
        "/v1/messages/count",
        count_messages,
        "countMessages",
        TAG,
        "Count the mail in inboxes",
        scope.INBOXES_READ,
        answer=MessageCount,
        query=CountQuery,
    ),
    Route(
        "POST",
        "/v1/inboxes/read",
        read_inboxes,
        "readInboxes",
        TAG,
        "Read the mail of many inboxes",
        scope.INBOXES_READ,
        answer=ReadMessages,
        body=InboxesToRead,
        idempotency="none",
        description="413 when the mail is more than one answer holds: ask for fewer inboxes.",
    ),
    Route(
        "GET",
        "/v1/inboxes/{inbox_id:ibx}/messages",
        list_messages,
        "listMessages",
        TAG,
        "List or search an inbox's mail",
        scope.INBOXES_READ,
        answer=MessagePage,
        query=MessagesQuery,
    ),
    Route(
        "GET",
        "/v1/messages/{message_id:msg}",
        get_message,
        "getMessage",
        TAG,
        "Read a message",
        scope.INBOXES_READ,
        answer=MessageDetail,
    ),
    Route(
        "GET",
        "/v1/messages/{message_id:msg}/raw",
        get_raw,
        "getRawMessage",
        TAG,
        "Download a message as it came",
        scope.INBOXES_READ,
        answer=Media("message/rfc822", "The bytes as they came, after our trace line."),
    ),
    Route(
        "GET",
        "/v1/messages/{message_id:msg}/link",
        get_link,
        "getMessageLink",
        TAG,
        "An address to download a message from its store",
        scope.INBOXES_READ,
        answer=DownloadLink,
        query=LinkQuery,
        description="Whoever has the address can download the message until it expires: large "
        "mail comes straight out of the object store then, and not through this server.",
    ),
    Route(
        "GET",
        "/v1/messages/{message_id:msg}/attachments/{index}",
        get_attachment,
        "getAttachment",
        TAG,
        "Download an attachment",
        scope.INBOXES_READ,
        answer=Media("application/octet-stream", "The attachment's bytes."),
    ),
    Route(
        "PATCH",
        "/v1/messages/{message_id:msg}",
        change_message,
        "changeMessage",
        TAG,
        "Say when a message ends",
        scope.INBOXES_WRITE,
        answer=MessageEnd,
        body=MessageChange,
        description="In all inboxes of the workspace that have it. From that instant nothing shows "
        "it, and its bytes leave. It never outlives what its inbox lets its mail live.",
    ),
    Route(
        "DELETE",
        "/v1/messages/{message_id:msg}",
        delete_message,
        "deleteMessage",
        TAG,
        "Delete a message from all inboxes",
        scope.INBOXES_WRITE,
        answer=DeletedMessages,
    ),
)
