"""Sending one chunk of a campaign: the job `campaign-chunk`.

    claim the chunk under the lease's token (what an older one named and did not record: unknown)
    load its recipients in one query
    repeat: write mails ahead | one statement records results and names who goes next | submit
    finish the chunk; deferred recipients become a `campaign-retry` job

A recipient is named by the chunk's `named_upto`, in the order of contact ids. Named and unrecorded
are at most HANDOFF_WINDOW_BULK a process. The statement reads the campaign's state, so a pause
takes effect with the next step: what was named is recorded, then the job ends. A chunk whose lease
went to another worker finds its token outdated at the next step and stops without a trace.

Who gets no mail, suppressed or impossible to write, is recorded by the step that passes them, and
only if it does: after a pause they are looked at again.
"""

import asyncio
import math
from dataclasses import replace
from datetime import datetime
from random import Random
from uuid import UUID

import asyncpg

from mailyard.bus.live import LiveEvents
from mailyard.campaigns.hand_off import HandOff, Means, Place
from mailyard.campaigns.mail import CampaignMail, campaign_mail
from mailyard.campaigns.plan import CHUNK, chunk_job
from mailyard.campaigns.progress import ProgressEvents
from mailyard.campaigns.retry_job import retry_jobs
from mailyard.campaigns.states import State
from mailyard.campaigns.timing import Timing, cap_reason
from mailyard.core import limits
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import StaleLease
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.engine import Engine
from mailyard.queue.job import EMAIL_BULK
from mailyard.ratelimit.ratelimit import RateLimit
from mailyard.sending.allowance import NO_LIMITS, Allowances, Limits
from mailyard.sending.followed import FollowedTransport
from mailyard.sending.handoff import Window
from mailyard.sending.return_path import ReturnPaths
from mailyard.sending.sign import Signing
from mailyard.sending.template import Templates
from mailyard.sending.track.tracking import Tracking
from mailyard.sending.transport import Transport
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("campaign")
_TIMING_SQL = load("timing")

CONCURRENCY = 3  # one is recorded to its end, one sends, one is ready; more would wait in vain
RATED_AT_ONCE = 2  # chunks of campaigns with a rate, which hold a slot while they wait
FOLLOWED = 4  # recipients of a chunk whose hand-over is in the trace of its campaign
RATED_SLICE_S = 15.0  # after which such a chunk lets others have its slot


