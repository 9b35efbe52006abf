"""The providers whose events are taken, by the word in the address."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from mailyard.core.errors import InvalidInput
from mailyard.sending.returns.hooks import mailgun, postmark, resend, sendgrid, ses
from mailyard.sending.returns.hooks.told import Headers, Told

Check = Callable[[str, Headers, bytes, datetime], bytes]
Read = Callable[[bytes, datetime], Iterator[Told]]


@dataclass(frozen=True, slots=True)
class Kind:
    """How a provider's requests are checked and read. `check` raises Refused and returns what tells
    a replay, empty where nothing does; None: its signature needs a certificate (SES)."""

    title: str
    secret: str
    check_secret: Callable[[str], None]
    check: Check | None
    read: Read


KINDS = {
    "ses": Kind("Amazon SES", ses.SECRET, ses.check_secret, None, ses.read),
    "sendgrid": Kind(
        "SendGrid", sendgrid.SECRET, sendgrid.check_secret, sendgrid.check, sendgrid.read
    ),
    "postmark": Kind(
        "Postmark", postmark.SECRET, postmark.check_secret, postmark.check, postmark.read
    ),
    "mailgun": Kind("Mailgun", mailgun.SECRET, mailgun.check_secret, mailgun.check, mailgun.read),
    "resend": Kind("Resend", resend.SECRET, resend.check_secret, resend.check, resend.read),
}


def kind_of(name: str) -> Kind:
    """Raises InvalidInput."""
    kind = KINDS.get(name)
    if kind is None:
        raise InvalidInput(f"a kind is one of {', '.join(KINDS)}", field="kind")
    return kind
