"""Header lines of the mail that we write (RFC 5322 section 2.2, RFC 2047, RFC 2231, RFC 6532).

Lines are folded at 78 characters where there is a space and never pass 998. CR, LF and NUL are
refused everywhere, with the name of the field, so that no value can add a header or end the head.
"""

import re
from binascii import b2a_base64
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import quote

from mailyard.core import limits
from mailyard.core.errors import InvalidInput
from mailyard.protocol.address import Mailbox, ascii_domain, split_address

_BREAKS = re.compile(r"[\r\n\0]")
_NOT_TEXT = re.compile(r"[\x01-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_NAME = re.compile(r"[!-9;-~]{1,76}")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_PIECES = re.compile(r"[ \t]*[^ \t]+|[ \t]+\Z")
_WORD_BYTES = 45  # of one encoded word in base64: 60 characters, 75 with its frame (RFC 2047 2)
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip


def check_value(value: str, field: str) -> str:
    """`value`, fit for a header line. Raises InvalidInput naming `field`."""
    if value.isprintable():
        return value
    if _BREAKS.search(value):
        raise InvalidInput("a line break or NUL is not allowed here", field=field)
    if _NOT_TEXT.search(value):
        raise InvalidInput("a control character is not allowed here", field=field)
    return value


def fold(name: str, value: str, field: str) -> str:
    """`name: value` CRLF, folded before spaces. Raises InvalidInput when a word is too long."""
    line = f"{name}: {value}"
    if len(line) <= limits.HEADER_FOLD_BYTES and value.isascii():
        return f"{line}\r\n"
    lines: list[str] = []
    current = f"{name}:"
    width = len(current)
    for piece in _PIECES.findall(f" {value}"):
        size = len(piece) if piece.isascii() else len(piece.encode())
        # A folded line must not be white space alone (RFC 5322 section 3.2.2).
        if (
            width + size > limits.HEADER_FOLD_BYTES
            and current.strip() != f"{name}:"
            and not piece.isspace()
        ):
            lines.append(current)
            current, width = piece, size
        else:
            current += piece
            width += size
        if width > limits.HEADER_LINE_BYTES:
            raise InvalidInput(
                f"a word without a space is longer than {limits.HEADER_LINE_BYTES} bytes",
                field=field,
            )
    lines.append(current)
    return "\r\n".join(lines) + "\r\n"


def encode_words(text: str) -> str:
    """`text` as RFC 2047 encoded words of UTF-8, none split inside a character."""
    raw = text.encode()
    words: list[str] = []
    start, size = 0, len(raw)
    while True:
        end = start + _WORD_BYTES
        while end < size and raw[end] & 0xC0 == 0x80:  # inside a character
            end -= 1
        words.append(f"=?utf-8?B?{b2a_base64(raw[start:end], newline=False).decode('ascii')}?=")
        start = end
        if start >= size:
            return " ".join(words)


def unstructured(name: str, value: str, field: str) -> str:
    """A header of free text (Subject, the caller's own). Raises InvalidInput naming `field`."""
    check_value(value, field)
    encodable = not value.isascii() or "=?" in value or value != value.strip()
    if encodable or _longest_word(value) > limits.HEADER_LINE_BYTES - len(name) - 2:
        value = encode_words(value)
    return fold(name, value, field)


def _longest_word(value: str) -> int:
    return max(map(len, value.split()), default=0)


def custom(name: str, value: str, field: str) -> str:
    """A header of the caller's own: free text, its name checked too."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{name[:80]!r} is not a header name", field=field)
    return unstructured(name, value, field)


def phrase(name: str) -> str:
    """A display name: words, a quoted string, or encoded words."""
    if not name.isascii() or "=?" in name:
        return encode_words(name)
    if _ATOMS.fullmatch(name):
        return name
    if "\t" in name or len(name) > limits.HEADER_FOLD_BYTES:
        return encode_words(name)
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def mailbox(name: str, address: str, field: str) -> str:
    """`Name <address>`; a domain in its ASCII form, a local part as it is (RFC 6532)."""
    check_value(name, field)
    check_value(address, field)
    if not address.isascii():
        local, domain = split_address(address)
        address = f"{local}@{ascii_domain(domain)}"
    return f"{phrase(name)} <{address}>" if name else address


def mailboxes(name: str, members: Iterable[Mailbox], field: str) -> str:
    """An address header, one mailbox after the other; empty when there are none."""
    listed = [
        mailbox(member.name, member.address, f"{field}.{index}" if field != "from" else field)
        for index, member in enumerate(members)
    ]
    return fold(name, ", ".join(listed), field) if listed else ""


def needs_smtp_utf8(address: str) -> bool:
    """Whether `address` can only be written as UTF-8: its local part is not ASCII."""
    return not address.isascii() and not address.rpartition("@")[0].isascii()


def date(moment: datetime) -> str:
    """RFC 5322 section 3.3, in UTC."""
    return _date(int(moment.timestamp()))


@lru_cache(maxsize=16)
def _date(unix_s: int) -> str:
    at = datetime.fromtimestamp(unix_s, UTC)
    return (
        f"{_DAYS[at.weekday()]}, {at.day:02} {_MONTHS[at.month - 1]} {at.year:04} "
        f"{at.hour:02}:{at.minute:02}:{at.second:02} +0000"
    )


def parameter(name: str, value: str) -> str:
    """`; name=value` on a folded line: quoted when ASCII, RFC 2231 otherwise or when long."""
    if value.isascii() and len(value) <= 60:
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f';\r\n {name}="{escaped}"'
    encoded = f"utf-8''{quote(value, safe='')}"
    if len(encoded) <= 60:
        return f";\r\n {name}*={encoded}"
    pieces: list[str] = []
    while encoded:
        cut = 50
        while cut > 47 and "%" in encoded[cut - 2 : cut]:  # never inside %XX
            cut -= 1
        pieces.append(f";\r\n {name}*{len(pieces)}*={encoded[:cut]}")
        encoded = encoded[cut:]
    return "".join(pieces)
