"""The port through which a mail leaves: SMTP today, HTTP APIs of providers beside it.

A transport takes mails without blocking and answers for every recipient exactly once. The caller
bounds how many are outstanding (the hand-off window); the transport adds no bound of its own.
"""

from collections.abc import Callable, Collection
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from msgspec import Struct

HANDOFF_REPLY_CHARACTERS = 500


class Outcome(StrEnum):
    """What became of handing one recipient's mail over."""

    ACCEPTED = "accepted"  # the peer has taken responsibility
    LATER = "later"  # not taken, trying again may help
    NEVER = "never"  # refused for good
    UNKNOWN = "unknown"  # the bytes may have arrived: connection lost after the final dot


# Three of these are made for every mail.
class Recipient(Struct, frozen=True, gc=False):
    """One RCPT of a mail and the delivery row that it answers for."""

    delivery_id: UUID
    address: str


class Outgoing(Struct, frozen=True, gc=False):
    """One mail. `content` has CRLF line ends, ends with CRLF and is not dot-stuffed.

    `eight_bit`: some byte of the content is above 127. `smtp_utf8`: a header or an address needs
    SMTPUTF8 (RFC 6531). An empty `reverse_path` is the null sender.

    What a way is chosen by: `workspace_id`, the `stream` ("transactional", "campaign") and the
    `tag`, which is the delivery's type. `only`: nobody but this provider may have the mail, because
    an earlier attempt there ended `unknown`; empty: whoever the routes say.
    """

    reverse_path: str
    recipients: tuple[Recipient, ...]
    content: bytes
    eight_bit: bool
    smtp_utf8: bool
    workspace_id: UUID | None = None
    stream: str = ""
    tag: str = ""
    only: str = ""


class Handoff(Struct, frozen=True, gc=False):
    """The answer for one recipient. `reply` has at most HANDOFF_REPLY_CHARACTERS.

    `route_fault`, with LATER or NEVER: certainly not taken, and neither the recipient nor the mail
    is to blame, but this way (out of reach, over its limit, a wrong key, an account that is
    suspended, a mail that only this API cannot express). Another transport may have the mail at
    once, and nothing is to be concluded about the recipient.

    `retry_at`, with LATER: when the mail is to come again, where the transport knows it better than
    a backoff. `tried`: False for a mail that is handed back before anything was said to a peer (no
    place, not its time yet); that is no attempt. `passed`: the refusals of others who were given
    the mail before in the same attempt. `stage`: at which step of an SMTP session the answer came
    (`mail`, `rcpt`, `data`, …); empty where it came otherwise.
    """

    delivery_id: UUID
    outcome: Outcome
    reply_code: int | None
    reply: str
    transport: str
    route_fault: bool = False
    retry_at: datetime | None = None
    tried: bool = True
    passed: tuple["Handoff", ...] = ()
    stage: str = ""


TRANSACTIONAL = "transactional"
CAMPAIGN = "campaign"
"""The two streams that mail flows in."""


class Chooser(Protocol):
    """Says which transport is to have a recipient's mail now, before its intent is written."""

    def choose(
        self, workspace_id: UUID, stream: str, tag: str, address: str, without: Collection[str]
    ) -> str:
        """Its name; empty when nobody can have it at this moment. `without`: nobody of these."""
        ...

    def may_take_it_later(
        self, workspace_id: UUID, stream: str, tag: str, address: str, without: Collection[str]
    ) -> bool:
        """Whether its route has somebody who is none of these `without`, who cannot carry it."""
        ...


class Transport(Protocol):
    """What hands mails over."""

    name: str

    def submit(self, mail: Outgoing, done: Callable[[Handoff], None]) -> None:
        """Take `mail`; never blocks. `done` is called once per recipient on the event loop,
        never from inside this call."""
        ...

    async def close(self, drain_s: float) -> None:
        """Finish what was submitted within `drain_s` seconds, answer the rest, and close."""
        ...
