"""Postmark's webhooks (developer documentation, "Webhooks overview", "Bounce", "Delivery", "Spam
complaint", "Subscription change"). They are not signed: what proves them is the name and password
in the address that Postmark was given, over TLS. So a repetition cannot be told from a replay, and
is harmless: an event is told once."""

import base64
import binascii
import hmac
from collections.abc import Iterator
from datetime import datetime

from mailyard.core.errors import InvalidInput
from mailyard.sending.bounce import Reason
from mailyard.sending.returns.hooks.told import (
    Document,
    Headers,
    Refused,
    Told,
    document,
    header,
    ms_of,
    text_at,
)
from mailyard.sending.returns.occurrence import What
from mailyard.sending.transports.vendor import DELIVERY_KEY

SECRET = "name:password, as in the address https://name:password@… that Postmark is given"
# Types of bounces (developer documentation, "Bounce types"): what they are and whether they last.
_BOUNCES: dict[str, tuple[What, bool, str]] = {
    "HardBounce": (What.BOUNCED, True, ""),
    "BadEmailAddress": (What.BOUNCED, True, Reason.USER_UNKNOWN),
    "SoftBounce": (What.BOUNCED, False, ""),
    "DnsError": (What.BOUNCED, False, Reason.NETWORK),
    "Blocked": (What.BOUNCED, False, Reason.BLOCKED),
    "SpamNotification": (What.BOUNCED, False, Reason.SPAM),
    "VirusNotification": (What.BOUNCED, False, Reason.VIRUS),
    "DMARCPolicy": (What.BOUNCED, False, Reason.AUTH_FAILURE),
    "ManuallyDeactivated": (What.BOUNCED, False, Reason.POLICY),
    "Transient": (What.DELAYED, False, ""),
    "AutoResponder": (What.REPLIED, False, ""),
    "ChallengeVerification": (What.CHALLENGED, False, ""),
    "Unsubscribe": (What.UNSUBSCRIBED, False, ""),
    "SpamComplaint": (What.COMPLAINED, False, ""),
}
_ANY_BOUNCE = (What.BOUNCED, False, "")


def check_secret(secret: str) -> None:
    """Raises InvalidInput."""
    name, colon, password = secret.partition(":")
    if not (name and colon and len(password) >= 16 and secret.isascii()):
        raise InvalidInput(
            f"for Postmark it is {SECRET}; the password has 16 characters or more", field="secret"
        )


def check(secret: str, headers: Headers, body: bytes, now: datetime) -> bytes:  # noqa: ARG001
    """Nothing that tells a replay. Raises Refused."""
    kind, _, given = header(headers, b"authorization").partition(" ")
    try:
        shown = base64.b64decode(given, validate=True)
    except binascii.Error:
        shown = b""
    if kind.lower() != "basic" or not hmac.compare_digest(shown, secret.encode()):
        raise Refused("the name and password are not those of this address")
    return b""


def read(body: bytes, at: datetime) -> Iterator[Told]:
    """What its one event tells. Raises Unreadable."""
    event = document(body)
    kind = text_at(event, "RecordType")
    if kind == "Delivery":
        yield _told(event, What.DELIVERED, text_at(event, "DeliveredAt"), at, kind)
    elif kind in ("Bounce", "SpamComplaint"):
        what, hard, reason = _BOUNCES.get(text_at(event, "Type"), _ANY_BOUNCE)
        if kind == "SpamComplaint":
            what = What.COMPLAINED
        yield _told(
            event, what, text_at(event, "BouncedAt"), at, text_at(event, "ID"), hard, reason
        )
    elif (
        kind == "SubscriptionChange"
        and event.get("SuppressSending") is True
        and text_at(event, "SuppressionReason") == "ManualSuppression"  # others come as bounces
    ):
        yield _told(event, What.UNSUBSCRIBED, text_at(event, "ChangedAt"), at, kind)


def _told(
    event: Document,
    what: What,
    moment: str,
    at: datetime,
    name: str,
    hard: bool = False,
    reason: str = "",
) -> Told:
    return Told(
        what,
        ms_of(moment, at),
        f"{name} {text_at(event, 'MessageID')}",
        delivery=text_at(event, "Metadata", DELIVERY_KEY),
        provider_id=text_at(event, "MessageID"),
        recipient=text_at(event, "Email") or text_at(event, "Recipient"),
        hard=hard,
        reason=reason,
        text=text_at(event, "Details") or text_at(event, "Description"),
    )
