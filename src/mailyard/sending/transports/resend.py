"""Resend: up to 100 mails a request, repeatable by an idempotency key (the vendor's OpenAPI
document and "Idempotency Keys", "Errors" of its documentation).

A batch is taken or refused as a whole. It carries no attachments, so a mail that has some goes
alone. The key is made of the delivery ids, so a request whose answer was lost is repeated safely.
"""

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from mailyard.core.limits import MIB
from mailyard.net.http import HttpAnswer
from mailyard.sending.transport import Outcome, Outgoing
from mailyard.sending.transports.parts import File, named, take_apart, unique_headers
from mailyard.sending.transports.vendor import (
    DELIVERY_KEY,
    RETRY_AFTER_CAP_S,
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

ENDPOINT = "https://api.resend.com"
_LOT = b"batch"
# The key was used before: with other bytes, or by a request that is still under way. Resend sends
# nothing now, and does not say what became of the first.
_USED_BEFORE = frozenset(("invalid_idempotent_request", "concurrent_idempotent_requests"))
_QUOTAS = frozenset(("daily_quota_exceeded", "monthly_quota_exceeded"))


class _Sent(Struct):
    id: str


class _SentBatch(Struct):
    data: list[_Sent]


class _Error(Struct):
    name: str = ""
    message: str = ""


class Resend:
    """`key` is an API key that may send."""

    mails_per_request = 100
    recipients_per_mail = 50
    recipients_per_request = 100 * 50
    request_bytes = 40 * MIB
    counts_recipients = False
    repeatable = True

    def __init__(self, *, key: str, endpoint: str = ENDPOINT) -> None:
        self._one = f"{endpoint.rstrip('/')}/emails"
        self._many = f"{self._one}/batch"
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def item(self, mail: Outgoing) -> Item:
        """See `Vendor.item`."""
        parts = take_apart(mail)
        email: dict[str, object] = {
            "from": named(parts.sender),
            "to": [named(one) for one in parts.to],
            "subject": parts.subject,
        }
        for field, mailboxes in (
            ("cc", parts.cc),
            ("bcc", parts.bcc),
            ("reply_to", parts.reply_to),
        ):
            if mailboxes:
                email[field] = [named(one) for one in mailboxes]
        if parts.html:
            email["html"] = parts.html
        if parts.text or not parts.html:
            email["text"] = parts.text or "\n"
        headers = unique_headers(parts)
        if parts.message_id:
            headers["Message-ID"] = f"<{parts.message_id}>"
        if headers:
            email["headers"] = headers
        if tag := delivery_tag(mail):
            email["tags"] = [{"name": DELIVERY_KEY, "value": tag}]
        if parts.files:
            email["attachments"] = [_attachment(file) for file in parts.files]
        return Item(mail, msgspec.json.encode(email), lot=None if parts.files else _LOT)

    def request(self, items: Sequence[Item], _now: datetime) -> Request:
        """See `Vendor.request`."""
        headers = {**self._headers, "Idempotency-Key": _key(items)}
        if items[0].lot is None:
            return Request(self._one, headers, items[0].payload)
        body = b"[" + b",".join(item.payload for item in items) + b"]"
        return Request(self._many, headers, body)

    def accepted(self, items: Sequence[Item], answer: HttpAnswer) -> list[list[Verdict]]:
        """See `Vendor.accepted`: an id for each mail, in the order of the request."""
        if items[0].lot is None:
            sent = [decoded(answer, _Sent)]
        else:
            sent = decoded(answer, _SentBatch).data
        if len(sent) != len(items):
            raise Unreadable(f"{len(sent)} ids came for {len(items)} mails")
        return [[taken(answer.status, one.id)] for one in sent]

    def refused(self, answer: HttpAnswer, now: datetime) -> Verdict:
        """See `Vendor.refused`."""
        try:
            error = decoded(answer, _Error)
        except Unreadable:
            return by_status(answer, prose(answer), now)
        verdict = by_status(answer, f"{error.name} {error.message}".strip(), now)
        if error.name in _USED_BEFORE:
            return replace(verdict, outcome=Outcome.UNKNOWN, route_fault=False)
        if error.name in _QUOTAS:
            return replace(verdict, wait_s=RETRY_AFTER_CAP_S)
        return verdict


def _key(items: Sequence[Item]) -> str:
    """The same for the same deliveries, in whatever order. 256 characters would be allowed."""
    ids = sorted(one.delivery_id.bytes for item in items for one in item.mail.recipients)
    return f"mailyard-{sha256(b''.join(ids)).hexdigest()}"


def _attachment(file: File) -> dict[str, str]:
    said = {"filename": file.name, "content": file.content, "content_type": file.kind}
    return {**said, "content_id": file.content_id} if file.content_id else said
