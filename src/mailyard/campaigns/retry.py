"""Trying the deferred recipients of a chunk again: the job `campaign-retry`.

A job carries the delivery ids of one chunk that were answered with "later". It names them anew (a
row at a time is fenced, as in transactional mail), hands them over, and records; who is deferred
again goes into the next job, enqueued in the commit that ends this one. Whoever an older lease had
named and not recorded is `unknown` and is not tried again: campaign mail never goes twice.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from random import Random
from uuid import UUID

import asyncpg

from mailyard.campaigns.mail import CampaignMail, Written, campaign_mail, today
from mailyard.campaigns.progress import ProgressEvents
from mailyard.campaigns.retry_job import RETRY, Waiting, retry_jobs
from mailyard.campaigns.states import State
from mailyard.campaigns.timing import Timing
from mailyard.core.backoff import Backoff
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import InvalidInput, Unavailable
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.engine import Engine
from mailyard.queue.job import EMAIL_BULK, LeasedJob
from mailyard.sending.allowance import Allowances
from mailyard.sending.delivery import millisecond_range
from mailyard.sending.handoff import Window
from mailyard.sending.results import Passes, Results, conclude
from mailyard.sending.return_path import ReturnPaths
from mailyard.sending.sign import Signing
from mailyard.sending.states import State as DeliveryState
from mailyard.sending.suppress import ASK_AGAIN_S, Suppressions
from mailyard.sending.suppress import CAMPAIGN as CAMPAIGN_STREAM
from mailyard.sending.template import Templates
from mailyard.sending.track.tracking import Tracking
from mailyard.sending.transport import Handoff, Transport
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("campaign")
_SENDING_SQL = load("sending")

RETRY_BACKOFF = Backoff(first_s=60.0, cap_s=6 * 3600.0)
ATTEMPTS = 16  # about two days
RECONNECT = Backoff(first_s=0.1, cap_s=2.0)
RECONNECTS = 20  # longer than a lease: by then the job is somebody else's
PAUSED_S = 60.0  # how often a retry looks whether its campaign goes on
UNWANTED = "the recipient does not want this topic"
_MOVED = ("accepted", "bounced", "failed", "suppressed", "unknown", "cancelled")


class RetrySender:
    """Tries deferred recipients again, inside the window that the chunks use."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        transport: Transport,
        templates: Templates,
        signing: Signing,
        tracking: Tracking,
        progress: ProgressEvents,
        window: Window,
        hostname: str,
        return_paths: ReturnPaths | None = None,
        timing: Timing | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        self.timing = timing or Timing(
            database=database, allowances=Allowances(database=database, clock=clock), clock=clock
        )
        self.database = database
        self.engine = engine
        self.transport = transport
        self.templates = templates
        self.signing = signing
        self.tracking = tracking
        self.progress = progress
        self.window = window
        self.hostname = hostname
        self.return_paths = return_paths
        self.clock = clock or SystemClock()
        self.random = random or Random()

    def handler(self) -> Handler:
        """What the worker runs."""
        return Handler(RETRY, EMAIL_BULK, self.handle, batch_size=1, concurrency=1, rare=True)

    async def handle(self, batch: Batch) -> None:
        """One round over a job's recipients."""
        job = batch.jobs[0]
        if job.workspace_id is None:
            raise AssertionError("a retry job carries its workspace")
        campaign_id = UUID(bytes=job.payload[:16])
        row = await self.database.fetchrow(_SQL.read_campaign_mail, job.workspace_id, campaign_id)
        if row is None:
            return
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
        await _Round(self, batch, job, job.workspace_id, campaign_id, mail, row).run()
        if await self.database.fetchval(_SQL.finish_campaign, job.workspace_id, campaign_id):
            await self.progress.tell(job.workspace_id, campaign_id)


_End = tuple[UUID, DeliveryState, str]  # a delivery, how it ends without being handed over, and why


def _early_end(row: asyncpg.Record) -> _End | None:
    """None: it is to be tried. One that was named under an older lease ends as `unknown`, unless
    that lease's last word comes first and defers it: then it is for the next round."""
    if row["suppressed"]:
        return row["id"], DeliveryState.SUPPRESSED, "the recipient is suppressed"
    if row["unwanted"]:
        return row["id"], DeliveryState.SUPPRESSED, UNWANTED
    if row["state"] != DeliveryState.DEFERRED:
        return row["id"], DeliveryState.DEFERRED, "its worker died"
    return None


