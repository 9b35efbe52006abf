"""Rows of a chunk's finished recipients, as columns for one statement."""

from collections.abc import Sequence
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
_NO_RESULTS: tuple[Sequence[Any], ...] = ((), (), (), (), ())
_Result = tuple[State, int | None, str, str, datetime | None]


class ChunkRows:
    """What waits for its commit. `handed_off` counts those that hold a place of the window;
    `passes` are the refusals of transports that were asked before the one that had the mail,
    `refusals` those of recipients."""

    __slots__ = ("_columns", "_numbers", "handed_off", "passes", "refusals")

    def __init__(self) -> None:
        self._columns: tuple[list[Any], ...] = ([], [], [], [], [])
        self._numbers: dict[_Result, int] = {}
        self.handed_off = 0
        self.passes = Passes()
        self.refusals = Refusals()

    def __len__(self) -> int:
        return len(self._columns[0])

    @property
    def delivery_ids(self) -> list[UUID]:
        return self._columns[0]

    def columns(self) -> tuple[Sequence[Any], ...]:
        """Of each row: delivery id, contact id, recipient, its key, the number of its result, from
        1 on. Of each result: state, reply code, reply, transport (none: it was not handed over),
        next attempt."""
        return (*self._columns, *(zip(*self._numbers, strict=True) if self else _NO_RESULTS))

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
        result = (state, reply_code, reply, transport, next_attempt_at)
        number = self._numbers.setdefault(result, len(self._numbers) + 1)
        identifiers, contacts, addresses, keys, numbers = self._columns
        identifiers.append(delivery_id)
        contacts.append(contact_id)
        addresses.append(address)
        keys.append(recipient_key(address))
        numbers.append(number)
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
