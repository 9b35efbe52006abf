"""Campaigns that begin by themselves: the job `campaign-start`, due at their `send_at`.

A campaign that was taken back to draft, or started by hand, meanwhile is left alone. One whose
template asks for what its contacts lack is not begun: the job is buried with the reason.
"""

from collections.abc import Awaitable
from datetime import datetime
from typing import Protocol
from uuid import UUID

from mailyard.core.errors import NotFound
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.job import EMAIL_BULK, NewJob

START = "campaign-start"


class Startable(Protocol):
    """What begins a campaign."""

    def start_in_time(self, workspace_id: UUID, campaign_id: UUID) -> Awaitable[None]: ...


def start_job(workspace_id: UUID, campaign_id: UUID, send_at: datetime) -> NewJob:
    """The job that begins a campaign at `send_at`."""
    return NewJob(
        queue=EMAIL_BULK,
        kind=START,
        payload=campaign_id.bytes,
        workspace_id=workspace_id,
        priority=3,
        run_at=send_at,
        unique_key=f"{START}:{campaign_id.hex}",
    )


class Starter:
    """Begins campaigns whose time has come."""

    def __init__(self, *, campaigns: Startable) -> None:
        self._campaigns = campaigns

    def handler(self) -> Handler:
        """What the worker runs."""
        return Handler(START, EMAIL_BULK, self.handle, batch_size=1, concurrency=1)

    async def handle(self, batch: Batch) -> None:
        """Begin one campaign."""
        job = batch.jobs[0]
        if job.workspace_id is None:
            raise AssertionError("a start job carries its workspace")
        try:
            await self._campaigns.start_in_time(job.workspace_id, UUID(bytes=job.payload))
        except NotFound:
            return  # deleted with its workspace
