"""A request to send, as the API takes it, and the check that it can become a mail.

Everything that ends in a header line refuses CR, LF and NUL here, with the name of its field, so
that no later stage has to ask. What passes is `Prepared`: parsed addresses and finished content.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from mailyard.core import limits
from mailyard.core.errors import InvalidInput, TooLarge
from mailyard.core.ids import TEMPLATE, parse_type_id
from mailyard.protocol.address import Mailbox, normalise, parse_mailbox
from mailyard.sending import header
from mailyard.sending.render import Rendered

if TYPE_CHECKING:
    from mailyard.sending.content import WholeMail

if TYPE_CHECKING:
    from mailyard.sending.content import WholeMail

_TYPE = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_HEADER_NAME = re.compile(r"[!-9;-~]{1,76}")  # RFC 5322 section 2.2: printable but the colon
_CONTENT_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,64}/[A-Za-z0-9!#$&^_.+-]{1,64}")
_OURS = """
    from to cc bcc reply-to subject date message-id mime-version content-type sender return-path
    content-transfer-encoding content-disposition content-id received dkim-signature
"""
_FORBIDDEN_HEADERS = frozenset(_OURS.split())

_TEMPLATE_ID = f"{TEMPLATE}_"  # no name begins so

DEFAULT_TYPE = "transactional"
NORMAL = "normal"
PRIORITIES = {"high": 2, NORMAL: 5, "low": 8}  # to the job's, where 0 is first
SEND_AHEAD_MAX = timedelta(days=365)
FILE_NAME_CHARACTERS = 255


class Attachment(msgspec.Struct, frozen=True):
    """A file. `content` is base64 in JSON. With `content_id` the HTML can show it (`cid:…`)."""

    filename: str
    content: bytes
    content_type: str = "application/octet-stream"
    content_id: str | None = None


class EmailTrack(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Whether opens and clicks of a mail are followed: not unless it is asked for."""

    opens: bool = False
    clicks: bool = False


NOT_TRACKED = EmailTrack()  # one object: what is the default is not stored


class EmailRequest(msgspec.Struct, frozen=True, rename={"sender": "from"}):
    """One mail to send: raw parts, or a template with its data. With `local_time` it goes at that
    time on its recipients' clocks, with `quiet_hours` it waits for the end of the workspace's quiet
    hours there."""

    sender: str
    to: list[str]
    cc: list[str] = []
    bcc: list[str] = []
    reply_to: list[str] = []
    subject: str = ""
    html: str | None = None
    text: str | None = None
    headers: dict[str, str] = {}
    attachments: list[Attachment] = []
    template: str | None = None
    data: dict[str, Any] = {}
    type: str = DEFAULT_TYPE
    send_at: datetime | None = None
    local_time: str | None = None
    expires_at: datetime | None = None
    priority: str = NORMAL
    track: EmailTrack = NOT_TRACKED
    quiet_hours: bool = False


