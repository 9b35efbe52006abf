"""The job `webhook-tell`, lane webhooks: empties the line of one endpoint.

One job an endpoint, so that its order and its concurrency are one process's to keep, and a dead
endpoint has one place at most. A job works for a few seconds; what is left then goes to the end of
the lane, behind other endpoints. Endpoints that fail or answer late share a limited number of
places in the lane, so the others always find one.

Telling is at least once: between a request and its record a process may die, and the same event
with the same id is told again. The record is fenced by the number of the attempt.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import datetime, timedelta
from random import Random
from uuid import UUID

import asyncpg
import msgspec
import structlog

from mailyard.bus.live import WEBHOOK_DISABLED, LiveEvent, LiveEvents
from mailyard.core import ids
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import MailyardError, NotFound
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.engine import Engine
from mailyard.queue.job import WEBHOOKS, LeasedJob
from mailyard.storage.database import Connection, Database
from mailyard.webhooks.call import Caller, Event
from mailyard.webhooks.endpoint import SQL, Secret, Webhook, Webhooks
from mailyard.webhooks.fan_out import TELL, job_of
from mailyard.webhooks.health import Health, after
from mailyard.webhooks.notice import Disabled
from mailyard.webhooks.notice import job as notice_of
from mailyard.webhooks.policy import KEPT_S, Outcome, retry_after_s
from mailyard.webhooks.record import Recorder, Tried, Waiting

PLACES = 96  # endpoints that one worker tells at once
_SLICE_S = 5.0  # of work on one line before others have their turn
_ROUND = 100  # deliveries that are read, and recorded, together at most
_ROUNDS_OF_CONCURRENCY = 8
_LOG = structlog.get_logger(__name__)


class Teller:
    """Handles `webhook-tell` jobs."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        webhooks: Webhooks,
        caller: Caller,
        live: LiveEvents,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        self._database = database
        self._engine = engine
        self._webhooks = webhooks
        self._caller = caller
        self._live = live
        self._clock = clock or SystemClock()
        self._random = random or Random()
        self._recorder = Recorder(database=database)

    def handler(self) -> Handler:
        """What a worker needs to run this."""
        return Handler(kind=TELL, queue=WEBHOOKS, handle=self.handle, concurrency=PLACES)

    async def handle(self, batch: Batch) -> None:
        """Work on one line for a while, then say when it is due again."""
        (job,) = batch.jobs
        assert job.workspace_id is not None, "an endpoint belongs to a workspace"
        try:
            webhook = await self._webhooks.get(job.workspace_id, UUID(bytes=job.payload))
        except NotFound:
            return  # removed: its line went with it
        if not webhook.enabled:
            return
        health = await self._work(webhook, batch)
        await self._finish(webhook, health, job, batch)

    async def _work(self, webhook: Webhook, batch: Batch) -> Health:
        keys = await self._webhooks.secrets(webhook.workspace_id, webhook.id)
        health = Health(webhook.failures, webhook.failing_since, slow=webhook.slow)
        until_s = self._clock.monotonic() + _SLICE_S
        while not batch.stopping.is_set() and self._clock.monotonic() < until_s:
            line = await self._next(webhook, probing=health.probing)
            if not line:
                break
            run = _Run(self, webhook, keys, line, health, batch, until_s)
            tried = await run.finished()
            await self._recorder.record(
                webhook.workspace_id, [self._settled(one) for one in tried], self._clock.now()
            )
            if run.failed is not None:
                raise run.failed
            health = after(health, [one.attempt for one in tried], self._random)
            if health.stops or (webhook.ordered and run.halted) or len(tried) < len(line):
                break
        return health

    async def _next(self, webhook: Webhook, *, probing: bool) -> Sequence[Waiting]:
        """What to tell now; one alone while nobody knows whether the endpoint is back."""
        now = self._clock.now()
        count = 1 if probing else min(_ROUND, webhook.concurrency * _ROUNDS_OF_CONCURRENCY)
        if not webhook.ordered:
            rows = await self._database.fetch(SQL.due, webhook.workspace_id, webhook.id, now, count)
            return [_waiting(row) for row in rows]
        rows = await self._database.fetch(SQL.front, webhook.workspace_id, webhook.id, count)
        if rows and rows[0]["due_at"] > now:
            return []  # the first waits, and so all do
        return [_waiting(row) for row in rows]

    def _settled(self, one: Tried) -> Tried:
        """With what becomes of the delivery."""
        if one.attempt.verdict.outcome is Outcome.TAKEN:
            return msgspec.structs.replace(one, state="delivered")
        tries = one.waiting.attempts + 1 - one.waiting.attempts_before
        again_s = retry_after_s(tries, self._random)
        if again_s is None:
            return msgspec.structs.replace(one, state="dead")
        return msgspec.structs.replace(
            one, state="waiting", due_at=self._clock.now() + timedelta(seconds=again_s)
        )

    def monotonic(self) -> float:
        return self._clock.monotonic()

    async def tell(self, webhook: Webhook, keys: Sequence[Secret], waiting: Waiting) -> Tried:
        """One request for one delivery."""
        event = Event(
            waiting.event, waiting.kind, waiting.happened_at, msgspec.json.decode(waiting.item)
        )
        attempt = await self._caller.call(webhook.workspace_id, webhook, keys, event)
        return Tried(waiting, attempt)

    async def _finish(self, webhook: Webhook, health: Health, job: LeasedJob, batch: Batch) -> None:
        """Write how the endpoint fares, and see to it that what is left has its turn.

        Under the endpoint's lock: whoever fills its line waits, or is seen here.
        """
        now = self._clock.now()
        why = health.given_up(now) if health.failures > webhook.failures else ""
        async with self._database.transaction() as tx:
            held = await self._database.fetchrow(
                SQL.hold_webhook, webhook.workspace_id, webhook.id, tx=tx
            )
            if not await batch.complete([job], tx):
                return  # another worker has it by now, and writes what it found
            if held is None or not held["enabled"]:
                return
            if why:
                await self._disable(webhook, why, now, tx)
            else:
                await self._go_on(webhook, health, now, tx)
        if why:
            self._live.announced()

    async def _go_on(self, webhook: Webhook, health: Health, now: datetime, tx: Connection) -> None:
        if health.failures:
            await self._database.execute(
                SQL.bury_line,
                webhook.workspace_id,
                webhook.id,
                now - timedelta(seconds=KEPT_S),
                now,
                f"the endpoint took nothing for {KEPT_S / 86_400:.0f} days",
                tx=tx,
            )
        due: datetime | None = await self._database.fetchval(
            SQL.next_due, webhook.workspace_id, webhook.id, webhook.ordered, tx=tx
        )
        rests_until = health.rests_until(now)
        if due is not None and rests_until is not None:
            due = max(due, rests_until)
        at_once = due is not None and due <= now
        await self._database.execute(
            SQL.set_health,
            webhook.workspace_id,
            webhook.id,
            health.failures,
            health.failing_since,
            rests_until,
            health.slow,
            None if at_once else due,
            health.told_at,
            tx=tx,
        )
        if at_once:
            again = job_of(webhook.workspace_id, webhook.id, slow=health.in_slow_lane)
            await self._engine.enqueue([again], tx)

    async def _disable(self, webhook: Webhook, why: str, now: datetime, tx: Connection) -> None:
        place = (webhook.workspace_id, webhook.id)
        await self._database.fetchval(SQL.disable, *place, why, now, tx=tx)
        await self._database.execute(
            SQL.bury_line, *place, now + timedelta(days=1), now, "the webhook was disabled", tx=tx
        )
        item = {
            "webhook_id": ids.type_id(ids.WEBHOOK, webhook.id),
            "name": webhook.name,
            "why": why,
            "at": now.isoformat(),
        }
        await self._live.publish([LiveEvent(webhook.workspace_id, WEBHOOK_DISABLED, item)], tx)
        disabled = Disabled(webhook.id, webhook.name, webhook.url, why, item["at"])
        await self._engine.enqueue([notice_of(webhook.workspace_id, disabled)], tx)
        _LOG.warning("webhook.disabled", webhook=item["webhook_id"], why=why)


