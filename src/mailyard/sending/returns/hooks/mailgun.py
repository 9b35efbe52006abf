"""Mailgun's webhooks (user manual, "Securing webhooks", "Event structure"): HMAC-SHA256 over a
timestamp and a token. The signature does not cover the event, so a token is taken once and never
again."""

import hmac
from collections.abc import Iterator
from datetime import datetime
from hashlib import sha256

from mailyard.core.errors import InvalidInput
from mailyard.sending.bounce import Reason
from mailyard.sending.returns.hooks.told import (
    Headers,
    Refused,
    Told,
    Unreadable,
    check_age,
    document,
    ms_of,
    node_at,
    text_at,
)
from mailyard.sending.returns.occurrence import What
from mailyard.sending.transports.vendor import DELIVERY_KEY

SECRET = "the account's HTTP webhook signing key"
_WHAT = {
    "delivered": What.DELIVERED,
    "complained": What.COMPLAINED,
    "unsubscribed": What.UNSUBSCRIBED,
}
# Why Mailgun itself did not send: its own lists.
_NOT_SENT = {
    "suppress-bounce": Reason.USER_UNKNOWN,
    "suppress-complaint": Reason.COMPLAINT,
    "suppress-unsubscribe": Reason.POLICY,
}


def check_secret(secret: str) -> None:
    """Raises InvalidInput."""
    if len(secret) < 16 or not secret.isascii():
        raise InvalidInput(f"for Mailgun it is {SECRET}", field="secret")


def check(secret: str, headers: Headers, body: bytes, now: datetime) -> bytes:  # noqa: ARG001
    """The token, which tells a replay. Raises Refused."""
    try:
        signed = node_at(document(body), "signature")
    except Unreadable:
        raise Refused("it has no signature") from None
    timestamp, token = text_at(signed, "timestamp"), text_at(signed, "token")
    expected = hmac.new(secret.encode(), f"{timestamp}{token}".encode(), sha256).hexdigest()
    given = text_at(signed, "signature")
    if not token or not hmac.compare_digest(expected.encode(), given.encode()):
        raise Refused("the signature is not Mailgun's")
    check_age(timestamp, now)
    return token.encode()


def read(body: bytes, at: datetime) -> Iterator[Told]:
    """What its one event tells. Raises Unreadable."""
    event = node_at(document(body), "event-data")
    kind = text_at(event, "event")
    what = _WHAT.get(kind)
    permanent = text_at(event, "severity") == "permanent"
    if kind == "failed":
        what = What.BOUNCED if permanent else What.DELAYED
    if what is None:  # accepted, opened, clicked, …
        return
    status = node_at(event, "delivery-status")
    reason = _NOT_SENT.get(text_at(event, "reason"), "")
    code = text_at(status, "code")
    yield Told(
        what,
        ms_of(text_at(event, "timestamp"), at),
        text_at(event, "id"),
        delivery=text_at(event, "user-variables", DELIVERY_KEY),
        provider_id=text_at(event, "message", "headers", "message-id"),
        recipient=text_at(event, "recipient"),
        hard=permanent and reason in ("", Reason.USER_UNKNOWN),
        reason=reason,
        code=code if len(code) == 3 and not reason else "",  # 605 and the like are its own
        status=text_at(status, "enhanced-code"),
        text=text_at(status, "message") or text_at(status, "description"),
    )
