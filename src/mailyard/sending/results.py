"""What came back from a transport, as the state it means and as columns for one statement."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from mailyard.sending.refusal import Refusals
from mailyard.sending.states import Event, State, after
from mailyard.sending.transport import Handoff, Outcome
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("sending")

REPLY_CHARACTERS = 500

_EVENTS = {
    Outcome.ACCEPTED: Event.ACCEPT,
    Outcome.LATER: Event.LATER,
    Outcome.NEVER: Event.REFUSE,
    Outcome.UNKNOWN: Event.LOSE,
}
STATE_OF = {outcome: after(State.HANDED_OFF, event) for outcome, event in _EVENTS.items()}
"""What an outcome makes of a delivery that was handed off, when nothing else is to be said."""


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What an answer means for a delivery. With `next_attempt_at` it will be tried again.

    `tried`: False when it was handed back untried, which is no attempt.
    """

    state: State
    reply_code: int | None
    reply: str
    next_attempt_at: datetime | None
    tried: bool = True


def conclude(
    handoff: Handoff, next_attempt_at: datetime, expires_at: datetime | None, last: bool
) -> Conclusion:
    """The end of one attempt of transactional mail.

    `last`: no attempt is left after this one. What may have arrived and cannot be tried again stays
    `unknown`; what did not is `failed`, or `expired` when only its time is up. What was handed back
    untried has its attempt still.
    """
    state = STATE_OF[handoff.outcome]
    reply = clean(handoff.reply)
    if state not in (State.DEFERRED, State.UNKNOWN):
        return Conclusion(state, handoff.reply_code, reply, None)
    if state is State.DEFERRED:
        next_attempt_at = handoff.retry_at or next_attempt_at
    last = last and handoff.tried
    too_late = expires_at is not None and next_attempt_at >= expires_at
    if not last and not too_late:
        return Conclusion(state, handoff.reply_code, reply, next_attempt_at, handoff.tried)
    if state is State.DEFERRED:
        state = after(State.HANDED_OFF, Event.GIVE_UP if last else Event.EXPIRE)
    return Conclusion(state, handoff.reply_code, reply, None, handoff.tried)


def clean(reply: str) -> str:
    """A reply as PostgreSQL takes it: no NUL, bounded."""
    if "\0" in reply:
        reply = reply.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return reply[:REPLY_CHARACTERS]


@dataclass(slots=True)
class Passes:
    """Refusals of who was asked before the transport that a result tells of: columns too."""

    delivery_ids: list[UUID] = field(default_factory=list)
    attempts: list[int] = field(default_factory=list)
    transports: list[str] = field(default_factory=list)
    codes: list[int | None] = field(default_factory=list)
    replies: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.delivery_ids)

    def add(self, attempt: int, passed: Sequence[Handoff]) -> None:
        for refusal in passed:
            self.delivery_ids.append(refusal.delivery_id)
            self.attempts.append(attempt)
            self.transports.append(refusal.transport)
            self.codes.append(refusal.reply_code)
            self.replies.append(clean(refusal.reply))

    async def tell(self, database: Database, workspace_id: UUID, tx: Connection) -> None:
        """Write them into the deliveries' stories."""
        if self.delivery_ids:
            await database.execute(
                _SQL.tell_passed,
                min(self.delivery_ids),
                max(self.delivery_ids),
                workspace_id,
                self.delivery_ids,
                self.attempts,
                self.transports,
                self.codes,
                self.replies,
                tx=tx,
            )


@dataclass(slots=True)
class Results:
    """Columns of results that wait for their commit."""

    delivery_ids: list[UUID] = field(default_factory=list)
    fences: list[int] = field(default_factory=list)
    conclusions: list[Conclusion] = field(default_factory=list)
    transports: list[str] = field(default_factory=list)
    refusals: Refusals = field(default_factory=Refusals)

    def __len__(self) -> int:
        return len(self.delivery_ids)

    def add(self, delivery_id: UUID, fence: int, conclusion: Conclusion, transport: str) -> None:
        self.delivery_ids.append(delivery_id)
        self.fences.append(fence)
        self.conclusions.append(conclusion)
        self.transports.append(transport)

    def columns(self) -> tuple[list[Any], ...]:
        """id, fence, state, reply code, reply, transport, next attempt, whether it was tried."""
        return (
            self.delivery_ids,
            self.fences,
            [conclusion.state.value for conclusion in self.conclusions],
            [conclusion.reply_code for conclusion in self.conclusions],
            [conclusion.reply for conclusion in self.conclusions],
            self.transports,
            [conclusion.next_attempt_at for conclusion in self.conclusions],
            [conclusion.tried for conclusion in self.conclusions],
        )
