"""Which parts of a mail are its text, its HTML and its attachments (RFC 8621 section 4.1.4)."""

from mailyard.protocol.mime import charset, transfer
from mailyard.protocol.mime.structure import IDENTITY, Part, Reading


class Bodies:
    """Parts by what they are for, in the order of the mail."""

    __slots__ = ("attachments", "html", "text")

    def __init__(self) -> None:
        self.text: list[Part] = []
        self.html: list[Part] = []
        self.attachments: list[Part] = []


def find_bodies(root: Part) -> Bodies:
    """Sort the leaves of `root`. An attached message is one attachment, whatever it holds."""
    found = Bodies()
    _sort([root], "mixed", found)
    return found


def _sort(parts: list[Part], inside: str, found: Bodies) -> None:
    for position, part in enumerate(parts):
        kind = part.content_type.value
        if part.children and not kind.startswith("message/"):
            _sort(part.children, kind[10:], found)
        elif not _is_body(part, position, inside):
            found.attachments.append(part)
        elif kind == "text/html":
            found.html.append(part)
        else:
            found.text.append(part)


def _is_body(part: Part, position: int, inside: str) -> bool:
    """Text that is shown as the mail itself, not as a thing beside it."""
    kind = part.content_type.value
    if part.disposition.value == "attachment":
        return False
    if kind.startswith("multipart/"):  # one that could not be cut is shown as it stands
        return part.encoding != "base64"
    if kind not in ("text/plain", "text/html", "text"):
        return inside == "alternative" and kind in ("text/enriched", "text/richtext")
    if position == 0 or inside == "alternative":
        return True
    named = "name" in part.content_type.parameters or "filename" in part.disposition.parameters
    return inside != "related" and not named


def decode_text(reading: Reading, part: Part, most_bytes: int | None = None) -> str:
    """The text of a leaf, with `\\n` line ends, safe to store and to show.

    `most_bytes` (a multiple of four, as base64 wants) cuts what is longer.
    """
    encoded = part.raw[part.body_start : part.end]
    if most_bytes is not None:
        encoded = encoded[:most_bytes]
    reading.work_units += len(encoded)
    if part.encoding not in IDENTITY:
        encoded, well_formed = transfer.undo(encoded, part.encoding)
        if not well_formed:
            reading.flaw("bad_transfer_encoding")
    return text_of_bytes(reading, part, encoded)


def text_of_bytes(reading: Reading, part: Part, content: bytes) -> str:
    """The same of bytes whose transfer encoding is undone already."""
    text, known = charset.decode(content, part.content_type.parameters.get("charset", ""))
    if not known:
        reading.flaw("bad_charset")
    if "\r" in text:
        text = text.replace("\r\n", "\n")
        if "\r" in text:
            text = text.replace("\r", "\n")
    return storable(text)


def storable(text: str) -> str:
    """`text` without NUL and lone surrogates, which neither PostgreSQL nor JSON can hold."""
    if "\0" in text:
        text = text.replace("\0", "")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return text.encode("utf-8", "replace").decode()
    return text
