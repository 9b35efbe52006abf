"""The bytes of the mail that we send: CRLF line ends, RFC 5322 and MIME, composed by hand.

`compose` writes one mail of any shape. A `Mould` is prepared once a campaign and writes the same
kind of mail for one recipient after the other: what does not change is encoded beforehand.

A body goes as it is (7bit, or 8bit when it is not ASCII) while its lines are within 998 octets
(RFC 5321 section 4.5.3.1.6), else as quoted-printable; attachments go as base64. Bcc is never
written: there is no parameter for it.
"""

import binascii
from base64 import encodebytes
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple, Protocol

from mailyard.core import limits
from mailyard.core.errors import InvalidInput, TooLarge
from mailyard.protocol.address import Mailbox
from mailyard.sending import header

_ONE_CLICK = "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"  # RFC 8058
_ALTERNATIVE = "multipart/alternative"
_MIXED = "multipart/mixed"
_RELATED = "multipart/related"


class AttachedFile(Protocol):
    """A file beside the text; with a `content_id` the HTML can show it (`cid:…`)."""

    @property
    def filename(self) -> str: ...
    @property
    def content(self) -> bytes: ...
    @property
    def content_type(self) -> str: ...
    @property
    def content_id(self) -> str | None: ...


class Composed(NamedTuple):
    """A finished mail, not dot-stuffed, and what it asks of the transport."""

    content: bytes
    eight_bit: bool  # needs BODY=8BITMIME (RFC 6152)
    smtp_utf8: bool  # needs SMTPUTF8 (RFC 6531): a local part in the headers is not ASCII


def compose(
    *,
    sender: Mailbox,
    to: Sequence[Mailbox],
    cc: Sequence[Mailbox] = (),
    reply_to: Sequence[Mailbox] = (),
    subject: str,
    text: str = "",
    html: str = "",
    headers: Mapping[str, str] | None = None,
    attachments: Sequence[AttachedFile] = (),
    date: datetime,
    message_id: str,
    list_unsubscribe: str = "",
) -> Composed:
    """One mail. `message_id` is without angle brackets, `list_unsubscribe` an https URL.

    The same arguments give the same bytes. Raises InvalidInput naming the field, TooLarge.
    """
    head = [
        f"Date: {header.date(date)}\r\n",
        header.mailboxes("From", [sender], "from"),
        header.mailboxes("To", to, "to") if to else "To: undisclosed-recipients:;\r\n",
        header.mailboxes("Cc", cc, "cc"),
        header.mailboxes("Reply-To", reply_to, "reply_to"),
        header.unstructured("Subject", subject, "subject"),
        header.fold("Message-ID", _angled(message_id, "message_id"), "message_id"),
    ]
    if list_unsubscribe:
        head.append(_unsubscribe(list_unsubscribe))
    for name, value in (headers or {}).items():
        head.append(header.custom(name, value, f"headers.{name}"))
    head.append("MIME-Version: 1.0\r\n")
    body = _content(text, html, attachments, message_id)
    content = "".join(head).encode() + body
    if len(content) > limits.EMAIL_BYTES:
        raise TooLarge(f"the mail is larger than {limits.EMAIL_BYTES} bytes")
    addresses = (sender, *to, *cc, *reply_to)
    return Composed(
        content=content,
        eight_bit=not content.isascii(),
        smtp_utf8=any(header.needs_smtp_utf8(mailbox.address) for mailbox in addresses),
    )


def _angled(identifier: str, field: str) -> str:
    """`<identifier>`; refuses what would end it early."""
    header.check_value(identifier, field)
    inner = identifier.strip("<>")
    if not inner or not inner.isascii() or any(mark in inner for mark in "<> \t"):
        raise InvalidInput("must be ASCII without spaces and angle brackets", field=field)
    return f"<{inner}>"


def _unsubscribe(url: str) -> str:
    line = header.fold("List-Unsubscribe", _angled(url, "list_unsubscribe"), "list_unsubscribe")
    return line + _ONE_CLICK if url.startswith("https://") else line


# Entities: header lines, an empty line, the body, without a line break at the end ----------------


