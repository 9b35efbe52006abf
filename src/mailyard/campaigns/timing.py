"""When the mail of a campaign goes, and to whom not: zones, quiet hours, quota, frequency cap.

A campaign without a local time in a workspace without limits pays nothing for it: its chunks have
no zone, and the limits are read from this process's memory.

A campaign with a local time, or one that is planned while the workspace has quiet hours, is cut
into chunks of one time zone each, which are due when their zone's clock says so. Quiet hours are
looked at again when a chunk's turn comes, for it may have waited. The frequency cap is decided for
a chunk in one statement, one chunk of a workspace at a time, over what was handed over and what is
about to be.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import msgspec

from mailyard.core import ids
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import InvalidInput, QuotaExceeded, RateLimited, StaleLease
from mailyard.queue.job import LeasedJob
from mailyard.sending.allowance import Allowances, Limits, Wanted
from mailyard.sending.delivery import recipient_key
from mailyard.sending.local_time import instant, wall_clock, zone_of
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("timing")

PLACED_STEP_MEMBERS = 50_000  # looked at together, so that zones fill their chunks
LOOK_AGAIN_S = 300.0  # at a quota that is used up: it may have been raised
TURNS_KEPT = timedelta(days=2)
STARTED_BEFORE = timedelta(days=31)  # a delivery's id has its campaign's start, at most so long ago
ZONE_ATTRIBUTE = "timezone"
AHEAD_MAX = timedelta(days=366)

_decode = msgspec.json.Decoder(dict[str, object]).decode


class Timing:
    """Decides for planner, chunks and retries."""

    def __init__(
        self, *, database: Database, allowances: Allowances, clock: Clock | None = None
    ) -> None:
        self._database = database
        self._allowances = allowances
        self._clock = clock or SystemClock()

    async def limits(self, workspace_id: UUID, tx: Connection | None = None) -> Limits:
        """The workspace's limits, from memory where they were read lately."""
        return self._allowances.known(workspace_id) or await self._allowances.of(workspace_id, tx)

    # Planning ---------------------------------------------------------------------------------

    async def cut(
        self,
        workspace_id: UUID,
        campaign_id: UUID,
        campaign: asyncpg.Record,
        members: Sequence[asyncpg.Record],
        upto: UUID,
        size: int,
        limits: Limits,
        tx: Connection,
    ) -> list[tuple[int, datetime]]:
        """Cut `members` (`contact_id`, `zone`), who lie behind `upto`, into chunks of one zone and
        at most `size`; their numbers, and when they are due. `campaign` as in `plan_state`."""
        by_zone: dict[str, list[UUID]] = {}
        for contact_id, zone in members:
            known = zone if zone and zone_of(zone) is not None else limits.time_zone
            by_zone.setdefault(known, []).append(contact_id)
        numbers, zones, dues = [], [], []
        contacts: list[UUID] = []
        chunk_of: list[int] = []
        number = campaign["last_number"]
        for zone, piece in _pieces(by_zone, size):
            number += 1
            numbers.append(number)
            zones.append(zone)
            dues.append(self._due(zone, campaign["local_time"], limits))
            contacts += piece
            chunk_of += [number] * len(piece)
        if numbers:
            await self._database.execute(
                _SQL.insert_placed_chunks,
                workspace_id,
                campaign_id,
                numbers,
                zones,
                dues,
                contacts,
                chunk_of,
                upto,
                tx=tx,
            )
        return list(zip(numbers, dues, strict=True))

    async def next_members(
        self, workspace_id: UUID, campaign: asyncpg.Record, upto: UUID, tx: Connection
    ) -> tuple[list[asyncpg.Record], UUID, bool]:
        """The next PLACED_STEP_MEMBERS of the campaign's list behind `upto`, with their zones; how
        far they reach, whether that is all."""
        members = await self._database.fetch(
            _SQL.next_members,
            workspace_id,
            campaign["list_id"],
            upto,
            PLACED_STEP_MEMBERS,
            campaign["first_started_at"],
            tx=tx,
        )
        reached = members[-1]["contact_id"] if members else upto
        return members, reached, len(members) < PLACED_STEP_MEMBERS

    def _due(self, zone: str, local_time: datetime | None, limits: Limits) -> datetime:
        """When a chunk of that zone may go; not before now."""
        clock = zone_of(zone) or UTC
        due = self._clock.now()
        if local_time is not None:
            due = max(due, instant(local_time, clock))
        over = limits.quiet.over(due, clock) if limits.quiet is not None else None
        return over or due

    # A chunk's turn ---------------------------------------------------------------------------

    def wait_s(self, due_at: datetime | None, zone: str | None, limits: Limits) -> float:
        """How long a chunk has to wait still."""
        if zone is None:
            return 0.0
        now = self._clock.now()
        if due_at is not None and due_at > now:
            return (due_at - now).total_seconds()
        over = limits.quiet.over(now, zone_of(zone) or UTC) if limits.quiet is not None else None
        return 0.0 if over is None else (over - now).total_seconds()

    async def draw(
        self,
        workspace_id: UUID,
        campaign_id: UUID,
        number: int,
        job: LeasedJob,
        recipients: int,
        limits: Limits,
    ) -> float:
        """Draw a chunk's recipients of the day's quota, once; how long to wait when it is used up.

        Raises StaleLease.
        """
        quota = limits.quota
        if quota is None or not recipients:
            return 0.0
        if quota == 0:
            return LOOK_AGAIN_S  # the plan has no sending; it may be another one by then
        only_quota = Limits(
            time_zone=limits.time_zone,
            emails_per_day=limits.emails_per_day,
            plan_per_day=limits.plan_per_day,
        )
        async with self._database.transaction() as tx:
            row = await self._database.fetchrow(
                _SQL.drawn_of_chunk, workspace_id, campaign_id, number, tx=tx
            )
            left = max(0, row["drawn"] - row["used"]) if row is not None else 0
            missing = min(recipients - left, quota)
            if missing <= 0:
                return 0.0
            wanted = Wanted(workspace_id, only_quota, missing)
            (refusal,) = await self._allowances.draw([wanted], tx)
            if isinstance(refusal, RateLimited):
                return min(refusal.retry_after_s, LOOK_AGAIN_S)
            if isinstance(refusal, QuotaExceeded):
                return LOOK_AGAIN_S  # the plan's day goes on; it may be another plan by then
            if not await self._database.fetchval(
                _SQL.draw_chunk, workspace_id, campaign_id, number, job.token, missing, tx=tx
            ):
                raise StaleLease("the chunk was given to another worker")
        return 0.0

    async def capped(
        self,
        workspace_id: UUID,
        campaign_id: UUID,
        contacts: Sequence[tuple[UUID, str]],
        limits: Limits,
    ) -> frozenset[UUID]:
        """Those of the contacts (id, address) who have had their campaigns already."""
        most, days = limits.campaigns_per_contact, limits.campaigns_days
        if most is None or days is None or not contacts:
            return frozenset()
        now = self._clock.now()
        since = now - timedelta(days=days)
        async with self._database.transaction() as tx:
            await self._database.fetchval(_SQL.hold_turns, workspace_id, tx=tx)
            rows = await self._database.fetch(
                _SQL.take_turns,
                workspace_id,
                campaign_id,
                [contact_id for contact_id, _ in contacts],
                [recipient_key(address) for _, address in contacts],
                most,
                since,
                ids.lowest_at(since - STARTED_BEFORE),
                now,
                tx=tx,
            )
        return frozenset(row["contact_id"] for row in rows)

    # Retries ----------------------------------------------------------------------------------

    def quiet_until(self, attributes: str, limits: Limits) -> datetime | None:
        """When the quiet hours of a contact with these attributes end; None when it is none now."""
        if limits.quiet is None:
            return None
        said = _decode(attributes).get(ZONE_ATTRIBUTE)
        zone = (zone_of(said) if isinstance(said, str) else None) or limits.zone
        return limits.quiet.over(self._clock.now(), zone)

    async def sweep(self) -> None:
        """Forget whose turn was long ago. A duty of the scheduler."""
        await self._database.execute(_SQL.sweep_turns, self._clock.now() - TURNS_KEPT)


