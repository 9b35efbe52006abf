"""A message as it is shown: a line of a list, what its bytes say, a file, a link."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from mailyard.core.ids import time_of
from mailyard.protocol.mime.calendar_part import CalendarEvent
from mailyard.protocol.mime.message import Attachment
from mailyard.protocol.spam.score import SpamScore


# Values and no cycles: the garbage collector has nothing to find in them.
class Summary(msgspec.Struct, frozen=True, gc=False):
    """One line of an inbox. What it says of the sender stands in headers and proves nothing.
    `expires_at`: its own end, where it has one."""

    id: UUID
    inbox_id: UUID
    recipient: str
    received_at: datetime
    from_address: str
    from_name: str
    subject: str
    preview: str
    sent_at: datetime | None
    header_message_id: str
    size_bytes: int
    attachments: int
    thread_id: UUID
    folder: str
    labels: tuple[str, ...]
    seen: bool
    starred: bool
    expires_at: datetime | None = None


class Page(msgspec.Struct, frozen=True):
    """Newest first. `next_before` goes into the next call's `before`; None at the end."""

    items: list[Summary]
    next_before: UUID | None


class Content(msgspec.Struct, frozen=True, gc=False):
    """What the bytes say: headers in order, decoded; text; HTML; files.

    `html` is sanitised, `remote_images` counts the images that it names and does not load. In a
    batch `html` is None, for sanitising costs ten times the rest. `html_source` is the HTML as it
    was sent: for comparing, never for showing. `traits` (`protocol.mime.trait`) and `events` are
    empty in a batch.
    """

    headers: tuple[tuple[str, str], ...]
    text: str | None
    html: str | None
    html_source: str | None
    remote_images: int
    attachments: tuple[Attachment, ...]
    defects: Sequence[str]
    traits: Sequence[str] = ()
    events: Sequence[CalendarEvent] = ()


class ReadMessage(msgspec.Struct, frozen=True, gc=False):
    """A message as a person reads it, with the envelope it came in, and how much like spam it
    looks."""

    summary: Summary
    reverse_path: str
    peer: str
    helo: str
    content: Content
    spam: SpamScore


class BatchMessage(msgspec.Struct, frozen=True, gc=False):
    """A message of a batch read."""

    summary: Summary
    content: Content


class File(msgspec.Struct, frozen=True):
    """One attachment with its bytes."""

    attachment: Attachment
    content: bytes


class Link(msgspec.Struct, frozen=True):
    """Where a message's bytes can be downloaded by whoever has the address, until when, and what
    proves them. `url` None: they lie where no address leads (a row, a folder)."""

    url: str | None
    expires_at: datetime | None
    sha256: str | None
    size_bytes: int


def summary_of(row: asyncpg.Record) -> Summary:
    """A line as a query gives it that shows how it stands."""
    message_id = row["message_id"]
    return Summary(  # in order, for it is half as dear so
        message_id,
        row["inbox_id"],
        row["recipient"],
        time_of(message_id),
        row["from_address"],
        row["from_name"],
        row["subject"],
        row["preview"],
        row["sent_at"],
        row["header_message_id"],
        row["size_bytes"],
        row["attachments"],
        row["thread_id"],
        row["folder"],
        tuple(row["labels"]),
        row["seen"],
        row["starred"],
        row["expires_at"],
    )
