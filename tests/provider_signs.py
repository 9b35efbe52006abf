"""The five providers as they sign and send their events, with keys made here."""

import base64
import hmac
import json
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

TOPIC = "arn:aws:sns:eu-central-1:123456789012:mail-events"
CERTIFICATE_URL = "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-1.pem"
ANSWER = "550 5.1.1 <{}>: Recipient address rejected: User unknown"

Headers = dict[str, str]
Signed = tuple[Headers, bytes]


@cache
def _rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@cache
def _ec() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@cache
def certificate() -> bytes:
    """The PEM that SNS' messages name."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(_rsa().public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .sign(_rsa(), hashes.SHA256())
    )
    return built.public_bytes(serialization.Encoding.PEM)


def _verification_key() -> str:
    public = (
        _ec()
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return base64.b64encode(public).decode()


SECRETS = {
    "ses": TOPIC,
    "sendgrid": _verification_key(),
    "postmark": "mailyard:sixteen letters and more",
    "mailgun": "a signing key of mailgun",
    "resend": "whsec_" + base64.b64encode(b"svix secret of 24 bytes.").decode(),
}


def sns(message: Any, at: datetime, **more: str) -> Signed:
    """A message of SNS, signed with version 2."""
    fields: dict[str, str] = {
        "Type": "Notification",
        "MessageId": secrets.token_hex(16),
        "TopicArn": TOPIC,
        "Message": message if isinstance(message, str) else json.dumps(message),
        "Timestamp": at.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "SignatureVersion": "2",
        "SigningCertURL": CERTIFICATE_URL,
        **more,
    }
    names = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    if fields["Type"] == "Notification":
        names = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
    text = "".join(f"{name}\n{fields[name]}\n" for name in names if name in fields)
    signature = _rsa().sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
    fields["Signature"] = base64.b64encode(signature).decode()
    return {"content-type": "text/plain; charset=UTF-8"}, json.dumps(fields).encode()


def sendgrid(events: list[Any], at: datetime) -> Signed:
    body, stamp = json.dumps(events).encode(), str(int(at.timestamp()))
    signature = _ec().sign(stamp.encode() + body, ec.ECDSA(hashes.SHA256()))
    return {
        "content-type": "application/json",
        "x-twilio-email-event-webhook-signature": base64.b64encode(signature).decode(),
        "x-twilio-email-event-webhook-timestamp": stamp,
    }, body


def postmark(event: Any, _: datetime) -> Signed:
    shown = base64.b64encode(SECRETS["postmark"].encode()).decode()
    headers = {"content-type": "application/json", "authorization": f"Basic {shown}"}
    return headers, json.dumps(event).encode()


def mailgun(event: Any, at: datetime) -> Signed:
    stamp, token = str(int(at.timestamp())), secrets.token_hex(25)
    signed = hmac.new(SECRETS["mailgun"].encode(), f"{stamp}{token}".encode(), sha256)
    signature = {"timestamp": stamp, "token": token, "signature": signed.hexdigest()}
    body = json.dumps({"signature": signature, "event-data": event}).encode()
    return {"content-type": "application/json"}, body


def resend(event: Any, at: datetime) -> Signed:
    body, stamp = json.dumps(event).encode(), str(int(at.timestamp()))
    name = f"msg_{secrets.token_hex(12)}"
    key = base64.b64decode(SECRETS["resend"].removeprefix("whsec_"))
    signed = hmac.digest(key, f"{name}.{stamp}.".encode() + body, sha256)
    return {
        "content-type": "application/json",
        "svix-id": name,
        "svix-timestamp": stamp,
        "svix-signature": f"v1,bm90IHRoaXM= v1,{base64.b64encode(signed).decode()}",
    }, body


def event(kind: str, what: str, delivery: str, recipient: str, provider_id: str = "p-1") -> Any:
    """What the provider tells of a mail: `bounced`, `delivered` or `complained`, in its words.

    `delivery`: our id as it brings it back, empty when it does not.
    """
    said = ANSWER.format(recipient)
    at = datetime.now(UTC)
    iso, seconds = at.isoformat(), int(at.timestamp())
    if kind == "ses":
        mail: dict[str, Any] = {"messageId": provider_id, "timestamp": iso}
        if delivery:
            mail["tags"] = {"mailyard_delivery": [delivery]}
        parts = {
            "bounced": ("Bounce", "bounce", {
                "bounceType": "Permanent", "bounceSubType": "General", "feedbackId": "f-1",
                "bouncedRecipients": [{
                    "emailAddress": recipient, "action": "failed", "status": "5.1.1",
                    "diagnosticCode": f"smtp; {said}",
                }],
            }),
            "delivered": ("Delivery", "delivery", {
                "recipients": [recipient], "smtpResponse": "250 2.0.0 Ok", "timestamp": iso,
            }),
            "complained": ("Complaint", "complaint", {
                "complainedRecipients": [{"emailAddress": recipient}], "feedbackId": "f-2",
                "complaintFeedbackType": "abuse",
            }),
        }  # fmt: skip
        name, part, content = parts[what]
        return {"notificationType": name, "mail": mail, part: content}
    if kind == "sendgrid":
        names = {"bounced": "bounce", "delivered": "delivered", "complained": "spamreport"}
        one: dict[str, Any] = {
            "event": names[what], "email": recipient, "timestamp": seconds,
            "sg_event_id": f"e-{what}", "sg_message_id": f"{provider_id}.filter-1.1.0",
        }  # fmt: skip
        if what == "bounced":
            one |= {"type": "bounce", "status": "5.1.1", "reason": said}
        return [one | ({"mailyard_delivery": delivery} if delivery else {})]
    if kind == "postmark":
        one = {"MessageID": provider_id, "Metadata": {}}
        if delivery:
            one["Metadata"] = {"mailyard_delivery": delivery}
        return one | {
            "bounced": {"RecordType": "Bounce", "Type": "HardBounce", "ID": 7, "Email": recipient,
                        "Details": said, "BouncedAt": iso},
            "delivered": {"RecordType": "Delivery", "Recipient": recipient, "DeliveredAt": iso,
                          "Details": "250 Ok"},
            "complained": {"RecordType": "SpamComplaint", "Type": "SpamComplaint", "ID": 8,
                           "Email": recipient, "BouncedAt": iso},
        }[what]  # fmt: skip
    if kind == "mailgun":
        names = {"bounced": "failed", "delivered": "delivered", "complained": "complained"}
        one = {
            "event": names[what], "id": f"e-{what}", "timestamp": seconds, "recipient": recipient,
            "message": {"headers": {"message-id": provider_id}}, "user-variables": {},
        }  # fmt: skip
        if what == "bounced":
            one["severity"] = "permanent"
            one["delivery-status"] = {"code": 550, "message": said, "enhanced-code": "5.1.1"}
        if delivery:
            one["user-variables"] = {"mailyard_delivery": delivery}
        return one
    data: dict[str, Any] = {"email_id": provider_id, "to": [recipient]}
    if delivery:
        data["tags"] = {"mailyard_delivery": delivery}
    if what == "bounced":
        data["bounce"] = {"type": "Permanent", "subType": "General", "message": said}
    return {"type": f"email.{what}", "created_at": iso, "data": data}


SIGN: dict[str, Callable[[Any, datetime], Signed]] = {
    "ses": sns,
    "sendgrid": sendgrid,
    "postmark": postmark,
    "mailgun": mailgun,
    "resend": resend,
}
