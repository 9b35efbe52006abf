"""The tree of a received mail (RFC 5322, RFC 2045, RFC 2046) as offsets into its bytes.

Rules: never raise on any bytes; copy nothing but headers; read every byte at most once a level, and
allow `limits.MIME_DEPTH` levels; stop at `limits.MIME_PARTS` parts, `limits.MIME_HEADERS` header
fields and `limits.MIME_HEADER_BYTES` of headers over the whole message, saying so in `defects`.
`Reading.work_units` counts the bytes looked at, so that tests can bound the work without a clock.
"""

from collections.abc import Iterator
from itertools import islice

from mailyard.core import limits
from mailyard.protocol.mime import transfer
from mailyard.protocol.mime.head import (
    FIELD,
    NO_HEAD,
    Fields,
    Head,
    head_of,
    leaf_head,
    lines_of,
    plain_fields,
    repair,
    small_block,
)
from mailyard.protocol.mime.parameter import Structured, parse_structured

_FALSE_DELIMITERS = 10_000  # lines that only start like the boundary; after so many it is an attack
_SMALL_BLOCK_BYTES = 160
_HEAD_ALONE_BYTES = 2 * limits.KIB  # of a part that is but its headers
_SMALL_MULTIPART_BYTES = 64 * limits.KIB
_TEXT_PLAIN = parse_structured("text/plain")
_MESSAGE_RFC822 = parse_structured("message/rfc822")
IDENTITY = frozenset(("", "7bit", "8bit", "binary"))


class Part:
    """One node: headers at `start`, body at [`body_start`, `end`), children in order.

    The offsets are into `raw`: the mail, or what was decoded of it when the part lies in a message
    that was sent with a transfer encoding.
    `fields` are (name as sent, value unfolded but not decoded). `path` is as in IMAP: `1.2`.
    """

    __slots__ = (
        "_number", "_prefix", "_values", "body_start", "children", "content_type", "disposition",
        "encoding", "end", "fields", "raw", "start",
    )  # fmt: skip

    def __init__(
        self,
        raw: bytes,
        start: int,
        body_start: int,
        end: int,
        head: Head,
        prefix: str,
        number: int,
        default: Structured,
    ) -> None:
        self.raw = raw
        self.start = start
        self.body_start = body_start
        self.end = end
        self._prefix = prefix
        self._number = number
        self.children: list[Part] = []
        self.fields, self._values, found, self.disposition, self.encoding = head
        self.content_type = default
        if found is not None:
            if "/" in found.value:
                self.content_type = found
            elif found.parameters:
                self.content_type = Structured(default.value, found.parameters)

    @property
    def path(self) -> str:
        """Empty for the root."""
        return f"{self._prefix}{self._number}" if self._number else ""

    def field(self, lower_name: str) -> str | None:
        """The first value of the header `lower_name`, unfolded, not decoded."""
        return self._values.get(lower_name)

    def leaves(self) -> Iterator["Part"]:
        """This part when it has no children, else those of its children, in order."""
        if not self.children:
            yield self
        for child in self.children:
            yield from child.leaves()


