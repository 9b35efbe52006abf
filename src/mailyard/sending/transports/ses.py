"""Amazon SES, API v2: SendEmail with the raw mail, one call a mail (API Reference, SendEmail).

The mail goes as it is, our DKIM signature with it; SES replaces `Message-ID` and may add `Date`,
so a signature that is to survive does not cover those two. SendBulkEmail would take fifty at once,
but only as a template that SES renders itself, which cannot carry a finished mail. So the rate
comes from many calls in flight, and SES counts it in recipients a second.
"""

from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from mailyard.core.limits import MIB
from mailyard.net.http import HttpAnswer
from mailyard.sending.transport import Outcome, Outgoing
from mailyard.sending.transports.sigv4 import AwsCredentials, signed_headers
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

_PATH = "/v2/email/outbound-emails"
# Refusals that speak of the account, its quota, its identities or its credentials, with whatever
# status they come (SES API v2 Reference, SendEmail, Errors; Common Errors).
_ACCOUNT = frozenset(
    (
        "AccountSuspendedException", "LimitExceededException", "MailFromDomainNotVerifiedException",
        "NotFoundException", "SendingPausedException", "TooManyRequestsException",
        "ThrottlingException", "Throttling", "AccessDeniedException", "ExpiredTokenException",
        "IncompleteSignature", "InvalidClientTokenId", "InvalidSignatureException",
        "MissingAuthenticationTokenException", "OptInRequired", "RequestExpired",
        "ServiceUnavailable", "UnrecognizedClientException",
    )
)  # fmt: skip
_NOT_VERIFIED = "not verified"  # MessageRejected says this of our own sending identity too


class _Sent(Struct, rename="pascal"):
    message_id: str


class _Error(Struct):
    message: str = ""
    capital: str = msgspec.field(default="", name="Message")  # some of AWS' front ends say it so
    type: str = msgspec.field(default="", name="__type")


class Ses:
    """`endpoint` replaces the region's public one (a VPC endpoint, a test).

    `configuration_set` decides where SES publishes what happens to the mail.
    """

    mails_per_request = 1
    recipients_per_mail = 50  # SES quotas: recipients per message
    recipients_per_request = 50
    request_bytes = 40 * MIB  # SES quotas: message size, v2, after base64
    counts_recipients = True  # "sending rate: recipients per second"
    repeatable = False

    def __init__(
        self,
        *,
        region: str,
        credentials: AwsCredentials,
        configuration_set: str = "",
        endpoint: str = "",
    ) -> None:
        self._region = region
        self._credentials = credentials
        self._configuration_set = configuration_set
        base = endpoint.rstrip("/") or f"https://email.{region}.amazonaws.com"
        self._url = base + _PATH
        self._host = urlsplit(base).netloc
        self._path = urlsplit(self._url).path

    def item(self, mail: Outgoing) -> Item:
        """See `Vendor.item`: the whole body of the call."""
        call: dict[str, object] = {
            "Destination": {"ToAddresses": [one.address for one in mail.recipients]},
            "Content": {"Raw": {"Data": b64encode(mail.content).decode("ascii")}},
        }
        if self._configuration_set:
            call["ConfigurationSetName"] = self._configuration_set
        if tag := delivery_tag(mail):
            call["EmailTags"] = [{"Name": DELIVERY_KEY, "Value": tag}]
        return Item(mail, msgspec.json.encode(call))

    def request(self, items: Sequence[Item], now: datetime) -> Request:
        """See `Vendor.request`."""
        (item,) = items
        headers = signed_headers(
            self._credentials,
            method="POST",
            host=self._host,
            path=self._path,
            headers={"Content-Type": "application/json"},
            body=item.payload,
            region=self._region,
            service="ses",
            now=now,
        )
        return Request(self._url, headers, item.payload)

    def accepted(self, items: Sequence[Item], answer: HttpAnswer) -> list[list[Verdict]]:
        """See `Vendor.accepted`: one id for all recipients of the mail."""
        return [[taken(answer.status, decoded(answer, _Sent).message_id)] for _ in items]

    def refused(self, answer: HttpAnswer, now: datetime) -> Verdict:
        """See `Vendor.refused`."""
        kind = answer.headers.get("x-amzn-errortype", "")
        try:
            error = decoded(answer, _Error)
            kind, text = kind or error.type, error.message or error.capital
        except Unreadable:
            text = prose(answer)
        kind = kind.split(":", 1)[0].rsplit("#", 1)[-1]
        verdict = by_status(answer, f"{kind} {text}".strip(), now)
        if kind in _ACCOUNT or (kind == "MessageRejected" and _NOT_VERIFIED in text):
            return msgspec.structs.replace(verdict, outcome=Outcome.LATER, route_fault=True)
        return verdict
