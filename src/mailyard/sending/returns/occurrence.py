"""Something that happened to a delivery after its hand-over, whoever told it."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from uuid import UUID

KEY_BYTES = 16
TEXT_CHARACTERS = 2_000


class What(StrEnum):
    """What happened. Only the first two may move a delivery to another state."""

    DELIVERED = "delivered"
    BOUNCED = "bounced"
    DELAYED = "delayed"  # not there yet, somebody goes on trying
    COMPLAINED = "complained"  # the recipient called it spam
    UNSUBSCRIBED = "unsubscribed"  # at the provider
    REPLIED = "replied"  # an automatic answer, or a mail that somebody wrote
    CHALLENGED = "challenged"  # asked to prove that a person sent it


@dataclass(frozen=True, slots=True)
class Occurrence:
    """Told of one delivery. `named`: the recipients that the teller named, empty when none.

    `workspace_id` is whose the delivery has to be; None where a signed return-path proved it.
    `reason` is one of `sending.bounce.Reason`, `suppresses` whether nothing should be sent to the
    recipient again because of it. `key`: the same occurrence told twice has the same.
    """

    delivery_id: UUID
    what: What
    source: str
    key: bytes
    at: datetime
    named: tuple[str, ...] = ()
    workspace_id: UUID | None = None
    reason: str = ""
    status: str = ""
    reply_code: int | None = None
    text: str = ""
    suppresses: bool = False
    message_id: UUID | None = None


def key_of(*words: str) -> bytes:
    """The key of an occurrence that `words` identify for its delivery."""
    return sha256("\0".join(words).encode("utf-8", "replace")).digest()[:KEY_BYTES]


def clean(text: str) -> str:
    """A text as PostgreSQL takes it: no NUL, bounded."""
    text = text[:TEXT_CHARACTERS]
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in text else text
