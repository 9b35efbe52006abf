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
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from uuid import UUID

import asyncpg

from mailyard.bus.live import LiveEvents
from mailyard.campaigns.chunk_rows import ChunkRows
from mailyard.campaigns.mail import CampaignMail, Written, campaign_mail, today
from mailyard.campaigns.plan import CHUNK, chunk_job
from mailyard.campaigns.progress import ProgressEvents
from mailyard.campaigns.retry import RETRY_BACKOFF, retry_jobs
from mailyard.campaigns.states import State
from mailyard.core import limits
from mailyard.core.backoff import Backoff
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import InvalidInput, StaleLease, Unavailable
from mailyard.observe.metrics import DELIVERIES
from mailyard.queue.engine import Engine
from mailyard.queue.job import EMAIL_BULK, LeasedJob
from mailyard.queue.worker import Batch, Handler
from mailyard.ratelimit.ratelimit import RateLimit
from mailyard.sending.delivery import millisecond_range
from mailyard.sending.handoff import Step, Window
from mailyard.sending.states import State as DeliveryState
from mailyard.sending.template import Templates
from mailyard.sending.transport import Handoff, Transport
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("campaign")
_SENDING_SQL = load("sending")

CONCURRENCY = 4
COUNT_EVERY_S = 0.5
STATES = ("accepted", "deferred", "bounced", "failed", "suppressed", "unknown")
RATED_AT_ONCE = 2  # chunks of campaigns with a rate, which hold a slot while they wait
RATED_SLICE_S = 15.0  # after which such a chunk lets others have its slot
RECONNECT = Backoff(first_s=0.1, cap_s=2.0)
RECONNECTS = 20  # longer than a lease: by then the chunk is somebody else's
STEP_RESULTS = 24  # a step is worth its statement from so many results on,
STEP_WAIT_S = 0.02  # or when the first of them has waited so long
_YIELD_EVERY = 8  # mails written before the sockets get their turn


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
        rate_limit: RateLimit,
        hostname: str,
        clock: Clock | None = None,
        random: Random | None = None,
        window: Window | None = None,
    ) -> None:
        self.database = database
        self.engine = engine
        self.transport = transport
        self.templates = templates
        self.rate_limit = rate_limit
        self.hostname = hostname
        self.clock = clock or SystemClock()
        self.random = random or Random()
        self.window = window or Window(limits.HANDOFF_WINDOW_BULK)
        self.progress = ProgressEvents(database=database, live=live)
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
                self.templates, self.hostname, job.workspace_id, campaign_id, row
            )
            place = Place(job.workspace_id, campaign_id, number, job)
            await ChunkRun(self, batch, place, row, mail).run()
        # Also for a chunk that was finished before: its worker may have died before this.
        if await self.database.fetchval(_SQL.finish_campaign, job.workspace_id, campaign_id):
            await self.progress.tell(job.workspace_id, campaign_id)


@dataclass(frozen=True, slots=True)
class Unsent:
    """Somebody whose turn comes and who gets no mail."""

    contact_id: UUID
    address: str
    state: DeliveryState
    why: str


