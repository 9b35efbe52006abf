"""One row of another system's table becomes a delivery as it stands, and the events before that.

Pure, and made for speed: a table has millions of rows. The id is the row's own time with a keyed
hash (BLAKE2b, of the row's `id` under the source's name), so the same row is always the same
delivery, however the table is cut.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from hashlib import blake2b
from typing import Any, NamedTuple
from uuid import UUID

from mailyard.core.errors import InvalidInput
from mailyard.core.ids import uuid7_ending
from mailyard.protocol.address import normalise
from mailyard.sending.delivery import recipient_key
from mailyard.sending.history.columns import TIMES, Columns
from mailyard.sending.states import State

DELIVERY_COLUMNS = (
    "id", "workspace_id", "recipient", "recipient_key", "type", "state", "attempts", "reply",
    "transport", "queued_at", "handed_off_at", "updated_at", "provider_id",
)  # fmt: skip
EVENT_COLUMNS = ("delivery_id", "seq", "workspace_id", "at", "state", "kind", "detail", "source")
TRANSPORT = "imported"
SOURCE = "import"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_NUMBER = re.compile(r"[0-9]{9,13}(?:\.[0-9]{1,6})?")
_NOTHING = ("", "null", "NULL", "\\N", "0000-00-00 00:00:00", "0000-00-00")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_PEOPLE = 100_000  # that are remembered
_TYPE_CHARACTERS = 100
_REPLY_CHARACTERS = 500
_ID_CHARACTERS = 200
_YEAR_FIRST = 1990  # nobody's table of sent mail is older; a mistaken column often seems so

# The state that a time tells of, where there is one.
_TOLD = {
    "delivered_at": State.DELIVERED,
    "bounced_at": State.BOUNCED,
    "failed_at": State.FAILED,
}


class Refused(Exception):
    """Why a row is no delivery, for who has to mend it."""


class Past(NamedTuple):
    """A delivery of the past as the columns of DELIVERY_COLUMNS want it, and its events as
    EVENT_COLUMNS do."""

    delivery: tuple[Any, ...]
    events: Sequence[tuple[Any, ...]]


def reader(
    columns: Columns,
    states: Mapping[str, State],
    *,
    workspace_id: UUID,
    source: str,
    zone: tzinfo,
    default_type: str,
    oldest: datetime | None,
    now: datetime,
) -> Callable[[Sequence[Any]], Past]:
    """What turns a row into a delivery. It raises Refused.

    `zone`: of times that name none. `oldest`: history before it is not kept here.
    """
    width = columns.width
    at_id, at_user, at_type = columns["id"], columns["user"], columns["type"]
    at_recipient, at_state = columns.places["recipient"], columns.places["state"]
    at_reply, at_provider_id = columns["reply"], columns["provider_id"]
    times = [(name, columns.places[name]) for name in TIMES if columns[name] is not None]
    key = blake2b(f"{workspace_id}\0{source}".encode(), digest_size=32).digest()
    types: dict[Any, str] = {}
    people: dict[Any, tuple[str, int]] = {}
    by_word: dict[Any, State] = dict(states)

    def state_of(value: Any) -> State:
        found = states.get(re.sub(r"[^a-z0-9]+", "_", str(value).strip().lower()).strip("_"))
        if found is None:
            raise Refused(f"the state {str(value)[:50]!r} is unknown; say what it is with --state")
        if len(by_word) < 10_000:
            by_word[value] = found
        return found

    def type_of(value: Any) -> str:
        text = _CONTROL.sub(" ", str(value)).strip()[:_TYPE_CHARACTERS] or default_type
        if len(types) < 10_000:
            types[value] = text
        return text

    def person_of(address: Any) -> tuple[str, int]:
        """Who gets much mail is looked at once."""
        try:
            recipient = normalise(str(address).strip())
        except InvalidInput as error:
            raise Refused(f"recipient {str(address)[:60]!r}: {error.message}") from None
        if len(people) >= _PEOPLE:
            people.clear()
        people[address] = found = recipient, recipient_key(recipient)
        return found

    def read(row: Sequence[Any]) -> Past:
        if len(row) != width:
            raise Refused(f"it has {len(row)} columns and not {width}")
        address = row[at_recipient]
        recipient, own_key = people.get(address) or person_of(address)
        word = row[at_state]
        state = by_word.get(word) or state_of(word)
        moments = {}
        for name, place in times:
            moment = _moment(row[place], zone, name)
            if moment is not None:
                if moment > now:
                    raise Refused(f"{name} {row[place]!s} lies in the future")
                moments[name] = moment
        if not moments:
            raise Refused("it has no time")
        born = moments.get("created_at") or min(moments.values())
        if oldest is not None and born < oldest:
            raise Refused(f"it is older than the history that is kept (since {oldest:%Y-%m-%d})")
        unix_ms = (born - _EPOCH) // _MILLISECOND
        given = _text(row, at_id)
        own = given or "\0".join(map(str, row))
        named = own.encode("utf-8", "surrogateescape")
        delivery_id = uuid7_ending(unix_ms, blake2b(named, digest_size=10, key=key).digest())
        sent = moments.get("sent_at")
        events, stands_at = _events(moments, state, delivery_id, workspace_id)
        delivery = (
            delivery_id,
            workspace_id,
            recipient,
            own_key,
            default_type if at_type is None else types.get(row[at_type]) or type_of(row[at_type]),
            state.value,
            0 if sent is None and state in (State.SUPPRESSED, State.CANCELLED) else 1,
            _reply(_text(row, at_reply), given, _text(row, at_user)),
            TRANSPORT,
            born,
            sent,
            stands_at,
            _text(row, at_provider_id)[:_ID_CHARACTERS] or None,
        )
        return Past(delivery, events)

    return read


def _text(row: Sequence[Any], place: int | None) -> str:
    if place is None:
        return ""
    value = row[place]
    if value is None or value in _NOTHING:
        return ""
    text = value if type(value) is str else str(value)
    return (text if text.isprintable() else _CONTROL.sub(" ", text)).strip()


def _reply(reply: str, given: str, user: str) -> str:
    """What the other system had of it, with its names for the mail and for whose it was."""
    whose = f"{f'id {given}' if given else ''}{' of user ' + user if user else ''}".strip()
    told = f"{reply} ({whose})" if reply and whose else reply or whose
    return told[:_REPLY_CHARACTERS]


def _events(
    moments: dict[str, datetime], state: State, delivery_id: UUID, workspace_id: UUID
) -> tuple[Sequence[tuple[Any, ...]], datetime]:
    """What the row does not say itself, in order, and since when it stands as it does."""
    stands_at = None
    told = []
    for name, moment in moments.items():
        if name in ("created_at", "sent_at", "updated_at"):
            continue
        if _TOLD.get(name) is state:
            stands_at = moment
        else:
            told.append((moment, name.removesuffix("_at")))
    if stands_at is None:
        stands_at = moments.get("updated_at") or moments.get("sent_at") or max(moments.values())
    if not told:
        return (), stands_at
    told.sort()
    events = [
        (delivery_id, seq, workspace_id, at, state.value, kind, "", SOURCE)
        for seq, (at, kind) in enumerate(told, 1)
    ]
    return events, stands_at


def _moment(value: Any, zone: tzinfo, name: str) -> datetime | None:
    """A time as tables have it: ISO 8601 and what databases print, or seconds or milliseconds since
    1970."""
    if type(value) is not str:
        if value is None:
            return None
        if not isinstance(value, datetime):
            value = str(value)
    if type(value) is str:
        if value in _NOTHING:
            return None
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = _unusual(value.strip(), name)
    else:
        moment = value
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    if moment.year < _YEAR_FIRST:
        raise Refused(f"{name} {value!s} is before {_YEAR_FIRST}")
    return moment


def _unusual(text: str, name: str) -> datetime:
    if _NUMBER.fullmatch(text) is not None:
        number = float(text)
        return datetime.fromtimestamp(number / 1000 if number > 1e11 else number, UTC)
    try:
        return datetime.fromisoformat(text.replace(" UTC", "+00:00", 1).replace(" +", "+", 1))
    except ValueError:
        raise Refused(f"{name} {text[:40]!r} is no time like 2026-03-01 12:30:00+00:00") from None
