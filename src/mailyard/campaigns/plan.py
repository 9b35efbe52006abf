"""Cutting a campaign into chunks: the job `campaign-plan`.

Chunks are cut by keyset over the list's members, in steps: a step cuts a few thousand members,
moves `planned_upto` and enqueues the chunks' jobs in one transaction that holds the campaign's row,
so a crash or a second planner can neither cut a member twice nor leave one out. The first step is
small, so that the first mail leaves at once. Only so many chunks are open at a time: the queue's
table stays small however long the list is, and a slow campaign does not fill it.
"""

from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from mailyard.campaigns.progress import ProgressEvents
from mailyard.campaigns.states import State
from mailyard.campaigns.timing import Timing, chunk_recipients
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.limits import CAMPAIGN_CHUNK_RECIPIENTS
from mailyard.queue.engine import Engine
from mailyard.queue.job import EMAIL_BULK, NewJob
from mailyard.queue.worker import Batch, Handler
from mailyard.sending.allowance import Allowances, Limits
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("campaign")

PLAN = "campaign-plan"
CHUNK = "campaign-chunk"
FIRST_STEP_CHUNKS = 4
STEP_CHUNKS = 20
OPEN_CHUNKS = 200
OPEN_CHUNKS_RATED = 4  # of a campaign with a rate: its chunks wait most of the time
WAIT_S = 1.0
_ZERO = UUID(int=0)


def plan_job(
    workspace_id: UUID, campaign_id: UUID, clock: Clock | None = None, delay_s: float = 0.0
) -> NewJob:
    """The job that goes on cutting."""
    return NewJob(
        queue=EMAIL_BULK,
        kind=PLAN,
        payload=campaign_id.bytes,
        workspace_id=workspace_id,
        priority=4,
        run_at=clock.now() + timedelta(seconds=delay_s) if clock and delay_s else None,
        unique_key=f"{PLAN}:{campaign_id.hex}",
    )


def chunk_job(
    workspace_id: UUID,
    campaign_id: UUID,
    number: int,
    clock: Clock | None = None,
    delay_s: float = 0.0,
    run_at: datetime | None = None,
) -> NewJob:
    """The job of one chunk. While it waits or runs there is no other one of this chunk."""
    return NewJob(
        queue=EMAIL_BULK,
        kind=CHUNK,
        payload=campaign_id.bytes + number.to_bytes(4, "big"),
        workspace_id=workspace_id,
        run_at=clock.now() + timedelta(seconds=delay_s) if clock and delay_s else run_at,
        unique_key=f"{CHUNK}:{campaign_id.hex}:{number}",
        max_attempts=1000,
    )


class Planner:
    """Cuts campaigns."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        progress: ProgressEvents | None = None,
        timing: Timing | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._timing = timing or Timing(
            database=database, allowances=Allowances(database=database, clock=clock), clock=clock
        )
        self._database = database
        self._engine = engine
        self._progress = progress
        self._clock = clock or SystemClock()

    def handler(self) -> Handler:
        """What the worker runs."""
        return Handler(PLAN, EMAIL_BULK, self.handle, batch_size=1, concurrency=1)

    async def handle(self, batch: Batch) -> None:
        """Cut as far as may be now; ends the job in the commit of the last step."""
        job = batch.jobs[0]
        if job.workspace_id is None:
            raise AssertionError("a plan job carries its workspace")
        campaign_id = UUID(bytes=job.payload)
        ended = False
        while not ended:
            async with self._database.transaction() as tx:
                ended, again = await self._step(job.workspace_id, campaign_id, tx)
                if batch.stopping.is_set() and not ended:
                    ended = again = True  # another process cuts the rest
                if ended:
                    # The job ends while the campaign's row is held, so that whoever resumes the
                    # campaign either finds this job gone, or is seen by it.
                    await batch.complete([job], tx)
                    if again:
                        delayed = plan_job(job.workspace_id, campaign_id, self._clock, WAIT_S)
                        await self._engine.enqueue([delayed], tx)
        # The last chunk may have finished before it was known to be the last; a list may be empty.
        if (
            await self._database.fetchval(_SQL.finish_campaign, job.workspace_id, campaign_id)
            and self._progress is not None
        ):
            await self._progress.tell(job.workspace_id, campaign_id)

    async def _step(
        self, workspace_id: UUID, campaign_id: UUID, tx: Connection
    ) -> tuple[bool, bool]:
        """Cut the next members. (is there nothing to do now, is there something to do later)."""
        state = await self._database.fetchrow(_SQL.plan_state, workspace_id, campaign_id, tx=tx)
        if state is None or state["state"] != State.RUNNING or state["planned"]:
            return True, False
        limits = await self._timing.limits(workspace_id)
        if state["local_time"] is not None or limits.quiet is not None:
            return await self._step_placed(workspace_id, campaign_id, state, limits, tx)
        rated = state["rate_per_s"] is not None or limits.emails_per_s is not None
        limit = OPEN_CHUNKS_RATED if rated else OPEN_CHUNKS
        chunks = min(
            limit - state["open_chunks"],
            STEP_CHUNKS if state["last_number"] else FIRST_STEP_CHUNKS,
        )
        if chunks <= 0:
            return True, True
        upto = state["planned_upto"] or _ZERO
        size = chunk_recipients(limits, CAMPAIGN_CHUNK_RECIPIENTS)
        wanted = chunks * size
        cut = await self._database.fetch(
            _SQL.cut_chunks,
            workspace_id,
            campaign_id,
            upto,
            wanted,
            size,
            state["last_number"],
            state["first_started_at"],
            state["list_id"],
            tx=tx,
        )
        planned = sum(row["size"] for row in cut) < wanted
        upto = max((row["last_contact"] for row in cut), default=upto)
        await self._database.execute(
            _SQL.set_planned, workspace_id, campaign_id, upto, planned, tx=tx
        )
        jobs = [chunk_job(workspace_id, campaign_id, row["number"]) for row in cut]
        await self._engine.enqueue(jobs, tx)
        return planned, False

    async def _step_placed(
        self,
        workspace_id: UUID,
        campaign_id: UUID,
        state: asyncpg.Record,
        limits: Limits,
        tx: Connection,
    ) -> tuple[bool, bool]:
        """As `_step`, by time zones. All is cut at once: most chunks wait for their hour."""
        upto = state["planned_upto"] or _ZERO
        size = chunk_recipients(limits, CAMPAIGN_CHUNK_RECIPIENTS)
        cut = await self._timing.cut(workspace_id, campaign_id, state, upto, size, limits, tx)
        await self._database.execute(
            _SQL.set_planned, workspace_id, campaign_id, cut.upto, cut.planned, tx=tx
        )
        jobs = [
            chunk_job(workspace_id, campaign_id, number, run_at=due_at)
            for number, due_at in cut.chunks
        ]
        await self._engine.enqueue(jobs, tx)
        return cut.planned, False
