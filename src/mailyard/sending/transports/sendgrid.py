"""Twilio SendGrid, Mail Send v3 (the vendor's OpenAPI document, tsg_mail_v3).

A request has one content and up to 1,000 personalizations: who gets it, with subject, sender,
headers and arguments of their own. So mails that differ in nothing else share a request. A mail
whose text is made for one person goes alone: substitutions would let SendGrid render it, but what
is sent here is finished.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from mailyard.core.limits import MIB
from mailyard.net.http import HttpAnswer
from mailyard.protocol.address import Mailbox
from mailyard.sending.transport import Outcome, Outgoing
from mailyard.sending.transports.parts import File, Parts, take_apart, unique_headers
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

GLOBAL = "https://api.sendgrid.com"
EUROPE = "https://api.eu.sendgrid.com"
_ACCEPTED = 202
_AS_THEY_ARE = {
    "click_tracking": {"enable": False, "enable_text": False},
    "open_tracking": {"enable": False},
    "subscription_tracking": {"enable": False},
}  # links and pictures are ours to count


class _Complaint(Struct):
    message: str = ""
    field: str | None = None


class _Errors(Struct):
    errors: list[_Complaint]


class SendGrid:
    """`key` is an API key that may send."""

    mails_per_request = 1000  # personalizations
    recipients_per_mail = 1000
    recipients_per_request = 1000  # to, cc and bcc of all of them
    request_bytes = 30 * MIB  # "the total size of your email, including attachments"
    counts_recipients = False
    repeatable = False

    def __init__(self, *, key: str, endpoint: str = GLOBAL) -> None:
        self._url = f"{endpoint.rstrip('/')}/v3/mail/send"
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def item(self, mail: Outgoing) -> Item:
        """See `Vendor.item`: the lot is what can only be said once in a request, as the open end
        of a JSON object; the payload is a personalization."""
        parts = take_apart(mail)
        shared: dict[str, object] = {
            "from": _mailbox(parts.sender),
            "content": _content(parts),
            "tracking_settings": _AS_THEY_ARE,
        }
        if len(parts.reply_to) == 1:
            shared["reply_to"] = _mailbox(parts.reply_to[0])
        elif parts.reply_to:
            shared["reply_to_list"] = [_mailbox(one) for one in parts.reply_to]
        if parts.files:
            shared["attachments"] = [_attachment(file) for file in parts.files]
        return Item(
            mail,
            payload=msgspec.json.encode(_personalization(mail, parts)),
            lot=msgspec.json.encode(shared).removesuffix(b"}"),
        )

    def request(self, items: Sequence[Item], _now: datetime) -> Request:
        """See `Vendor.request`."""
        people = b",".join(item.payload for item in items)
        body = (items[0].lot or b"{") + b',"personalizations":[' + people + b"]}"
        return Request(self._url, self._headers, body)

    def accepted(self, items: Sequence[Item], answer: HttpAnswer) -> list[list[Verdict]]:
        """See `Vendor.accepted`: one id for the request, from which those of the events begin."""
        if answer.status != _ACCEPTED:  # 200 is the sandbox: "valid, but not queued"
            text = f"{answer.status}: checked, but not queued (the sandbox is on)"
            verdict = Verdict(Outcome.LATER, answer.status, text, route_fault=True)
        else:
            verdict = taken(answer.status, answer.headers.get("x-message-id", ""))
        return [[verdict] for _ in items]

    def refused(self, answer: HttpAnswer, now: datetime) -> Verdict:
        """See `Vendor.refused`."""
        try:
            errors = decoded(answer, _Errors).errors
            text = "; ".join(
                f"{one.message} ({one.field})" if one.field else one.message for one in errors
            )
        except Unreadable:
            text = prose(answer)
        verdict = by_status(answer, text, now)
        if verdict.wait_s is None and verdict.outcome is Outcome.LATER:
            return replace(verdict, wait_s=_until_reset_s(answer, now))
        return verdict


def _until_reset_s(answer: HttpAnswer, now: datetime) -> float | None:
    """X-RateLimit-Reset (Unix seconds): SendGrid's own way to say Retry-After."""
    value = answer.headers.get("x-ratelimit-reset", "")
    if not (value.isascii() and value.isdigit()) or len(value) > 11:
        return None
    return max(0.0, (datetime.fromtimestamp(int(value), UTC) - now).total_seconds())


def _personalization(mail: Outgoing, parts: Parts) -> dict[str, object]:
    said: dict[str, object] = {
        "to": [_mailbox(one) for one in parts.to],
        "subject": parts.subject or " ",  # one character is the least
    }
    if parts.cc:
        said["cc"] = [_mailbox(one) for one in parts.cc]
    if parts.bcc:
        said["bcc"] = [_mailbox(one) for one in parts.bcc]
    headers = unique_headers(parts)
    if parts.message_id:
        headers["Message-ID"] = f"<{parts.message_id}>"
    if headers:
        said["headers"] = headers
    if tag := delivery_tag(mail):
        said["custom_args"] = {DELIVERY_KEY: tag}
    return said


def _content(parts: Parts) -> list[dict[str, str]]:
    """Plain text first, as the API wants it, and at least something."""
    kinds = (("text/plain", parts.text), ("text/html", parts.html))
    return [{"type": kind, "value": value} for kind, value in kinds if value] or [
        {"type": "text/plain", "value": "\n"}
    ]


def _attachment(file: File) -> dict[str, str]:
    said = {"content": file.content, "type": file.kind, "filename": file.name}
    if file.content_id:
        return {**said, "disposition": "inline", "content_id": file.content_id}
    return {**said, "disposition": "attachment"}


def _mailbox(mailbox: Mailbox) -> dict[str, str]:
    if mailbox.name:
        return {"email": mailbox.address, "name": mailbox.name}
    return {"email": mailbox.address}
