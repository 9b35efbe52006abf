"""Postmark: up to 500 mails a request, each with an answer of its own (developer documentation,
"Send batch emails", "API error codes").

A batch is answered 200 whatever became of its mails: what counts is each `ErrorCode`.
"""

import re
from collections.abc import Sequence
from datetime import datetime

import msgspec
from msgspec import Struct

from mailyard.core.limits import MIB
from mailyard.net.http import HttpAnswer
from mailyard.sending.transport import HANDOFF_REPLY_CHARACTERS, Outcome, Outgoing
from mailyard.sending.transports.parts import File, named, take_apart
from mailyard.sending.transports.vendor import (
    DELIVERY_KEY,
    Inexpressible,
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

ENDPOINT = "https://api.postmarkapp.com"
_LOT = b"batch"
_MAIL_BYTES = 10 * MIB  # of one mail in the batch, attachments included
_OK = 0
_INACTIVE = 406
# Codes that speak of the account, its keys, its senders or its streams, or of Postmark itself.
_ACCOUNT = frozenset((10, 100, 400, 401, 405, 412, 413, 429, 500, 1235, 1236))
_INACTIVE_ADDRESSES = (
    re.compile(r"Found inactive addresses: ([^\r\n]{1,2000}?)\.(?: Inactive|\s*$)"),
    re.compile(r"these inactive addresses: ([^\r\n]{1,2000}?)\.?(?: Inactive|\s*$)"),
)


class _Result(Struct, rename="pascal"):
    error_code: int
    message: str = ""
    message_id: str = msgspec.field(default="", name="MessageID")


class Postmark:
    """`token` is the server's; `stream` one of its message streams."""

    mails_per_request = 500
    recipients_per_mail = 50
    recipients_per_request = 500 * 50
    request_bytes = 50 * MIB
    counts_recipients = False
    repeatable = False

    def __init__(self, *, token: str, stream: str = "outbound", endpoint: str = ENDPOINT) -> None:
        self._url = f"{endpoint.rstrip('/')}/email/batch"
        self._stream = stream
        self._headers = {
            "X-Postmark-Server-Token": token,
            "Content-Type": "application/json",
            "Accept": "application/json",
        }

    def item(self, mail: Outgoing) -> Item:
        """See `Vendor.item`: one element of the batch."""
        parts = take_apart(mail)
        message: dict[str, object] = {
            "From": named(parts.sender),
            "To": ", ".join(map(named, parts.to)),
            "Subject": parts.subject,
            "MessageStream": self._stream,
            "TrackOpens": False,
            "TrackLinks": "None",
        }
        for field, mailboxes in (("Cc", parts.cc), ("Bcc", parts.bcc), ("ReplyTo", parts.reply_to)):
            if mailboxes:
                message[field] = ", ".join(map(named, mailboxes))
        if parts.html:
            message["HtmlBody"] = parts.html
        if parts.text or not parts.html:
            message["TextBody"] = parts.text or "\n"
        headers = [{"Name": name, "Value": value} for name, value in parts.headers]
        if parts.message_id:  # kept when asked for
            headers.append({"Name": "Message-ID", "Value": f"<{parts.message_id}>"})
            headers.append({"Name": "X-PM-KeepID", "Value": "true"})
        if headers:
            message["Headers"] = headers
        if parts.files:
            message["Attachments"] = [_attachment(file) for file in parts.files]
        if tag := delivery_tag(mail):
            message["Metadata"] = {DELIVERY_KEY: tag}
        payload = msgspec.json.encode(message)
        if len(payload) > _MAIL_BYTES:
            raise Inexpressible(f"it is larger than {_MAIL_BYTES} bytes")
        return Item(mail, payload, lot=_LOT)

    def request(self, items: Sequence[Item], _now: datetime) -> Request:
        """See `Vendor.request`."""
        return Request(
            self._url, self._headers, b"[" + b",".join(item.payload for item in items) + b"]"
        )

    def accepted(self, items: Sequence[Item], answer: HttpAnswer) -> list[list[Verdict]]:
        """See `Vendor.accepted`: an answer for each mail, in the order of the request."""
        results = decoded(answer, list[_Result])
        if len(results) != len(items):
            raise Unreadable(f"{len(results)} answers came for {len(items)} mails")
        return [_verdicts(item.mail, result) for item, result in zip(items, results, strict=True)]

    def refused(self, answer: HttpAnswer, now: datetime) -> Verdict:
        """See `Vendor.refused`."""
        try:
            error = decoded(answer, _Result)
        except Unreadable:
            return by_status(answer, prose(answer), now)
        verdict = by_status(answer, f"{error.error_code} {error.message}", now)
        if error.error_code in _ACCOUNT:
            return msgspec.structs.replace(verdict, outcome=Outcome.LATER, route_fault=True)
        return verdict


def _verdicts(mail: Outgoing, result: _Result) -> list[Verdict]:
    """One for all of the mail's recipients, or one each when it went to some of them only."""
    code = result.error_code
    text = f"{code} {result.message}"[:HANDOFF_REPLY_CHARACTERS]
    if code in _ACCOUNT:
        return [Verdict(Outcome.LATER, code, text, route_fault=True)]
    never = Verdict(Outcome.NEVER, code or _INACTIVE, text)
    if code != _OK and code != _INACTIVE:
        return [never]
    inactive = _inactive_addresses(result.message)
    if code == _INACTIVE:
        if len(mail.recipients) == 1 or not inactive:
            return [never]
        # Nobody got it, because of some.
        rest = Verdict(Outcome.LATER, code, text)
    else:
        rest = taken(200, result.message_id)
    return [never if one.address.lower() in inactive else rest for one in mail.recipients]


def _inactive_addresses(message: str) -> frozenset[str]:
    for pattern in _INACTIVE_ADDRESSES:
        if found := pattern.search(message):
            return frozenset(address.strip().lower() for address in found[1].split(","))
    return frozenset()


def _attachment(file: File) -> dict[str, str]:
    said = {"Name": file.name, "Content": file.content, "ContentType": file.kind}
    return {**said, "ContentID": f"cid:{file.content_id}"} if file.content_id else said
