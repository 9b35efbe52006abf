"""What ingest needs of a mail and nothing more: who, what about, a first line, how many files."""

import re
from datetime import datetime
from html import unescape
from typing import NamedTuple

from mailyard.protocol.mime import body
from mailyard.protocol.mime.date import parse_date
from mailyard.protocol.mime.message import addresses, message_id, printable, readable
from mailyard.protocol.mime.structure import Part, Reading

PREVIEW_CHARACTERS = 200
_PREVIEW_BYTES = 2_048  # of a text body; encodings and white space make characters of some of them
_PREVIEW_HTML_BYTES = 16_384  # style sheets come first
_UNSEEN = re.compile(
    r"<(style|script|head|title)\b[^>]*+>.*?(?:</\1\s*+>|\Z)|<!--.*?(?:-->|\Z)|<[^>]*+>?",
    re.DOTALL | re.IGNORECASE,
)
_ENDS = re.compile(rb"[\r\n=A-Za-z0-9+/]*\Z")


class Summary(NamedTuple):
    """One line of an inbox. All text is safe to store (no NUL, no lone surrogates)."""

    from_name: str
    from_address: str
    subject: str
    preview: str  # at most PREVIEW_CHARACTERS, white space collapsed
    sent_at: datetime | None
    message_id: str
    attachments: int


def parse_summary(raw: bytes) -> Summary:
    """The summary of a received mail. Never raises; reads only the start of its bodies."""
    reading = Reading(raw)
    root = reading.read()
    wanted: dict[str, str] = {}
    for name, value in root.fields:
        wanted.setdefault(name.lower(), value)
    writers = addresses(wanted.get("from", ""))
    found = body.find_bodies(root)
    sent = wanted.get("date")
    return Summary(
        from_name=writers[0].name if writers else "",
        from_address=writers[0].address if writers else "",
        subject=readable(wanted.get("subject", "")),
        preview=_preview(reading, found),
        sent_at=parse_date(sent) if sent else None,
        message_id=message_id(wanted.get("message-id", "")),
        attachments=len(found.attachments),
    )


def _preview(reading: Reading, found: body.Bodies) -> str:
    if found.text:
        text = body.decode_text(reading, _beginning(found.text[0], _PREVIEW_BYTES))
    elif found.html:
        html = body.decode_text(reading, _beginning(found.html[0], _PREVIEW_HTML_BYTES))
        text = unescape(_UNSEEN.sub(" ", html))
    else:
        return ""
    return printable(" ".join(text[: 4 * PREVIEW_CHARACTERS].split())[:PREVIEW_CHARACTERS])


def _beginning(part: Part, size_bytes: int) -> Part:
    """`part`, cut after `size_bytes` (a multiple of four, as base64 wants)."""
    if part.end - part.body_start <= size_bytes:
        return part
    shorter = Part.__new__(Part)
    for slot in ("content_type", "encoding", "start", "body_start", "fields", "path"):
        setattr(shorter, slot, getattr(part, slot))
    shorter.end = part.body_start + size_bytes
    return shorter
