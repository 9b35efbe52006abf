"""Notices of Amazon SES that come by mail: the JSON of its SNS topic as the text.

The same JSON comes by HTTP when a topic is subscribed so; see the vendor's "Amazon SNS notification
contents for Amazon SES".
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from mailyard.protocol.report.codes import find_status
from mailyard.protocol.report.delivery_status import untyped
from mailyard.protocol.report.values import Kind, Recipient

_RECIPIENTS = 1_000
_FOLD = re.compile(r"\r?\n[ \t]?")  # long lines are broken on their way, in the midst of words
_KINDS = {"Bounce": Kind.BOUNCE, "Complaint": Kind.COMPLAINT, "Delivery": Kind.DELIVERED}


def notification_in(text: str) -> dict[str, Any] | None:
    """The notification that a text is, unpacked; None when it is none."""
    if not text.lstrip().startswith("{") or "otificationType" not in text:
        return None
    document = _decoded(_FOLD.sub("", text[text.find("{") : text.rfind("}") + 1]))
    inner = document.get("Message") if document is not None else None
    return _decoded(inner) if isinstance(inner, str) else document


def _decoded(text: str) -> dict[str, Any] | None:
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def kind_of(notification: dict[str, Any]) -> Kind:
    """What a notification reports; NONE when it is of another kind."""
    return _KINDS.get(str(notification.get("notificationType", "")), Kind.NONE)


def feedback_type(notification: dict[str, Any]) -> str:
    """The feedback type of a complaint; `abuse` when it has none."""
    complaint = notification.get("complaint")
    said = complaint.get("complaintFeedbackType") if isinstance(complaint, dict) else None
    return said[:40].lower() if isinstance(said, str) and said else "abuse"


def recipients_of(notification: dict[str, Any]) -> list[Recipient]:
    """The recipients that a notification names."""
    return [one for one in _recipients(notification) if "@" in one.address][:_RECIPIENTS]


def _recipients(notification: dict[str, Any]) -> Iterator[Recipient]:
    bounce = notification.get("bounce")
    for entry in _list(bounce, "bouncedRecipients"):
        if isinstance(entry, dict):
            diagnostic = untyped(_text(entry, "diagnosticCode"))
            yield Recipient(
                address=_text(entry, "emailAddress"),
                action=_text(entry, "action") or "failed",
                status=find_status(_text(entry, "status")),
                diagnostic=diagnostic,
                remote_mta=untyped(_text(bounce, "remoteMtaIp")),
            )
    for entry in _list(notification.get("complaint"), "complainedRecipients"):
        yield Recipient(_text(entry, "emailAddress"))
    delivery = notification.get("delivery")
    for entry in _list(delivery, "recipients"):
        if isinstance(entry, str):
            said = _text(delivery, "smtpResponse")
            yield Recipient(entry[:320], action="delivered", status=find_status(said))


def _list(document: object, name: str) -> list[Any]:
    value = document.get(name) if isinstance(document, dict) else None
    return value[:_RECIPIENTS] if isinstance(value, list) else []


def _text(document: object, name: str) -> str:
    value = document.get(name) if isinstance(document, dict) else None
    return value[:4_000] if isinstance(value, str) else ""
