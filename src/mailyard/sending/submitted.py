"""Reading a mail that somebody submits: what it says of itself, and what it asks of Mailyard.

The mail goes out as it was written. Taken out are `Bcc` and the `X-Mailyard-…` headers, which are
orders to us; added later are `Date` and `Message-ID` where they are missing (RFC 6409 section 8.2
and 8.3). The body is never looked at. Linear in the headers, which are bounded.
"""

import binascii
import re
from base64 import b64decode
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from mailyard.core import limits
from mailyard.core.errors import InvalidInput, TooLarge
from mailyard.protocol.address import Mailbox, split_address
from mailyard.protocol.mime.date import parse_date
from mailyard.protocol.mime.message import addresses, message_id, readable
from mailyard.protocol.smtp.content import with_last_line_end
from mailyard.sending.request import EmailTrack

ORDER_PREFIX = "x-mailyard-"
ORDERS = (
    "Template", "Data", "Tag", "Track", "Priority", "Quiet-Hours", "Send-At", "Local-Time",
    "Expires-At", "Idempotency-Key",
)  # fmt: skip
_TRACK = "X-Mailyard-Track"
HOPS_MAX = 100  # a mail with more trace lines goes in circles (RFC 5321 section 6.3)

_KNOWN_ORDERS = {ORDER_PREFIX + name.lower(): name for name in ORDERS}
_TAKEN_OUT = frozenset(("bcc", "resent-bcc"))
_FIELD = re.compile(rb"[^\n]*\n(?:[ \t][^\n]*\n)*")  # a field with its folded lines
_NAME = re.compile(rb"([!-9;-~]+)[ \t]*:")
_BLANK_LINE = b"\r\n\r\n"
_FOLD = re.compile(r"\r\n(?=[ \t])")
_OURS = """
    from to cc reply-to subject date message-id mime-version sender return-path received
    dkim-signature
"""
_WRITTEN_BY_TEMPLATES = frozenset(_OURS.split())


@dataclass(frozen=True, slots=True)
class Submitted:
    """A mail, read. `mail` is what goes out, less what `missing` names.

    `orders`: the X-Mailyard headers by their names after the prefix. `others`: headers that a
    template's mail keeps. `unchanging`: what a repeated submission of the same mail has too.
    """

    mail: bytes
    sender: Mailbox
    sender_text: str
    to: list[Mailbox]
    cc: list[Mailbox]
    reply_to: list[Mailbox]
    subject: str
    message_id: str
    missing: tuple[str, ...]
    orders: dict[str, str]
    others: dict[str, str]
    unchanging: bytes


def read_submitted(content: bytes) -> Submitted:
    """Read a mail as it came. Raises InvalidInput or TooLarge naming the header."""
    head, body = _split(content)
    kept: list[bytes] = []
    unchanging: list[bytes] = []
    values: dict[str, str] = {}
    orders: dict[str, str] = {}
    others: dict[str, str] = {}
    hops = 0
    for field in _FIELD.findall(head):
        match = _NAME.match(field)
        if match is None:
            kept.append(field)
            continue
        written = match[1].decode("ascii")
        name = written.lower()
        if name.startswith(ORDER_PREFIX):
            _take_order(orders, written, _value(field, match.end()))
            continue
        if name in _TAKEN_OUT:
            continue
        kept.append(field)
        hops += name == "received"
        if name != "received":
            unchanging.append(field)
        if name in ("from", "sender") and name in values:
            raise InvalidInput("it stands there twice", field=written)
        values.setdefault(name, _value(field, match.end()))
        if name not in _WRITTEN_BY_TEMPLATES and not name.startswith("content-"):
            others[written] = readable(values[name])
    if hops > HOPS_MAX:
        raise InvalidInput(f"more than {HOPS_MAX} trace lines: the mail goes in circles")
    sender = _sender(values.get("from"))
    identifier = values.get("message-id", "")
    return Submitted(
        mail=b"".join((*kept, b"\r\n", body)) if body else b"".join((*kept, b"\r\n")),
        sender=sender,
        sender_text=readable(values["from"]),
        to=addresses(values.get("to", "")),
        cc=addresses(values.get("cc", "")),
        reply_to=addresses(values.get("reply-to", "")),
        subject=readable(values.get("subject", ""))[: limits.SUBJECT_CHARACTERS],
        message_id=message_id(identifier) if identifier.strip() else "",
        missing=tuple(name for name in ("Date", "Message-ID") if name.lower() not in values),
        orders=orders,
        others=others,
        unchanging=b"".join((*unchanging, b"\r\n", body)),
    )


