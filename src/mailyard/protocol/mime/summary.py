"""What ingest needs of a mail and nothing more: who, what about, a first line, how many files."""

import re
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from mailyard.protocol.address import Mailbox
from mailyard.protocol.character_reference import unescaped
from mailyard.protocol.mime import body
from mailyard.protocol.mime.date import parse_date
from mailyard.protocol.mime.message import MESSAGE_ID, addresses, message_id, printable, readable
from mailyard.protocol.mime.structure import Reading
from mailyard.protocol.mime.uuencoded import uu_files_of

PREVIEW_CHARACTERS = 200
REFERENCES = 32  # RFC 5322 section 3.6.4 sets no limit, and some threads run to thousands
_PREVIEW_BYTES = 2_048  # of a text body; encodings and white space make characters of some of them
_PREVIEW_HTML_BYTES = 16_384  # style sheets come first
_CACHED_CHARACTERS = 200
_NOBODY = Mailbox("", "")
_UNSEEN = re.compile(
    r"<(style|script|head|title)\b[^>]*+>.*?(?:</\1\s*+>|\Z)|<!--.*?(?:-->|\Z)|<[^>]*+>?",
    re.DOTALL | re.IGNORECASE,
)


class Summary(NamedTuple):
    """One line of an inbox. All text is safe to store (no NUL, no lone surrogates)."""

    from_name: str
    from_address: str
    subject: str
    preview: str  # at most PREVIEW_CHARACTERS, white space collapsed
    sent_at: datetime | None
    message_id: str
    attachments: int
    in_reply_to: str  # the first id of In-Reply-To, empty without one
    references: tuple[str, ...]  # of References, oldest first: the first and the last ones


def parse_summary(raw: bytes) -> Summary:
    """The summary of a received mail. Never raises; reads only the start of its bodies."""
    reading = Reading(raw)
    root = reading.read()
    writer = _writer(root.field("from") or "")
    found = body.find_bodies(root)
    sent = root.field("date")
    parents = root.field("in-reply-to")
    ancestors = root.field("references")
    files = len(found.attachments)
    for part in found.text:
        files += len(uu_files_of(part))
    return Summary(
        writer.name,
        writer.address,
        readable(root.field("subject") or ""),
        _preview(reading, found),
        parse_date(sent) if sent else None,
        message_id(root.field("message-id") or ""),
        files,
        _first_id(parents) if parents else "",
        _ends_of(ancestors) if ancestors else (),
    )


def _first_id(value: str) -> str:
    """The first message id of an In-Reply-To header; RFC 822 allowed other words in it."""
    found = MESSAGE_ID.search(value)
    return printable(found[1]) if found else ""


def _ends_of(value: str) -> tuple[str, ...]:
    """The ids of a References header, of a long one its root and those nearest to the message."""
    found = MESSAGE_ID.findall(value)
    if len(found) > REFERENCES:
        found = [found[0], *found[1 - REFERENCES :]]
    return tuple([printable(one) for one in found])


def _writer(value: str) -> Mailbox:
    """The first mailbox of a From header."""
    if len(value) <= _CACHED_CHARACTERS:
        return _known_writer(value)
    writers = addresses(value)
    return writers[0] if writers else _NOBODY


@lru_cache(maxsize=512)  # most mail of an hour is from few
def _known_writer(value: str) -> Mailbox:
    writers = addresses(value)
    return writers[0] if writers else _NOBODY


def _preview(reading: Reading, found: body.Bodies) -> str:
    if found.text:
        text = body.decode_text(reading, found.text[0], _PREVIEW_BYTES)
    elif found.html:
        html = body.decode_text(reading, found.html[0], _PREVIEW_HTML_BYTES)
        text = unescaped(_UNSEEN.sub(" ", html))
    else:
        return ""
    return printable(" ".join(text[: 4 * PREVIEW_CHARACTERS].split())[:PREVIEW_CHARACTERS])
