"""Writing what happened into the deliveries' stories, with its consequences. One transaction.

    hold the deliveries -> leave out what is known already -> decide each by the table of states
         -> events, states, suppressions, counters, live events

Order is not assumed: a delivery is held while its events are decided, an occurrence whose state
cannot follow is told in the story and moves nothing, and one that came twice is told once.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from mailyard.bus.live import DELIVERY_CHANGED, LiveEvent, LiveEvents
from mailyard.core import ids
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import InvalidInput
from mailyard.protocol.address import normalise
from mailyard.sending import suppress
from mailyard.sending.returns.occurrence import Occurrence, What, clean
from mailyard.sending.states import TABLE, Event, State
from mailyard.sending.suppress import Stop, Suppressions
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("returns")
_SENDING_SQL = load("sending")

EVENTS_MAX = 200  # of one delivery: whoever answers every mail for years fills no table
# As a delivery's own words: what counts in the rates of a workspace and the totals of a campaign.
_EVENTS = {What.DELIVERED: Event.DELIVER, What.BOUNCED: Event.BOUNCE}
_NAMES_RECIPIENT = (What.BOUNCED, What.DELAYED, What.DELIVERED)
_NEXT = timedelta(microseconds=1)
_TO_COME = frozenset((State.QUEUED, State.HANDED_OFF))  # its own result is not recorded yet


@dataclass(slots=True)
class _Held:
    """A delivery in this transaction's hands."""

    id: UUID
    workspace_id: UUID
    email_id: UUID | None
    campaign_id: UUID | None
    recipient: str
    state: State
    attempts: int
    reply_code: int | None
    reply: str
    reason: str
    transport: str
    updated_at: datetime
    last_seq: int = 0
    events: int = 0
    own_at: datetime | None = None  # when our own last word was, of those that are kept
    told: set[str] = field(default_factory=set)
    keys: set[bytes] = field(default_factory=set)

    @property
    def address(self) -> str:
        return normalise(self.recipient)

    def is_ready(self, workspace_id: UUID | None, last: bool) -> bool:
        """Whether it may be written of: it is whose it has to be, and its own result is recorded,
        for which nobody waits any longer when this is the `last` time."""
        if workspace_id not in (None, self.workspace_id):
            return False
        return last or self.state not in _TO_COME

    def is_told(self) -> bool:
        """Whether the events say already how it came to where it stands."""
        return f"{self.state} {self.attempts}" in self.told


class Recorder:
    """Writes occurrences. The caller opens the transaction, and calls `announced` after it."""

    def __init__(
        self,
        *,
        database: Database,
        live: LiveEvents,
        suppressions: Suppressions,
        clock: Clock | None = None,
    ) -> None:
        self._database = database
        self._live = live
        self._suppressions = suppressions
        self._clock = clock or SystemClock()

    async def record(
        self, occurrences: Sequence[Occurrence], tx: Connection, *, last: bool = False
    ) -> list[Occurrence]:
        """Write them; those for which it is too early: their delivery is not there, or its own
        result is not recorded yet. With `last` the latter are written too."""
        if not occurrences:
            return []
        held = await self._hold(occurrences, tx)
        early: list[Occurrence] = []
        writing = _Writing(self._clock.now())
        for one in occurrences:
            delivery = held.get(one.delivery_id)
            if delivery is None or not delivery.is_ready(one.workspace_id, last):
                early.append(one)
            elif one.key not in delivery.keys and delivery.events < EVENTS_MAX:
                writing.add(delivery, one)
        await self._write(writing, tx)
        return early

    def announced(self) -> None:
        """Wake up who listens, after the commit."""
        self._live.announced()

    async def _hold(self, occurrences: Sequence[Occurrence], tx: Connection) -> dict[UUID, _Held]:
        wanted = sorted({one.delivery_id for one in occurrences})
        bounds = (wanted, wanted[0], wanted[-1])
        rows = await self._database.fetch(_SQL.lock_deliveries, *bounds, tx=tx)
        held = {row["id"]: _held(row) for row in rows}
        if held:
            keys = list({one.key for one in occurrences})
            for row in await self._database.fetch(_SQL.known_events, *bounds, keys, tx=tx):
                delivery = held.get(row["delivery_id"])
                if delivery is not None:
                    delivery.last_seq, delivery.events = row["last"], row["events"]
                    delivery.own_at = row["own"]
                    delivery.told.update(row["told"] or ())
                    delivery.keys.update(row["keys"] or ())
        return held

    async def _write(self, writing: "_Writing", tx: Connection) -> None:
        if not writing.events:
            return
        execute = self._database.execute
        await execute(_SQL.write_events, *_columns(writing.events), tx=tx)
        if writing.moved:
            moved = [writing.moved[delivery_id] for delivery_id in sorted(writing.moved)]
            await execute(
                _SQL.move_deliveries,
                moved[0].id,
                moved[-1].id,
                *_columns(map(_place, moved)),
                tx=tx,
            )
        await self._suppressions.stop(writing.stops, tx)
        counts = writing.counts
        await execute(
            _SENDING_SQL.insert_counter_deltas,
            [workspace_id for workspace_id, _ in counts],
            [name for _, name in counts],
            [workspace_id for workspace_id, _ in counts],
            list(counts.values()),
            tx=tx,
        )
        if writing.results:
            rows = [
                (campaign_id, workspace_id, *(named[name] for name in _RESULTS))
                for (campaign_id, workspace_id), named in writing.results.items()
            ]
            await execute(_SQL.add_campaign_results, *_columns(rows), tx=tx)
        await self._live.publish(writing.live, tx)


