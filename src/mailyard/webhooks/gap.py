"""Events that could not be told in time: kept for as long as can be, and never gone in silence.

Live events are kept for three days. When no worker has dealt for longer, because none ran or none
got on, the days that an endpoint has not been told of stay, up to fourteen: then they leave, and
the log of each endpoint that wanted something of them says which day is missing and how much, as a
dead line of the kind `stream.gap`. Put back into the line (`redrive`) it tells the endpoint itself.
"""

from datetime import UTC, datetime

import msgspec
import structlog

from mailyard.core import ids
from mailyard.core.clock import Clock, SystemClock
from mailyard.observe.metrics import WEBHOOK_EVENTS_LOST
from mailyard.storage.database import Database
from mailyard.webhooks.endpoint import SQL

GAP = "stream.gap"
_LOG = structlog.get_logger(__name__)


class Gaps:
    """The webhooks of all workspaces as readers of live events (`storage.partitions`)."""

    def __init__(self, *, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock or SystemClock()

    async def needs(self, since: datetime, until: datetime) -> bool:
        """Whether an event of this span is still to be told, or is being told again."""
        needed: bool = await self._database.fetchval(SQL.needs_events, since, until)
        if needed:
            _LOG.warning("webhooks.behind", day=f"{since:%Y-%m-%d}")
        return needed

    async def lose(self, since: datetime, until: datetime) -> None:
        """Note in the logs of endpoints what of this span they will not be told of; once."""
        place = f"gap-{since.astimezone(UTC):%Y-%m-%d}"
        now = self._clock.now()
        async with self._database.transaction() as tx:
            rows = await self._database.fetch(SQL.untold_events, since, until, place, tx=tx)
            if not rows:
                return
            items = [
                {"since": row["since"], "until": until, "events": row["events"]} for row in rows
            ]
            await self._database.execute(
                SQL.tell_gaps,
                [ids.uuid7(int(now.timestamp() * 1000)) for _ in rows],
                [row["workspace_id"] for row in rows],
                [row["id"] for row in rows],
                [msgspec.json.encode(item).decode() for item in items],
                [row["since"] for row in rows],
                [_why(row["events"], since) for row in rows],
                GAP,
                place,
                now,
                tx=tx,
            )
        lost = sum(row["events"] for row in rows)
        WEBHOOK_EVENTS_LOST.inc(lost)
        day = f"{since:%Y-%m-%d}"
        _LOG.error("webhooks.events_lost", day=day, endpoints=len(rows), events=lost)


def _why(events: int, since: datetime) -> str:
    return (
        f"{events} events of {since:%Y-%m-%d} left before they could be told: no worker dealt for "
        "two weeks. Ask the API for what happened."
    )