class _Run:
    """A round of requests: `concurrency` at a time, or one after the other in order. It stops early
    when the endpoint is away, when an ordered one has refused, at the end of the slice."""

    def __init__(
        self,
        teller: Teller,
        webhook: Webhook,
        keys: Sequence[Secret],
        line: Sequence[Waiting],
        health: Health,
        batch: Batch,
        until_s: float,
    ) -> None:
        self._teller = teller
        self._webhook = webhook
        self._keys = keys
        self._line = deque(line)
        self._batch = batch
        self._until_s = until_s
        self._tried: list[Tried] = []
        self._halting = {Outcome.AWAY, Outcome.GONE}
        if webhook.ordered:
            self._halting.add(Outcome.REFUSED)
        self._at_once = 1 if webhook.ordered or health.probing else webhook.concurrency
        self.halted = False
        self.failed: MailyardError | None = None  # of ours: what was tried is recorded all the same

    async def finished(self) -> Sequence[Tried]:
        """What was tried, in the order in which it ended."""
        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._at_once, len(self._line))):
                group.create_task(self._one_after_the_other())
        return self._tried

    async def _one_after_the_other(self) -> None:
        while self._line and not self.halted and not self._batch.stopping.is_set():
            try:
                tried = await self._teller.tell(self._webhook, self._keys, self._line.popleft())
            except MailyardError as error:
                self.halted, self.failed = True, error
                return
            self._tried.append(tried)
            outcome = tried.attempt.verdict.outcome
            if outcome in (Outcome.AWAY, Outcome.GONE) or (
                outcome is Outcome.REFUSED and self._webhook.ordered
            ):
                self.halted = True
            if self._teller.monotonic() >= self._until_s:
                return


def _waiting(row: asyncpg.Record) -> Waiting:
    return Waiting(
        row["id"],
        row["event"],
        row["kind"],
        row["item"],
        row["happened_at"],
        row["attempts"],
        row["attempts_before"],
    )