def template_data(text: str) -> dict[str, Any]:
    """X-Mailyard-Data: a JSON object, plain or in base64. Raises InvalidInput."""
    text = text.strip()
    try:
        plain = text if text.startswith("{") else b64decode("".join(text.split()), validate=True)
        return msgspec.json.decode(plain, type=dict[str, Any])
    except (binascii.Error, ValueError, msgspec.DecodeError):
        raise InvalidInput(
            "a JSON object, as it is or in base64", field="X-Mailyard-Data"
        ) from None


def followed(text: str) -> EmailTrack:
    """X-Mailyard-Track: `opens`, `clicks`, both with a comma between, or `none`."""
    words = {word.strip().lower() for word in text.split(",")}
    if not words <= {"opens", "clicks"} and words != {"none"}:
        raise InvalidInput("opens, clicks, both with a comma between, or none", field=_TRACK)
    return EmailTrack("opens" in words, "clicks" in words)


def waits_for_quiet(orders: dict[str, str]) -> bool:
    """X-Mailyard-Quiet-Hours: `wait` or `ignore`."""
    word = orders.get("Quiet-Hours", "ignore").strip().lower()
    if word not in ("wait", "ignore"):
        raise InvalidInput("wait or ignore", field="X-Mailyard-Quiet-Hours")
    return word == "wait"


def moment(text: str, header: str) -> datetime:
    """A time with its offset, as in RFC 3339 or as in Date. Raises InvalidInput naming `header`."""
    text = text.strip()
    try:
        found: datetime | None = datetime.fromisoformat(text)
    except ValueError:
        found = parse_date(text)
    if found is None:
        raise InvalidInput("a time like 2026-12-24T09:00:00Z", field=header)
    if found.tzinfo is None:
        raise InvalidInput("a time needs its offset from UTC", field=header)
    return found.astimezone(UTC)


def _split(content: bytes) -> tuple[bytes, bytes]:
    """(header fields with their line ends, body)."""
    if content.startswith(b"\r\n"):
        head, body = b"", content[2:]
    else:
        at = content.find(_BLANK_LINE)
        head, body = (content, b"") if at < 0 else (content[: at + 2], content[at + 4 :])
    if len(head) > limits.MIME_HEADER_BYTES:
        raise TooLarge(f"the headers are longer than {limits.MIME_HEADER_BYTES} bytes")
    return with_last_line_end(head), with_last_line_end(body)


def _value(field: bytes, at: int) -> str:
    return _FOLD.sub("", field[at:].decode("utf-8", "replace")).strip()


def _take_order(orders: dict[str, str], written: str, value: str) -> None:
    name = _KNOWN_ORDERS.get(written.lower())
    if name is None:
        known = ", ".join(f"X-Mailyard-{order}" for order in ORDERS)
        raise InvalidInput(f"not known; there are {known}", field=written)
    if name in orders:
        raise InvalidInput("it stands there twice", field=written)
    orders[name] = value


def _sender(value: str | None) -> Mailbox:
    if value is None:
        raise InvalidInput("a mail needs it (RFC 5322 section 3.6)", field="From")
    found = addresses(value)
    if not found:
        raise InvalidInput("it names no address", field="From")
    try:
        split_address(found[0].address)
    except InvalidInput as error:
        raise InvalidInput(error.message, field="From") from None
    return found[0]
