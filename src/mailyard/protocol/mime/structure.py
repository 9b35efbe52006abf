"""The tree of a received mail (RFC 5322, RFC 2045, RFC 2046) as offsets into its bytes.

Rules: never raise on any bytes; copy nothing but headers; read every byte at most once a level, and
allow `limits.MIME_DEPTH` levels; stop at `limits.MIME_PARTS` parts, `limits.MIME_HEADERS` header
fields and `limits.MIME_HEADER_BYTES` of headers over the whole message, saying so in `defects`.
`Reading.work_units` counts the bytes looked at, so that tests can bound the work without a clock.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from mailyard.core import limits
from mailyard.protocol.mime import charset
from mailyard.protocol.mime.parameter import Structured, parse_structured

# A field with its folded lines, or a line that is none. Possessive: one pass over the block.
_FIELD = re.compile(r"^(?:([!-9;-~]++)[ \t]*+:((?:.*+)(?:\n[ \t].*+)*+)|(.++))\n?", re.MULTILINE)
_FALSE_DELIMITERS = 10_000  # lines that only start like the boundary; after so many it is an attack
_SMALL_BLOCK_BYTES = 160
_TEXT_PLAIN = parse_structured("text/plain")
_MESSAGE_RFC822 = parse_structured("message/rfc822")
_NOTHING = parse_structured("")
_IDENTITY = frozenset(("", "7bit", "8bit", "binary"))

Fields = Sequence[tuple[str, str]]


class Described(NamedTuple):
    """What a block of headers says about the content; None where it says nothing of use."""

    content_type: Structured | None
    disposition: Structured
    encoding: str


def _describe(fields: Fields) -> Described:
    content_type: Structured | None = None
    disposition = _NOTHING
    encoding = ""
    seen: set[str] = set()
    for name, value in fields:
        if name[:8].lower() != "content-":
            continue
        what = name[8:].lower()
        if what in seen:  # of several, the first counts
            continue
        seen.add(what)
        if what == "type":
            content_type = parse_structured(value)
        elif what == "disposition":
            disposition = parse_structured(value)
        elif what == "transfer-encoding":
            words = value.lower().split(";", 1)[0].split()
            encoding = words[0] if words else ""
    return Described(content_type, disposition, encoding)


_UNDESCRIBED = Described(None, _NOTHING, "")


class Part:
    """One node: headers at `start`, body at [`body_start`, `end`), children in order.

    `fields` are (name as sent, value unfolded but not decoded). `path` is as in IMAP: `1.2`.
    """

    __slots__ = (
        "body_start", "children", "content_type", "disposition", "encoding", "end", "fields",
        "path", "start",
    )  # fmt: skip

    def __init__(
        self,
        start: int,
        body_start: int,
        end: int,
        fields: Fields,
        described: Described,
        path: str,
        default: Structured,
    ) -> None:
        self.start = start
        self.body_start = body_start
        self.end = end
        self.fields = fields
        self.path = path
        self.children: list[Part] = []
        found, self.disposition, self.encoding = described
        self.content_type = default
        if found is not None:
            if "/" in found.value:
                self.content_type = found
            elif found.parameters:
                self.content_type = Structured(default.value, found.parameters)

    def field(self, lower_name: str) -> str | None:
        """The first value of the header `lower_name`, unfolded, not decoded."""
        for name, value in self.fields:
            if len(name) == len(lower_name) and name.lower() == lower_name:
                return value
        return None

    def leaves(self) -> Iterator["Part"]:
        """This part when it has no children, else those of its children, in order."""
        if not self.children:
            yield self
        for child in self.children:
            yield from child.leaves()


class Reading:
    """One reading of one message: its budgets, its defects and what it has cost."""

    __slots__ = ("_false", "_header_bytes", "_headers", "_parts", "defects", "raw", "work_units")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.defects: list[str] = []
        self.work_units = 0
        self._parts = limits.MIME_PARTS
        self._headers = limits.MIME_HEADERS
        self._header_bytes = limits.MIME_HEADER_BYTES
        self._false = _FALSE_DELIMITERS

    def flaw(self, name: str) -> None:
        if name not in self.defects:
            self.defects.append(name)

    def read(self) -> Part:
        """The root of the tree."""
        start = 0
        if self.raw.startswith((b"From ", b">From ")):  # an mbox line that came along
            start = self.raw.find(b"\n") + 1
        return self._entity(start, len(self.raw), 0, "", _TEXT_PLAIN)

    def _entity(self, start: int, end: int, depth: int, path: str, default: Structured) -> Part:
        self._parts -= 1
        fields, described, body = self._head(start, end)
        part = Part(start, body, end, fields, described, path, default)
        kind = part.content_type.value
        if kind[:10] == "multipart/":
            self._multipart(part, depth)
        elif (
            kind in ("message/rfc822", "message/global")
            and part.encoding in _IDENTITY
            and self._may_descend(depth)
        ):
            inner = self._entity(body, end, depth + 1, f"{path or '1'}.1", _TEXT_PLAIN)
            part.children.append(inner)
        return part

    def _may_descend(self, depth: int) -> bool:
        if depth + 1 >= limits.MIME_DEPTH:
            self.flaw("too_deep")
            return False
        if self._parts <= 0:
            self.flaw("too_many_parts")
            return False
        return True

    # Headers ---------------------------------------------------------------------------------

    def _head(self, start: int, end: int) -> tuple[Fields, Described, int]:
        """(fields, what they describe, where the body begins) of the entity at [start, end)."""
        raw = self.raw
        if raw.startswith(b"\n", start):
            return [], _UNDESCRIBED, min(start + 1, end)
        if raw.startswith(b"\r\n", start):
            return [], _UNDESCRIBED, min(start + 2, end)
        stop = raw.find(b"\n\r\n", start, end)
        bare = raw.find(b"\n\n", start, end if stop < 0 else stop)
        body = stop + 3
        if bare >= 0:
            stop, body = bare, bare + 2
        elif stop < 0:
            stop = body = end
        self.work_units += stop - start
        allowed = start + self._header_bytes
        if stop > allowed:
            self.flaw("header_too_large")
            stop = allowed
        self._header_bytes -= stop - start
        block = raw[start:stop]
        if len(block) <= _SMALL_BLOCK_BYTES:
            known = _small_block(block)
            if known is not None and len(known[0]) <= self._headers:
                self._headers -= len(known[0])
                return known[0], known[1], body
        fields, body = self._fields(block, start, body)
        return fields, _describe(fields), body

    def _fields(self, block: bytes, start: int, body: int) -> tuple[Fields, int]:
        foreign = not block.isascii()
        text = _lines_of(block)
        found = _FIELD.findall(text)
        if len(found) > self._headers:
            self.flaw("too_many_headers")
            found = found[: self._headers]
        self._headers -= len(found)
        fields: list[tuple[str, str]] = []
        for position, (name, value, stray) in enumerate(found):
            if stray:
                self.flaw("stray_header_line")
                following = found[position + 1 : position + 2]
                if not stray[0].isspace() and not (following and following[0][0]):
                    # Two in a row, or the last: the blank line is missing and the body has begun.
                    self.flaw("missing_blank_line")
                    return fields, self._start_of_field(text, position, start)
                continue
            if "\n" in value:
                value = value.replace("\n", "")
            if foreign and not value.isascii():
                value = _repair(value)
            fields.append((name, value.strip()))
        return fields, body

    def _start_of_field(self, text: str, position: int, start: int) -> int:
        """Where in the raw bytes the `position`-th match of the block at `start` begins."""
        at = next(islice(_FIELD.finditer(text), position, None)).start()
        for _ in range(text.count("\n", 0, at)):
            start = self.raw.index(b"\n", start) + 1
        return start

    # Multipart -------------------------------------------------------------------------------

    def _multipart(self, part: Part, depth: int) -> None:
        """Cut the body at its delimiter lines (RFC 2046 section 5.1.1)."""
        boundary = part.content_type.parameters.get("boundary", "").rstrip()
        if not boundary:
            self.flaw("no_boundary")
            return
        if not self._may_descend(depth):
            return
        default = _TEXT_PLAIN
        if part.content_type.value == "multipart/digest":
            default = _MESSAGE_RFC822
        prefix = f"{part.path}." if part.path else ""
        opened = -1  # where the part being read begins; -1 in the preamble
        closed = False
        children = part.children
        self.work_units += part.end - part.body_start
        for line, after, closing in self._delimiters(part, boundary):
            if opened >= 0:
                child_end = self._before_line_break(opened, line)
                if self._parts <= 0:
                    self.flaw("too_many_parts")
                    return
                path = f"{prefix}{len(children) + 1}"
                children.append(self._entity(opened, child_end, depth + 1, path, default))
            opened = after
            if closing:
                closed = True
                break
        if not closed:
            self.flaw("unclosed_multipart")
            if opened >= 0 and opened < part.end and self._parts > 0:
                path = f"{prefix}{len(children) + 1}"
                children.append(self._entity(opened, part.end, depth + 1, path, default))
        if not children:
            self.flaw("empty_multipart")

    def _delimiters(self, part: Part, boundary: str) -> Iterator[tuple[int, int, bool]]:
        """(start of the line, start of the next, whether it closes) of each delimiter line."""
        raw = self.raw
        end = part.end
        mark = b"--" + boundary.encode("utf-8", "surrogatepass")
        position = part.body_start
        while True:
            at = raw.find(mark, position, end)
            if at < 0:
                return
            position = at + len(mark)
            if at > part.body_start and raw[at - 1] != 10:  # not at the start of a line
                if not self._still_patient():
                    return
                continue
            line_end = raw.find(b"\n", position, min(end, position + 256))
            line_end = min(end, position + 256) if line_end < 0 else line_end
            tail = raw[position:line_end].strip()
            if tail == b"":
                yield at, min(line_end + 1, end), False
            elif tail == b"--" or tail.startswith(b"-- "):
                yield at, min(line_end + 1, end), True
            elif not self._still_patient():
                return

    def _still_patient(self) -> bool:
        self._false -= 1
        self.work_units += 1
        if self._false <= 0:
            self.flaw("too_many_false_delimiters")
        return self._false > 0

    def _before_line_break(self, start: int, line: int) -> int:
        """The end of a part before the delimiter line at `line`: its line break is not content."""
        if line - 1 >= start and self.raw[line - 1] == 10:
            line -= 1
            if line - 1 >= start and self.raw[line - 1] == 13:
                line -= 1
        return max(start, line)


def _lines_of(block: bytes) -> str:
    """A block of headers as text with `\n` line ends; bytes that are not UTF-8 as surrogates."""
    text = block.decode("utf-8", "surrogateescape")
    return text.replace("\r\n", "\n").replace("\r", " ") if "\r" in text else text


@lru_cache(maxsize=512)
def _small_block(block: bytes) -> tuple[Fields, Described] | None:
    """The few headers of a part, the same in most mails, read; None when they are not plain."""
    found = _FIELD.findall(_lines_of(block))
    if not block.isascii() or any(stray for _, _, stray in found):
        return None
    fields = tuple((name, value.replace("\n", "").strip()) for name, value, _ in found)
    return fields, _describe(fields)


def _repair(value: str) -> str:
    """A value with bytes that are not UTF-8, which the block's decoding kept as surrogates."""
    raw = value.encode("utf-8", "surrogateescape")
    return charset.guess(raw)
