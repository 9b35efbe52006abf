"""A finished mail taken apart again, for providers that take fields instead of a mail.

SendGrid, Postmark and Resend build the mail themselves. What they are given is read from the very
bytes that every other transport sends, so that there is one composer. What does not survive, and
why that is right: a DKIM signature (the provider writes other bytes, and signs them itself), trace
fields, `Date` and the MIME headers (the provider's own). What would be lost with harm is refused:
signed and encrypted mail, reports, and what the parser could not read to its end.

The header's `To` and `Cc` are kept only as far as those people are recipients of this hand-over:
an API that is given an address sends to it.
"""

from base64 import b64encode
from collections.abc import Iterable, Iterator
from mimetypes import guess_extension

from msgspec import Struct

from mailyard.core.errors import InvalidInput
from mailyard.protocol.address import Mailbox, normalise
from mailyard.protocol.mime import Message, parse
from mailyard.protocol.mime.message import readable
from mailyard.protocol.mime.structure import Part
from mailyard.sending.transport import Outgoing
from mailyard.sending.transports.vendor import Inexpressible

_WRITTEN_BY_THE_PROVIDER = frozenset(
    (
        "from", "to", "cc", "bcc", "subject", "reply-to", "date", "message-id", "mime-version",
        "dkim-signature", "received", "return-path", "delivered-to", "authentication-results",
        "arc-seal", "arc-message-signature", "arc-authentication-results", "received-spf",
    )
)  # fmt: skip
# Kinds whose bytes are their meaning, or that no provider's fields can say.
_UNSENDABLE = frozenset(
    (
        "multipart/signed", "multipart/encrypted", "multipart/report", "application/pkcs7-mime",
        "application/x-pkcs7-mime", "text/x-amp-html",
    )
)  # fmt: skip
_INCOMPLETE = frozenset(
    (
        "too_deep", "too_many_parts", "header_too_large", "too_many_headers", "no_boundary",
        "too_many_false_delimiters", "bad_transfer_encoding", "missing_blank_line",
    )
)  # fmt: skip


class File(Struct, frozen=True):
    """An attachment; `content` is base64. With a `content_id` the HTML shows it."""

    name: str
    kind: str
    content: str
    content_id: str


class Parts(Struct, frozen=True):
    """A mail as fields. `to` has somebody; together `to`, `cc` and `bcc` are the recipients.

    `headers` are what is left: names as sent, values decoded, in order. `message_id` is without
    angle brackets and may be empty.
    """

    sender: Mailbox
    to: list[Mailbox]
    cc: list[Mailbox]
    bcc: list[Mailbox]
    reply_to: list[Mailbox]
    subject: str
    text: str | None
    html: str | None
    message_id: str
    headers: list[tuple[str, str]]
    files: list[File]


def take_apart(mail: Outgoing) -> Parts:
    """`mail` as fields. Raises Inexpressible, `apart` when its recipients must not see each other
    and go one by one."""
    message = parse(mail.content)
    kinds = {part.content_type.value for part in _all_parts(message.root)}
    if kinds & _UNSENDABLE:
        raise Inexpressible(f"{min(kinds & _UNSENDABLE)} has to be sent as it is")
    if not message.from_:
        raise Inexpressible("it has no From")
    to, cc, bcc = _recipients(mail, message)
    text, html = message.text, message.html
    files = [
        File(
            name=file.filename
            or f"attachment-{file.index + 1}{guess_extension(file.content_type) or ''}",
            kind=file.content_type,
            content=b64encode(message.content(file.index)).decode("ascii"),
            content_id=file.content_id,
        )
        for file in message.attachments
    ]
    if lost := _INCOMPLETE.intersection(message.defects):
        raise Inexpressible(f"it is not well-formed ({min(lost)}) and could lose content")
    return Parts(
        sender=message.from_[0],
        to=to,
        cc=cc,
        bcc=bcc,
        reply_to=message.reply_to,
        subject=message.subject,
        text=text,
        html=html,
        message_id=message.message_id,
        headers=[
            (name, readable(value))
            for name, value in message.root.fields
            if name.lower() not in _WRITTEN_BY_THE_PROVIDER
            and not name.lower().startswith("content-")
        ],
        files=files,
    )


def named(mailbox: Mailbox) -> str:
    """`"Ada" <ada@example.com>` for an API that takes one string."""
    if not mailbox.name:
        return mailbox.address
    name = mailbox.name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{name}" <{mailbox.address}>'


def unique_headers(parts: Parts) -> dict[str, str]:
    """The headers for an API that takes an object: of several with one name, the first."""
    headers: dict[str, str] = {}
    seen: set[str] = set()
    for name, value in parts.headers:
        if name.lower() not in seen:
            seen.add(name.lower())
            headers[name] = value
    return headers


def _recipients(mail: Outgoing, message: Message) -> tuple[list[Mailbox], ...]:
    """(to, cc, bcc): the recipients of the envelope, each once, as the header shows them."""
    waiting = {_spelling(one.address): one.address for one in mail.recipients}
    to = list(_listed(message.to, waiting))
    cc = list(_listed(message.cc, waiting))
    bcc = [Mailbox("", address) for address in waiting.values()]
    if not to:  # every API wants one
        if cc:
            to, cc = cc[:1], cc[1:]
        elif len(bcc) == 1:
            to, bcc = bcc, []
        else:
            raise Inexpressible("its recipients are hidden from each other", apart=True)
    return to, cc, bcc


def _listed(mailboxes: Iterable[Mailbox], waiting: dict[str, str]) -> Iterator[Mailbox]:
    """Those of `mailboxes` who are in `waiting`, from which they are taken."""
    for mailbox in mailboxes:
        address = waiting.pop(_spelling(mailbox.address), None)
        if address is not None:
            yield Mailbox(mailbox.name, address)


def _spelling(address: str) -> str:
    try:
        return normalise(address)
    except InvalidInput:
        return address


def _all_parts(part: Part) -> Iterator[Part]:
    yield part
    for child in part.children:
        yield from _all_parts(child)
