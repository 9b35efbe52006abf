"""Resend's webhooks, signed by Svix (Svix documentation, "Verifying webhooks manually"; Resend
documentation, "Event types")."""

import base64
import binascii
import hmac
from collections.abc import Iterator
from datetime import datetime
from hashlib import sha256
from typing import Any

from mailyard.core.errors import InvalidInput
from mailyard.sending.bounce import Reason
from mailyard.sending.returns.hooks.told import (
    Document,
    Headers,
    Refused,
    Told,
    check_age,
    document,
    header,
    ms_of,
    node_at,
    objects_at,
    text_at,
)
from mailyard.sending.returns.occurrence import What
from mailyard.sending.transports.vendor import DELIVERY_KEY

SECRET = "the webhook's signing secret, whsec_…"
_PREFIX = "whsec_"
_WHAT = {
    "email.delivered": What.DELIVERED,
    "email.delivery_delayed": What.DELAYED,
    "email.bounced": What.BOUNCED,
    "email.failed": What.BOUNCED,
    "email.suppressed": What.BOUNCED,
    "email.complained": What.COMPLAINED,
}


def check_secret(secret: str) -> None:
    """Raises InvalidInput."""
    try:
        if len(_key(secret)) < 16:
            raise ValueError
    except (ValueError, binascii.Error):
        raise InvalidInput(f"for Resend it is {SECRET}", field="secret") from None


def check(secret: str, headers: Headers, body: bytes, now: datetime) -> bytes:
    """What tells a replay. Raises Refused."""
    timestamp = header(headers, b"svix-timestamp")
    head = f"{header(headers, b'svix-id')}.{timestamp}.".encode("latin-1")
    expected = base64.b64encode(hmac.digest(_key(secret), head + body, sha256))
    given = header(headers, b"svix-signature").split(" ")[:10]
    if not any(
        hmac.compare_digest(b"v1," + expected, one.encode("latin-1")) for one in given
    ):  # several while its secret is being changed
        raise Refused("the signature is not Resend's")
    check_age(timestamp, now)
    return expected


def read(body: bytes, at: datetime) -> Iterator[Told]:
    """What its one event tells. Raises Unreadable."""
    event = document(body)
    kind = text_at(event, "type")
    what = _WHAT.get(kind)
    if what is None:  # sent, opened, clicked, contact.…
        return
    data = node_at(event, "data")
    bounce = node_at(data, "bounce")
    suppressed = kind == "email.suppressed"
    to = data.get("to")
    recipients = [one for one in to if isinstance(one, str)] if isinstance(to, list) else []
    for recipient in recipients[:50] or [""]:
        yield Told(
            what,
            ms_of(text_at(event, "created_at"), at),
            f"{kind} {text_at(data, 'email_id')} {recipient}",
            delivery=_tag(data),
            provider_id=text_at(data, "email_id"),
            recipient=recipient[:320],
            hard=text_at(bounce, "type") == "Permanent" or suppressed,
            reason=Reason.USER_UNKNOWN if suppressed else "",
            text=text_at(bounce, "diagnosticCode")
            or text_at(bounce, "message")
            or text_at(data, "failed", "reason"),
        )


def _tag(data: Document) -> str:
    """Our tag, in whichever of its two forms tags come: an object, or pairs as they were sent."""
    tags: Any = data.get("tags")
    if isinstance(tags, dict):
        return text_at(tags, DELIVERY_KEY)
    for pair in objects_at(data, "tags"):
        if pair.get("name") == DELIVERY_KEY:
            return text_at(pair, "value")
    return ""


def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
