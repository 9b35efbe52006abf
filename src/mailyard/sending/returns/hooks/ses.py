"""Amazon SES through SNS (Amazon SNS developer guide, "Verifying the signatures of Amazon SNS
messages"; Amazon SES developer guide, "Amazon SNS notification contents", "Event data").

SNS signs with a certificate that the message names; it is believed only at an address of SNS
itself. Anybody may have SNS sign his own messages, so the topic's name is what the endpoint is
bound to. SNS repeats a message under its first timestamp for about twenty minutes when nobody
answers, so here an hour is allowed; a replay within it is known by its signature.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from mailyard.core.errors import InvalidInput
from mailyard.protocol.report import sns as report
from mailyard.protocol.report.codes import find_reply_code
from mailyard.sending.bounce import NOT_OF_A_PERSON, Reason
from mailyard.sending.returns.hooks.told import (
    Document,
    Refused,
    Told,
    Unreadable,
    check_age,
    document,
    ms_of,
    node_at,
    objects_at,
    text_at,
)
from mailyard.sending.returns.occurrence import What
from mailyard.sending.transports.vendor import DELIVERY_KEY

SECRET = "the topic's ARN, arn:aws:sns:region:account:name"
MAX_AGE_S = 3_600.0
NOTIFICATION = "Notification"
CONFIRMATION = "SubscriptionConfirmation"

_TOPIC = re.compile(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:\d{12}:[A-Za-z0-9_.-]{1,256}", re.ASCII)
_HOST = re.compile(r"sns\.[a-z0-9-]{1,40}\.amazonaws\.com(?:\.cn)?", re.ASCII)
_SIGNED = {
    NOTIFICATION: ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    CONFIRMATION: (
        "Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type",
    ),
}  # fmt: skip
_WHAT = {
    "Delivery": What.DELIVERED,
    "DeliveryDelay": What.DELAYED,
    "Bounce": What.BOUNCED,
    "Reject": What.BOUNCED,
    "Complaint": What.COMPLAINED,
}
# Sub-types of bounces that say why by themselves (SES developer guide, "Bounce types").
_REASONS = {
    "NoEmail": Reason.USER_UNKNOWN,
    "Suppressed": Reason.USER_UNKNOWN,
    "OnAccountSuppressionList": Reason.USER_UNKNOWN,
    "MailboxFull": Reason.MAILBOX_FULL,
    "MessageTooLarge": Reason.TOO_BIG,
    "ContentRejected": Reason.CONTENT,
    "AttachmentRejected": Reason.CONTENT,
    "CustomTimeoutExceeded": Reason.EXPIRED,
}


def check_secret(secret: str) -> None:
    """Raises InvalidInput."""
    if not _TOPIC.fullmatch(secret):
        raise InvalidInput(f"for SES it is {SECRET}", field="secret")


def envelope(body: bytes) -> Document:
    """The SNS message. Raises Refused."""
    try:
        found = document(body)
    except Unreadable as error:
        raise Refused(error.message) from None
    if text_at(found, "Type") not in (*_SIGNED, "UnsubscribeConfirmation"):
        raise Refused("it is no message of SNS (raw message delivery has to be off)")
    return found


def certificate_url(message: Document) -> str:
    """Where the certificate is that has signed it. Raises Refused for a place that is not SNS'."""
    url = text_at(message, "SigningCertURL")
    if not is_address_of_sns(url) or not urlsplit(url).path.endswith(".pem"):
        raise Refused("its certificate is not at an address of SNS")
    return url


def is_address_of_sns(url: str) -> bool:
    """Whether `url` is one of SNS itself, over TLS."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    plain = parts.username is None and parts.password is None and port in (None, 443)
    return parts.scheme == "https" and plain and _HOST.fullmatch(parts.hostname or "") is not None


def public_key(pem: bytes, now: datetime) -> rsa.RSAPublicKey:
    """The key in a certificate. Raises Refused."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise Refused("its certificate cannot be read") from None
    key = certificate.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        raise Refused("its certificate has no RSA key")
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise Refused("its certificate is not valid now")
    return key


