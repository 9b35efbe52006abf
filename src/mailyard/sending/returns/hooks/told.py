"""What a provider tells of one mail, in our words, and reading its JSON without trusting it."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from mailyard.core.errors import MailyardError, NotAuthenticated
from mailyard.sending.returns.occurrence import What

MAX_AGE_S = 300.0  # of a signature, either way
EVENTS_PER_REQUEST = 2_000
TEXT_CHARACTERS = 2_000


class Refused(NotAuthenticated):
    """Not from the provider, or too old to be believed."""

    code = "hook_refused"


class Unreadable(MailyardError):
    """From the provider, and not what its documentation says."""

    code = "hook_unreadable"
    status = 422


class Told(Struct, frozen=True, array_like=True):
    """`delivery` is our id as the provider brought it back, `provider_id` its own; either may be
    empty. `event_id` is the same when the provider tells the same again.

    Of a bounce: `hard` is the provider's own judgement, None when it does not say; `reason` one of
    `sending.bounce.Reason` where it has a word of its own for it. `text` is the receiver's answer,
    as far as it is known, `code` and `status` its codes.
    """

    what: What
    at_ms: int
    event_id: str
    delivery: str = ""
    provider_id: str = ""
    recipient: str = ""
    hard: bool | None = None
    reason: str = ""
    code: str = ""
    status: str = ""
    text: str = ""


Headers = Mapping[bytes, bytes]
Document = Mapping[str, Any]


def header(headers: Headers, name: bytes) -> str:
    """A header's text. Raises Refused when it is not there."""
    value = headers.get(name)
    if value is None:
        raise Refused(f"the header {name.decode()} is missing")
    return value.decode("latin-1").strip()


def check_age(seconds: str | float, now: datetime, most_s: float = MAX_AGE_S) -> None:
    """Raises Refused for an instant (seconds since 1970) that is too far from `now`."""
    try:
        age_s = now.timestamp() - float(seconds)
    except ValueError:
        raise Refused("its timestamp is no number") from None
    if not -MAX_AGE_S <= age_s <= most_s:
        raise Refused(f"it was signed {age_s:.0f} s ago; at most {most_s:.0f} are allowed")


def document(body: bytes | str) -> Document:
    """A JSON object. Raises Unreadable."""
    found = decoded(body)
    if not isinstance(found, dict):
        raise Unreadable("it is not a JSON object")
    return found


def decoded(body: bytes | str) -> Any:
    """Any JSON. Raises Unreadable."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Unreadable(f"it is not JSON: {error}") from None


def text_at(node: Any, *path: str) -> str:
    """The text or number at `path` as a bounded text; empty when there is none."""
    for name in path:
        if not isinstance(node, dict):
            return ""
        node = node.get(name)
    if isinstance(node, bool) or not isinstance(node, (str, int, float)):
        return ""
    return str(node)[:TEXT_CHARACTERS]


def node_at(node: Any, *path: str) -> Document:
    """The object at `path`; an empty one when there is none."""
    for name in path:
        node = node.get(name) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else {}


def objects_at(node: Any, name: str) -> Iterator[Document]:
    """The objects in the list `name`."""
    values = node.get(name) if isinstance(node, dict) else None
    for value in values[:EVENTS_PER_REQUEST] if isinstance(values, list) else ():
        if isinstance(value, dict):
            yield value


def ms_of(moment: str, otherwise: datetime) -> int:
    """An instant as milliseconds since 1970: seconds as a number, or RFC 3339."""
    try:
        seconds = float(moment)
        if 0 < seconds < 1e11:
            return int(seconds * 1000)
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(moment)
        found = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
        return int(found.timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        return int(otherwise.timestamp() * 1000)