def _content(text: str, html: str, attachments: Sequence[AttachedFile], seed: str) -> bytes:
    bodies = [_text_entity(text, "plain", "text")] if text or not html else []
    shown = [file for file in attachments if file.content_id and html]
    beside = [file for file in attachments if not (file.content_id and html)]
    if html:
        page = _text_entity(html, "html", "html")
        if shown:
            page = _multipart(_RELATED, [page, *_files(shown, attachments)], f"{seed} related")
        bodies.append(page)
    whole = bodies[0] if len(bodies) == 1 else _multipart(_ALTERNATIVE, bodies, seed)
    if beside:
        whole = _multipart(_MIXED, [whole, *_files(beside, attachments)], f"{seed} mixed")
    return whole if whole.endswith(b"\r\n") else whole + b"\r\n"


def _files(some: Sequence[AttachedFile], among: Sequence[AttachedFile]) -> list[bytes]:
    numbers = {id(file): index for index, file in enumerate(among)}
    return [_file_entity(file, f"attachments.{numbers[id(file)]}") for file in some]


def _text_entity(text: str, subtype: str, field: str) -> bytes:
    lines = canonical(text, field)
    raw = lines.encode()
    encoding = "7bit" if lines.isascii() else "8bit"
    if max(map(len, raw.split(b"\r\n"))) > limits.HEADER_LINE_BYTES:
        encoding = "quoted-printable"
        raw = quoted_printable(raw)
    head = (
        f"Content-Type: text/{subtype}; charset=utf-8\r\n"
        f"Content-Transfer-Encoding: {encoding}\r\n\r\n"
    )
    return head.encode("ascii") + raw


def canonical(text: str, field: str) -> str:
    """`text` with CRLF line ends. Raises InvalidInput on NUL and lone surrogates."""
    if "\0" in text:
        raise InvalidInput("NUL is not allowed here", field=field)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidInput("not valid Unicode", field=field) from None
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.replace("\n", "\r\n")


def quoted_printable(raw: bytes) -> bytes:
    """RFC 2045 section 6.7 with CRLF line ends."""
    return binascii.b2a_qp(raw.replace(b"\r\n", b"\n"), istext=True).replace(b"\n", b"\r\n")


def _file_entity(file: AttachedFile, field: str) -> bytes:
    kind = header.check_value(file.content_type, f"{field}.content_type") or "application/x"
    if kind.startswith(("multipart/", "message/")):
        kind = "application/octet-stream"  # RFC 2046 section 5.2.1 forbids base64 for these
    if not kind.isascii() or any(mark in kind for mark in ' ;"(),'):
        raise InvalidInput("not a media type", field=f"{field}.content_type")
    name = header.check_value(file.filename, f"{field}.filename")
    inline = bool(file.content_id)
    lines = [f"Content-Type: {kind}{header.parameter('name', name) if name else ''}\r\n"]
    lines.append("Content-Transfer-Encoding: base64\r\n")
    disposition = "inline" if inline else "attachment"
    named = header.parameter("filename", name) if name else ""
    lines.append(f"Content-Disposition: {disposition}{named}\r\n")
    if file.content_id:
        lines.append(f"Content-ID: {_angled(file.content_id, f'{field}.content_id')}\r\n")
    head = "".join(lines) + "\r\n"
    return head.encode("ascii") + encodebytes(file.content).replace(b"\n", b"\r\n")


def _multipart(kind: str, entities: Sequence[bytes], seed: str) -> bytes:
    """`entities` between delimiter lines that occur in none of them (RFC 2046 section 5.1.1)."""
    boundary = _boundary(seed)
    attempt = 0
    while any(boundary in entity for entity in entities):
        attempt += 1
        boundary = _boundary(f"{seed} {attempt}")
    mark = b"--" + boundary
    head = f'Content-Type: {kind};\r\n boundary="{boundary.decode("ascii")}"\r\n\r\n'
    pieces = [head.encode("ascii")]
    for entity in entities:
        pieces += (mark, b"\r\n", entity, b"\r\n")
    pieces += (mark, b"--\r\n")
    return b"".join(pieces)


def _boundary(seed: str) -> bytes:
    """`=_` cannot occur in quoted-printable or base64; the rest follows from `seed`."""
    return b"=_" + sha256(seed.encode("utf-8", "replace")).hexdigest()[:32].encode("ascii")
