"""Received mail as the API shows it: a line of a list, and a message read."""

from datetime import datetime
from itertools import starmap
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

from msgspec import Meta

from mailyard.core import ids
from mailyard.mailbox.message_value import Content, ReadMessage, Summary
from mailyard.protocol.meaning.finding import Findings
from mailyard.web.api.page import InboxId, MessageId, Moment, Output, ThreadId
from mailyard.web.api.senders import Authentication, authentication_of

if TYPE_CHECKING:
    from mailyard.app import Application


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


def content_of(content: Content) -> MessageContent:
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


async def detail_of(app: "Application", workspace_id: UUID, message: ReadMessage) -> MessageDetail:
    """A message, read, as the API gives it (a wait gives it too). Raises NotFound."""
    summary = message.summary
    return MessageDetail(
        *line_of(summary, ids.type_id(ids.INBOX, summary.inbox_id)),
        reverse_path=message.reverse_path,
        peer=message.peer,
        helo=message.helo,
        content=content_of(message.content),
        authentication=await authentication_of(app, workspace_id, summary.id, summary.inbox_id),
        spam=Spam(message.spam.points, [SpamRule(*rule) for rule in message.spam.fired]),
        meaning=await app.meanings.of(workspace_id, summary.id),
    )
