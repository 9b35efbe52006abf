"""A block of headers as it was sent: its fields, and what it says about the content."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from mailyard.protocol.mime import charset
from mailyard.protocol.mime.parameter import Structured, parse_structured

# A field with its folded lines, or a line that is none. Possessive: one pass over the block.
FIELD = re.compile(r"^(?:([!-9;-~]++)[ \t]*+:((?:.*+)(?:\n[ \t].*+)*+)|(.++))\n?", re.MULTILINE)
# A field of a block whose folds are undone, its colon right behind its name as nearly all have it.
_UNFOLDED_FIELD = re.compile(r"^([!-9;-~]++):(.*+)", re.MULTILINE)
_NOTHING = parse_structured("")

Fields = Sequence[tuple[str, str]]


class Head(NamedTuple):
    """A block of headers, and what it says about the content; None where it says nothing of use.

    `values` has the first value of each name in lower case.
    """

    fields: Fields
    values: Mapping[str, str]
    content_type: Structured | None
    disposition: Structured
    encoding: str


def head_of(fields: Fields) -> Head:
    """What the fields say."""
    values = {name.lower(): value for name, value in reversed(fields)}  # of several, the first
    said = values.get("content-type")
    content_type = None if said is None else parse_structured(said)
    said = values.get("content-disposition")
    disposition = _NOTHING if said is None else parse_structured(said)
    said = values.get("content-transfer-encoding")
    words = said.lower().split(";", 1)[0].split() if said else None
    return Head(fields, values, content_type, disposition, words[0] if words else "")


NO_HEAD = head_of(())


def lines_of(block: bytes) -> str:
    """A block of headers as text with `\n` line ends; bytes that are not UTF-8 as surrogates."""
    text = block.decode("utf-8", "surrogateescape")
    return text.replace("\r\n", "\n").replace("\r", " ") if "\r" in text else text


def plain_fields(block: bytes) -> list[tuple[str, str]] | None:
    """The fields of an ASCII block when each of its lines is one or goes on one, else None."""
    if not block.isascii():
        return None
    # A name holds no white space, so that what was folded cannot pass for a field.
    text = block.decode("ascii").removesuffix("\r").replace("\r\n", "\n")
    if "\r" in text:
        return None
    text = text.replace("\n ", " ").replace("\n\t", "\t")
    found = _UNFOLDED_FIELD.findall(text)
    if len(found) != text.count("\n") + 1:
        return None
    return [(name, value.strip()) for name, value in found]


@lru_cache(maxsize=512)
def small_block(block: bytes) -> Head | None:
    """The few headers of a part, the same in most mails, read; None when they are not plain."""
    fields = plain_fields(block)
    return None if fields is None else head_of(tuple(fields))


@lru_cache(maxsize=512)
def leaf_head(block: bytes) -> Head | None:
    """The headers of a part that has no parts, from the end of its delimiter line to the blank
    line; None when they are not plain.
    """
    if block[:2] != b"\r\n" or b"\n\n" in block or b"\n\r\n" in block + b"\r\n":
        return None
    head = small_block(block[2:] + b"\r")
    kind = head.content_type if head is not None else None
    if kind is not None and kind.value.startswith(("multipart/", "message/")):
        return None
    return head


def repair(value: str) -> str:
    """A value with bytes that are not UTF-8, which the block's decoding kept as surrogates."""
    raw = value.encode("utf-8", "surrogateescape")
    return charset.guess(raw)