class EmailContent(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is stored of a mail: everything that its bytes are made of. Bcc is not among it."""

    sender: str
    to: list[str]
    cc: list[str]
    reply_to: list[str]
    subject: str
    html: str
    text: str
    headers: dict[str, str]
    attachments: list[Attachment]
    track: EmailTrack = NOT_TRACKED


@dataclass(frozen=True, slots=True)
class Prepared:
    """A checked request. `recipients` are distinct by `keys`, their normalised forms."""

    content: "EmailContent | WholeMail"
    sender_address: str
    recipients: tuple[str, ...]
    keys: tuple[str, ...]
    type: str
    send_at: datetime | None
    expires_at: datetime | None
    priority: str = NORMAL


def check_line(value: str, field: str, characters_max: int) -> str:
    """A value that goes into one header line. Raises InvalidInput naming `field`."""
    header.check_value(value, field)
    if len(value) > characters_max:
        raise InvalidInput(f"longer than {characters_max} characters", field=field)
    return value


def check_type(value: str, field: str = "type") -> str:
    """The caller's word for a kind of mail. Raises InvalidInput."""
    if not _TYPE.fullmatch(value):
        raise InvalidInput("1 to 64 of a-z, 0-9, dot, dash and underscore", field=field)
    return value


def check_priority(value: str, field: str = "priority") -> str:
    """Which of the waiting mails of its lane goes first. Raises InvalidInput."""
    if value.lower() not in PRIORITIES:
        raise InvalidInput(f"one of {', '.join(PRIORITIES)}", field=field)
    return value.lower()


def check_mailbox(text: str, field: str) -> Mailbox:
    """One `Name <address>`. Raises InvalidInput naming `field`."""
    check_line(text, field, limits.HEADER_VALUE_BYTES)
    try:
        return parse_mailbox(text)
    except InvalidInput as error:
        raise InvalidInput(error.message, field=field) from None


def check_headers(headers: dict[str, str]) -> None:
    """Headers of the caller's own. Raises InvalidInput naming the header."""
    if len(headers) > limits.HEADERS_PER_EMAIL:
        raise InvalidInput(f"more than {limits.HEADERS_PER_EMAIL} headers", field="headers")
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise InvalidInput(f"{name[:80]!r} is not a header name", field="headers")
        if name.lower() in _FORBIDDEN_HEADERS:
            raise InvalidInput(f"{name} is written by Mailyard itself", field=f"headers.{name}")
        check_line(value, f"headers.{name}", limits.HEADER_VALUE_BYTES)


def prepare(request: EmailRequest, rendered: Rendered | None, now: datetime) -> Prepared:
    """Check everything about `request`. Raises InvalidInput or TooLarge naming the field."""
    sender = check_mailbox(request.sender, "from")
    groups = {"to": request.to, "cc": request.cc, "bcc": request.bcc}
    if not any(groups.values()):
        raise InvalidInput("at least one recipient is needed", field="to")
    if sum(map(len, groups.values())) > limits.RECIPIENTS_PER_EMAIL:
        raise InvalidInput(f"more than {limits.RECIPIENTS_PER_EMAIL} recipients", field="to")
    recipients: dict[str, str] = {}
    for group, members in groups.items():
        for index, member in enumerate(members):
            address = check_mailbox(member, f"{group}.{index}").address
            recipients.setdefault(normalise(address), address)
    if len(request.reply_to) > limits.RECIPIENTS_PER_EMAIL:
        raise InvalidInput("too many addresses", field="reply_to")
    for index, member in enumerate(request.reply_to):
        check_mailbox(member, f"reply_to.{index}")
    check_headers(request.headers)
    check_type(request.type)
    send_at, expires_at = check_times(request.send_at, request.expires_at, now)
    return Prepared(
        content=_check_content(request, rendered),
        sender_address=sender.address,
        recipients=tuple(recipients.values()),
        keys=tuple(recipients),
        type=request.type,
        send_at=send_at,
        expires_at=expires_at,
        priority=check_priority(request.priority),
    )


def check_times(
    send_at: datetime | None, expires_at: datetime | None, now: datetime
) -> tuple[datetime | None, datetime | None]:
    """(not before, not after); a time to send that has passed is none. Raises InvalidInput."""
    for field, moment in (("send_at", send_at), ("expires_at", expires_at)):
        if moment is not None and moment.tzinfo is None:
            raise InvalidInput("a time needs its offset from UTC", field=field)
    if send_at is not None and send_at <= now:
        send_at = None
    if send_at is not None and send_at > now + SEND_AHEAD_MAX:
        raise InvalidInput(f"more than {SEND_AHEAD_MAX.days} days ahead", field="send_at")
    if expires_at is not None and expires_at <= (send_at or now):
        raise InvalidInput("it would be expired before it is sent", field="expires_at")
    return send_at, expires_at


def _check_content(request: EmailRequest, rendered: Rendered | None) -> EmailContent:
    if rendered is None:
        subject, html, text = request.subject, request.html or "", request.text or ""
    else:
        subject, html, text = rendered.subject, rendered.html, rendered.text
    check_line(subject, "subject", limits.SUBJECT_CHARACTERS)
    if not html and not text and not request.attachments:
        raise InvalidInput("html, text or a template is needed", field="html")
    for field, body in (("html", html), ("text", text)):
        # A character is at most four bytes: only a body near the limit has to be encoded to know.
        if len(body) * 4 > limits.BODY_BYTES and len(body.encode()) > limits.BODY_BYTES:
            raise TooLarge(f"longer than {limits.BODY_BYTES} bytes", field=field)
        if "\0" in body:
            raise InvalidInput("NUL is not allowed", field=field)
    _check_attachments(request.attachments)
    return EmailContent(
        sender=request.sender,
        to=request.to,
        cc=request.cc,
        reply_to=request.reply_to,
        subject=subject,
        html=html,
        text=text,
        headers=request.headers,
        attachments=request.attachments,
        track=request.track,
    )


def _check_attachments(attachments: list[Attachment]) -> None:
    if len(attachments) > limits.ATTACHMENTS_PER_EMAIL:
        raise InvalidInput(
            f"more than {limits.ATTACHMENTS_PER_EMAIL} attachments", field="attachments"
        )
    total = 0
    for index, attachment in enumerate(attachments):
        field = f"attachments.{index}"
        check_line(attachment.filename, f"{field}.filename", FILE_NAME_CHARACTERS)
        if not _CONTENT_TYPE.fullmatch(attachment.content_type):
            raise InvalidInput("expected type/subtype", field=f"{field}.content_type")
        if attachment.content_id is not None:
            check_line(attachment.content_id, f"{field}.content_id", FILE_NAME_CHARACTERS)
        # In base64 with line ends: 78 characters for 57 bytes (RFC 2045 section 6.8).
        total += len(attachment.content) * 78 // 57
    if total > limits.EMAIL_BYTES:
        raise TooLarge(
            f"the mail would be larger than {limits.EMAIL_BYTES} bytes", field="attachments"
        )


def template_of(request: EmailRequest) -> UUID | str | None:
    """The template that `request` names, by id or name; None when it brings its own parts.

    Raises InvalidInput.
    """
    if request.template is None:
        if request.data:
            raise InvalidInput("data is for a template, and none is named", field="data")
        return None
    if request.html is not None or request.text is not None or request.subject:
        raise InvalidInput("a template brings subject, html and text", field="template")
    if request.template.startswith(_TEMPLATE_ID):
        return parse_type_id(TEMPLATE, request.template, field="template")
    return request.template
