"""Mailgun: `messages.mime`, a finished mail for up to 1,000 recipients (the vendor's OpenAPI
document).

The mail goes as it is, our DKIM signature with it. Recipient variables would send one text to
many, each with his own values; but then Mailgun renders, and what is sent here is finished. So it
is one mail a request.
"""

from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from urllib.parse import quote

from msgspec import Struct
from msgspec.structs import replace

from mailyard.core.limits import MIB
from mailyard.net.http import HttpAnswer
from mailyard.sending.transport import Outcome, Outgoing
from mailyard.sending.transports.vendor import (
    DELIVERY_KEY,
    Item,
    Request,
    Unreadable,
    Verdict,
    by_status,
    decoded,
    delivery_tag,
    prose,
    taken,
)

UNITED_STATES = "https://api.mailgun.net"
EUROPE = "https://api.eu.mailgun.net"
_NOT_ALLOWED = "not allowed to send"  # the domain: unverified, disabled or over its limit


class _Sent(Struct):
    id: str


class _Error(Struct):
    message: str = ""


class Mailgun:
    """`domain` is the sending domain at Mailgun, `key` an API key of the account or the domain."""

    mails_per_request = 1
    recipients_per_mail = 1000
    recipients_per_request = 1000
    request_bytes = 25 * MIB  # "maximum message size"
    counts_recipients = False
    repeatable = False

    def __init__(self, *, domain: str, key: str, endpoint: str = UNITED_STATES) -> None:
        self._url = f"{endpoint.rstrip('/')}/v3/{quote(domain, safe='')}/messages.mime"
        self._authorization = "Basic " + b64encode(f"api:{key}".encode()).decode("ascii")

    def item(self, mail: Outgoing) -> Item:
        """See `Vendor.item`: the whole form."""
        fields = [("to", one.address) for one in mail.recipients]
        fields.append(("o:tracking", "no"))  # links and pictures are ours to count
        if tag := delivery_tag(mail):
            fields.append((f"v:{DELIVERY_KEY}", tag))
        return Item(mail, _form(fields, mail.content))

    def request(self, items: Sequence[Item], _now: datetime) -> Request:
        """See `Vendor.request`."""
        form = items[0].payload
        boundary = form[2 : form.index(b"\r\n")].decode("ascii")
        headers = {
            "Authorization": self._authorization,
            "Content-Type": f"multipart/form-data; boundary={boundary}",
        }
        return Request(self._url, headers, form)

    def accepted(self, items: Sequence[Item], answer: HttpAnswer) -> list[list[Verdict]]:
        """See `Vendor.accepted`: one id for all recipients of the mail."""
        return [[taken(answer.status, decoded(answer, _Sent).id.strip("<>"))] for _ in items]

    def refused(self, answer: HttpAnswer, now: datetime) -> Verdict:
        """See `Vendor.refused`."""
        try:
            text = decoded(answer, _Error).message
        except Unreadable:
            text = prose(answer)
        verdict = by_status(answer, text, now)
        if _NOT_ALLOWED in text:
            return replace(verdict, outcome=Outcome.LATER, route_fault=True)
        return verdict


def _form(fields: Sequence[tuple[str, str]], mime: bytes) -> bytes:
    """multipart/form-data (RFC 7578) of `fields` and the mail as a file, its boundary first.

    Values are addresses and words of our own, without line breaks.
    """
    number = 0
    boundary = b""
    while not boundary or boundary in mime:
        boundary = sha256(b"%d " % number + mime[:4096]).hexdigest()[:32].encode("ascii")
        number += 1
    pieces: list[bytes] = []
    for name, value in fields:
        head = f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        pieces += (b"--", boundary, b"\r\n", head.encode())
    pieces += (
        b"--", boundary, b"\r\n",
        b'Content-Disposition: form-data; name="message"; filename="message.mime"\r\n',
        b"Content-Type: application/octet-stream\r\n\r\n", mime, b"\r\n",
        b"--", boundary, b"--\r\n",
    )  # fmt: skip
    return b"".join(pieces)
