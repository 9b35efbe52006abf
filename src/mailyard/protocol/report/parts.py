"""A mail taken apart as a report: its own words, its machine-read fields, the returned mail.

RFC 6522 says which part is which; older servers put all of it into one text, where the returned
mail is found by a separating line or by the block of headers with which it begins.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from mailyard.core.limits import KIB, MIB
from mailyard.protocol.character_reference import unescaped
from mailyard.protocol.mime import body
from mailyard.protocol.mime.message import readable
from mailyard.protocol.mime.structure import Part, Reading

READ_BYTES = 1 * MIB  # of a report; what it says of itself stands before the returned mail
NOTICE_CHARACTERS = 64 * KIB
_STATUS_BYTES = 512 * KIB  # of machine-read fields: some 1,000 recipients
_TEXT_BYTES = 256 * KIB  # of one text part
_TEXT_PARTS = 8
_RETURNED_BYTES = 64 * KIB  # headers of a returned mail that stands in a text

_STATUS = frozenset(
    ("message/delivery-status", "message/global-delivery-status",
     "message/disposition-notification", "message/global-disposition-notification")
)  # fmt: skip
_FEEDBACK = frozenset(("message/feedback-report", "message/x-arf", "text/x-feedback-report"))
_RETURNED = frozenset(
    ("message/rfc822", "message/global", "text/rfc822-headers", "message/rfc822-headers",
     "message/global-headers", "text/rfc822", "text/rfc822-header", "message/partial")
)  # fmt: skip

_SEPARATOR = re.compile(
    r"^[^\w\n]{0,80}(?:"
    r"(?:below|under) (?:this|the(?: next)?) line is a copy|"
    r"(?:this|here|included|below|following|attached)(?: below)? is (?:a|the) copy of (?:the|your)|"
    r"(?:the )?(?:original|returned|unsent|undelivered|source|rejected|bounced|orig) "
    r"(?:message|mail|e-?mail)(?: (?:headers?|text|body|content))*"
    r"(?: (?:is |are |as )?(?:following|follows?|attached|below|received|included).{0,40})?"
    r"[^\w\n]{0,80}$|"
    r"(?:the )?(?:message|mail) (?:headers?|text|body|contents?) (?:follows?|below|is following)|"
    r"headers? of the (?:source|original|returned) (?:mail|message)|"
    r"(?:the )?headers? (?:and .{0,40} )?(?:of|from) (?:the|your) .{0,30}"
    r"(?:is following|follows?|below|attached)|"
    r"(?:begin|start of) (?:original |returned )?message|"
    r"original (?:headers?|message headers?) ?:?[^\w\n]{0,80}$|"
    r"forwarded message follows|the forwarded message follows"
    r")",
    re.IGNORECASE | re.MULTILINE,
)
# How the headers of a mail begin, and no notice does.
_TRACE = re.compile(
    r"^[ \t>|]{0,8}(?:Received:[ \t]+(?:from|by|\()|Return-Path:[ \t]|DKIM-Signature:[ \t]|"
    r"MIME-Version:[ \t]*1|Message-ID:[ \t]*<|DomainKey-Signature:|X-Received:)",
    re.IGNORECASE | re.MULTILINE,
)
_MACHINE_HEADER = re.compile(
    r"^[ \t>|]{0,8}(?:Received|Return-Path|MIME-Version|Content-\w|X-\w|DKIM-|DomainKey-)",
    re.IGNORECASE,
)
_HEADER = re.compile(r"^[ \t>|]{0,8}[A-Za-z][A-Za-z0-9-]{1,40}:(?:[ \t]|$)")
_INDENT = re.compile(r"^[ \t>|]{1,8}(?=[A-Z][A-Za-z0-9-]{1,40}:)", re.MULTILINE)
_TAG = re.compile(r"<[^<>]{0,2000}>")
_BREAKING = re.compile(
    r"<(?:br|/?p|/?div|/?tr|/?li|/?h\d|/?table|/?td|/?pre|/?title)\b[^<>]{0,500}>", re.I
)
_SPACES = re.compile(r"[ \t\xa0]+")


@dataclass(slots=True)
class Parts:
    """What a mail holds for whom: `notice` is what the reporting server says in its own words."""

    root: Part
    notice: str = ""
    status: list[str] = field(default_factory=list)
    feedback: list[str] = field(default_factory=list)
    returned: list[tuple[str, str]] = field(default_factory=list)
    has_returned: bool = False
    html: str = ""

    def header(self, lower_name: str) -> str:
        """A header of the report itself, decoded; empty when absent."""
        return readable(self.root.field(lower_name) or "")


def take_apart(raw: bytes) -> Parts:
    """The parts of the mail `raw`, which may have any line ends. Never raises."""
    reading = Reading(_with_line_feeds(raw[:READ_BYTES]))
    parts = Parts(reading.read())
    texts: list[str] = []
    for part in _parts(parts.root):
        _sort(reading, part, parts, texts)
    notice = "\n".join(texts) or parts.html
    if len(notice) > NOTICE_CHARACTERS:
        notice = notice[:NOTICE_CHARACTERS]
    cut = _where_returned_begins(notice)
    parts.notice = notice[:cut]
    if cut < len(notice) and not parts.returned:
        parts.returned = _headers_in(notice[cut : cut + _RETURNED_BYTES])
    return parts


def _with_line_feeds(raw: bytes) -> bytes:
    """`raw` with line ends that the parser knows: a file of an old Macintosh has CR alone."""
    if b"\n" not in raw:
        return raw.replace(b"\r", b"\n")
    return raw.replace(b"\r\r\n", b"\n") if b"\r\r\n" in raw else raw


def _parts(root: Part) -> Iterator[Part]:
    """The leaves of a mail, messages that it holds counting as leaves."""
    waiting = [root]
    while waiting:
        part = waiting.pop()
        if part.children and not part.content_type.value.startswith("message/"):
            waiting.extend(reversed(part.children))
        else:
            yield part


def _sort(reading: Reading, part: Part, parts: Parts, texts: list[str]) -> None:
    kind = part.content_type.value
    if kind in _STATUS:
        if len(parts.status) < _TEXT_PARTS:
            parts.status.append(_status_text(reading, part))
    elif kind in _FEEDBACK:
        parts.feedback.append(_status_text(reading, part))
    elif kind in _RETURNED and part is not parts.root:
        parts.has_returned = True
        if not parts.returned:
            parts.returned = _returned_fields(reading, part)
    elif kind == "text/html":
        if not parts.html:
            parts.html = html_as_text(body.decode_text(reading, part, _TEXT_BYTES))
    elif _is_text(kind) and len(texts) < _TEXT_PARTS and part.disposition.value != "attachment":
        texts.append(body.decode_text(reading, part, _TEXT_BYTES))


def _is_text(kind: str) -> bool:
    """What a person reads, and a multipart that could not be cut."""
    return kind.startswith(("text/", "multipart/")) or kind in ("text", "")


def _status_text(reading: Reading, part: Part) -> str:
    """The fields of a part, whether or not the parser took some for the headers of the part."""
    return body.decode_text(reading, part, _STATUS_BYTES)


def _returned_fields(reading: Reading, part: Part) -> list[tuple[str, str]]:
    if part.children:
        return list(part.children[0].fields)
    return _headers_in(body.decode_text(reading, part, _RETURNED_BYTES))


def _headers_in(text: str) -> list[tuple[str, str]]:
    """The headers of the mail that begins somewhere in `text`, perhaps indented or quoted."""
    trace = _TRACE.search(text)
    start = 0
    if trace is not None:
        start = _first_header(text, trace.start())
    else:
        for found in re.finditer(r"^[ \t>|]{0,8}(?:From|To|Subject|Date):[ \t]", text, re.M):
            start = found.start()
            break
    block = _INDENT.sub("", text[start:])
    return list(Reading(block.encode("utf-8", "replace")).read().fields)


def _where_returned_begins(notice: str) -> int:
    """Where in `notice` the copy of the returned mail begins; its length when it has none."""
    cut = len(notice)
    trace = _TRACE.search(notice)
    if trace is not None and _is_header_block(notice, trace.start()):
        cut = _first_header(notice, trace.start())
    for separator in _SEPARATOR.finditer(notice, 0, cut):
        if notice[: separator.start()].strip():
            return separator.start()
    return cut if notice[:cut].strip() else len(notice)


def _is_header_block(text: str, at: int) -> bool:
    """Whether the lines from `at` on are mostly headers and their folds.

    A notice may name the id, date and subject of the mail: then other headers are not beside them.
    """
    block = text[_first_header(text, at) : at + 2_000].partition("\n\n")[0]
    lines = block.split("\n", 20)[:20]
    headers = sum(1 for line in lines if _HEADER.match(line))
    if headers < 2 and len(lines) > 2:
        return False
    return any(_MACHINE_HEADER.match(line) for line in lines)


def _first_header(text: str, at: int) -> int:
    """The start of the block of headers that the line at `at` is in."""
    while at > 0:
        before = text.rfind("\n", 0, at - 1) + 1
        line = text[before : at - 1]
        if not line.strip() or not (_HEADER.match(line) or line[:1] in (" ", "\t")):
            return at
        at = before
    return at


def html_as_text(html: str) -> str:
    """What a person reads of `html`, roughly: enough to find addresses and phrases in."""
    text = html
    for name in ("style", "script"):
        text = _without_element(text, name)
    text = _BREAKING.sub("\n", text)
    text = unescaped(_TAG.sub(" ", text))
    return "\n".join(_SPACES.sub(" ", line).strip() for line in text.split("\n"))


def _without_element(html: str, name: str) -> str:
    """`html` without the elements called `name`, in one pass."""
    lower = html.lower()
    if f"<{name}" not in lower or len(lower) != len(html):
        return html
    kept: list[str] = []
    position = 0
    while (start := lower.find(f"<{name}", position)) >= 0:
        kept.append(html[position:start])
        end = lower.find(f"</{name}", start)
        if end < 0:
            return "".join(kept)
        position = end
    kept.append(html[position:])
    return "".join(kept)
