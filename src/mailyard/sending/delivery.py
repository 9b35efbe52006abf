"""What happened to mail: one row a recipient, and the events that the row has forgotten.

The story of a delivery is read from both: the row knows its birth, the last hand-over and where it
stands now; `delivery_event` keeps what a later state has overwritten (a deferral, an attempt of
which nobody knows the end). A list reads one index inside a range of ids, which is a range of time,
so only that range's partitions are opened.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from uuid import UUID

import asyncpg

from mailyard.core import ids, limits
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import InvalidInput, NotFound
from mailyard.protocol.address import normalise
from mailyard.sending.states import State
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import Query, load
from mailyard.storage.raw_mail import IN_ROWS, RawMail

_SQL = load("delivery")
_RETURNS_SQL = load("returns")

# How a listener stores mail that comes back (receiving.commit): in nobody's name, for so long.
NOBODY = UUID(int=0)
RETURNED_DAYS = 30

_PLANNED_FOR_VALUES = {
    _SQL.list_by_type,
    _SQL.list_by_state,
    _SQL.list_by_state_and_type,
    _SQL.list_by_campaign_and_state,
}

DEFAULT_RANGE = timedelta(days=90)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def recipient_key(normalised_address: str) -> int:
    """The signed 64-bit hash under which a recipient's history is indexed."""
    digest = blake2b(normalised_address.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def millisecond_range(unix_ms: int) -> tuple[UUID, UUID]:
    """All ids of one millisecond: [low, high)."""
    return UUID(int=unix_ms << 80), UUID(int=(unix_ms + 1) << 80)


def unix_ms(moment: datetime) -> int:
    """Whole milliseconds since 1970, by integer arithmetic: a float may land one too low."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One mail to one recipient."""

    id: UUID
    workspace_id: UUID
    email_id: UUID | None
    campaign_id: UUID | None
    contact_id: UUID | None
    recipient: str
    type: str
    state: State
    attempts: int
    reply_code: int | None
    reply: str
    reason: str
    transport: str
    queued_at: datetime
    handed_off_at: datetime | None
    updated_at: datetime
    next_attempt_at: datetime | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class StoryEvent:
    """A step of a delivery's story."""

    at: datetime
    state: State
    attempt: int
    reply_code: int | None
    detail: str
    transport: str = ""
    kind: str = ""  # what was told of it after its hand-over; empty: our own attempt said it
    reason: str = ""
    status: str = ""
    source: str = ""  # who told
    seq: int | None = None  # of a kept event
    message_id: UUID | None = None  # of the mail that told it


@dataclass(frozen=True, slots=True)
class Page:
    """Deliveries, newest first. `before` is the cursor of the next page; None at the end."""

    items: list[Delivery]
    before: UUID | None


class Deliveries:
    """Reads deliveries of a workspace."""

    def __init__(
        self,
        *,
        database: Database,
        raw_mail: RawMail = IN_ROWS,
        clock: Clock | None = None,
    ) -> None:
        self._database = database
        self._raw_mail = raw_mail
        self._clock = clock or SystemClock()

    async def get(
        self, workspace_id: UUID, delivery_id: UUID, tx: Connection | None = None
    ) -> tuple[Delivery, list[StoryEvent]]:
        """A delivery and its story from the beginning. Raises NotFound."""
        row = await self._database.fetchrow(_SQL.get_delivery, workspace_id, delivery_id, tx=tx)
        if row is None:
            raise NotFound("no such delivery")
        delivery = _delivery(row)
        events = await self._database.fetch(
            _SQL.get_delivery_events, workspace_id, delivery_id, tx=tx
        )
        return delivery, story(
            delivery,
            [StoryEvent(**{**event, "state": State(event["state"])}) for event in events],
        )

    async def returned_mail(self, workspace_id: UUID, delivery_id: UUID, seq: int) -> bytes:
        """The mail that told the event `seq` of a delivery, as it came. Raises NotFound, also when
        its time is over."""
        row = await self._database.fetchrow(
            _RETURNS_SQL.read_returned, workspace_id, delivery_id, seq, RETURNED_DAYS, NOBODY
        )
        if row is None:
            raise NotFound("there is no mail of this event; such mail is kept for 30 days")
        return await self._raw_mail.of(row)

    async def page(
        self,
        workspace_id: UUID,
        *,
        recipient: str | None = None,
        type: str | None = None,
        state: State | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        before: UUID | None = None,
        limit: int = limits.API_PAGE_ITEMS,
    ) -> Page:
        """Deliveries accepted in [since, until): the last 90 days when not told.

        `before` is the cursor of the page before. Raises InvalidInput.
        """
        now = self._clock.now()
        since = since or (until or now) - DEFAULT_RANGE
        if until is not None and until <= since:
            raise InvalidInput("until must be after since", field="until")
        low = ids.lowest_at(since)
        high = ids.lowest_at(until or now + timedelta(minutes=1))
        if before is not None:
            high = min(high, before)
        query, narrowed = _choose(recipient, type, state, limit)
        return await self._page(query, limit, workspace_id, low, high, *narrowed)

    async def page_of_email(
        self,
        workspace_id: UUID,
        email_id: UUID,
        *,
        before: UUID | None = None,
        limit: int = limits.API_PAGE_ITEMS,
    ) -> Page:
        """The recipients of one accepted email."""
        low, high = millisecond_range(ids.unix_ms_of(email_id))
        high = min(high, before) if before is not None else high
        return await self._page(_SQL.list_by_email, limit, workspace_id, low, high, email_id, limit)

    async def page_of_campaign(
        self,
        workspace_id: UUID,
        campaign_id: UUID,
        first_started_at: datetime,
        *,
        state: State | None = None,
        before: UUID | None = None,
        limit: int = limits.API_PAGE_ITEMS,
    ) -> Page:
        """A campaign's recipients: all its ids lie in the millisecond of its first start."""
        low, high = millisecond_range(unix_ms(first_started_at))
        high = min(high, before) if before is not None else high
        query, narrowed = _SQL.list_by_campaign, [campaign_id, limit]
        if state is not None:
            query, narrowed = _SQL.list_by_campaign_and_state, [campaign_id, limit, state.value]
        return await self._page(query, limit, workspace_id, low, high, *narrowed)

    async def _page(self, query: Query, limit: int, *arguments: object) -> Page:
        if query in _PLANNED_FOR_VALUES:
            async with self._database.transaction() as tx:
                await self._database.execute(_SQL.plan_for_values, tx=tx)
                rows = await self._database.fetch(query, *arguments, tx=tx)
        else:
            rows = await self._database.fetch(query, *arguments)
        items = [_delivery(row) for row in rows]
        return Page(items, items[-1].id if len(items) == limit else None)


def _choose(
    recipient: str | None, type: str | None, state: State | None, limit: int
) -> tuple[Query, Sequence[object]]:
    """The query whose index fits, and what it takes after the workspace and the range."""
    if state is State.LEASED:
        raise InvalidInput("leased is shown, never stored: ask for queued", field="state")
    written = state.value if state is not None else None
    if recipient is not None:
        address = normalise(recipient)
        return _SQL.list_by_recipient, (recipient_key(address), address, limit, type, written)
    if written is not None and type is not None:
        return _SQL.list_by_state_and_type, (written, type, limit)
    if written is not None:
        return _SQL.list_by_state, (written, limit)
    if type is not None:
        return _SQL.list_by_type, (type, limit)
    return _SQL.list_all, (limit,)


def _delivery(row: asyncpg.Record) -> Delivery:
    return Delivery(**{**row, "state": State(row["state"])})


def story(delivery: Delivery, kept: Sequence[StoryEvent]) -> list[StoryEvent]:
    """The row's own events and the kept ones, in order, each once."""
    told = list(kept)
    birth = StoryEvent(delivery.queued_at, State.QUEUED, 0, None, "")
    if delivery.handed_off_at is not None:
        told.append(
            StoryEvent(
                delivery.handed_off_at,
                State.HANDED_OFF,
                delivery.attempts,
                None,
                "",
                delivery.transport,
            )
        )
    stands = StoryEvent(
        delivery.updated_at,
        delivery.state,
        delivery.attempts,
        delivery.reply_code,
        delivery.reply,
        delivery.transport,
    )
    if delivery.state is not State.QUEUED and not any(_is_same(stands, one) for one in told):
        told.append(stands)
    # A hand-off and its answer can carry one instant (a campaign's row is written with its result).
    told.sort(key=lambda event: (event.at, event.state is not State.HANDED_OFF))
    if delivery.campaign_id is not None:
        return told  # a campaign's row is born with its result: it was never queued
    return [birth, *told]


def _is_same(stands: StoryEvent, kept: StoryEvent) -> bool:
    """Whether what the row says is kept as an event too. (Old events know no transport.)"""
    if kept.kind not in ("", kept.state):
        return False  # told of a delivery that stayed where it was
    return (kept.state, kept.attempt) == (stands.state, stands.attempt) and (
        kept.transport in ("", stands.transport)
    )
