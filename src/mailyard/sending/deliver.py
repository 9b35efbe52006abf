"""Delivering transactional mail: the handler of `deliver` jobs, one job an email.

    jobs -> [of jobs that come back: claimed] -> emails and open deliveries -> composed -> signed
         -> [named by a fenced commit] -> transport -> [results, events, job: one commit] …

The last two commits in brackets are one statement of the hand-off window, which records what came
back and names what goes next. A crash before it leaves everything as it was; after it, a named
recipient without a result is found `handed_off` under an older fence by whoever gets the job next.
The claim makes it `unknown`, and it is tried again, because a password reset that comes twice is
better than none. The claim puts everybody else under the new fence too: a stalled worker that wakes
up may have loaded the whole batch, and names nobody of it any more.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random
from uuid import UUID

from mailyard.bus.live import DELIVERY_CHANGED, LiveEvent, LiveEvents
from mailyard.core import ids, limits
from mailyard.core.backoff import Backoff
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import MailyardError, OutOfReach, Unavailable
from mailyard.observe import trace
from mailyard.observe.metrics import DELIVERIES
from mailyard.protocol.address import normalise
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.job import EMAIL_SEND, LeasedJob
from mailyard.sending import followed
from mailyard.sending.accept import DELIVER
from mailyard.sending.delivery import millisecond_range
from mailyard.sending.errand import Errand, OpenDelivery
from mailyard.sending.handoff import Window
from mailyard.sending.results import Conclusion, Results, clean, conclude
from mailyard.sending.return_path import ReturnPaths
from mailyard.sending.route.failover import TRIES_MAX
from mailyard.sending.sign import Signing
from mailyard.sending.states import State
from mailyard.sending.stored_content import StoredContents, is_outside, why_not
from mailyard.sending.suppress import ASK_AGAIN_S, Suppressions
from mailyard.sending.track.tracking import Tracking
from mailyard.sending.transport import TRANSACTIONAL, Chooser, Handoff, Outcome, Transport
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load
from mailyard.storage.raw_mail import IN_ROWS, RawMail

_SQL = load("sending")

RETRY = Backoff(first_s=30.0, cap_s=6 * 3600.0)
RECONNECT = Backoff(first_s=0.1, cap_s=2.0)
RECONNECTS = 20  # longer than a lease: by then the job is somebody else's
BATCH_JOBS = 50
CONCURRENCY = 2
_EARLY = timedelta(seconds=5)  # who would be due so soon is tried with those who are
_YIELD_EVERY = 8  # mails composed before other work of the loop gets its turn

Wanted = list[tuple[Errand, OpenDelivery]]


class Deliverer:
    """Hands transactional mail to `transport`. One a worker process, for its window is its own.

    `choose` says who of several behind `transport` is to have a mail: that is written down before
    the mail leaves, so that after a crash it goes to nobody else.
    """

    def __init__(
        self,
        *,
        database: Database,
        transport: Transport,
        signing: Signing,
        tracking: Tracking,
        live: LiveEvents,
        hostname: str,
        return_paths: ReturnPaths | None = None,
        choose: Chooser | None = None,
        raw_mail: RawMail = IN_ROWS,
        clock: Clock | None = None,
        random: Random | None = None,
        window: Window | None = None,
    ) -> None:
        self.contents = StoredContents(raw_mail)
        self.database = database
        self.transport = transport
        self.choose = choose
        self.signing = signing
        self.tracking = tracking
        self.live = live
        self.hostname = hostname
        self.return_paths = return_paths
        self.suppressions = Suppressions(database=database)
        self.clock = clock or SystemClock()
        self.random = random or Random()
        self.window = window or Window(limits.HANDOFF_WINDOW_SEND)

    def handler(self) -> Handler:
        """What the worker runs."""
        return Handler(DELIVER, EMAIL_SEND, self.handle, BATCH_JOBS, CONCURRENCY)

    async def handle(self, batch: Batch) -> None:
        """Deliver the emails of a batch; every job is settled in the commit of its results."""
        errands = await self._load(batch.jobs)
        for errand in errands:
            if errand.later is not None:
                await batch.fail([errand.job], errand.later)
        errands = [errand for errand in errands if errand.later is None]
        run = _Run(self, batch, errands)
        try:
            await run.end_early()
            await run.hand_off()
        finally:
            run.abandon()

    async def _load(self, jobs: Sequence[LeasedJob]) -> list[Errand]:
        now = self.clock.now()
        errands = {UUID(bytes=job.payload): self._errand(job, now) for job in jobs}
        wanted = sorted(errands)
        emails = await self.database.fetch(
            _SQL.load_emails,
            wanted,
            [errands[email_id].workspace_id for email_id in wanted],
            wanted[0],
            wanted[-1],
        )
        low, _ = millisecond_range(ids.unix_ms_of(wanted[0]))
        _, high = millisecond_range(ids.unix_ms_of(wanted[-1]))
        await self._claim(jobs, low, high)
        rows = await self.database.fetch(_SQL.load_open_deliveries, wanted, low, high)
        for row in rows:
            errand = errands[row["email_id"]]
            if row["workspace_id"] == errand.workspace_id and row["fence"] <= errand.job.token:
                again_at = row["next_attempt_at"]
                if row["state"] == State.DEFERRED and again_at and again_at > now + _EARLY:
                    errand.comes_again(again_at)  # another recipient's turn has come
                    continue
                one = OpenDelivery(
                    row["id"],
                    row["recipient"],
                    row["suppressed"],
                    row["type"],
                    row["may_have_it"] or "",
                )
                errand.waiting.append(one)
        for index, email in enumerate(emails):
            errand = errands[email["id"]]
            errand.expires_at = email["expires_at"]
            if errand.waiting and is_outside(email["content"]):
                await self._prepare_outside(errand, email["content"])
            elif errand.waiting:
                errand.prepare(email["content"], self.hostname)
            if index % _YIELD_EVERY == _YIELD_EVERY - 1:
                await asyncio.sleep(0)
        for errand in errands.values():
            nothing = errand.mail is None and not errand.gave_up and errand.later is None
            if errand.waiting and nothing:
                errand.gave_up = "its content is gone"
        await self._follow([errand for errand in errands.values() if errand.followed is not None])
        await self._sign([errand for errand in errands.values() if errand.mail is not None])
        return list(errands.values())

    async def _prepare_outside(self, errand: Errand, stored: bytes) -> None:
        """A mail whose content lies in the blob store waits for it, however long that is away."""
        try:
            content = await self.contents.whole(stored)
        except MailyardError as error:
            if isinstance(error, OutOfReach) or not errand.is_last_attempt:
                errand.later = error
            else:
                errand.gave_up = why_not(error)
        else:
            errand.prepare(content, self.hostname)

    async def _follow(self, followed: Sequence[Errand]) -> None:
        """Store the addresses of mails whose clicks are followed, before any of them leaves."""
        for errand in followed:
            assert errand.followed is not None
            track = errand.followed.track
            errand.page = await self.tracking.of_email(
                errand.workspace_id,
                errand.followed.sender,
                errand.followed.html,
                opens=track.opens,
                clicks=track.clicks,
            )

    async def _sign(self, composed: Sequence[Errand]) -> None:
        """Sign the mails of senders whose domains are set up."""
        senders = [errand.sender for errand in composed]
        signers = await self.signing.signers_of(senders)
        signed = 0
        for errand, sender in zip(composed, senders, strict=True):
            errand.return_domain = self.signing.return_domain(*sender)
            if signers[sender]:
                errand.sign(signers[sender], self.clock.now())
                signed += 1
                if signed % _YIELD_EVERY == 0:
                    await asyncio.sleep(0)

    async def _claim(self, jobs: Sequence[LeasedJob], low: UUID, high: UUID) -> None:
        """Leave whoever had these jobs before nothing to name. A first lease has nobody before."""
        again = [job for job in jobs if job.turn]
        if again:
            await self.database.execute(
                _SQL.claim_open_deliveries,
                [UUID(bytes=job.payload) for job in again],
                low,
                high,
                [job.token for job in again],
                [job.workspace_id for job in again],
            )

    def _errand(self, job: LeasedJob, now: datetime) -> Errand:
        if job.workspace_id is None:
            raise AssertionError("a deliver job carries its workspace")
        delay_s = RETRY.delay_s(job.attempt, self.random)
        return Errand(
            job=job,
            workspace_id=job.workspace_id,
            email_id=UUID(bytes=job.payload),
            next_attempt_at=now + timedelta(seconds=delay_s),
        )


class _Run:
    """One batch on its way through the window."""

    def __init__(self, deliverer: Deliverer, batch: Batch, errands: list[Errand]) -> None:
        self._own = deliverer
        self._batch = batch
        self._errands = errands  # those whose jobs are not settled yet
        self._of = {one.id: errand for errand in errands for one in errand.waiting}
        self._ones = {one.id: one for errand in errands for one in errand.waiting}
        self._chosen: dict[UUID, str] = {}
        self._refused: dict[UUID, tuple[str, ...]] = {}  # who has, in this attempt
        self._spans: dict[UUID, list[trace.Span]] = {}
        self._results = Results()
        self._arrived = asyncio.Event()
        self._away = 0
        self._abandoned = False
        self._asked_at = deliverer.clock.monotonic()  # who is suppressed
        if not all(one.recipient.isascii() for one in self._ones.values()):
            self._asked_at -= 2 * ASK_AGAIN_S  # PostgreSQL has compared what was not normalised

    async def end_early(self) -> None:
        """End what is not to be handed over: expired, suppressed, impossible to compose."""
        now = self._own.clock.now()
        ended: list[tuple[UUID, int, str, str]] = []
        for errand in self._errands:
            for one in list(errand.waiting):
                end = errand.early_end(one, now)
                if end is not None:
                    errand.waiting.remove(one)
                    ended.append((one.id, errand.job.token, end[0].value, end[1]))
        if not ended:
            return
        delivery_ids = [row[0] for row in ended]
        async with self._own.database.transaction() as tx:
            rows = await self._own.database.fetch(
                _SQL.settle_deliveries,
                min(delivery_ids),
                max(delivery_ids),
                *map(list, zip(*ended, strict=True)),
                tx=tx,
            )
            await self._tell([(row["id"], row["state"]) for row in rows], tx)
        self._own.live.announced()

    async def hand_off(self) -> None:
        """Name, submit and record until every job of the batch is settled."""
        while self._errands:
            if self._some_ran_out() or await self._some_were_suppressed():
                await self.end_early()
            wanted = self._next()
            if wanted or self._results or any(errand.finished for errand in self._errands):
                await self._step(wanted)
            elif self._away:
                self._arrived.clear()
                await self._arrived.wait()
            elif self._batch.stopping.is_set():
                await self._batch.release([errand.job for errand in self._errands])
                return
            else:
                await self._own.window.opened()

    def abandon(self) -> None:
        """This run ends: what it has not recorded is found unrecorded by whoever comes next."""
        self._abandoned = True
        self._own.window.forget(self._away + len(self._results))

    def _some_ran_out(self) -> bool:
        """Whether somebody's time ran out while he waited for his turn."""
        timed = [one for one in self._errands if one.expires_at is not None and one.waiting]
        if not timed:
            return False
        now = self._own.clock.now()
        return any(one.expires_at is not None and one.expires_at <= now for one in timed)

    async def _some_were_suppressed(self) -> bool:
        """Whether mail to somebody who still waits was stopped meanwhile."""
        now_s = self._own.clock.monotonic()
        if now_s - self._asked_at < ASK_AGAIN_S:
            return False
        self._asked_at = now_s
        asked = {
            one.id: (errand.workspace_id, normalise(one.recipient))
            for errand in self._errands
            for one in errand.waiting
        }
        stopped = await self._own.suppressions.check_many(asked.values())
        if not stopped:
            return False
        for errand in self._errands:
            errand.waiting = [
                replace(one, suppressed=asked[one.id] in stopped) for one in errand.waiting
            ]
        return True

    def _next(self) -> Wanted:
        """What is to be named in the next step, as far as there is room for it."""
        if self._batch.stopping.is_set():
            return []
        places = self._own.window.room + len(self._results)
        recorded = set(self._results.delivery_ids) if self._refused else ()
        chosen: Wanted = []
        for errand in self._errands:
            for one in errand.waiting:
                if len(chosen) >= places:
                    return chosen
                if one.id not in recorded:  # a row is not recorded and named by one statement
                    self._chosen[one.id] = self._choice(errand, one)
                    chosen.append((errand, one))
        return chosen

    def _choice(self, errand: Errand, one: OpenDelivery) -> str:
        """Who is to have the mail; empty where nothing is to be chosen, or nobody can have it."""
        if one.may_have_it or self._own.choose is None:
            return one.may_have_it
        return self._own.choose(
            errand.workspace_id,
            TRANSACTIONAL,
            one.type,
            one.recipient,
            self._refused.get(one.id, ()),
        )

    async def _step(self, wanted: Wanted) -> None:
        """One commit of the window, then the mails of those it named."""
        results, self._results = self._results, Results()
        step = self._own.window.begin(len(results), len(wanted))
        wanted = wanted[: step.named]
        failures = 0
        while True:
            try:
                named = await self._commit(results, wanted)
                break
            except BaseException as error:
                failures += 1
                if not isinstance(error, Unavailable) or failures >= RECONNECTS:
                    self._own.window.rolled_back(step)
                    self._own.window.forget(step.recorded)
                    raise
                # The commit may have happened: the statement says the same again, and does not
                # repeat what is done.
                await asyncio.sleep(RECONNECT.delay_s(failures, self._own.random))
        self._own.window.committed(step)
        self._own.window.forget(step.named - len(named))
        self._own.live.announced()
        self._submit(wanted, named)

    async def _commit(self, results: Results, wanted: Wanted) -> set[UUID]:
        """One transaction: results, names, events, counters, and the jobs that are done."""
        touched = [*results.delivery_ids, *(one.id for _, one in wanted)]
        finished = [errand for errand in self._errands if errand.finished]
        named: set[UUID] = set()
        async with self._own.database.transaction() as tx:
            if touched:
                rows = await self._own.database.fetch(
                    _SQL.step_deliveries,
                    min(touched),
                    max(touched),
                    *results.columns(),
                    [one.id for _, one in wanted],
                    [errand.job.token for errand, _ in wanted],
                    [self._chosen[one.id] for _, one in wanted],
                    True,
                    tx=tx,
                )
                named = {row["id"] for row in rows if row["what"] == "named"}
                recorded = [(row["id"], row["state"]) for row in rows if row["what"] == "recorded"]
                await self._tell(recorded, tx)
                if results.refusals:
                    written = {delivery_id for delivery_id, _ in recorded}
                    await results.refusals.tell(self._own.database, tx, written)
            await self._settle(finished, tx)
        self._errands = [errand for errand in self._errands if errand not in finished]
        return named

    async def _tell(self, changed: list[tuple[UUID, str]], tx: Connection) -> None:
        """Counters and live events of deliveries that have a new state."""
        if not changed:
            return
        counts: Counter[tuple[UUID, str]] = Counter()
        events: list[LiveEvent] = []
        at = self._own.clock.now().isoformat()
        for delivery_id, state in changed:
            errand = self._of[delivery_id]
            counts[errand.workspace_id, f"delivery.{state}"] += 1
            DELIVERIES.labels(EMAIL_SEND, state).inc()
            item = {
                "delivery_id": ids.type_id(ids.DELIVERY, delivery_id),
                "email_id": ids.type_id(ids.EMAIL, errand.email_id),
                "state": state,
                "at": at,
            }
            events.append(LiveEvent(errand.workspace_id, DELIVERY_CHANGED, item))
        await self._own.database.execute(
            _SQL.insert_counter_deltas,
            [workspace_id for workspace_id, _ in counts],
            [name for _, name in counts],
            [workspace_id for workspace_id, _ in counts],
            list(counts.values()),
            tx=tx,
        )
        await self._own.live.publish(events, tx)

    async def _settle(self, finished: list[Errand], tx: Connection) -> None:
        """The jobs whose recipients all have their answers."""
        done = [errand.job for errand in finished if not errand.again_at and not errand.gave_up]
        if done:
            await self._batch.complete(done, tx)
        for errand in finished:
            if errand.again_at is not None:
                delay_s = max(0.0, (errand.again_at - self._own.clock.now()).total_seconds())
                if errand.tried and not errand.is_last_attempt:
                    reason = "some recipients are deferred"
                    await self._batch.retry([errand.job], delay_s, reason, tx)
                else:
                    await self._batch.release([errand.job], delay_s, tx)
            elif errand.gave_up:
                await self._batch.bury([errand.job], errand.gave_up, tx)

    def _submit(self, wanted: Wanted, named: set[UUID]) -> None:
        leaving: dict[tuple[UUID, str], tuple[Errand, list[OpenDelivery]]] = {}
        for errand, one in wanted:
            errand.waiting.remove(one)
            if one.id in named:  # else it was cancelled, or is somebody else's now
                errand.away.add(one.id)
                together = errand.email_id, self._chosen[one.id]
                leaving.setdefault(together, (errand, []))[1].append(one)
        self._away += len(named)
        for (_, only), (errand, recipients) in leaving.items():
            if marks := self._batch.marks_of(errand.job):
                self._begin_spans(marks, recipients)
            for mail in errand.mails(recipients, self._own.return_paths, only):
                self._own.transport.submit(mail, self._done)

    def _begin_spans(self, marks: bytes, recipients: list[OpenDelivery]) -> None:
        """From here until the peer's answer; whom a mail is for is said by its domain alone."""
        for one in recipients:
            self._spans[one.id] = followed.begin(marks, one.id, one.recipient)

    def _done(self, handoff: Handoff) -> None:
        """The transport's answer for one recipient."""
        if self._abandoned:
            return
        errand = self._of[handoff.delivery_id]
        followed.end(self._spans.pop(handoff.delivery_id, []), handoff)
        self._away -= 1
        if self._goes_elsewhere(errand, handoff):
            now = self._own.clock.now()
            reply = clean(handoff.reply)
            conclusion = Conclusion(
                State.DEFERRED, handoff.reply_code, reply, now, tried=handoff.tried
            )
            errand.away.discard(handoff.delivery_id)
            errand.waiting.append(self._ones[handoff.delivery_id])
        else:
            conclusion = conclude(
                handoff, errand.next_attempt_at, errand.expires_at, errand.is_last_attempt
            )
            errand.came_back(handoff.delivery_id, conclusion)
            recipient = self._ones[handoff.delivery_id].recipient
            self._results.refusals.add(errand.workspace_id, recipient, handoff)
        self._results.add(handoff.delivery_id, errand.job.token, conclusion, handoff.transport)
        self._arrived.set()

    def _goes_elsewhere(self, errand: Errand, handoff: Handoff) -> bool:
        """Whether somebody else can have at once what certainly was not taken."""
        one, chosen = self._ones[handoff.delivery_id], self._chosen[handoff.delivery_id]
        if not handoff.route_fault or not chosen or one.may_have_it:
            return False
        if handoff.outcome not in (Outcome.LATER, Outcome.NEVER):
            return False
        refused = (*self._refused.get(one.id, ()), chosen)
        if len(refused) >= TRIES_MAX:
            return False
        self._refused[one.id] = refused
        return bool(self._choice(errand, one))
