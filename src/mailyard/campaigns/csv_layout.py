"""What kind of table a file is, decided once from its first bytes.

Encoding mark, delimiter, line end and header, and which column means what. Everything that makes
a whole file unusable is found here and said in words for the person who uploaded it.
"""

import csv
import re
from collections.abc import Mapping
from io import StringIO

import msgspec

from mailyard.core.errors import InvalidInput
from mailyard.core.limits import CSV_COLUMNS, CSV_LINE_BYTES

ADDRESS = "address"
NAME = "name"

_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_DELIMITERS = (",", ";", "\t", "|")
_ADDRESS_HEADERS = frozenset(
    ("email", "e_mail", "mail", "address", "email_address", "e_mail_address", "mail_address")
)
_NAME_HEADERS = frozenset(("name", "full_name", "fullname", "display_name", "contact_name"))
_BINARY_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_BINARY_SHARE = 0.02
_KNOWN_BINARIES = (
    (b"PK\x03\x04", "an Excel workbook or a zip archive; save it as CSV first"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook; save it as CSV first"),
    (b"%PDF", "a PDF"),
    (b"\x1f\x8b", "compressed with gzip; unpack it first"),
)
_NOT_A_WORD = re.compile(r"[^\w]+")
_COLUMN_NAME_CHARACTERS = 64


class Layout(msgspec.Struct, frozen=True):
    """How to read the rows of one file. Stored with the import, so that a take-over reads alike.

    `columns`: for each column its meaning: `address`, `name`, the name of an attribute, or None
    when the column is left out. `body_offset` is where the first row starts, in bytes;
    `body_line` its line number, counted from 1.
    """

    encoding: str
    delimiter: str
    line_end: str
    columns: list[str | None]
    body_offset: int
    body_line: int


class EncodingProbe:
    """Watches a whole file pass by and says at its end which encoding without a mark it has.

    UTF-8 unless something in it is not. Then Windows-1252, unless well-formed UTF-8 sequences
    outnumber the broken bytes: that is a UTF-8 file with foreign lines pasted in, and reading it
    as Windows-1252 would garble the many for the few, so only those lines are rejected.
    """

    def __init__(self) -> None:
        self._carry = b""
        self._broken = 0
        self._well_formed = 0

    def feed(self, part: bytes) -> None:
        data = self._carry + part
        cut = len(data) - _unfinished_sequence(data)
        self._carry = data[cut:]
        self._count(data[:cut])

    def encoding(self) -> str:
        """The verdict. Call it once, after the last part."""
        self._count(self._carry)
        self._carry = b""
        return "cp1252" if self._broken > self._well_formed else "utf-8"

    def _count(self, data: bytes) -> None:
        if data.isascii():
            return
        text = data.decode("utf-8", "surrogateescape")
        broken = len(re.findall("[\udc80-\udcff]", text))
        self._broken += broken
        self._well_formed += len(re.findall("[^\x00-\x7f]", text)) - broken


def _unfinished_sequence(data: bytes) -> int:
    """How many of the last bytes begin a UTF-8 sequence that the next part may finish (0 to 3)."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if length > back else 0
        if byte < 0x80:
            return 0
    return 0


def inspect(head: bytes, complete: bool, mapping: Mapping[str, str | None]) -> Layout | None:
    """Decide the layout from a file's first bytes, or None when more of them are needed.

    `complete`: `head` is the whole file. `mapping` (column name as in the file -> `address`,
    `name`, an attribute's name, or None to leave it out) overrides what the header suggests.
    The encoding of a file without a mark is a guess here; `EncodingProbe` has the last word.
    Raises InvalidInput when the file cannot be a table of contacts, and says why.
    """
    if not head.strip():
        if complete:
            raise InvalidInput("the file is empty", field="file")
        return None
    encoding, mark = _encoding_of(head)
    text = head[mark:].decode(encoding, _on_error(encoding))
    _refuse_binary(head, text)
    header = _first_row(text, complete)
    if header is None:
        if len(text) > CSV_LINE_BYTES:
            raise InvalidInput(
                f"the header is longer than {CSV_LINE_BYTES:,} characters", field="file"
            )
        return None
    source, skipped_lines, rest = header
    delimiter, names = _split_header(source, mapping)
    if not complete and not rest.strip():
        return None
    if not rest.strip():
        raise InvalidInput("the file has a header but no rows", field="file")
    body = text[: len(text) - len(rest)]
    line_end = "\n" if "\n" in body else "\r"
    return Layout(
        encoding=encoding,
        delimiter=delimiter,
        line_end=line_end,
        columns=_meanings(names, mapping),
        body_offset=mark + len(body.encode(encoding, _on_error(encoding))),
        body_line=1 + skipped_lines + source.count(line_end),
    )


def _encoding_of(head: bytes) -> tuple[str, int]:
    """The encoding and the length of its mark. Without a mark, UTF-8 where it decodes so far."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding, len(mark)
    probe = EncodingProbe()
    probe.feed(head)
    return probe.encoding(), 0


def _on_error(encoding: str) -> str:
    return "ignore" if encoding.startswith("utf-16") else "surrogateescape"


def _refuse_binary(head: bytes, text: str) -> None:
    for magic, what in _KNOWN_BINARIES:
        if head.startswith(magic):
            raise InvalidInput(f"the file is not text: it is {what}", field="file")
    sample = text[:65536]
    if len(_BINARY_CONTROLS.findall(sample)) > len(sample) * _BINARY_SHARE:
        raise InvalidInput(
            "the file is not text: it looks binary (a CSV file in UTF-8, UTF-16 with a mark, or "
            "Windows-1252 is expected)",
            field="file",
        )


def _first_row(text: str, complete: bool) -> tuple[str, int, str] | None:
    """The header with its line end, the blank lines before it, and the text behind it."""
    body = text.lstrip("\r\n")
    blank = text[: len(text) - len(body)]
    skipped = max(blank.count("\n"), blank.count("\r"))
    newline, carriage = body.find("\n"), body.find("\r")
    if newline < 0 <= carriage < len(body) - 1:
        end_mark = "\r"
    elif newline >= 0:
        end_mark = "\n"
    else:
        return (body, skipped, "") if complete else None
    start = 0
    while True:
        end = body.find(end_mark, start)
        if end < 0:
            return (body, skipped, "") if complete else None
        if body.count('"', 0, end) % 2 == 0 or end > CSV_LINE_BYTES:
            break
        start = end + 1
    if end > CSV_LINE_BYTES:
        return None
    return body[: end + 1], skipped, body[end + 1 :]


def _split_header(source: str, mapping: Mapping[str, str | None]) -> tuple[str, list[str]]:
    """The delimiter under which the header has a column of addresses, else the most columns."""
    best: tuple[bool, int, str, list[str]] | None = None
    for delimiter in _DELIMITERS:
        try:
            names = next(csv.reader(StringIO(source, newline=""), delimiter=delimiter), [])
        except csv.Error as error:
            raise InvalidInput(f"the header cannot be read: {error}", field="file") from error
        names = [name.strip() for name in names]
        candidate = (_address_column(names, mapping) is not None, len(names), delimiter, names)
        if best is None or candidate[:2] > best[:2]:
            best = candidate
    assert best is not None
    if best[1] > CSV_COLUMNS:
        raise InvalidInput(
            f"the file has {best[1]:,} columns; at most {CSV_COLUMNS} are read", field="file"
        )
    return best[2], best[3]


def attribute_name(header: str) -> str:
    """A header as a merge field can name it: `First Name` is `first_name`."""
    word = _NOT_A_WORD.sub("_", header.strip().lower()).strip("_")
    if word[:1].isdigit():
        word = f"_{word}"
    return word[:_COLUMN_NAME_CHARACTERS]


def _address_column(names: list[str], mapping: Mapping[str, str | None]) -> int | None:
    mapped = {_key(column): meaning for column, meaning in mapping.items()}
    for index, name in enumerate(names):
        if mapped.get(_key(name)) == ADDRESS:
            return index
    if ADDRESS in mapped.values():
        return None
    for index, name in enumerate(names):
        if _key(name) not in mapped and attribute_name(name) in _ADDRESS_HEADERS:
            return index
    return None


def _key(column: str) -> str:
    return column.strip().casefold()


def _meanings(names: list[str], mapping: Mapping[str, str | None]) -> list[str | None]:
    """For each column: `address`, `name`, an attribute, or None. Raises InvalidInput."""
    mapped = {_key(column): meaning for column, meaning in mapping.items()}
    known = {_key(name) for name in names}
    for column in mapping:
        if _key(column) not in known:
            raise InvalidInput(
                f"the mapping names a column {column!r} that the file does not have",
                field="mapping",
            )
    address = _address_column(names, mapping)
    if address is None:
        found = ", ".join(repr(name[:40]) for name in names[:12]) or "none"
        raise InvalidInput(
            "no column holds email addresses: call one of them email, or say in the mapping "
            f"which is the address (columns found: {found})",
            field="file",
        )
    meanings: list[str | None] = []
    taken = {ADDRESS}
    for index, name in enumerate(names):
        if index == address:
            meanings.append(ADDRESS)
            continue
        meaning = mapped[_key(name)] if _key(name) in mapped else _suggested(name, taken)
        if meaning is not None and meaning in taken:
            raise InvalidInput(f"two columns are mapped to {meaning!r}", field="mapping")
        if meaning is not None:
            taken.add(meaning)
        meanings.append(meaning)
    return meanings


def _suggested(header: str, taken: set[str]) -> str | None:
    """The meaning that a header has by itself; a column without a name is left out."""
    word = attribute_name(header)
    if not word:
        return None
    if word in _NAME_HEADERS and NAME not in taken:
        return NAME
    suggested, number = word, 1
    while suggested in taken or suggested in (ADDRESS, NAME):
        number += 1
        suggested = f"{word}_{number}"
    return suggested
