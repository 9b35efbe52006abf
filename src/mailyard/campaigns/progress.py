"""How far a campaign is: counts per state, the rate now, and when it will have ended."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Any
from uuid import UUID

from mailyard.bus.live import CAMPAIGN_PROGRESS, LiveEvent, LiveEvents
from mailyard.campaigns.states import State
from mailyard.core import ids
from mailyard.core.errors import NotFound
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("campaign")

COUNTED = ("accepted", "deferred", "bounced", "failed", "suppressed", "unknown", "cancelled")
TOLD = ("delivered", "bounced", "complained")
PUBLISH_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Progress:
    """`counts`: recipients by state. `waiting`: not handed over yet. `rate_per_s`: over the last
    one to two minutes. `ends_at`: an estimate while it runs and moves, then the fact. `told`: what
    was told of the accepted ones later: how many were delivered, came back, were called spam."""

    state: State
    recipients: int
    counts: Mapping[str, int]
    waiting: int
    rate_per_s: float
    ends_at: datetime | None
    told: Mapping[str, int]


async def read_progress(database: Database, workspace_id: UUID, campaign_id: UUID) -> Progress:
    """The progress now. Raises NotFound."""
    row = await database.fetchrow(_SQL.read_progress, workspace_id, campaign_id)
    if row is None:
        raise NotFound("no such campaign")
    state = State(row["state"])
    counts = {name: row[name] for name in COUNTED}
    waiting = max(0, row["recipients"] - sum(counts.values()))
    rate_per_s = 0.0
    ends_at: datetime | None = row["finished_at"]
    if state is State.RUNNING:
        rate_per_s = _rate(row["now"], row["first_started_at"], row["recent"])
        if rate_per_s > 0:
            ends_at = row["now"] + timedelta(seconds=waiting / rate_per_s)
    told = {name: row[f"came_{name}"] for name in TOLD}
    return Progress(state, row["recipients"], counts, waiting, rate_per_s, ends_at, told)


def _rate(now: datetime, started_at: datetime, recent: int) -> float:
    """Recipients a second since the minute before this one began, or since the first start."""
    counted_from = now.replace(second=0, microsecond=0) - timedelta(minutes=1)
    seconds = (now - max(counted_from, started_at)).total_seconds()
    return recent / seconds if seconds > 0 else 0.0


class ProgressEvents:
    """Publishes `campaign.progress`, at most every PUBLISH_EVERY_S a campaign and process."""

    def __init__(self, *, database: Database, live: LiveEvents) -> None:
        self._database = database
        self._live = live
        self._published: dict[UUID, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def touch(self, workspace_id: UUID, campaign_id: UUID) -> None:
        """Something has changed: tell soon, unless it was told just now."""
        now = monotonic()
        if now - self._published.get(campaign_id, -PUBLISH_EVERY_S) < PUBLISH_EVERY_S:
            return
        self._published[campaign_id] = now
        task = asyncio.create_task(self.tell(workspace_id, campaign_id))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def tell(self, workspace_id: UUID, campaign_id: UUID) -> None:
        """Publish the progress now."""
        progress = await read_progress(self._database, workspace_id, campaign_id)
        if progress.state in (State.FINISHED, State.CANCELLED):
            self._published.pop(campaign_id, None)
        await self._live.publish(
            [LiveEvent(workspace_id, CAMPAIGN_PROGRESS, _item(campaign_id, progress))]
        )

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # a missed progress event is followed by the next one


def _item(campaign_id: UUID, progress: Progress) -> dict[str, Any]:
    return {
        "campaign_id": ids.type_id(ids.CAMPAIGN, campaign_id),
        "state": progress.state.value,
        "recipients": progress.recipients,
        "counts": {**progress.counts, "waiting": progress.waiting},
        "rate_per_s": round(progress.rate_per_s, 1),
        "ends_at": progress.ends_at.isoformat() if progress.ends_at else None,
    }