def chunk_recipients(limits: Limits, most: int) -> int:
    """How many a chunk holds: of a small quota no chunk wants more than a tenth."""
    quota = limits.quota
    return most if quota is None else max(1, min(most, quota // 10))


def cap_reason(limits: Limits) -> str:
    """What the delivery of somebody says who is not sent to."""
    return (
        f"the recipient has had {limits.campaigns_per_contact} campaigns "
        f"in {limits.campaigns_days} days"
    )


def check_when(send_at: datetime | None, local_time: str | None, now: datetime) -> datetime | None:
    """`local_time` as a time without zone. Raises InvalidInput naming the field."""
    if send_at is not None and local_time is not None:
        raise InvalidInput("a campaign has send_at or local_time", field="local_time")
    if send_at is not None and send_at.tzinfo is None:
        raise InvalidInput("a time needs its offset from UTC", field="send_at")
    at = None if local_time is None else wall_clock(local_time)
    for field, moment in (("send_at", send_at), ("local_time", at and at.replace(tzinfo=UTC))):
        if moment is not None and moment > now + AHEAD_MAX:
            raise InvalidInput(f"more than {AHEAD_MAX.days} days ahead", field=field)
    return at


def _pieces(by_zone: dict[str, list[UUID]], size: int) -> Iterator[tuple[str, list[UUID]]]:
    for zone, contacts in by_zone.items():
        for at in range(0, len(contacts), size):
            yield zone, contacts[at : at + size]
