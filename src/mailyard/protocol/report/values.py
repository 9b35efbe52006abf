"""What a report says: plain values, all text printable, nothing longer than a known bound."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a mail that came back is."""

    BOUNCE = "bounce"  # at least one recipient did not get the mail, and nobody tries again
    DELAY = "delay"  # not delivered yet, and the reporting server goes on trying
    DELIVERED = "delivered"  # delivered, relayed, expanded or shown: nothing to do
    COMPLAINT = "complaint"  # RFC 5965, and the feedback loops that are older than it
    AUTO_REPLY = "auto_reply"  # RFC 3834: a person is away, a ticket was opened
    CHALLENGE = "challenge"  # asks the sender to prove that he is a person
    NONE = "none"  # an ordinary mail


class Stage(StrEnum):
    """The step of the SMTP dialogue at which a server said no (RFC 5321 section 4.1.1)."""

    CONNECT = "connect"
    HELLO = "hello"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"  # the content: from DATA to the answer after the final dot
    UNKNOWN = ""


@dataclass(frozen=True, slots=True)
class Recipient:
    """What is said of one recipient. What the report does not say is empty.

    `action` is one of failed, delayed, delivered, relayed, expanded (RFC 3464 section 2.3.3).
    `status` is an enhanced status code (RFC 3463) such as `5.1.1`, `reply_code` three digits.
    `diagnostic` is what the refusing server said, as near to its own words as they are known;
    `notice` is what the reporting server's text says about this recipient.
    """

    address: str
    original_recipient: str = ""
    action: str = ""
    status: str = ""
    reply_code: str = ""
    diagnostic: str = ""
    notice: str = ""
    remote_mta: str = ""
    stage: Stage = Stage.UNKNOWN


@dataclass(frozen=True, slots=True)
class Returned:
    """The headers of the mail that came back, as far as the report has them.

    `message_id` is without angle brackets. `sender` is its Return-Path or, without one, its From.
    """

    message_id: str = ""
    subject: str = ""
    sender: str = ""
    recipients: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Feedback:
    """A complaint's fields (RFC 5965 section 3): names in lower case, in order, repeated ones too.

    `type` is abuse, fraud, virus, not-spam, opt-out, auth-failure, dmarc or other.
    """

    type: str
    fields: tuple[tuple[str, str], ...] = ()

    def field(self, name: str) -> str:
        """The first value of the field `name` (lower case), empty when absent."""
        return next((value for key, value in self.fields if key == name), "")


@dataclass(frozen=True, slots=True)
class Report:
    """What a mail reports. `reason` says by which evidence it was taken for that kind.

    `return_paths` are the addresses at which this mail arrived or from which the returned one was
    sent, likeliest first: one of them may be a signed return-path of ours.
    """

    kind: Kind
    reason: str = ""
    recipients: tuple[Recipient, ...] = ()
    returned: Returned = Returned()
    feedback: Feedback | None = None
    return_paths: tuple[str, ...] = ()
    reporting_mta: str = ""
    subject: str = ""
    notice: str = ""