class ChunkSender:
    """Sends chunks through `transport`. One a worker process, for its window is its own."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        transport: Transport,
        live: LiveEvents,
        templates: Templates,
        signing: Signing,
        tracking: Tracking,
        rate_limit: RateLimit,
        hostname: str,
        return_paths: ReturnPaths | None = None,
        timing: Timing | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
        window: Window | None = None,
    ) -> None:
        self.timing = timing or Timing(
            database=database, allowances=Allowances(database=database, clock=clock), clock=clock
        )
        self.database = database
        self.engine = engine
        self.templates = templates
        self.signing = signing
        self.tracking = tracking
        self.rate_limit = rate_limit
        self.hostname = hostname
        self.return_paths = return_paths
        self.clock = clock or SystemClock()
        self.random = random or Random()
        self.window = window or Window(limits.HANDOFF_WINDOW_BULK)
        self.progress = ProgressEvents(database=database, live=live)
        self.means = Means(
            database=database,
            transport=transport,
            window=self.window,
            progress=self.progress,
            links=tracking.links,
            clock=self.clock,
            random=self.random,
        )
        # One chunk names at a time: the next one is loaded and its first mails written meanwhile,
        # and steps stay large. A campaign with a rate does not take the turn, for it waits a lot.
        self.turn = asyncio.Lock()
        self.rated = 0

    def handler(self) -> Handler:
        """What the worker runs."""
        return Handler(CHUNK, EMAIL_BULK, self.handle, batch_size=1, concurrency=CONCURRENCY)

    async def handle(self, batch: Batch) -> None:
        """Send a chunk to its end, or as far as pause, rate and drain let it."""
        job = batch.jobs[0]
        if job.workspace_id is None:
            raise AssertionError("a chunk job carries its workspace")
        campaign_id, number = UUID(bytes=job.payload[:16]), int.from_bytes(job.payload[16:], "big")
        row = await self.database.fetchrow(
            _SQL.claim_chunk, job.workspace_id, campaign_id, number, job.token
        )
        if row is not None:
            mail = await campaign_mail(
                self.templates,
                self.signing,
                self.tracking,
                self.hostname,
                job.workspace_id,
                campaign_id,
                row,
                self.return_paths,
            )
            place = Place(job.workspace_id, campaign_id, number, job)
            await ChunkRun(self, batch, place, row, mail).run()
        # Also for a chunk that was finished before: its worker may have died before this.
        if await self.database.fetchval(_SQL.finish_campaign, job.workspace_id, campaign_id):
            await self.progress.tell(job.workspace_id, campaign_id)


class ChunkRun:
    """One chunk in one worker's hands."""

    def __init__(
        self,
        sender: ChunkSender,
        batch: Batch,
        place: Place,
        row: asyncpg.Record,
        mail: CampaignMail,
    ) -> None:
        self._own = sender
        self._batch = batch
        self._place = place
        means = sender.means
        if marks := batch.marks_of(place.job):
            followed = FollowedTransport(means.transport, marks, FOLLOWED)
            means = replace(means, transport=followed)
        self._hand_off = HandOff(means, place, row, mail)
        self._rate: float | None = row["rate_per_s"]
        self._list_id: UUID | None = row["list_id"]
        self._topic_id: UUID | None = row["topic_id"]
        self._first_started_at: datetime = row["first_started_at"]
        self._after: UUID = row["after_contact"]
        self._last: UUID = row["last_contact"]
        self._zone: str | None = row["zone"]
        self._due_at: datetime | None = row["due_at"]
        self._members: list[UUID] | None = row["members"]
        self._bucket = f"campaign:{place.campaign_id.hex}"

    async def run(self) -> None:
        """Send until everybody in the chunk is recorded, or the campaign no longer runs."""
        limits = await self._own.timing.limits(self._place.workspace_id)
        try:
            await self._hand_off.begin(await self._load())
            wait_s = await self._within(limits) if self._hand_off.running else 0.0
            if not self._hand_off.running:
                await self._put_back()
            elif wait_s > 0:
                await self._hand_off.drain()
                await self._give_back(wait_s)
            elif self._rate is not None:
                await self._run_rated(self._rate)
            else:
                await self._hand_off.write_ahead(self._own.window.size)
                async with self._own.turn:
                    await self._hand_off.steps(self._batch.stopping)
                await self._end()
        except StaleLease:
            return  # it is another worker's: what is recorded there is the truth
        finally:
            self._hand_off.abandon()

    async def _within(self, limits: Limits) -> float:
        """Keep the workspace's limits: how long to wait, else 0.0 and who is left out is known."""
        timing, place = self._own.timing, self._place
        wait_s = timing.wait_s(self._due_at, self._zone, limits)
        if wait_s > 0 or limits is NO_LIMITS:
            return wait_s
        if limits.emails_per_s is not None and limits.emails_per_s < (self._rate or math.inf):
            # One bucket for all campaigns of the workspace.
            self._rate, self._bucket = limits.emails_per_s, f"campaigns:{place.workspace_id.hex}"
        left = self._hand_off.left
        capped = await timing.capped(place.workspace_id, place.campaign_id, left, limits)
        if capped:
            self._hand_off.leave_out(capped, cap_reason(limits))
        sent = len(left) - len(capped)
        return await timing.draw(
            place.workspace_id, place.campaign_id, place.number, place.job, sent, limits
        )

    async def _load(self) -> list[asyncpg.Record]:
        if self._members is not None:
            return await self._own.database.fetch(
                _TIMING_SQL.load_placed_chunk,
                self._place.workspace_id,
                self._list_id,
                self._after,
                self._last,
                self._first_started_at,
                self._topic_id,
                self._members,
            )
        return await self._own.database.fetch(
            _SQL.load_chunk,
            self._place.workspace_id,
            self._list_id,
            self._after,
            self._last,
            self._first_started_at,
            self._topic_id,
        )

    # Ending -----------------------------------------------------------------------------------

    async def _end(self) -> None:
        """Nothing is to be named, or naming has to stop: record, then say how the chunk stands."""
        await self._hand_off.drain()
        if self._hand_off.all_named:
            await self._finish()
        elif self._batch.stopping.is_set():
            await self._give_back(0.0)
        else:
            await self._put_back()

    async def _finish(self) -> None:
        place = self._place
        async with self._own.database.transaction() as tx:
            done = await self._own.database.fetchval(
                _SQL.finish_chunk,
                place.workspace_id,
                place.campaign_id,
                place.number,
                place.job.token,
                tx=tx,
            )
            if done and self._hand_off.deferred:
                jobs = retry_jobs(
                    place.workspace_id, place.campaign_id, place.number, self._hand_off.deferred
                )
                await self._own.engine.enqueue(jobs, tx)
            if done:
                await self._hand_off.write_counts(tx)
        self._own.progress.touch(place.workspace_id, place.campaign_id)

    async def _put_back(self) -> None:
        """The campaign does not run: the job ends, unless it was resumed at this very moment."""
        place = self._place
        async with self._own.database.transaction() as tx:
            state = await self._own.database.fetchval(
                _SQL.share_campaign, place.workspace_id, place.campaign_id, tx=tx
            )
            await self._wait_for_turn_again(tx)
            await self._batch.complete([place.job], tx)
            if state == State.RUNNING:
                job = chunk_job(place.workspace_id, place.campaign_id, place.number)
                await self._own.engine.enqueue([job], tx)
        self._own.progress.touch(place.workspace_id, place.campaign_id)

    async def _give_back(self, delay_s: float) -> None:
        """Others have their turn: the chunk waits, with a new job for it."""
        place = self._place
        async with self._own.database.transaction() as tx:
            await self._wait_for_turn_again(tx)
            await self._batch.complete([place.job], tx)
            job = chunk_job(
                place.workspace_id, place.campaign_id, place.number, self._own.clock, delay_s
            )
            await self._own.engine.enqueue([job], tx)

    async def _wait_for_turn_again(self, tx: Connection) -> None:
        place = self._place
        await self._own.database.fetchval(
            _SQL.put_chunk_back,
            place.workspace_id,
            place.campaign_id,
            place.number,
            place.job.token,
            tx=tx,
        )

    # With a rate ------------------------------------------------------------------------------

    async def _run_rated(self, rate: float) -> None:
        """As the others, but every step takes its recipients from the campaign's bucket first."""
        if self._own.rated >= RATED_AT_ONCE:
            await self._give_back(1.0 + 2.0 * self._own.random.random())
            return
        self._own.rated += 1
        try:
            sliced = await self._rated_steps(rate)
        finally:
            self._own.rated -= 1
        hand_off = self._hand_off
        await hand_off.drain()
        if sliced and hand_off.running and not hand_off.all_named:
            await self._give_back(0.0)
        else:
            await self._end()

    async def _rated_steps(self, rate: float) -> bool:
        """Step by step within the rate; whether the slice of time ran out."""
        hand_off, stopping = self._hand_off, self._batch.stopping
        burst = max(1.0, rate / 4)
        until = self._own.clock.monotonic() + RATED_SLICE_S
        while not hand_off.all_named and hand_off.running and not stopping.is_set():
            if self._own.clock.monotonic() > until:
                return True
            await hand_off.write_ahead(self._own.window.size)
            room = hand_off.room
            wanted = max(1, min(int(burst), room, hand_off.ahead))
            wait_s = await self._own.rate_limit.take(self._bucket, wanted, rate, burst)
            if wait_s > 0 or room < 1:
                await asyncio.sleep(min(max(wait_s, 0.005), 1.0))
                if hand_off.unrecorded:
                    await hand_off.step(0)
                continue
            await hand_off.step(wanted)
        return False
