"""A draft as a value: what it says, whether that fits, and what it becomes when it is sent."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

import asyncpg
import msgspec

from mailyard.core import limits
from mailyard.core.errors import InvalidInput, TooLarge
from mailyard.core.ids import MESSAGE, parse_type_id
from mailyard.mailbox.inbox_value import Inbox
from mailyard.mailbox.reply import check_message_id, headers_of, written
from mailyard.protocol.address import Mailbox
from mailyard.sending.request import Attachment, EmailRequest

Mode = Literal["new", "reply", "reply_all", "forward"]


class SourceFile(msgspec.Struct, frozen=True):
    """A file of a mail in this mailbox that goes along: looked up when the draft is sent."""

    message_id: str
    index: int
    filename: str = ""


class Content(msgspec.Struct, frozen=True):
    """What a draft says. Mailboxes as people write them; message ids without angle brackets."""

    to: tuple[str, ...] = ()
    cc: tuple[str, ...] = ()
    bcc: tuple[str, ...] = ()
    subject: str = ""
    text: str = ""
    html: str = ""
    mode: Mode = "new"
    source: str = ""  # the message that it answers or forwards
    in_reply_to: str = ""
    references: tuple[str, ...] = ()
    files: tuple[SourceFile, ...] = ()
    attachments: tuple[Attachment, ...] = ()


@dataclass(frozen=True, slots=True)
class Draft:
    """A draft. `send_at`: when it leaves, if it was sent; `problem`: why it came back."""

    id: UUID
    inbox_id: UUID
    revision: int
    content: Content
    conflict_of: UUID | None
    send_at: datetime | None
    leaving: bool
    problem: str
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Saved:
    """Where what was saved lies now. `other`: what somebody else had saved meanwhile."""

    draft: Draft
    other: Draft | None = None


class Sent(msgspec.Struct, frozen=True):
    """The payload of a `mailbox-send` job."""

    inbox_id: UUID
    draft_id: UUID
    revision: int
    actor_kind: str
    actor: str


def request_of(inbox: Inbox, content: Content, files: Sequence[Attachment]) -> EmailRequest:
    """The draft as a request to send; `files` are those of mails that it takes along."""
    return EmailRequest(
        sender=written(Mailbox(inbox.name, inbox.address)),
        to=list(content.to),
        cc=list(content.cc),
        bcc=list(content.bcc),
        subject=content.subject,
        html=content.html or None,
        text=content.text or ("" if content.html else "\n"),
        headers=headers_of(content.in_reply_to, content.references),
        attachments=[*files, *content.attachments],
        type="mailbox",
    )


def check(content: Content) -> None:
    """A draft may be unfinished, but it must fit. Raises InvalidInput, TooLarge."""
    for field, texts in (("to", content.to), ("cc", content.cc), ("bcc", content.bcc)):
        if len(texts) > limits.RECIPIENTS_PER_EMAIL:
            raise InvalidInput(f"at most {limits.RECIPIENTS_PER_EMAIL}", field=field)
        for place, text in enumerate(texts):
            if len(text) > limits.HEADER_VALUE_BYTES or not text.isprintable():
                raise InvalidInput("too long, or with control characters", field=f"{field}.{place}")
    if len(content.subject) > limits.SUBJECT_CHARACTERS or not content.subject.isprintable():
        raise InvalidInput("too long, or with control characters", field="subject")
    for field, body in (("text", content.text), ("html", content.html)):
        if len(body.encode("utf-8", "replace")) > limits.BODY_BYTES:
            raise TooLarge(f"longer than {limits.BODY_BYTES} bytes", field=field)
        if "\0" in body:
            raise InvalidInput("NUL is not allowed", field=field)
    if content.in_reply_to:
        check_message_id(content.in_reply_to, "in_reply_to")
    for place, one in enumerate(content.references):
        check_message_id(one, f"references.{place}")
    if len(content.files) + len(content.attachments) > limits.ATTACHMENTS_PER_EMAIL:
        raise InvalidInput(f"at most {limits.ATTACHMENTS_PER_EMAIL} files", field="attachments")
    if sum(len(one.content) for one in content.attachments) > limits.EMAIL_BYTES:
        raise TooLarge(f"more than {limits.EMAIL_BYTES} bytes", field="attachments")
    for place, file in enumerate(content.files):
        parse_type_id(MESSAGE, file.message_id, f"files.{place}.message_id")


def encode(content: Content) -> str:
    """As it is stored: no text column takes NUL."""
    return msgspec.json.encode(content).decode().replace("\\u0000", "")


def draft_of(inbox_id: UUID, row: asyncpg.Record) -> Draft:
    """A row as a draft."""
    return Draft(
        id=row["text_id"],
        inbox_id=inbox_id,
        revision=row["revision"],
        content=msgspec.json.decode(row["content"], type=Content),
        conflict_of=row["conflict_of"],
        send_at=row["send_at"],
        leaving=row["leaving"],
        problem=row["problem"],
        updated_at=row["updated_at"],
    )
