"""Files that stand uuencoded in a text, as mail was sent before MIME. Linear, never raises."""

import re
from typing import NamedTuple

from mailyard.protocol.mime.structure import IDENTITY, Part
from mailyard.protocol.mime.transfer import undo_uuencode

_FILES = 100  # of one text
# `end` and `begin` have small letters and the lines between them none, so that each is read once.
_BLOCK = re.compile(
    rb"^begin [0-7]{3,4} ([^\r\n]{1,255})\r?\n"
    rb"((?:[ -`]{1,90}+\r?(?:\n|\Z))*+)end[ \t]*+\r?(?:\n|\Z)",
    re.MULTILINE,
)


class UuFile(NamedTuple):
    """A file at [`start`, `end`) of its part's `raw`; `name` is as sent."""

    start: int
    end: int
    name: bytes


def uu_files_of(part: Part) -> list[UuFile]:
    """The files in a text part; it has none when it has a transfer encoding."""
    raw, start, end = part.raw, part.body_start, part.end
    found: list[UuFile] = []
    if part.encoding not in IDENTITY or raw.find(b"begin ", start, end) < 0:
        return found
    for block in _BLOCK.finditer(raw, start, end):
        if block[2] and len(found) < _FILES:
            found.append(UuFile(block.start(), block.end(), block[1]))
    return found


def content_of(raw: bytes, file: UuFile) -> tuple[bytes, bool]:
    """(the file's bytes, whether they were well formed)."""
    return undo_uuencode(raw[file.start : file.end])
