"""A received mail, read: headers, addresses, bodies, attachments. `parse` never raises.

The raw bytes are kept and never re-serialised: parts are offsets into them, and content is decoded
when it is asked for.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from mailyard.protocol.address import Mailbox
from mailyard.protocol.mime import body, charset, transfer
from mailyard.protocol.mime.address_list import parse_addresses
from mailyard.protocol.mime.calendar_part import CalendarEvent, events_of
from mailyard.protocol.mime.date import parse_date
from mailyard.protocol.mime.encoded_word import decode_words
from mailyard.protocol.mime.flowed import unflow
from mailyard.protocol.mime.parameter import clean_name, file_name
from mailyard.protocol.mime.structure import Part, Reading
from mailyard.protocol.mime.trait import is_calendar, traits_of
from mailyard.protocol.mime.uuencoded import UuFile, content_of, uu_files_of

_NAMES = {  # of what comes without one
    "message/rfc822": "message.eml",
    "message/global": "message.eml",
    "text/calendar": "invite.ics",
    "application/ms-tnef": "winmail.dat",
    "application/vnd.ms-tnef": "winmail.dat",
}
_UNKNOWN = "application/octet-stream"
_MESSAGE_IDS = 1_000  # of one References header
_BREAK = re.compile(r"\r?\n")
_UNSTORABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
MESSAGE_ID = re.compile(r"<([^<>\s]{1,998})>")


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file beside the text. `index` counts from 0; `content_id` is without angle brackets."""

    filename: str
    content_type: str
    content_id: str
    disposition: str  # attachment or inline
    size_bytes: int  # decoded
    index: int


