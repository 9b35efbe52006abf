"""The HTML of a mail that somebody else wrote, and the mail with another HTML in its place.

Everything around the part stays byte for byte: it keeps its headers, so the new HTML is written in
the charset and the transfer encoding that they name.
"""

import codecs
from base64 import encodebytes

from mailyard.core import limits
from mailyard.core.errors import InvalidInput
from mailyard.protocol.mime.body import decode_text, find_bodies
from mailyard.protocol.mime.structure import IDENTITY, Part, Reading
from mailyard.protocol.smtp.content import has_line_over
from mailyard.sending.compose import quoted_printable

_ENCODINGS = IDENTITY | {"quoted-printable", "base64"}


class HtmlPart:
    """The one HTML body of `mail`. Raises InvalidInput when there is none, several, or one that
    cannot be written back."""

    def __init__(self, mail: bytes) -> None:
        reading = Reading(mail)
        found = find_bodies(reading.read()).html
        if len(found) != 1:
            raise InvalidInput(f"the mail has {len(found)} HTML parts")
        part: Part = found[0]
        self._charset = part.content_type.parameters.get("charset", "us-ascii")
        self._encoding = part.encoding
        self.html = decode_text(reading, part)
        if reading.defects or part.encoding not in _ENCODINGS or not _known(self._charset):
            raise InvalidInput("the HTML part cannot be read for certain")
        self._before, self._after = mail[: part.body_start], mail[part.end :]
        self._ends_line = mail[part.body_start : part.end].endswith(b"\r\n")

    def replaced(self, html: str) -> bytes:
        """The mail with `html`. Raises InvalidInput when it has a line that is too long."""
        raw = html.replace("\n", "\r\n").encode(self._charset, "xmlcharrefreplace")
        if self._encoding == "base64":
            raw = encodebytes(raw).replace(b"\n", b"\r\n")
        elif self._encoding == "quoted-printable":
            raw = quoted_printable(raw)
        elif has_line_over(raw, limits.HEADER_LINE_BYTES + 2):
            raise InvalidInput("a line would be too long")
        raw = raw.removesuffix(b"\r\n") + (b"\r\n" if self._ends_line else b"")
        return b"".join((self._before, raw, self._after))


def _known(charset: str) -> bool:
    try:
        codecs.lookup(charset)
    except (LookupError, ValueError):
        return False
    return charset.isascii()
