"""What differs from one HTTP provider to the next, as values: mails in, requests out, answers read.

A vendor's module is pure: it knows the API's words and does no I/O. `HttpProvider` does the rest
for all of them (collecting, pace, connections, faults).
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Protocol, TypeVar

import msgspec
from msgspec import Struct

from mailyard.core import ids
from mailyard.core.errors import MailyardError
from mailyard.core.limits import KIB
from mailyard.net.http import Exchange, HttpAnswer, HttpFailure
from mailyard.sending.transport import HANDOFF_REPLY_CHARACTERS, Outcome, Outgoing

DELIVERY_KEY = "mailyard_delivery"  # under this name a provider's events bring our id back
ID_PREFIX = "id="
RETRY_AFTER_CAP_S = 300.0  # a provider's "come back in a year" must not outlive its bad moment
_PROSE_BYTES = 4 * KIB  # of a refusal that nobody wrote for a machine
# RFC 9110 section 15.6.3 and 15.6.5: a gateway that has passed the request on and got no answer.
# 520 and 524 say the same of Cloudflare, which stands before several providers.
_NOBODY_KNOWS = frozenset((502, 504, 520, 524))
_MAILS_FAULT = frozenset((400, 406, 411, 414, 415, 417, 422, 451))
_TOO_LARGE = 413
Answer = TypeVar("Answer")


class Item(Struct, frozen=True):
    """One mail as the vendor's API takes it. Items of the same `lot` may share a request; None
    goes alone. `size_bytes` is what it adds to one."""

    mail: Outgoing
    payload: bytes
    lot: bytes | None = None

    @property
    def size_bytes(self) -> int:
        return len(self.payload)


class Request(Struct, frozen=True):
    """A POST."""

    url: str
    headers: Mapping[str, str]
    body: bytes


class Verdict(Struct, frozen=True):
    """What an answer means for a recipient; `text` is shown in the delivery's history.

    `wait_s`: how long the provider wants to be left alone; None when it does not say.
    """

    outcome: Outcome
    code: int | None
    text: str
    route_fault: bool = False
    wait_s: float | None = None


class Inexpressible(MailyardError):
    """The vendor's API cannot carry this mail as it is. `apart`: it can, each recipient alone."""

    code = "inexpressible"
    status = 422

    def __init__(self, message: str, *, apart: bool = False) -> None:
        super().__init__(message)
        self.apart = apart


class Unreadable(MailyardError):
    """An answer that says yes and cannot be read: nobody knows what was taken."""

    code = "unreadable_answer"
    status = 502


class Vendor(Protocol):
    """A provider's API and its limits.

    `counts_recipients`: its rate is in recipients a second, else in requests. `repeatable`: a
    request that is sent twice is carried out once (idempotency keys).
    """

    mails_per_request: int
    recipients_per_mail: int
    recipients_per_request: int
    request_bytes: int
    counts_recipients: bool
    repeatable: bool

    def item(self, mail: Outgoing) -> Item:
        """`mail` in the vendor's words. Raises Inexpressible."""
        ...

    def request(self, items: Sequence[Item], now: datetime, /) -> Request:
        """One request that hands all `items` over."""
        ...

    def accepted(self, items: Sequence[Item], answer: HttpAnswer) -> list[list[Verdict]]:
        """What a 2xx answer says for each recipient of each item. Raises Unreadable."""
        ...

    def refused(self, answer: HttpAnswer, now: datetime) -> Verdict:
        """What any other answer says, the same for all."""
        ...


def taken(code: int, message_id: str) -> Verdict:
    """Accepted under the provider's `message_id`, by which its events are matched later."""
    return Verdict(Outcome.ACCEPTED, code, f"{ID_PREFIX}{message_id}")


def by_status(answer: HttpAnswer, text: str, now: datetime) -> Verdict:
    """What an HTTP status says by itself (RFC 9110 section 15), where the vendor says no more.

    Of the 5xx, 500 and 503 are taken at their word (the request was not carried out: section
    15.6.1), for trying again is the only way through an outage; gateways' statuses are not.
    """
    status = answer.status
    text = f"{status} {text}"[:HANDOFF_REPLY_CHARACTERS]
    if status in _NOBODY_KNOWS:
        return Verdict(Outcome.UNKNOWN, status, text)
    if status == _TOO_LARGE:
        return Verdict(Outcome.NEVER, status, text, route_fault=True)
    if status in _MAILS_FAULT:
        return Verdict(Outcome.NEVER, status, text)
    return Verdict(
        Outcome.LATER, status, text, route_fault=True, wait_s=retry_after_s(answer.headers, now)
    )


def broken(exchange: Exchange, reason: str) -> Verdict:
    """A request that ended without an answer of the provider."""
    if exchange.written:
        return Verdict(Outcome.UNKNOWN, None, reason)
    return Verdict(Outcome.LATER, None, reason, route_fault=True)


def of_failure(failure: HttpFailure) -> Verdict:
    """What it means that no whole answer came. The head of one may have said no already; why, was
    in what is missing."""
    status = failure.status_seen
    if status is not None and 300 <= status < 500:
        return Verdict(Outcome.LATER, status, f"{status}, {failure}", route_fault=True)
    if failure.written:
        return Verdict(Outcome.UNKNOWN, status, str(failure))
    return Verdict(Outcome.LATER, None, str(failure), route_fault=True)


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Retry-After in seconds, as a number or a date (RFC 9110 section 10.2.3); None without."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:18])
    try:
        then = parsedate_to_datetime(value)
    except ValueError:
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return max(0.0, (then - now).total_seconds())


def decoded(answer: HttpAnswer, kind: type[Answer]) -> Answer:
    """The JSON of an answer. Raises Unreadable."""
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unreadable(f"{answer.status} with an answer that cannot be read: {error}") from None


def prose(answer: HttpAnswer) -> str:
    """The text of an answer that is not the JSON it should be, on one line."""
    return " ".join(answer.body[:_PROSE_BYTES].decode("utf-8", "replace").split())


def delivery_tag(mail: Outgoing) -> str | None:
    """The delivery's id, for the provider to bring back with its events; None with several."""
    if len(mail.recipients) != 1:
        return None
    return ids.type_id(ids.DELIVERY, mail.recipients[0].delivery_id)
