"""Cutting a campaign into chunks: the job `campaign-plan`.

Chunks are cut by keyset over the list's members, in steps: a step cuts a few thousand members,
moves `planned_upto` and enqueues the chunks' jobs in one transaction that holds the campaign's row,
so a crash or a second planner can neither cut a member twice nor leave one out. Of a segment, a
step looks at some of the workspace's contacts, in the order of their ids, and keeps those that
match in the chunks (docs/decisions/0019-segments.md). The first step is small, so that the first
mail leaves at once. Only so many chunks are open at a time: the queue's
table stays small however long the list is, and a slow campaign does not fill it.
"""

from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from mailyard.campaigns.audience import Audiences
from mailyard.campaigns.progress import ProgressEvents
from mailyard.campaigns.states import State
from mailyard.campaigns.timing import PLACED_STEP_MEMBERS, Timing, chunk_recipients
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.limits import CAMPAIGN_CHUNK_RECIPIENTS
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.engine import Engine
from mailyard.queue.job import EMAIL_BULK, NewJob
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
FIRST_WINDOW = 20_000  # contacts that a step looks at for those of a segment
WINDOW = 100_000
STEP_S = 0.5  # in which a step looks on, when it has found less than it wants
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
        self._audiences = Audiences(database=database, clock=clock)

    def handler(self) -> Handler:
        """What the worker runs."""
        return Handler(PLAN, EMAIL_BULK, self.handle, batch_size=1, concurrency=1, rare=True)

    async def handle(self, batch: Batch) -> None:
        """Cut as far as may be now; ends the job in the commit of the last step."""
        job = batch.jobs[0]
        if job.workspace_id is None:
            raise AssertionError("a plan job carries its workspace")
        campaign_id = UUID(bytes=job.payload)
        ended, expected = False, False
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
            if not expected:
                await self._expect(job.workspace_id, campaign_id)
                expected = True
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
        limits = await self._timing.limits(workspace_id, tx)
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
        size = chunk_recipients(limits, CAMPAIGN_CHUNK_RECIPIENTS)
        cut_next = self._cut_segment if state["list_id"] is None else self._cut_list
        cut, upto, planned = await cut_next(workspace_id, campaign_id, state, chunks, size, tx)
        await self._database.execute(
            _SQL.set_planned, workspace_id, campaign_id, upto, planned, tx=tx
        )
        jobs = [chunk_job(workspace_id, campaign_id, row["number"]) for row in cut]
        await self._engine.enqueue(jobs, tx)
        return planned, False

    async def _cut_list(
        self,
        workspace_id: UUID,
        campaign_id: UUID,
        state: asyncpg.Record,
        chunks: int,
        size: int,
        tx: Connection,
    ) -> tuple[list[asyncpg.Record], UUID, bool]:
        """Cut the next of a list: the chunks, how far they reach, whether that is all."""
        upto = state["planned_upto"] or _ZERO
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
        return cut, max((row["last_contact"] for row in cut), default=upto), planned

    async def _cut_segment(
        self,
        workspace_id: UUID,
        campaign_id: UUID,
        state: asyncpg.Record,
        chunks: int,
        size: int,
        tx: Connection,
    ) -> tuple[list[asyncpg.Record], UUID, bool]:
        """As `_cut_list`, of a segment."""
        least = size if state["last_number"] else 1
        found, upto, planned = await self._look(workspace_id, state, chunks * size, least, tx)
        cut = await self._database.fetch(
            _SQL.cut_member_chunks,
            workspace_id,
            campaign_id,
            state["planned_upto"] or _ZERO,
            [row["contact_id"] for row in found],
            size,
            state["last_number"],
            tx=tx,
        )
        return cut, upto, planned

    async def _look(
        self, workspace_id: UUID, state: asyncpg.Record, most: int, least: int, tx: Connection
    ) -> tuple[list[asyncpg.Record], UUID, bool]:
        """The next of a segment (`contact_id`, `zone`), how far was looked, whether that is all.

        It ends with `least` of them or more, or after STEP_S, for the campaign's row is held.
        """
        audience = await self._audiences.read_pinned(workspace_id, state["audience"], tx)
        until = self._clock.monotonic() + STEP_S
        upto = state["planned_upto"] or _ZERO
        window = WINDOW if state["planned_upto"] else FIRST_WINDOW
        found: list[asyncpg.Record] = []
        while True:
            more, end = await self._audiences.cut(
                audience, upto, most - len(found), state["first_started_at"], tx, window=window
            )
            found += more
            if end is None:
                return found, found[-1]["contact_id"] if found else upto, True
            upto = end
            if len(found) >= least or self._clock.monotonic() > until:
                return found, upto, False

    async def _expect(self, workspace_id: UUID, campaign_id: UUID) -> None:
        """Say how many a segment has, about, while its chunks are being cut."""
        state = await self._database.fetchrow(_SQL.read_audience, workspace_id, campaign_id)
        if state is None or state["audience"] is None or state["planned"]:
            return
        audience = await self._audiences.read_pinned(workspace_id, state["audience"])
        estimate = await self._audiences.estimate(audience)
        await self._database.execute(
            _SQL.expect_recipients, workspace_id, campaign_id, estimate.contacts
        )

    async def _step_placed(
        self,
        workspace_id: UUID,
        campaign_id: UUID,
        state: asyncpg.Record,
        limits: Limits,
        tx: Connection,
    ) -> tuple[bool, bool]:
        """As `_step`, by time zones. All is cut at once: most chunks wait for their hour."""
        behind = state["planned_upto"] or _ZERO
        size = chunk_recipients(limits, CAMPAIGN_CHUNK_RECIPIENTS)
        if state["list_id"] is None:
            members, upto, planned = await self._look(
                workspace_id, state, PLACED_STEP_MEMBERS, PLACED_STEP_MEMBERS, tx
            )
        else:
            members, upto, planned = await self._timing.next_members(
                workspace_id, state, behind, tx
            )
        cut = await self._timing.cut(
            workspace_id, campaign_id, state, members, behind, size, limits, tx
        )
        await self._database.execute(
            _SQL.set_planned, workspace_id, campaign_id, upto, planned, tx=tx
        )
        jobs = [
            chunk_job(workspace_id, campaign_id, number, run_at=due_at) for number, due_at in cut
        ]
        await self._engine.enqueue(jobs, tx)
        return planned, False