class Reading:
    """One reading of one message: its budgets, its defects and what it has cost."""

    __slots__ = (
        "_decodable", "_false", "_header_bytes", "_headers", "_parts", "defects", "raw",
        "work_units",
    )  # fmt: skip

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.defects: list[str] = []
        self.work_units = 0
        self._parts = limits.MIME_PARTS
        self._headers = limits.MIME_HEADERS
        self._header_bytes = limits.MIME_HEADER_BYTES
        self._false = _FALSE_DELIMITERS
        self._decodable = len(raw)  # bytes of messages that were sent with a transfer encoding

    def flaw(self, name: str) -> None:
        if name not in self.defects:
            self.defects.append(name)

    def read(self) -> Part:
        """The root of the tree."""
        start = 0
        if self.raw.startswith((b"From ", b">From ")):  # an mbox line that came along
            start = self.raw.find(b"\n") + 1
        return self._entity(start, len(self.raw), 0, "", 0, _TEXT_PLAIN)

    def _entity(
        self, start: int, end: int, depth: int, prefix: str, number: int, default: Structured
    ) -> Part:
        self._parts -= 1
        head, body = self._head(start, end)
        part = Part(self.raw, start, body, end, head, prefix, number, default)
        kind = part.content_type.value
        if kind[:10] == "multipart/":
            self._multipart(part, depth)
        elif kind in ("message/rfc822", "message/global") and self._may_descend(depth):
            inner = self._message(part, depth + 1)
            if inner is not None:
                part.children.append(inner)
        return part

    def _message(self, part: Part, depth: int) -> Part | None:
        """The message that `part` holds; None when it holds none."""
        prefix = f"{part.path or 1}."
        if part.encoding in IDENTITY:
            inner = self._entity(part.body_start, part.end, depth, prefix, 1, _TEXT_PLAIN)
        else:  # RFC 2046 section 5.2.1 forbids it, and it is sent
            size = part.end - part.body_start
            if size > self._decodable:
                self.flaw("too_much_encoded")
                return None
            self._decodable -= size
            self.work_units += size
            outer = self.raw
            self.raw = transfer.undo(outer[part.body_start : part.end], part.encoding)[0]
            inner = self._entity(0, len(self.raw), depth, prefix, 1, _TEXT_PLAIN)
            self.raw = outer
        if inner.body_start == inner.start < inner.end:  # its first line is no header
            self.flaw("no_message")
            return None
        return inner

    def _may_descend(self, depth: int) -> bool:
        if depth + 1 >= limits.MIME_DEPTH:
            self.flaw("too_deep")
            return False
        if self._parts <= 0:
            self.flaw("too_many_parts")
            return False
        return True

    # Headers ---------------------------------------------------------------------------------

    def _head(self, start: int, end: int) -> tuple[Head, int]:
        """(headers, where the body begins) of the entity at [start, end)."""
        raw = self.raw
        if raw.startswith((b"\n", b"\r\n"), start):
            return NO_HEAD, min(raw.index(b"\n", start) + 1, end)
        stop = raw.find(b"\n\r\n", start, end)
        body = stop + 3
        bare = raw.find(b"\n\n", start, end if stop < 0 else stop)
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
            known = small_block(block)
            if known is not None and len(known.fields) <= self._headers:
                self._headers -= len(known.fields)
                return known, body
        fields, body = self._fields(block, start, body)
        return head_of(fields), body

    def _fields(self, block: bytes, start: int, body: int) -> tuple[Fields, int]:
        plain = plain_fields(block)
        if plain is not None and len(plain) <= self._headers:
            self._headers -= len(plain)
            return plain, body
        foreign = not block.isascii()
        text = lines_of(block)
        found = FIELD.findall(text)
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
                value = repair(value)
            fields.append((name, value.strip()))
        return fields, body

    def _start_of_field(self, text: str, position: int, start: int) -> int:
        """Where in the raw bytes the `position`-th match of the block at `start` begins."""
        at = next(islice(FIELD.finditer(text), position, None)).start()
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
        raw, position, end = self.raw, part.body_start, part.end
        mark = b"--" + boundary.encode("utf-8", "surrogatepass")
        self.work_units += end - position
        children = part.children
        if end - position <= _SMALL_MULTIPART_BYTES and default is _TEXT_PLAIN:
            children += self._small_leaves(position, end, mark, prefix)
            if children:
                return
        opened = -1  # where the part being read begins; -1 in the preamble
        closed = False
        while not closed and (line := raw.find(mark, position, end)) >= 0:
            position = line + len(mark)
            after = position + 2
            if line > part.body_start and raw[line - 1] != 10:  # not at the start of a line
                after = -1
            elif after > end or raw[position:after] != b"\r\n":
                after, closed = self._delimiter(position, end)
            if after < 0:
                if not self._still_patient():
                    break
                continue
            if opened >= 0:
                if self._parts <= 0:
                    self.flaw("too_many_parts")
                    return
                child_end = line - 2
                if child_end < opened or raw[child_end:line] != b"\r\n":
                    child_end = self._before_line_break(opened, line)
                number = len(children) + 1
                if self._goes_on(opened, child_end, boundary):
                    # A multipart inside, of the same boundary: what follows is its.
                    opened, closed = min(opened, end), False
                    break
                children.append(self._entity(opened, child_end, depth + 1, prefix, number, default))
            opened = after
        if not closed:
            self.flaw("unclosed_multipart")
            if 0 <= opened < end and self._parts > 0:
                number = len(children) + 1
                children.append(self._entity(opened, end, depth + 1, prefix, number, default))
        if not children:
            self.flaw("empty_multipart")

    def _goes_on(self, start: int, end: int, boundary: str) -> bool:
        """Whether the part at `start` is a multipart of the `boundary` of what it stands in."""
        if end - start > _HEAD_ALONE_BYTES or self.raw.find(b"ultipart/", start, end) < 0:
            return False  # what has a body of its own ends before its next delimiter
        self.work_units += end - start
        head, _ = Reading(self.raw[start:end])._head(0, end - start)
        kind = head.content_type
        return (
            kind is not None
            and kind.value[:10] == "multipart/"
            and kind.parameters.get("boundary") == boundary
        )

    def _small_leaves(self, start: int, end: int, mark: bytes, prefix: str) -> list[Part]:
        """The parts of a small multipart in which all is as it should be; none of any other.

        Nearly all mail is such, and is cut in fewer steps than what is broken needs.
        """
        raw = self.raw
        preamble, *pieces = raw[start:end].split(mark)
        if len(pieces) < 2 or (preamble and preamble[-1] != 10):
            return []
        closing = pieces.pop()
        if closing != b"--" and closing[:4] != b"--\r\n":
            return []
        at = start + len(preamble) + len(mark)
        leaves: list[Part] = []
        header_bytes = headers = 0
        for number, piece in enumerate(pieces, 1):
            block, _, body = piece.partition(b"\r\n\r\n")
            size = len(block)
            head = leaf_head(block) if size <= _SMALL_BLOCK_BYTES else None
            if head is None or body[-2:] != b"\r\n":
                return []
            after = at + len(piece)
            leaves.append(
                Part(raw, at + 2, at + size + 4, after - 2, head, prefix, number, _TEXT_PLAIN)
            )
            header_bytes += size - 1
            headers += len(head.fields)
            at = after + len(mark)
        if (
            len(leaves) > self._parts
            or headers > self._headers
            or header_bytes > self._header_bytes
        ):
            return []
        self._parts -= len(leaves)
        self._headers -= headers
        self._header_bytes -= header_bytes
        self.work_units += header_bytes
        return leaves

    def _delimiter(self, position: int, end: int) -> tuple[int, bool]:
        """(start of the next line, whether it closes) of a line that has the boundary before
        `position`; -1 when the boundary goes on, so that it is another.

        What stands behind white space is no part of it (RFC 2046 section 5.1.1).
        """
        closes = self.raw.startswith(b"--", position, end)
        if closes:
            position += 2
        if position < end and self.raw[position] not in b"\r\n \t":
            return -1, False
        line_end = self.raw.find(b"\n", position, end)
        return (end if line_end < 0 else line_end + 1), closes

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