@dataclass(frozen=True, slots=True)
class Place:
    """Which chunk, under which lease."""

    workspace_id: UUID
    campaign_id: UUID
    number: int
    job: LeasedJob


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
        self._mail = mail
        self._type: str = row["type"]
        self._rate: float | None = row["rate_per_s"]
        self._list_id: UUID = row["list_id"]
        self._first_started_at: datetime = row["first_started_at"]
        self._after: UUID = row["after_contact"]
        self._last: UUID = row["last_contact"]
        self._named: UUID | None = row["named_upto"]
        self._running = row["state"] == State.RUNNING
        self._contacts: list[asyncpg.Record] = []
        self._next_contact = 0
        self._ahead: list[Written | Unsent] = []  # not passed by `named_upto` yet
        self._rows = ChunkRows()
        self._away: dict[UUID, Written] = {}
        self._deferred: list[UUID] = []
        self._arrived = asyncio.Event()
        self._handed_off_at = sender.clock.now()
        self._abandoned = False
        self._counts: Counter[str] = Counter()
        self._counted_at = sender.clock.monotonic()

    async def run(self) -> None:
        """Send until everybody in the chunk is recorded, or the campaign no longer runs."""
        try:
            await self._load()
            if not self._running:
                await self._put_back()
                return
            if self._rate is not None:
                await self._run_rated()
                return
            await self._write_ahead(self._own.window.size)
            async with self._own.turn:
                await self._steps()
            await self._end()
        except StaleLease:
            return  # it is another worker's: what is recorded there is the truth
        finally:
            self._abandoned = True
            self._own.window.forget(len(self._away) + self._rows.handed_off)

    # Loading ----------------------------------------------------------------------------------

    async def _load(self) -> None:
        contacts = await self._own.database.fetch(
            _SQL.load_chunk,
            self._place.workspace_id,
            self._list_id,
            self._after,
            self._last,
            self._first_started_at,
        )
        if self._named is not None:
            upto = self._named
            lost = [contact for contact in contacts if contact["contact_id"] <= upto]
            contacts = contacts[len(lost) :]
            await self._take_over(lost)
        self._contacts = contacts

    async def _take_over(self, lost: list[asyncpg.Record]) -> None:
        """Whoever was named under an older token and has no row may have got the mail."""
        for contact in lost:
            delivery_id = self._mail.delivery_id(contact["address"])
            self._rows.add(
                delivery_id,
                contact["contact_id"],
                contact["address"],
                DeliveryState.UNKNOWN,
                None,
                "its worker died between handing it over and recording the answer",
                handed_off=False,
            )
        if lost:
            low, high = millisecond_range(self._mail.unix_ms)
            await self._commit(self._rows, None, 0)
            rows = await self._own.database.fetch(
                _SQL.find_deferred,
                self._place.workspace_id,
                low,
                high,
                self._rows.delivery_ids,
            )
            self._deferred += [row["id"] for row in rows]
            self._rows = ChunkRows()
        gone = await self._own.database.fetchval(
            _SQL.count_lost,
            self._place.workspace_id,
            self._place.campaign_id,
            self._place.number,
            self._place.job.token,
        )
        if gone:
            self._count(DeliveryState.UNKNOWN, gone)

    # Writing ----------------------------------------------------------------------------------

    async def _write_ahead(self, count: int) -> None:
        """Have up to `count` mails ready to be named, giving others their turn in between."""
        written = 0
        while len(self._ahead) < count and self._next_contact < len(self._contacts):
            self._write_one(self._contacts[self._next_contact])
            self._next_contact += 1
            written += 1
            if written % _YIELD_EVERY == 0:
                await asyncio.sleep(0)

    def _write_one(self, contact: asyncpg.Record) -> None:
        contact_id, address, name, attributes, suppressed = contact
        self._ahead.append(
            Unsent(contact_id, address, DeliveryState.SUPPRESSED, "the recipient is suppressed")
            if suppressed
            else self._written(contact_id, address, name, attributes)
        )

    def _written(
        self, contact_id: UUID, address: str, name: str, attributes: str
    ) -> Written | Unsent:
        try:
            return self._mail.write(
                contact_id, address, name, attributes, today(self._handed_off_at)
            )
        except InvalidInput as error:
            why = f"it cannot be written: {error}"
            return Unsent(contact_id, address, DeliveryState.FAILED, why)

    # Steps ------------------------------------------------------------------------------------

    @property
    def _all_named(self) -> bool:
        return not self._ahead and self._next_contact >= len(self._contacts)

    async def _steps(self) -> None:
        """Name, submit and record until everybody is named, or naming has to stop."""
        while not self._all_named and self._running and not self._batch.stopping.is_set():
            if not self._ahead:
                await self._write_ahead(self._own.window.size)
            if not self._worth_a_step():
                await self._wait()
                continue
            await self._step(self._own.window.size)

    def _worth_a_step(self) -> bool:
        waiting = self._rows.handed_off
        return waiting >= STEP_RESULTS or (
            not self._away and (waiting > 0 or self._own.window.room > 0)
        )

    async def _wait(self) -> None:
        """Until enough has come back for a step, or what has come back has waited long enough."""
        if not self._away:
            await self._own.window.opened()
            return
        while self._away and self._rows.handed_off < STEP_RESULTS:
            self._arrived.clear()
            if self._rows.handed_off:
                try:
                    async with asyncio.timeout(STEP_WAIT_S):
                        await self._arrived.wait()
                except TimeoutError:
                    await self._step(self._own.window.size)
                    return
            else:
                await self._arrived.wait()

    async def _step(self, at_most: int) -> None:
        """One statement of the window; mails are written ahead while it is under way."""
        rows, self._rows = self._rows, ChunkRows()
        mails = sum(isinstance(one, Written) for one in self._ahead[:at_most])
        step = self._own.window.begin(rows.handed_off, mails)
        count = self._count_for(step.named, at_most)
        upto = self._ahead[count - 1].contact_id if count else None
        self._settle_unsent(self._ahead[:count], rows)
        commit = asyncio.create_task(self._commit_surely(rows, upto, count, step))
        try:
            await self._write_ahead(count + self._own.window.size)
        finally:
            named_upto, state = await commit
        self._running = state == State.RUNNING
        if upto is None or named_upto != upto:
            self._own.window.forget(step.named)
            return
        self._named = named_upto
        self._handed_off_at = self._own.clock.now()
        leaving, self._ahead = self._ahead[:count], self._ahead[count:]
        self._submit(leaving)
        self._own.progress.touch(self._place.workspace_id, self._place.campaign_id)

    def _count_for(self, places: int, at_most: int) -> int:
        """How many of those ahead can be named with `places`: who gets no mail takes none."""
        count = 0
        for one in self._ahead[:at_most]:
            if isinstance(one, Written):
                if not places:
                    break
                places -= 1
            count += 1
        return count

    def _settle_unsent(self, passed: list[Written | Unsent], rows: ChunkRows) -> None:
        for one in passed:
            if isinstance(one, Unsent):
                delivery_id = self._mail.delivery_id(one.address)
                rows.add(
                    delivery_id,
                    one.contact_id,
                    one.address,
                    one.state,
                    None,
                    one.why,
                    handed_off=False,
                )

    def _submit(self, passed: list[Written | Unsent]) -> None:
        transport, away, done = self._own.transport, self._away, self._done
        leaving = [one for one in passed if isinstance(one, Written)]
        for written in leaving:
            away[written.delivery_id] = written
        for written in leaving:
            transport.submit(written.outgoing, done)

    def _done(self, handoff: Handoff) -> None:
        """The transport's answer for one recipient."""
        if self._abandoned:
            return
        written = self._away.pop(handoff.delivery_id)
        state = self._rows.answer(written, handoff)
        if state is DeliveryState.DEFERRED:
            self._deferred.append(handoff.delivery_id)
        self._arrived.set()

    # Committing -------------------------------------------------------------------------------

    async def _commit_surely(
        self, rows: ChunkRows, upto: UUID | None, passed: int, step: Step
    ) -> tuple[UUID | None, str]:
        """`_commit`, said again while PostgreSQL is away. Keeps the window's account."""
        failures = 0
        while True:
            try:
                answer = await self._commit(rows, upto, passed)
                break
            except BaseException as error:
                failures += 1
                if not isinstance(error, Unavailable) or failures >= RECONNECTS:
                    self._own.window.rolled_back(step)
                    self._own.window.forget(step.recorded)
                    raise
                await asyncio.sleep(RECONNECT.delay_s(failures, self._own.random))
        self._own.window.committed(step)
        return answer

    async def _commit(
        self, rows: ChunkRows, upto: UUID | None, passed: int
    ) -> tuple[UUID | None, str]:
        """The statement: (how far is named now, the campaign's state). Raises StaleLease."""
        place, now = self._place, self._own.clock.now()
        arguments = (
            place.workspace_id,
            place.campaign_id,
            place.number,
            place.job.token,
            upto,
            *rows.columns(),
            self._type,
            self._own.transport.name,
            self._handed_off_at,
            now + timedelta(seconds=RETRY_BACKOFF.delay_s(1, self._own.random)),
            passed,
        )
        if self._counts and self._own.clock.monotonic() - self._counted_at > COUNT_EVERY_S:
            async with self._own.database.transaction() as tx:
                row = await self._own.database.fetchrow(_SQL.step_chunk, *arguments, tx=tx)
                if row is not None:
                    await self._write_counts(tx)
            self._counts.clear()
            self._counted_at = self._own.clock.monotonic()
        else:
            row = await self._own.database.fetchrow(_SQL.step_chunk, *arguments)
        if row is None:
            raise StaleLease("the chunk was given to another worker")
        for state in STATES:
            if row[state]:
                self._count(state, row[state])
        return row["named_upto"], row["state"]

    def _count(self, state: str, recipients: int) -> None:
        self._counts[state] += recipients
        DELIVERIES.labels(EMAIL_BULK, state).inc(recipients)

    async def _write_counts(self, tx: Connection) -> None:
        """The counters of what was recorded since the last time: for rates, not for accounts."""
        place = self._place
        handed_off = sum(self._counts.values()) - self._counts["suppressed"]
        names = [f"delivery.{state}" for state in self._counts]
        await self._own.database.execute(
            _SENDING_SQL.insert_counter_deltas,
            [place.workspace_id] * (len(names) + 1),
            [*names, "campaign.handed_off"],
            [*[place.workspace_id] * len(names), place.campaign_id],
            [*self._counts.values(), handed_off],
            tx=tx,
        )

    # Ending -----------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Record whatever was named."""
        while self._away or len(self._rows):
            if self._away and self._rows.handed_off < min(STEP_RESULTS, len(self._away)):
                self._arrived.clear()
                if self._away:
                    await self._arrived.wait()
                continue
            await self._step(0)

    async def _end(self) -> None:
        """Nothing is to be named, or naming has to stop: record, then say how the chunk stands."""
        await self._drain()
        if self._all_named:
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
            if done and self._deferred:
                run_at = self._own.clock.now() + timedelta(
                    seconds=RETRY_BACKOFF.delay_s(1, self._own.random)
                )
                jobs = retry_jobs(
                    place.workspace_id, place.campaign_id, place.number, self._deferred, run_at
                )
                await self._own.engine.enqueue(jobs, tx)
            if done and self._counts:
                await self._write_counts(tx)
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

    async def _run_rated(self) -> None:
        """As the others, but every step takes its recipients from the campaign's bucket first."""
        if self._own.rated >= RATED_AT_ONCE:
            await self._give_back(1.0 + 2.0 * self._own.random.random())
            return
        self._own.rated += 1
        try:
            sliced = await self._rated_steps()
        finally:
            self._own.rated -= 1
        await self._drain()
        if sliced and self._running and not self._all_named:
            await self._give_back(0.0)
        else:
            await self._end()

    async def _rated_steps(self) -> bool:
        """Step by step within the rate; whether the slice of time ran out."""
        rate = self._rate or 1.0
        burst = max(1.0, rate / 4)
        until = self._own.clock.monotonic() + RATED_SLICE_S
        while not self._all_named and self._running and not self._batch.stopping.is_set():
            if self._own.clock.monotonic() > until:
                return True
            await self._write_ahead(self._own.window.size)
            room = self._own.window.room + self._rows.handed_off
            wanted = max(1, min(int(burst), room, len(self._ahead)))
            wait_s = await self._own.rate_limit.take(
                f"campaign:{self._place.campaign_id.hex}", wanted, rate, burst
            )
            if wait_s > 0 or room < 1:
                await asyncio.sleep(min(max(wait_s, 0.005), 1.0))
                if self._rows.handed_off:
                    await self._step(0)
                continue
            await self._step(wanted)
        return False
