"""What the writer of a mail wrote: without the mail that it answers, without the signature.

Where a quote is followed by text, the text answers the quote: under an attribution on top the quote
goes and the text stays; between the writer's own paragraphs the quotes stay, for the answers would
mean nothing without them. A mail that only forwards another keeps that one.
"""

import re

from mailyard.protocol.meaning.finding import Part, TextSpan, WrittenReply
from mailyard.protocol.meaning.letter import Letter
from mailyard.protocol.meaning.lines import Kind, Line, lines_of, runs
from mailyard.protocol.meaning.shapes import EMAIL, URL
from mailyard.protocol.meaning.words import TABLES, fold

_CLOSING_WORDS = frozenset(fold(one) for one in TABLES["reply"]["closings"])
_SIGNATURE_LINES = 12
_CONTACT_LINES = 8
_SIGNATURE_LINE_CHARACTERS = 80
_DASHES = re.compile(r"\s*(?:--|—|_{4,})\s*$")
_PHONE = re.compile(r"(?<![\w])(?:\+|\()?\d[\d ()./-]{6,}\d(?!\w)")


def reply_of(letter: Letter) -> WrittenReply:
    """The reply in the part that a person reads."""
    return reply_in(letter.body, letter.body_part)


def reply_in(text: str, part: Part) -> WrittenReply:
    """The reply in `text`. Never raises; linear but for the few lines around a marker."""
    lines = lines_of(text)
    keep = [True] * len(lines)
    _drop_quoted(lines, keep)
    signed = _drop_signature(lines, keep)
    _drop_end(lines, keep)
    while keep and True in keep and lines[keep.index(True)].kind is Kind.EMPTY:
        keep[keep.index(True)] = False
    closing = _closing(lines, keep)
    start = closing if closing is not None else signed
    signature = _span(lines, start) if start is not None else None
    kept = [line for line, stays in zip(lines, keep, strict=True) if stays]
    return WrittenReply(
        "\n".join(line.text for line in kept).rstrip(), part, _spans(kept), signature
    )


# Quotes -------------------------------------------------------------------------------------------


def _drop_quoted(lines: list[Line], keep: list[bool]) -> None:
    """Drop attributions and the quotes that they introduce."""
    written, seen = (
        False,
        0,
    )  # whether a line of the writer's own stays above, and how far we looked
    for first, behind in list(runs(lines)):
        if not keep[first]:
            continue
        written = written or _has_text(lines, keep, seen, first)
        seen = first
        place = _next(lines, behind)
        if place is not None and lines[place].kind is Kind.QUOTE:
            quote_end = _quote_end(lines, place)
            if not _has_text_of_its_own(lines, quote_end):
                _drop(keep, first, len(lines) if written else quote_end)
            else:
                _drop(keep, first, behind if written else quote_end)
        else:
            _drop(keep, first, len(lines) if written else behind)


def _has_text(lines: list[Line], keep: list[bool], start: int, end: int) -> bool:
    return any(keep[i] and lines[i].kind in (Kind.TEXT, Kind.DEVICE) for i in range(start, end))


def _has_text_of_its_own(lines: list[Line], start: int) -> bool:
    """Text behind a quote that is no signature and not only another quoted mail."""
    for line in lines[start:]:
        if (line.kind is Kind.DELIMITER and _DASHES.match(line.text)) or line.kind is Kind.MARKER:
            return False
        if line.kind is Kind.TEXT:
            return True
    return False


def _next(lines: list[Line], start: int) -> int | None:
    return next((i for i in range(start, len(lines)) if lines[i].kind is not Kind.EMPTY), None)


def _quote_end(lines: list[Line], start: int) -> int:
    """Behind the last line of a quote, whose paragraphs may have empty lines between."""
    end = start
    for index in range(start, len(lines)):
        if lines[index].kind is Kind.QUOTE:
            end = index + 1
        elif lines[index].kind is not Kind.EMPTY:
            break
    return end


def _drop(keep: list[bool], start: int, end: int) -> None:
    keep[start:end] = [False] * (end - start)