class _Round:
    """One job's recipients, each tried once."""

    def __init__(
        self,
        sender: RetrySender,
        batch: Batch,
        job: LeasedJob,
        workspace_id: UUID,
        campaign_id: UUID,
        mail: CampaignMail,
        campaign: asyncpg.Record,
    ) -> None:
        self._own = sender
        self._batch = batch
        self._job = job
        self._workspace_id = workspace_id
        self._campaign_id = campaign_id
        self._mail = mail
        self._state: str = campaign["state"]
        self._topic_id: UUID | None = campaign["topic_id"]
        self._number = int.from_bytes(job.payload[16:20], "big")
        self._wanted = [
            UUID(bytes=job.payload[at : at + 16]) for at in range(20, len(job.payload), 16)
        ]
        self._low, self._high = millisecond_range(mail.unix_ms)
        self._again: list[Waiting] = []
        self._attempts = 1
        backoff_s = RETRY_BACKOFF.delay_s(1, sender.random)
        self._next_attempt_at = sender.clock.now() + timedelta(seconds=backoff_s)
        self._away: set[UUID] = set()
        self._results = Results()
        self._passes = Passes()
        self._addresses: dict[UUID, str] = {}
        self._loaded_at = sender.clock.monotonic()
        self._attempts_of: dict[UUID, int] = {}
        self._arrived = asyncio.Event()
        self._abandoned = False

    async def run(self) -> None:
        """Try everybody, then end the job with the next one in the same commit."""
        now = self._own.clock.now()
        if self._state == State.PAUSED:
            later = now + timedelta(seconds=PAUSED_S)
            await self._end([(one, later) for one in self._wanted])
            return
        rows = await self._own.database.fetch(
            _SQL.load_retries,
            self._workspace_id,
            self._low,
            self._high,
            self._wanted,
            self._job.token,
            self._topic_id,
        )
        self._loaded_at = self._own.clock.monotonic()
        if self._state == State.CANCELLED:
            await self._settle([(row["id"], DeliveryState.CANCELLED, "cancelled") for row in rows])
            return
        try:
            await self._settle([end for row in rows if (end := _early_end(row))])
            ready = await self._awake([row for row in rows if _early_end(row) is None])
            self._attempts_of = {row["id"]: row["attempts"] + 1 for row in ready}
            self._attempts = max(self._attempts_of.values(), default=1)
            delay_s = RETRY_BACKOFF.delay_s(self._attempts, self._own.random)
            self._next_attempt_at = now + timedelta(seconds=delay_s)
            untried = await self._hand_off(ready)
        finally:
            self._abandoned = True
            self._own.window.forget(len(self._away) + len(self._results))
        await self._end([*self._again, *((one, now) for one in untried)])

    async def _awake(self, ready: list[asyncpg.Record]) -> list[asyncpg.Record]:
        """Without those in whose place it is quiet now: they wait for the end of that."""
        limits = await self._own.timing.limits(self._workspace_id)
        if limits.quiet is None:
            return ready
        awake = []
        for row in ready:
            over = self._own.timing.quiet_until(row["attributes"], limits)
            if over is None:
                awake.append(row)
            else:
                self._again.append((row["id"], over))
        return awake

    async def _settle(self, ends: list[_End]) -> None:
        """End deliveries that are not handed over; whoever an older lease had named: unknown."""
        if not ends:
            return
        delivery_ids, states, whys = map(list, zip(*ends, strict=True))
        async with self._own.database.transaction() as tx:
            settled = await self._own.database.fetch(
                _SENDING_SQL.settle_deliveries,
                self._low,
                self._high,
                delivery_ids,
                [self._job.token] * len(ends),
                states,
                whys,
                tx=tx,
            )
            await self._move([row["state"] for row in settled], tx)
        self._again += [
            (row["id"], self._next_attempt_at)
            for row in settled
            if row["state"] == DeliveryState.DEFERRED
        ]

    async def _hand_off(self, ready: list[asyncpg.Record]) -> list[UUID]:
        """Name, submit and record. Those that a drain left untried."""
        waiting = list(reversed(ready))
        while waiting or self._away or self._results:
            stopping = self._batch.stopping.is_set()
            places = self._own.window.room + len(self._results)
            mails: list[Written] = []
            while waiting and len(mails) < places and not stopping:
                written = await self._write(waiting.pop())
                if written is not None:
                    mails.append(written)
            if mails:
                mails = await self._without_suppressed(mails)
            if mails or self._results:
                await self._step(mails)
            elif self._away:
                self._arrived.clear()
                await self._arrived.wait()
            elif stopping:
                break
            elif waiting:
                await self._own.window.opened()
        return [row["id"] for row in waiting]

    async def _without_suppressed(self, mails: list[Written]) -> list[Written]:
        """Those whose recipients were not suppressed since they were loaded, a while ago."""
        if self._own.clock.monotonic() - self._loaded_at < ASK_AGAIN_S:
            return mails
        suppressions = Suppressions(database=self._own.database)
        stopped = await suppressions.check_many(
            [(self._workspace_id, one.address) for one in mails], CAMPAIGN_STREAM
        )
        why = "the recipient is suppressed"
        gone = [one for one in mails if (self._workspace_id, one.address) in stopped]
        await self._settle([(one.delivery_id, DeliveryState.SUPPRESSED, why) for one in gone])
        return [one for one in mails if one not in gone]

    async def _write(self, row: asyncpg.Record) -> Written | None:
        try:
            await self._mail.look_up([row["recipient"]])
            return self._mail.write(
                row["id"],
                row["contact_id"],
                row["recipient"],
                row["name"],
                row["attributes"],
                today(self._own.clock.now()),
            )
        except InvalidInput as error:
            why = f"it cannot be written: {error}"
            await self._settle([(row["id"], DeliveryState.FAILED, why)])
            return None

    async def _step(self, mails: list[Written]) -> None:
        results, self._results = self._results, Results()
        passes, self._passes = self._passes, Passes()
        step = self._own.window.begin(len(results), len(mails))
        links = [link for written in mails for link in written.links]
        failures = 0
        while True:
            try:
                if links:
                    await self._own.tracking.links.store(
                        self._workspace_id, self._campaign_id, links
                    )
                named = await self._commit(results, passes, mails)
                break
            except BaseException as error:
                failures += 1
                if not isinstance(error, Unavailable) or failures >= RECONNECTS:
                    self._own.window.rolled_back(step)
                    self._own.window.forget(step.recorded)
                    raise
                # The statement says the same again, and does not repeat what is done.
                await asyncio.sleep(RECONNECT.delay_s(failures, self._own.random))
        self._own.window.committed(step)
        self._own.window.forget(step.named - len(named))
        self._away |= named
        for written in mails:
            if written.delivery_id in named:
                self._addresses[written.delivery_id] = written.address
                self._own.transport.submit(written.outgoing, self._done)
        self._own.progress.touch(self._workspace_id, self._campaign_id)

    async def _commit(self, results: Results, passes: Passes, mails: list[Written]) -> set[UUID]:
        async with self._own.database.transaction() as tx:
            await passes.tell(self._own.database, self._workspace_id, tx)
            rows = await self._own.database.fetch(
                _SENDING_SQL.step_deliveries,
                self._low,
                self._high,
                *results.columns(),
                [written.delivery_id for written in mails],
                [self._job.token] * len(mails),
                [""] * len(mails),
                False,
                tx=tx,
            )
            recorded = {row["id"]: row["state"] for row in rows if row["what"] == "recorded"}
            await self._move(list(recorded.values()), tx)
            if results.refusals:
                await results.refusals.tell(self._own.database, tx, recorded.keys())
        return {row["id"] for row in rows if row["what"] == "named"}

    async def _move(self, states: list[str], tx: Connection) -> None:
        """Take recipients off the chunk's deferred ones, into the counts of their new states."""
        counts = Counter(states)
        left = sum(counts[name] for name in _MOVED)
        if left:
            await self._own.database.execute(
                _SQL.move_counts,
                self._workspace_id,
                self._campaign_id,
                self._number,
                left,
                *(counts[name] for name in _MOVED),
                tx=tx,
            )

    def _done(self, handoff: Handoff) -> None:
        if self._abandoned:
            return
        last = self._attempts >= ATTEMPTS
        conclusion = conclude(handoff, self._next_attempt_at, None, last)
        self._away.discard(handoff.delivery_id)
        if handoff.passed:
            self._passes.add(self._attempts_of[handoff.delivery_id], handoff.passed)
        if conclusion.state is DeliveryState.DEFERRED and conclusion.next_attempt_at:
            self._again.append((handoff.delivery_id, conclusion.next_attempt_at))
        address = self._addresses[handoff.delivery_id]
        self._results.refusals.add(self._workspace_id, address, handoff)
        self._results.add(handoff.delivery_id, self._job.token, conclusion, handoff.transport)
        self._arrived.set()

    async def _end(self, left: Sequence[Waiting]) -> None:
        async with self._own.database.transaction() as tx:
            done = await self._batch.complete([self._job], tx)
            if done and left:
                jobs = retry_jobs(self._workspace_id, self._campaign_id, self._number, left)
                await self._own.engine.enqueue(jobs, tx)