def check(topic: str, message: Document, key: rsa.RSAPublicKey, now: datetime) -> bytes:
    """What tells a replay. Raises Refused."""
    kind = text_at(message, "Type")
    if kind == "UnsubscribeConfirmation":  # signed like the confirmation
        kind = CONFIRMATION
    hashed = {"1": hashes.SHA1(), "2": hashes.SHA256()}.get(text_at(message, "SignatureVersion"))
    if hashed is None:
        raise Refused("its signature is of an unknown version")
    try:
        signed = base64.b64decode(_whole(message, "Signature"), validate=True)
        key.verify(signed, _canonical(message, kind), padding.PKCS1v15(), hashed)
    except (InvalidSignature, ValueError, binascii.Error):
        raise Refused("the signature is not SNS'") from None
    if _whole(message, "TopicArn") != topic:
        raise Refused("it is of another topic")
    check_age(ms_of(text_at(message, "Timestamp"), _BEFORE) / 1000, now, MAX_AGE_S)
    return signed


_BEFORE = datetime.fromisoformat("1970-01-02T00:00:00+00:00")


def _canonical(message: Document, kind: str) -> bytes:
    """Name and value of each signed field, a line each; one that is absent is left out."""
    names = (name for name in _SIGNED[kind] if isinstance(message.get(name), str))
    return "".join(f"{name}\n{message[name]}\n" for name in names).encode()


def _whole(message: Document, name: str) -> str:
    value = message.get(name)
    return value if isinstance(value, str) else ""


def subscribe_url(message: Document) -> str:
    """Where a subscription is confirmed; empty when that is no place of SNS'."""
    url = _whole(message, "SubscribeURL")
    confirms = text_at(message, "Type") == CONFIRMATION
    return url if confirms and is_address_of_sns(url) else ""


def read(body: bytes, at: datetime) -> Iterator[Told]:
    """What a notification tells: nothing of other messages. Raises Unreadable."""
    message = document(body)
    if text_at(message, "Type") != NOTIFICATION:
        return
    inner = _whole(message, "Message")
    if not inner.lstrip().startswith("{"):
        return  # "Successfully validated SNS topic for Amazon SES event publishing."
    notification = document(inner)
    kind = text_at(notification, "notificationType") or text_at(notification, "eventType")
    what = _WHAT.get(kind)
    if what is None or (
        what is What.COMPLAINED and report.feedback_type(dict(notification)) in NOT_OF_A_PERSON
    ):  # Send, Open, Click, Rendering Failure, …
        return
    yield from _told(notification, kind, what, at)


def _told(notification: Document, kind: str, what: What, at: datetime) -> Iterator[Told]:
    mail = node_at(notification, "mail")
    part = node_at(notification, kind[:1].lower() + kind[1:])
    sub_type = text_at(part, "bounceSubType")
    reason = _REASONS.get(sub_type, "") if what is What.BOUNCED else ""
    identity = text_at(part, "feedbackId") or f"{kind} {text_at(part, 'timestamp')}"
    moment = text_at(part, "timestamp") or text_at(mail, "timestamp")
    for recipient, code, status, text in _recipients(notification, kind, part, mail):
        yield Told(
            what,
            ms_of(moment, at),
            f"{identity} {recipient}",
            delivery=_tag(mail),
            provider_id=text_at(mail, "messageId"),
            recipient=recipient,
            hard=text_at(part, "bounceType") == "Permanent",
            reason=reason,
            code=code,
            status=status,
            text=text or sub_type or text_at(part, "delayType"),
        )


def _recipients(
    notification: Document, kind: str, part: Document, mail: Document
) -> Iterator[tuple[str, str, str, str]]:
    """(address, reply code, status, what was answered) of everybody that it is about."""
    if kind == "DeliveryDelay":
        for one in objects_at(part, "delayedRecipients"):
            text = text_at(one, "diagnosticCode")
            yield text_at(one, "emailAddress"), "", text_at(one, "status"), text
    elif kind == "Reject":
        for address in _destinations(mail):
            yield address, "", "", text_at(part, "reason")
    else:
        for found in report.recipients_of(dict(notification)):
            text = found.diagnostic or text_at(part, "smtpResponse")
            yield found.address, find_reply_code(text), found.status, text


def _destinations(mail: Document) -> list[str]:
    to: Any = mail.get("destination")
    return [one[:320] for one in to[:50] if isinstance(one, str)] if isinstance(to, list) else []


def _tag(mail: Document) -> str:
    """Our tag: SES gives each tag as a list of values."""
    values: Any = node_at(mail, "tags").get(DELIVERY_KEY)
    if isinstance(values, list) and values and isinstance(values[0], str):
        return values[0][:100]
    return ""
