"""What contacts did: mails opened, links clicked, and events of the workspace's own, as `bought`.

An event's id is a UUIDv7 whose time is when it happened. Whoever may say an event twice gives it
the same id each time (`event_id`), and it counts once.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID

import asyncpg
import msgspec

from mailyard.campaigns.contact import Attribute
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import InvalidInput, NotFound, Unavailable
from mailyard.core.ids import deterministic_uuid7, time_of, uuid7
from mailyard.core.limits import API_PAGE_ITEMS, KIB
from mailyard.protocol.address import normalise
from mailyard.storage.database import Connection, Database
from mailyard.storage.partitions import ensure_month
from mailyard.storage.queries import load

QUERIES = load("behaviour")

OPENED = "opened"
CLICKED = "clicked"
KIND = "^[a-z][a-z0-9_]{0,63}$"
PROPERTIES = 64
PROPERTIES_BYTES = 4 * KIB
EVENT_AGE = timedelta(days=3653)  # what a shop brings along when it moves here
EVENT_AHEAD = timedelta(hours=1)  # clocks of others
KIND_PATTERN = re.compile(KIND)
_LAST_ID = UUID(int=(1 << 128) - 1)
_TABLE = "contact_event"


@dataclass(frozen=True, slots=True)
class ContactEvent:
    """One thing that one contact did. `kind`: OPENED, CLICKED, or a name of the workspace's own."""

    id: UUID
    workspace_id: UUID
    contact_id: UUID
    kind: str
    delivery_id: UUID | None = None
    campaign_id: UUID | None = None
    properties: Mapping[str, Attribute] | None = None

    @property
    def at(self) -> datetime:
        """When it happened, to the millisecond."""
        return time_of(self.id)


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event as a caller says it: of a contact by its id, or by its address.

    `at` None: now. `key`: the caller's own name of the event; said again with the same time it
    counts once.
    """

    kind: str
    at: datetime | None = None
    contact_id: UUID | None = None
    address: str | None = None
    properties: Mapping[str, Attribute] | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """How many events were new, how many were there already, and whose contact is not there."""

    new: int
    repeated: int
    unknown: tuple[int, ...]
    kinds: Mapping[str, int]


def event_id(workspace_id: UUID, contact_id: UUID, kind: str, at: datetime, key: str) -> UUID:
    """The one id of the event that `key` names among those of its contact, kind and time."""
    name = b"event\0%b\0%b\0%b" % (contact_id.bytes, kind.encode(), key.encode())
    return deterministic_uuid7(int(at.timestamp() * 1000), workspace_id.bytes, name)


class Behaviour:
    """Records what contacts did, and reads it."""

    def __init__(self, *, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock or SystemClock()
        self._months: set[date] = set()  # known to have a partition

    async def record_many(self, events: Sequence[ContactEvent], tx: Connection) -> int:
        """Write events in the caller's transaction; how many were new.

        Events of contacts that are gone are left out. Months that are long gone need `make_room`
        before; without, it raises Unavailable.
        """
        if not events:
            return 0
        try:
            tag = await self._database.execute(
                QUERIES.record_events,
                [event.id for event in events],
                [event.workspace_id for event in events],
                [event.contact_id for event in events],
                [event.kind for event in events],
                [event.delivery_id for event in events],
                [event.campaign_id for event in events],
                [
                    msgspec.json.encode(event.properties).decode() if event.properties else None
                    for event in events
                ],
                tx=tx,
            )
        except asyncpg.CheckViolationError as error:  # no partition, or none any more
            self._months.clear()
            raise Unavailable("there is no room for the month of an event; try again") from error
        return int(tag.rpartition(" ")[2])

    async def make_room(self, times: Iterable[datetime]) -> None:
        """Have a partition for each of these times that an event can have, however long it is gone.

        It takes a connection of its own: never call it inside a transaction.
        """
        now = self._clock.now()
        possible = (at.astimezone(UTC) for at in times if _is_possible(at, now))
        for first in {at.date().replace(day=1) for at in possible} - self._months:
            await ensure_month(self._database, _TABLE, datetime.combine(first, time(), UTC))
            self._months.add(first)

    async def record(
        self, workspace_id: UUID, events: Sequence[NewEvent], tx: Connection
    ) -> Recorded:
        """Check and write events as a caller says them, all or none.

        An event whose contact is not there is not written and told by its place. `make_room` comes
        before. Raises InvalidInput naming the field of the event that is wrong.
        """
        now = self._clock.now()
        for place, event in enumerate(events):
            _check(event, now, f"events.{place}")
        contacts = await self._contacts(workspace_id, events, tx)
        known = [
            ContactEvent(
                id=_id(workspace_id, contact_id, event, now),
                workspace_id=workspace_id,
                contact_id=contact_id,
                kind=event.kind,
                properties=event.properties,
            )
            for event, contact_id in zip(events, contacts, strict=True)
            if contact_id is not None
        ]
        new = await self.record_many(known, tx)
        return Recorded(
            new=new,
            repeated=len(known) - new,
            unknown=tuple(place for place, found in enumerate(contacts) if found is None),
            kinds=Counter(event.kind for event in known),
        )

    async def page(
        self,
        workspace_id: UUID,
        contact_id: UUID,
        *,
        before: UUID | None = None,
        limit: int = API_PAGE_ITEMS,
    ) -> list[ContactEvent]:
        """A page of what a contact did, newest first, behind event `before`. Raises NotFound."""
        if not await self._database.fetch(QUERIES.find_contacts_by_id, workspace_id, [contact_id]):
            raise NotFound("there is no such contact")
        rows = await self._database.fetch(
            QUERIES.page_events, workspace_id, contact_id, before or _LAST_ID, limit
        )
        return [
            ContactEvent(**{**row, "properties": msgspec.json.decode(row["properties"] or "null")})
            for row in rows
        ]

    async def _contacts(
        self, workspace_id: UUID, events: Sequence[NewEvent], tx: Connection
    ) -> list[UUID | None]:
        """The contact of each event, None for one that is not there."""
        addresses = {event.address for event in events if event.address is not None}
        normal = {address: normalise(address) for address in addresses}
        by_address: dict[str, UUID] = {}
        if normal:
            rows = await self._database.fetch(
                QUERIES.find_contacts_by_address, workspace_id, list({*normal.values()}), tx=tx
            )
            by_address = {row["address"]: row["id"] for row in rows}
        named = {event.contact_id for event in events if event.contact_id is not None}
        there: set[UUID] = set()
        if named:
            rows = await self._database.fetch(
                QUERIES.find_contacts_by_id, workspace_id, list(named), tx=tx
            )
            there = {row["id"] for row in rows}
        return [
            by_address.get(normal[event.address])
            if event.address is not None
            else event.contact_id
            if event.contact_id in there
            else None
            for event in events
        ]


def _id(workspace_id: UUID, contact_id: UUID, event: NewEvent, now: datetime) -> UUID:
    at = event.at or now
    if event.key is not None:
        return event_id(workspace_id, contact_id, event.kind, at, event.key)
    return uuid7(int(at.timestamp() * 1000))


def _is_possible(at: datetime, now: datetime) -> bool:
    return now - EVENT_AGE <= at <= now + EVENT_AHEAD


def _check(event: NewEvent, now: datetime, field: str) -> None:
    if (event.address is None) == (event.contact_id is None):
        raise InvalidInput("say the contact by its id or by its address", field=f"{field}.contact")
    if event.address is not None:
        try:
            normalise(event.address)
        except InvalidInput as error:
            raise InvalidInput(error.message, field=f"{field}.address") from error
    if not KIND_PATTERN.fullmatch(event.kind):
        raise InvalidInput(
            "a kind of event is lower-case letters, digits and _ and begins with a letter",
            field=f"{field}.kind",
        )
    if event.at is None:
        if event.key is not None:
            raise InvalidInput(
                "an event with a key needs its time: with both it counts once", field=f"{field}.at"
            )
    elif not _is_possible(event.at, now):
        raise InvalidInput(
            "an event cannot lie in the future, and may be ten years old", field=f"{field}.at"
        )
    _check_properties(event.properties or {}, f"{field}.properties")


def _check_properties(properties: Mapping[str, Attribute], field: str) -> None:
    if len(properties) > PROPERTIES:
        raise InvalidInput(f"an event has at most {PROPERTIES} properties", field=field)
    for name, value in properties.items():
        if not name or "\0" in name or (isinstance(value, str) and "\0" in value):
            raise InvalidInput("a property is empty or contains NUL", field=f"{field}.{name}")
    try:
        size_bytes = len(msgspec.json.encode(properties).decode().encode())
    except (UnicodeEncodeError, TypeError) as error:
        raise InvalidInput(f"properties must be plain text: {error}", field=field) from error
    if size_bytes > PROPERTIES_BYTES:
        raise InvalidInput(f"the properties pass {PROPERTIES_BYTES:,} bytes", field=field)
