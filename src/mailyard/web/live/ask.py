"""What a listener asks for: the query string of the live routes, checked."""

from datetime import UTC, datetime
from urllib.parse import parse_qs
from uuid import UUID

from mailyard.bus.filter import EventFilter, make_filter, parse_where
from mailyard.bus.live import Cursor
from mailyard.core.errors import InvalidInput
from mailyard.core.ids import MESSAGE, lowest_at, parse_type_id
from mailyard.core.limits import WAIT_TIMEOUT_S

_WAIT_DEFAULT_S = 30.0
_FIELDS = 40
_FIRST_INSTANT = datetime(1970, 1, 1, tzinfo=UTC)  # of an id


class Ask:
    """The query string. What is no parameter of the route is refused."""

    def __init__(self, text: bytes) -> None:
        try:
            self._values = parse_qs(
                text.decode("ascii"),
                keep_blank_values=True,
                errors="strict",
                max_num_fields=_FIELDS,
            )
        except (UnicodeDecodeError, ValueError):
            raise InvalidInput("the query is not URL-encoded UTF-8") from None

    def one(self, name: str) -> str:
        """A parameter that comes once; empty when absent."""
        values = self.many(name)
        if len(values) > 1:
            raise InvalidInput("given more than once", field=name)
        return values[0] if values else ""

    def many(self, name: str) -> list[str]:
        """A parameter that may come again."""
        values = self._values.get(name, [])
        if any("\0" in value for value in values):
            raise InvalidInput("no NUL", field=name)
        return values

    def filter(self) -> EventFilter:
        """`kinds=a.b,c.d`, `inboxes=ibx_…,ibx_…`, `where=subject:*invoice*` (may come again)."""
        kinds = [kind for kind in self.one("kinds").split(",") if kind]
        inboxes = [inbox for inbox in self.one("inboxes").split(",") if inbox]
        return make_filter(kinds, inboxes, parse_where(self.many("where")))

    def cursor(self, last_event_id: str) -> Cursor | None:
        """After which event to go on; None: from now on."""
        given = self.one("after") or last_event_id
        return Cursor.decode(given, "after") if given else None

    def timeout_s(self) -> float:
        """How long to wait for a message."""
        given = self.one("timeout_s")
        try:
            timeout_s = float(given) if given else _WAIT_DEFAULT_S
        except ValueError:
            timeout_s = -1.0
        if not 0.0 <= timeout_s <= WAIT_TIMEOUT_S:  # NaN included
            raise InvalidInput(f"expected seconds, 0 to {WAIT_TIMEOUT_S:.0f}", field="timeout_s")
        return timeout_s

    def after(self) -> UUID | None:
        """A message's id, or an instant (RFC 3339)."""
        given = self.one("after")
        if not given:
            return None
        if given.startswith(f"{MESSAGE}_"):
            return parse_type_id(MESSAGE, given, "after")
        try:
            # A "+" that was not encoded arrives as a space.
            moment = datetime.fromisoformat(given.replace(" ", "+") if "T" in given else given)
        except ValueError:
            raise InvalidInput("expected a message's id or an instant", field="after") from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return lowest_at(max(moment, _FIRST_INSTANT))

    def refuse_others(self, *known: str) -> None:
        for name in self._values:
            if name not in known:
                raise InvalidInput("no such parameter", field=name[:60])
