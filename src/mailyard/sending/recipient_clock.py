"""When a single email goes by the clocks of its recipients: a time on the wall, hours of quiet."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, tzinfo
from uuid import UUID

from mailyard.core.clock import Clock
from mailyard.core.errors import InvalidInput
from mailyard.sending.allowance import Allowances, Limits
from mailyard.sending.local_time import instant, wall_clock, zone_of
from mailyard.sending.request import Prepared, check_times
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("sending")


class RecipientClocks:
    """Finds out where the recipients of an email are, and when it may go to them."""

    def __init__(self, *, database: Database, allowances: Allowances, clock: Clock) -> None:
        self._database = database
        self._allowances = allowances
        self._clock = clock

    async def place(
        self, workspace_id: UUID, email: Prepared, local_time: str | None, *, quiet: bool
    ) -> Prepared:
        """The email with the instant at which it goes.

        With `local_time` (`2026-12-24T09:00`) that is when no recipient's clock shows less; a zone
        whose hour has passed waits for nothing. With `quiet` it then waits until it is quiet with
        none of them. Raises InvalidInput, also when its time would have run out by then.
        """
        if local_time is not None and email.send_at is not None:
            raise InvalidInput("an email has send_at or local_time", field="local_time")
        limits = await self._allowances.of(workspace_id)
        zones = await self._zones(workspace_id, email.keys, limits)
        send_at = email.send_at
        if local_time is not None:
            at = wall_clock(local_time)
            send_at = max(instant(at, zone) for zone in zones)
        if quiet and limits.quiet is not None:
            now = self._clock.now()
            send_at = limits.quiet.over_everywhere(max(send_at or now, now), zones)
        return self._at(email, send_at)

    def _at(self, email: Prepared, send_at: datetime | None) -> Prepared:
        checked, _ = check_times(send_at, email.expires_at, self._clock.now())
        return replace(email, send_at=checked)

    async def _zones(self, workspace_id: UUID, keys: Iterable[str], limits: Limits) -> set[tzinfo]:
        """Where the addresses are; those who are no contacts, or have not said, are where the
        workspace is."""
        addresses = list(keys)
        rows = await self._database.fetch(_SQL.zones_of, workspace_id, addresses)
        zones = {zone_of(row["zone"] or "") or limits.zone for row in rows}
        if len(rows) < len(addresses):
            zones.add(limits.zone)
        return zones
