"""SendGrid's signed event webhook (Twilio SendGrid documentation, "Event Webhook Reference", "Event
Webhook Security Features"): an array of events, signed with ECDSA over timestamp and body."""

import base64
import binascii
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from mailyard.core.errors import InvalidInput
from mailyard.sending.bounce import Reason
from mailyard.sending.returns.hooks.told import (
    EVENTS_PER_REQUEST,
    Headers,
    Refused,
    Told,
    Unreadable,
    check_age,
    decoded,
    header,
    ms_of,
    text_at,
)
from mailyard.sending.returns.occurrence import What
from mailyard.sending.transports.vendor import DELIVERY_KEY

SECRET = "the webhook's verification key: base64 of a public key, from its Security features"
_SIGNATURE = b"x-twilio-email-event-webhook-signature"
_TIMESTAMP = b"x-twilio-email-event-webhook-timestamp"
_WHAT = {
    "delivered": What.DELIVERED,
    "deferred": What.DELAYED,
    "bounce": What.BOUNCED,
    "dropped": What.BOUNCED,
    "spamreport": What.COMPLAINED,
    "unsubscribe": What.UNSUBSCRIBED,
    "group_unsubscribe": What.UNSUBSCRIBED,
}
# Why SendGrid itself did not send ("dropped"): its own lists, by their words.
_DROPPED = {
    "bounced address": Reason.USER_UNKNOWN,
    "invalid": Reason.USER_UNKNOWN,
    "spam reporting address": Reason.COMPLAINT,
    "spam content": Reason.SPAM,
}


def check_secret(secret: str) -> None:
    """Raises InvalidInput."""
    try:
        _key(secret)
    except (ValueError, binascii.Error):
        raise InvalidInput(f"for SendGrid it is {SECRET}", field="secret") from None


def check(secret: str, headers: Headers, body: bytes, now: datetime) -> bytes:
    """What tells a replay. Raises Refused."""
    signature, timestamp = header(headers, _SIGNATURE), header(headers, _TIMESTAMP)
    try:
        signed = base64.b64decode(signature, validate=True)
        _key(secret).verify(signed, timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError, binascii.Error):
        raise Refused("the signature is not SendGrid's") from None
    check_age(timestamp, now)
    return signed


def read(body: bytes, at: datetime) -> Iterator[Told]:
    """What its events tell. Raises Unreadable."""
    events = decoded(body)
    if not isinstance(events, list):
        raise Unreadable("it is not an array of events")
    for event in events[:EVENTS_PER_REQUEST]:
        what = _WHAT.get(text_at(event, "event"))
        if what is None:  # processed, open, click, …
            continue
        dropped = text_at(event, "event") == "dropped"
        reason = _DROPPED.get(text_at(event, "reason").lower(), "") if dropped else ""
        yield Told(
            what,
            ms_of(text_at(event, "timestamp"), at),
            text_at(event, "sg_event_id"),
            delivery=text_at(event, DELIVERY_KEY),
            # The id that the API answered with, and behind it where it went inside SendGrid.
            provider_id=text_at(event, "sg_message_id").partition(".")[0],
            recipient=text_at(event, "email"),
            hard=reason == Reason.USER_UNKNOWN if dropped else text_at(event, "type") == "bounce",
            reason=reason,
            status=text_at(event, "status"),
            text=text_at(event, "reason") or text_at(event, "response"),
        )


@lru_cache(maxsize=256)
def _key(secret: str) -> ec.EllipticCurvePublicKey:
    key = load_der_public_key(base64.b64decode(secret, validate=True))
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("no key of an elliptic curve")
    return key