class Message:
    """One parsed mail. Everything is read-only and computed on first use."""

    __slots__ = (
        "_attachments", "_bodies", "_headers", "_html", "_reading", "_text", "raw", "root",
    )  # fmt: skip

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self._reading = Reading(raw)
        self.root: Part = self._reading.read()
        self._headers: tuple[tuple[str, str], ...] | None = None
        self._bodies: body.Bodies | None = None
        self._attachments: tuple[Attachment, ...] | None = None
        self._text: str | None = None
        self._html: str | None = None

    @property
    def defects(self) -> Sequence[str]:
        """What was wrong, each kind once: `unclosed_multipart`, `bad_base64`, …"""
        return tuple(self._reading.defects)

    @property
    def work_units(self) -> int:
        """Bytes looked at so far."""
        return self._reading.work_units

    # Headers ---------------------------------------------------------------------------------

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """(name as sent, decoded value) in order."""
        if self._headers is None:
            self._headers = tuple([(name, readable(value)) for name, value in self.root.fields])
        return self._headers

    def header(self, name: str) -> str | None:
        """The first header of that name (any case), decoded; None when absent."""
        value = self.root.field(name.lower())
        return None if value is None else readable(value)

    def _raw_header(self, lower_name: str) -> str:
        return self.root.field(lower_name) or ""

    def _everybody(self, lower_name: str) -> list[Mailbox]:
        """The mailboxes of all fields of that name: one is allowed, and some send several."""
        values = [value for name, value in self.root.fields if name.lower() == lower_name]
        return addresses(", ".join(values))

    @property
    def subject(self) -> str:
        return readable(self._raw_header("subject"))

    @property
    def from_(self) -> list[Mailbox]:
        return addresses(self._raw_header("from"))

    @property
    def to(self) -> list[Mailbox]:
        return self._everybody("to")

    @property
    def cc(self) -> list[Mailbox]:
        return self._everybody("cc")

    @property
    def bcc(self) -> list[Mailbox]:
        return self._everybody("bcc")

    @property
    def reply_to(self) -> list[Mailbox]:
        return self._everybody("reply-to")

    @property
    def date(self) -> datetime | None:
        return parse_date(self._raw_header("date"))

    @property
    def message_id(self) -> str:
        """Without angle brackets; empty when absent."""
        return message_id(self._raw_header("message-id"))

    @property
    def in_reply_to(self) -> list[str]:
        return _message_ids(self._raw_header("in-reply-to"))

    @property
    def references(self) -> list[str]:
        return _message_ids(self._raw_header("references"))

    # Content ---------------------------------------------------------------------------------

    def _found(self) -> body.Bodies:
        if self._bodies is None:
            self._bodies = body.find_bodies(self.root)
        return self._bodies

    @property
    def text(self) -> str | None:
        """The plain text with `\\n` line ends, or None when the mail has none."""
        parts = self._found().text
        if self._text is None and parts:
            self._text = "\n".join([self._shown_text(part) for part in parts])
        return self._text

    def _shown_text(self, part: Part) -> str:
        """A text part without the files in it, its paragraphs joined."""
        files = uu_files_of(part)
        if files:
            whole = part.raw[part.body_start : part.end]
            self._reading.work_units += len(whole)
            places = [part.body_start, *[at for file in files for at in (file.start, file.end)]]
            ends = [*places[1::2], part.end]
            pieces = [part.raw[at:end] for at, end in zip(places[::2], ends, strict=True)]
            text = body.text_of_bytes(self._reading, part, b"".join(pieces))
        else:
            text = body.decode_text(self._reading, part)
        parameters = part.content_type.parameters
        if parameters.get("format", "").lower() == "flowed":
            text = unflow(text, parameters.get("delsp", "").lower() == "yes")
        return text

    @property
    def html(self) -> str | None:
        """The HTML as sent (not sanitised), or None when the mail has none."""
        parts = self._found().html
        if self._html is None and parts:
            self._html = "\n".join(body.decode_text(self._reading, part) for part in parts)
        return self._html

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        if self._attachments is None:
            parts = self._found().attachments
            found = [self._attachment(part, index) for index, part in enumerate(parts)]
            for index, (part, file) in enumerate(self._uu_files(), len(parts)):
                content = content_of(part.raw, file)[0]
                name = printable(clean_name(charset.guess(file.name)))
                found.append(Attachment(name, _UNKNOWN, "", "attachment", len(content), index))
            self._attachments = tuple(found)
        return self._attachments

    def _uu_files(self) -> list[tuple[Part, UuFile]]:
        return [(part, file) for part in self._found().text for file in uu_files_of(part)]

    @property
    def traits(self) -> tuple[str, ...]:
        """What the mail is besides its text (`trait`): signed, encrypted, an invitation, …"""
        return traits_of(self.root, self.text)

    @property
    def events(self) -> list[CalendarEvent]:
        """What the first calendar part tells of its events."""
        for part in self.root.leaves():
            if is_calendar(part):
                return events_of(self.part_text(part))
        return []

    def content(self, index: int) -> bytes:
        """The decoded bytes of attachment `index`. Raises IndexError when there is none."""
        parts = self._found().attachments
        if index < len(parts):
            return self.part_content(parts[index])
        part, file = self._uu_files()[index - len(parts)]
        content, well_formed = content_of(part.raw, file)
        if not well_formed:
            self._reading.flaw("bad_transfer_encoding")
        return content

    def part_text(self, part: Part) -> str:
        """The text of a leaf of the tree, with `\\n` line ends."""
        return body.decode_text(self._reading, part)

    def part_content(self, part: Part) -> bytes:
        """The decoded bytes of any part of the tree."""
        encoded = part.raw[part.body_start : part.end]
        self._reading.work_units += len(encoded)
        content, well_formed = transfer.undo(encoded, part.encoding)
        if not well_formed:
            self._reading.flaw("bad_transfer_encoding")
        return content

    def _attachment(self, part: Part, index: int) -> Attachment:
        name = file_name(part.disposition, part.content_type)
        if not name:
            name = _NAMES.get(part.content_type.value, "")
        return Attachment(
            filename=printable(name),
            content_type=printable(part.content_type.value),
            content_id=printable((part.field("content-id") or "").strip().strip("<>")),
            disposition="inline" if part.disposition.value == "inline" else "attachment",
            size_bytes=len(self.part_content(part)),
            index=index,
        )


def parse(raw: bytes) -> Message:
    """Read a received mail. Never raises; its work is bounded by `core.limits`."""
    return Message(raw)


def readable(value: str) -> str:
    """A header's value as a person reads it: encoded words decoded, safe to store and to show."""
    if "=?" in value:
        value = decode_words(value)
    return printable(value)


def printable(value: str) -> str:
    """`value` without controls and lone surrogates, which neither PostgreSQL nor JSON can hold."""
    if value.isprintable():
        return value
    value = value.replace("\t", " ")  # most often the fold of a trace line
    if value.isprintable():
        return value
    return _UNSTORABLE.sub("", _BREAK.sub(" ", value))


def addresses(value: str) -> list[Mailbox]:
    """Mailboxes of an address header, readable."""
    found = parse_addresses(value) if value else []
    if value.isprintable() and "=?" not in value:
        return found
    return [Mailbox(printable(mailbox.name), printable(mailbox.address)) for mailbox in found]


def message_id(value: str) -> str:
    """The id in a Message-ID header, without angle brackets."""
    found = MESSAGE_ID.search(value)
    return printable(found[1] if found else value.strip().strip("<>")[:998])


def _message_ids(value: str) -> list[str]:
    return [printable(found) for found in MESSAGE_ID.findall(value)[:_MESSAGE_IDS]]
