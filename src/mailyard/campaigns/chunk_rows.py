"""Rows of a chunk's finished recipients, as columns for one statement."""

from datetime import datetime
from typing import Any
from uuid import UUID

from mailyard.campaigns.mail import Written
from mailyard.sending.delivery import recipient_key
from mailyard.sending.refusal import Refusals
from mailyard.sending.results import STATE_OF, Passes, clean
from mailyard.sending.states import State
from mailyard.sending.transport import Handoff

_FIRST_ATTEMPT = 1


class ChunkRows:
    """What waits for its commit. `handed_off` counts those that hold a place of the window;
    `passes` are the refusals of transports that were asked before the one that had the mail,
    `refusals` those of recipients."""

    __slots__ = ("_columns", "handed_off", "passes", "refusals")

    def __init__(self) -> None:
        self._columns: tuple[list[Any], ...] = ([], [], [], [], [], [], [], [], [])
        self.handed_off = 0
        self.passes = Passes()
        self.refusals = Refusals()

    def __len__(self) -> int:
        return len(self._columns[0])

    @property
    def delivery_ids(self) -> list[UUID]:
        return self._columns[0]

    def columns(self) -> tuple[list[Any], ...]:
        """delivery id, contact id, recipient, its key, state, reply code, reply, transport (none:
        it was not handed over), next attempt."""
        return self._columns

    def add(
        self,
        delivery_id: UUID,
        contact_id: UUID,
        address: str,
        state: State,
        reply_code: int | None,
        reply: str,
        transport: str = "",
        next_attempt_at: datetime | None = None,
        *,
        handed_off: bool,
    ) -> None:
        (
            identifiers,
            contacts,
            addresses,
            keys,
            states,
            codes,
            replies,
            transports,
            next_attempts,
        ) = self._columns
        identifiers.append(delivery_id)
        contacts.append(contact_id)
        addresses.append(address)
        keys.append(recipient_key(address))
        states.append(state)
        codes.append(reply_code)
        replies.append(reply)
        transports.append(transport)
        next_attempts.append(next_attempt_at)
        self.handed_off += handed_off

    def answer(
        self, written: Written, handoff: Handoff, next_attempt_at: datetime | None = None
    ) -> None:
        """Take the transport's answer; `next_attempt_at` when it was not taken yet."""
        if handoff.passed:
            self.passes.add(_FIRST_ATTEMPT, handoff.passed)
        state = STATE_OF[handoff.outcome]
        self.add(
            written.delivery_id,
            written.contact_id,
            written.address,
            state,
            handoff.reply_code,
            clean(handoff.reply),
            handoff.transport if handoff.tried else "",
            next_attempt_at,
            handed_off=True,
        )