_RESULTS = ("delivered", "bounced", "complained")


class _Writing:
    """What one transaction writes."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self.events: list[tuple[Any, ...]] = []
        self.moved: dict[UUID, _Held] = {}
        self.stops: list[Stop] = []
        self.counts: Counter[tuple[UUID, str]] = Counter()
        self.results: dict[tuple[UUID, UUID], Counter[str]] = {}
        self.live: list[LiveEvent] = []

    def add(self, delivery: _Held, one: Occurrence) -> None:
        """Decide what `one` means for `delivery`."""
        delivery.keys.add(one.key)
        concerns = _concerns(delivery, one)
        event = _EVENTS.get(one.what)
        state = TABLE[delivery.state].get(event) if event is not None and concerns else None
        # Our own word is as late as its commit, and a provider's clock may be slow.
        own_at = delivery.own_at if delivery.is_told() else delivery.updated_at
        at = one.at if own_at is None else max(one.at, own_at + _NEXT)
        if state is not None:
            self._move(delivery, one, state)
        self._tell(delivery, at, one)
        self.counts[delivery.workspace_id, f"returned.{one.what}"] += 1
        if concerns and one.what is What.BOUNCED and state is not None:
            self.counts[delivery.workspace_id, f"bounce.{one.reason or 'undefined'}"] += 1
        if concerns:
            self._stop(delivery, one)
        if delivery.campaign_id is not None and (state is not None or one.what is What.COMPLAINED):
            totals = self.results.setdefault(
                (delivery.campaign_id, delivery.workspace_id), Counter()
            )
            totals[one.what] += 1
        self._publish(delivery, one)

    def _move(self, delivery: _Held, one: Occurrence, state: State) -> None:
        if not delivery.is_told():  # the row's own word would be lost
            self._tell(delivery, delivery.updated_at, None)
            delivery.own_at = delivery.updated_at
        delivery.state = state
        delivery.reply_code, delivery.reply = one.reply_code, clean(one.text)[:500]
        delivery.reason = one.reason
        delivery.told.add(f"{state} {delivery.attempts}")
        self.moved[delivery.id] = delivery
        self.counts[delivery.workspace_id, f"delivery.{state}"] += 1

    def _tell(self, delivery: _Held, at: datetime, one: Occurrence | None) -> None:
        """An event of the story: `one`, or without it what the row has said so far."""
        delivery.last_seq += 1
        delivery.events += 1
        head = (delivery.id, delivery.last_seq, delivery.workspace_id, at, delivery.state.value,
                delivery.attempts)  # fmt: skip
        if one is None:
            rest: tuple[Any, ...] = (
                delivery.reply_code, delivery.reply, delivery.transport, "", delivery.reason, "",
                "", None, None,
            )  # fmt: skip
        else:
            text = clean(one.text)
            if one.named and not _concerns(delivery, one):
                text = f"of {', '.join(one.named[:3])}: {text}"
            rest = (
                one.reply_code, text, "", one.what.value, one.reason, one.status, one.source,
                one.message_id, one.key,
            )  # fmt: skip
        self.events.append((*head, *rest))

    def _stop(self, delivery: _Held, one: Occurrence) -> None:
        if one.what is What.BOUNCED and one.suppresses:
            reason, stream = suppress.Reason.HARD_BOUNCE, suppress.ALL
        elif one.what is What.COMPLAINED and one.suppresses:
            # Who calls a campaign spam may still want the receipt of what he buys.
            in_campaign = delivery.campaign_id is not None
            reason = suppress.Reason.COMPLAINT
            stream = suppress.CAMPAIGN if in_campaign else suppress.ALL
        elif one.what is What.UNSUBSCRIBED:
            reason, stream = suppress.Reason.UNSUBSCRIBED, suppress.CAMPAIGN
        else:
            return
        self.stops.append(
            Stop(
                delivery.workspace_id,
                delivery.address,
                stream,
                reason,
                source=one.source,
                evidence=one.text,
                delivery_id=delivery.id,
            )
        )

    def _publish(self, delivery: _Held, one: Occurrence) -> None:
        item = {
            "delivery_id": ids.type_id(ids.DELIVERY, delivery.id),
            "recipient": delivery.recipient,
            "state": delivery.state.value,
            "told": one.what.value,
            "reason": one.reason,
            "at": self._now.isoformat(),
        }
        if delivery.email_id is not None:
            item["email_id"] = ids.type_id(ids.EMAIL, delivery.email_id)
        if delivery.campaign_id is not None:
            item["campaign_id"] = ids.type_id(ids.CAMPAIGN, delivery.campaign_id)
        self.live.append(LiveEvent(delivery.workspace_id, DELIVERY_CHANGED, item))


def _concerns(delivery: _Held, one: Occurrence) -> bool:
    """Whether `one` is about the delivery's own recipient: a mail that he has forwarded comes back
    to the same return-path."""
    if one.what not in _NAMES_RECIPIENT or not one.named:
        return True
    return any(_same(delivery.address, address) for address in one.named)


def _same(address: str, named: str) -> bool:
    try:
        return normalise(named) == address
    except InvalidInput:
        return named.lower() == address


def _held(row: asyncpg.Record) -> _Held:
    return _Held(**{**row, "state": State(row["state"])})


def _place(delivery: _Held) -> tuple[Any, ...]:
    return (
        delivery.id,
        delivery.workspace_id,
        delivery.state.value,
        delivery.reply_code,
        delivery.reply,
        delivery.reason,
    )


def _columns(rows: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
