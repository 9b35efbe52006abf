"""Rows out of CSV bytes that arrive in parts, in memory bounded by one part and one row.

The standard library's reader splits fields, fast; what it cannot do is bounded here: a line that
never ends, a quote that never closes, bytes that are no text, and going on from where a killed
worker stopped. A bad row costs itself only: reading goes on at the line behind its first.
"""

import csv
import re
from codecs import IncrementalDecoder, getincrementaldecoder
from dataclasses import dataclass
from io import StringIO

from mailyard.campaigns.csv_layout import Layout
from mailyard.core.limits import CSV_LINE_BYTES

REJECT_TEXT_CHARACTERS = 500
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that did not go in: its first line (1 is the header's), why, and how it began."""

    line: int
    reason: str
    row_text: str


@dataclass(frozen=True, slots=True)
class Rows:
    """What one part brought: rows as (line, fields), and rejects. Lines count from 1."""

    rows: list[tuple[int, list[str]]]
    rejects: list[Reject]


class CsvRows:
    """Reads rows from `offset` bytes into the file, which must be where line `line` starts.

    After each `feed`, `offset` and `line` are where an interrupted reading may go on: everything
    before them was returned, nothing behind them was.
    """

    def __init__(self, layout: Layout, offset: int, line: int) -> None:
        self.offset = offset
        self.line = line
        self._layout = layout
        self._decoder: IncrementalDecoder = getincrementaldecoder(layout.encoding)(_errors(layout))
        self._encode_errors = "surrogatepass" if _is_utf16(layout) else "surrogateescape"
        self._text = ""
        self._overlong: Reject | None = None
        self._skipped_bytes = 0

    def feed(self, part: bytes, final: bool) -> Rows:
        """Read what `part` completes; `final` says that no other follows."""
        found = Rows([], [])
        text = self._text + self._decode(part, final)
        if self._overlong is not None:
            text = self._skip(self._overlong, text, found, final)
        lines = list(StringIO(text, newline="\n")) if self._layout.line_end == "\n" else _cr(text)
        if lines and not final and not lines[-1].endswith(self._layout.line_end):
            unfinished = lines.pop()
        else:
            unfinished = ""
        used = self._read(lines, found, final)
        consumed = "".join(lines[:used])
        self._advance(consumed, used)
        self._text = "".join(lines[used:]) + unfinished
        if used == len(lines) and len(unfinished) > CSV_LINE_BYTES:
            self._begin_skipping()
        return found

    def _decode(self, part: bytes, final: bool) -> str:
        if final and _is_utf16(self._layout):
            # An odd byte at the end is half a character; the row before it is read without it.
            return self._decoder.decode(part, False)
        return self._decoder.decode(part, final)

    def _advance(self, consumed: str, lines: int) -> None:
        self.offset += len(consumed.encode(self._layout.encoding, self._encode_errors))
        self.line += lines

    def _begin_skipping(self) -> None:
        self._overlong = Reject(
            self.line, f"the line is longer than {CSV_LINE_BYTES:,} characters", shown(self._text)
        )
        self._drop(self._text)
        self._text = ""

    def _drop(self, text: str) -> None:
        self._skipped_bytes += len(text.encode(self._layout.encoding, self._encode_errors))

    def _skip(self, overlong: Reject, text: str, found: Rows, final: bool) -> str:
        """Drop the rest of an overlong line; what stands behind it.

        Until its end is found, the place to go on stays before it and it is not rejected yet, so
        that whoever goes on from there rejects it once.
        """
        end = text.find(self._layout.line_end)
        if end < 0 and not final:
            self._drop(text)
            return ""
        end = end if end >= 0 else len(text) - 1
        self._drop(text[: end + 1])
        found.rejects.append(overlong)
        self._overlong = None
        self.offset += self._skipped_bytes
        self.line += 1
        self._skipped_bytes = 0
        return text[end + 1 :]

    def _read(self, lines: list[str], found: Rows, final: bool) -> int:
        """Take rows from `lines` while they are whole; how many lines were used up."""
        source = _Lines(lines)
        used = 0
        while used < len(lines):
            source.at = used
            reader = csv.reader(source, delimiter=self._layout.delimiter, strict=True)
            append, first_line, taken = found.rows.append, self.line + used, 0
            try:
                for fields in reader:
                    if fields:
                        append((first_line + taken, fields))
                    taken = reader.line_num
                return len(lines)
            except csv.Error as error:
                used += taken
                if "end of data" in str(error) and not final:
                    size = sum(map(len, lines[used:]))
                    if size <= CSV_LINE_BYTES:
                        return used
                found.rejects.append(
                    Reject(self.line + used, _reason(str(error)), shown(lines[used]))
                )
                used += 1
        return used


class _Lines:
    """An iterator over lines that can be put back to an earlier one."""

    __slots__ = ("_lines", "at")

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self.at = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        at = self.at
        if at == len(self._lines):
            raise StopIteration
        self.at = at + 1
        return self._lines[at]


def shown(text: str) -> str:
    """The beginning of a bad row as it can be stored and shown."""
    start = text[:REJECT_TEXT_CHARACTERS].rstrip("\r\n")
    return _SURROGATE.sub("\ufffd", start).replace("\0", "\ufffd")


def not_text(fields: list[str]) -> str | None:
    """Why these fields cannot be stored as text, or None."""
    whole = "".join(fields)
    if "\0" in whole:
        return "the row contains a NUL byte"
    if _SURROGATE.search(whole):
        return "the row contains bytes that are not text in the file's encoding"
    return None


def is_text(rows: Rows) -> bool:
    """Whether `not_text` needs asking at all: one fast look at many rows."""
    try:
        joined = "".join(["".join(fields) for _, fields in rows.rows])
        return b"\0" not in joined.encode("utf-8")
    except UnicodeEncodeError:
        return False


def _reason(error: str) -> str:
    if "end of data" in error:
        return "a quote is opened and never closed"
    if "field larger" in error:
        return "a field is longer than 131,072 characters, or a quote is never closed"
    if "expected after" in error:
        return "a quote inside a field is not doubled"
    if "new-line character" in error:
        return "a carriage return stands inside a field that is not quoted"
    return f"the row cannot be read: {error}"


def _cr(text: str) -> list[str]:
    """Lines of a file that ends them with CR alone, as old Macintosh programs do."""
    pieces = text.split("\r")
    lines = [f"{piece}\r" for piece in pieces[:-1]]
    return [*lines, pieces[-1]] if pieces[-1] else lines


def _is_utf16(layout: Layout) -> bool:
    return layout.encoding.startswith("utf-16")


def _errors(layout: Layout) -> str:
    return "surrogatepass" if _is_utf16(layout) else "surrogateescape"
