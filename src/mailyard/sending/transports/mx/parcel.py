"""One recipient's mail on its way to an MX, and how it is answered.

A mail goes to each recipient in a transaction of its own: return paths are a recipient's own, and
rates count recipients.
"""

from collections.abc import Callable
from datetime import datetime

import structlog
from msgspec import Struct

from mailyard.core.errors import InvalidInput
from mailyard.protocol.address import ascii_domain
from mailyard.protocol.mx import literal_address
from mailyard.protocol.smtp.client_mail import ClientMail, Fate
from mailyard.sending.shape.receiver import Place
from mailyard.sending.transport import (
    HANDOFF_REPLY_CHARACTERS,
    Handoff,
    Outcome,
    Outgoing,
    Recipient,
)
from mailyard.sending.transports.mx.road import Road
from mailyard.sending.transports.mx.source import Source

_log = structlog.get_logger(__name__)

Done = Callable[[Handoff], None]

OUTCOMES = {
    Fate.ACCEPTED: Outcome.ACCEPTED,
    Fate.LATER: Outcome.LATER,
    Fate.NEVER: Outcome.NEVER,
    Fate.UNKNOWN: Outcome.UNKNOWN,
}


class Parcel(Struct, eq=False):
    """`key`: the place as its source sees it, under which shaping knows it. `waits_since_s`: when
    it was given to its pool, by the loop's clock. `returns`: how often it came back untouched.
    `stage`: how far the session was that answered."""

    mail: Outgoing
    recipient: Recipient
    done: Done
    domain: str
    road: Road | None = None
    place: Place | None = None
    source: Source | None = None
    key: str = ""
    waits_since_s: float = 0.0
    returns: int = 0
    stage: str = ""

    @property
    def group(self) -> str:
        """The receiver that its site belongs to, as warming-up counts it."""
        return self.place.receiver.name if self.place is not None else ""

    def client_mail(self) -> ClientMail:
        """What a session is given."""
        mail = self.mail
        return ClientMail(
            mail.reverse_path,
            [self.recipient.address],
            mail.content,
            mail.eight_bit,
            mail.smtp_utf8,
            self,
        )

    def settle(
        self,
        transport: str,
        outcome: Outcome,
        code: int | None,
        reply: str,
        *,
        route_fault: bool = False,
        retry_at: datetime | None = None,
        tried: bool = True,
    ) -> None:
        """Tell the caller. What the caller raises is its own affair, and is logged."""
        handoff = Handoff(
            self.recipient.delivery_id,
            outcome,
            code,
            reply[:HANDOFF_REPLY_CHARACTERS],
            transport,
            route_fault,
            retry_at,
            tried,
            stage=self.stage,
        )
        try:
            self.done(handoff)
        except Exception as error:
            _log.error("handoff_callback_failed", transport=transport, exc_info=error)


def domain_of(address: str) -> str:
    """Where mail for `address` goes: a domain in its ASCII form, or an address literal.

    Raises InvalidInput.
    """
    domain = address.rpartition("@")[2]
    if domain.startswith("["):
        if literal_address(domain) is None:
            raise InvalidInput(f"{domain[:80]!r} is no address literal", field="recipient")
        return domain.lower()
    return ascii_domain(domain).lower()
