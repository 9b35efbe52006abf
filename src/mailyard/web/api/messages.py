"""Received mail: lists, searches, reading, raw bytes, attachments."""

from datetime import datetime, timedelta
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids, limits
from mailyard.core.errors import InvalidInput, NotFound
from mailyard.mailbox.mailbox_value import Wanted
from mailyard.web.api.message_item import (
    MessageContent,
    MessageDetail,
    MessageItem,
    content_of,
    detail_of,
    item_of,
    line_of,
)
from mailyard.web.api.page import (
    InboxId,
    Input,
    MessageId,
    Moment,
    NextCursor,
    Output,
    PageQuery,
    read_cursor,
    since_epoch,
    write_cursor,
)
from mailyard.web.api.route import Answer, Call, Download, Media, Route

TAG = "Messages"
_Search = Annotated[str, Meta(max_length=limits.SEARCH_CHARACTERS)]


class MessagePage(Output):
    """Messages, newest first."""

    items: list[MessageItem]
    next_cursor: NextCursor


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
                content_of(message.content),
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