# The end ------------------------------------------------------------------------------------------


def _drop_end(lines: list[Line], keep: list[bool]) -> None:
    """Drop what stands underneath: quotes, delimiters, what devices write."""
    written = _has_text(lines, keep, 0, len(lines))
    for index in range(len(lines) - 1, -1, -1):
        if not keep[index]:
            continue
        kind = lines[index].kind
        if kind is Kind.TEXT or (kind is Kind.QUOTE and not written):
            return
        keep[index] = False


def _drop_signature(lines: list[Line], keep: list[bool]) -> int | None:
    """Drop what follows a `--` line, or a block of contact data; its first line, if any."""
    kept = [index for index, stays in enumerate(keep) if stays]
    for index in kept:
        if lines[index].kind is Kind.DELIMITER and _DASHES.match(lines[index].text):
            below = [i for i in kept if i > index and lines[i].kind is not Kind.EMPTY]
            above = any(lines[i].kind in (Kind.TEXT, Kind.QUOTE) for i in kept if i < index)
            limit = _SIGNATURE_LINES if "_" not in lines[index].text else _CONTACT_LINES
            if above and 0 < len(below) <= limit and not _is_prose(lines, below):
                _drop(keep, index, len(lines))
                return below[0]
    return _drop_contact(lines, keep, kept)


def _is_prose(lines: list[Line], indexes: list[int]) -> bool:
    return sum(len(lines[i].text) > 160 for i in indexes) > 1


def _drop_contact(lines: list[Line], keep: list[bool], kept: list[int]) -> int | None:
    """The last block, if it is short lines of which at least two are ways to reach somebody."""
    end = len(kept)
    while end and lines[kept[end - 1]].kind in (Kind.EMPTY, Kind.DEVICE, Kind.DELIMITER):
        end -= 1
    start = end
    while start and lines[kept[start - 1]].kind is Kind.TEXT and end - start <= _CONTACT_LINES:
        start -= 1
    block = kept[start:end]
    if not 2 <= len(block) <= _CONTACT_LINES or start == 0:
        return None
    texts = [lines[i].text.strip() for i in block]
    contacts = sum(_is_contact(text) for text in texts)
    if contacts < 2 or any(len(text) > _SIGNATURE_LINE_CHARACTERS for text in texts):
        return None
    if not _has_text(lines, keep, 0, block[0]):
        return None
    _drop(keep, block[0], len(lines))
    return block[0]


def _is_contact(text: str) -> bool:
    if len(text.split()) > 8:
        return False
    return any(shape.search(text) for shape in (EMAIL, URL, _PHONE))


def _closing(lines: list[Line], keep: list[bool]) -> int | None:
    """The line of "Regards," with a short rest: a signature begins there; the reply keeps it."""
    kept = [i for i, stays in enumerate(keep) if stays and lines[i].kind is not Kind.EMPTY]
    for place in range(max(1, len(kept) - 6), len(kept)):
        said = fold(lines[kept[place]].text).strip(" ,.!-–—~\t")
        if said in _CLOSING_WORDS:
            rest = kept[place + 1 :]
            if all(len(lines[i].text) <= _SIGNATURE_LINE_CHARACTERS for i in rest):
                return kept[place]
    return None


# Spans --------------------------------------------------------------------------------------------


def _span(lines: list[Line], start: int) -> TextSpan:
    """From the line `start` to the end of its block: the next marker, quote or the end."""
    end = start
    for index in range(start, len(lines)):
        if lines[index].kind in (Kind.MARKER, Kind.QUOTE):
            break
        if lines[index].kind is not Kind.EMPTY:
            end = index
    return TextSpan(lines[start].start, lines[end].end)


def _spans(kept: list[Line]) -> tuple[TextSpan, ...]:
    """The kept lines as stretches of the text; neighbours are one."""
    spans: list[TextSpan] = []
    for line in kept:
        if spans and line.start == spans[-1].end + 1:
            spans[-1] = TextSpan(spans[-1].start, line.end)
        else:
            spans.append(TextSpan(line.start, line.end))
    return tuple(spans)
