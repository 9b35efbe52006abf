"""What the mail of a workspace says of its sender: physical address and footer, and whether its
campaigns are followed when they do not say themselves.

Laws want the postal address of a sender in commercial mail (CAN-SPAM, 15 U.S.C. 7704(a)(5)). A
template has slots: `{{ physical_address }}`, `{{ footer }}`; a footer may itself have the first one
and `{{ unsubscribe_url }}`, `{{ preferences_url }}`. A footer without a slot goes to the end.
"""

import re
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import InvalidInput
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("tracking")

REMEMBERED_S = 10.0
_REMEMBERED = 10_000
ADDRESS_CHARACTERS = 1_000
FOOTER_CHARACTERS = 20_000
_SLOTS = re.compile(r"\{\{\s*(?:unsubscribe_url|preferences_url|physical_address)\s*\}\}")
_CODE = re.compile(r"\{[{%#]")


@dataclass(frozen=True, slots=True)
class SenderImprint:
    """A workspace's imprint; that of one that has said nothing is empty."""

    physical_address: str = ""
    footer_html: str = ""
    footer_text: str = ""
    track_opens: bool = False
    track_clicks: bool = False


_EMPTY = SenderImprint()


class Imprints:
    """Reads and changes imprints. The caller writes the audit row."""

    def __init__(self, *, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock or SystemClock()
        self._known: dict[UUID, tuple[float, SenderImprint]] = {}

    async def get(self, workspace_id: UUID, tx: Connection | None = None) -> SenderImprint:
        """The workspace's imprint as it stands."""
        row = await self._database.fetchrow(_SQL.get_imprint, workspace_id, tx=tx)
        return _EMPTY if row is None else SenderImprint(**row)

    async def remembered(self, workspace_id: UUID, tx: Connection | None = None) -> SenderImprint:
        """The imprint as it was at most REMEMBERED_S ago: what mail is made with."""
        now = self._clock.monotonic()
        until, found = self._known.get(workspace_id, (-1.0, _EMPTY))
        if until < now:
            found = await self.get(workspace_id, tx)
            if len(self._known) > _REMEMBERED:
                self._known.clear()
            self._known[workspace_id] = (now + REMEMBERED_S, found)
        return found

    async def save(self, workspace_id: UUID, imprint: SenderImprint, tx: Connection) -> None:
        """Put `imprint` in the place of what stands. Raises InvalidInput naming the field."""
        _check(imprint)
        fields: dict[str, Any] = asdict(imprint)
        await self._database.execute(_SQL.save_imprint, workspace_id, *fields.values(), tx=tx)
        self._known.pop(workspace_id, None)


def _check(imprint: SenderImprint) -> None:
    for field, size in (
        ("physical_address", ADDRESS_CHARACTERS),
        ("footer_html", FOOTER_CHARACTERS),
        ("footer_text", FOOTER_CHARACTERS),
    ):
        text = getattr(imprint, field)
        if len(text) > size:
            raise InvalidInput(f"at most {size} characters", field=field)
        if "\0" in text:
            raise InvalidInput("NUL is not allowed here", field=field)
        has_slots = field != "physical_address"
        if _CODE.search(_SLOTS.sub("", text) if has_slots else text):
            raise InvalidInput(
                "template code is not allowed here"
                + (
                    ", but for unsubscribe_url, preferences_url, physical_address"
                    if has_slots
                    else ""
                ),
                field=field,
            )
