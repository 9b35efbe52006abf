"""Applying providers' events: the job `provider-events`.

Each body is read, each event brought to its delivery (by our id, which the provider brings back, or
by the provider's own, which stands in the accepted answer) and written into its story. Events of
mail that is not ours, or not this workspace's, change nothing. An event may be faster than the
commit of the hand-over that it is about: then it is told again a little later.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import structlog
from msgspec import Struct

from mailyard.core import ids
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import InvalidInput, Unavailable
from mailyard.observe.metrics import PROVIDER_EVENTS_TOTAL
from mailyard.protocol.address import normalise
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.engine import Engine
from mailyard.queue.job import EMAIL_EVENTS, LeasedJob, NewJob
from mailyard.sending.returns.hook import ProviderHooks
from mailyard.sending.returns.hooks import ses
from mailyard.sending.returns.hooks.judge import occurrence_of
from mailyard.sending.returns.hooks.kinds import kind_of
from mailyard.sending.returns.hooks.told import Told, Unreadable, document
from mailyard.sending.returns.occurrence import Occurrence
from mailyard.sending.returns.record import Recorder
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("returns")
_LOG = structlog.get_logger(__name__)

PROVIDER_EVENTS = "provider-events"
LATER_S = (1.0, 10.0, 120.0)  # when an event is told again whose delivery is not there yet
SEARCHED = timedelta(days=60)  # how old mail may be that only the provider's id names
_JOBS_PER_BATCH = 10
_CONCURRENCY = 2
_EVENTS_AT_ONCE = 1_000  # in one transaction
_YIELD_EVERY = 50
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Confirm = Callable[[str], Awaitable[int]]
"""Asks a URL, once; the status of the answer. Raises MailyardError."""


class Bodies(Struct, frozen=True, tag="bodies"):
    """Requests of one endpoint as they came: (when, in ms since 1970; the body)."""

    hook_id: bytes
    kind: str
    bodies: list[tuple[int, bytes]]


class Early(Struct, frozen=True, tag="early"):
    """Events of one endpoint whose deliveries were not there, after so many tries."""

    hook_id: bytes
    kind: str
    events: list[Told]
    tries: int


_DECODER = msgspec.msgpack.Decoder(Bodies | Early)
encode = msgspec.msgpack.Encoder().encode


class ProviderEvents:
    """Handles `provider-events` jobs. `confirm` asks the address at which SNS waits for a yes."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        recorder: Recorder,
        hooks: ProviderHooks,
        confirm: Confirm,
        clock: Clock | None = None,
    ) -> None:
        self._database = database
        self._engine = engine
        self._recorder = recorder
        self._hooks = hooks
        self._confirm = confirm
        self._clock = clock or SystemClock()

    def handler(self) -> Handler:
        """What the worker runs."""
        return Handler(PROVIDER_EVENTS, EMAIL_EVENTS, self.handle, _JOBS_PER_BATCH, _CONCURRENCY)

    async def handle(self, batch: Batch) -> None:
        """Apply the events of a batch, each job in a transaction of its own."""
        for job in batch.jobs:
            if batch.stopping.is_set():
                await batch.release([job])
                continue
            try:
                await self._apply_or_part(batch, job)
            except Exception as error:
                await batch.fail([job], error)

    async def _apply_or_part(self, batch: Batch, job: LeasedJob) -> None:
        try:
            work = _DECODER.decode(job.payload)
        except msgspec.DecodeError as error:
            await batch.bury([job], f"the payload is not what the intake writes: {error}")
            return
        try:
            await self._apply(batch, job, work)
        except Unreadable as error:
            if isinstance(work, Bodies) and len(work.bodies) > 1:
                await self._divide(batch, job, work)
            else:
                await batch.bury([job], f"the provider's request cannot be read: {error}")

    async def _apply(self, batch: Batch, job: LeasedJob, work: Bodies | Early) -> None:
        assert job.workspace_id is not None, "an endpoint belongs to a workspace"
        tries = 0
        if isinstance(work, Bodies):
            events = await self._events(job.workspace_id, work)
        else:
            events, tries = work.events, work.tries
        found, early = await self._matched(job.workspace_id, work.kind, events)
        last = tries >= len(LATER_S)
        async with self._database.transaction() as tx:
            if not await batch.complete([job], tx):
                return
            for at in range(0, len(found), _EVENTS_AT_ONCE):
                part = found[at : at + _EVENTS_AT_ONCE]
                unwritten = await self._recorder.record([one for one, _ in part], tx, last=last)
                keys = {(one.delivery_id, one.key) for one in unwritten}
                early += [told for one, told in part if (one.delivery_id, one.key) in keys]
            if early and not last:
                again = Early(work.hook_id, work.kind, early, tries + 1)
                await self._engine.enqueue([self._later(job.workspace_id, again)], tx)
        self._recorder.announced()
        PROVIDER_EVENTS_TOTAL.labels(work.kind, "applied").inc(len(events) - len(early))
        if early and last:
            PROVIDER_EVENTS_TOTAL.labels(work.kind, "no such delivery").inc(len(early))

    async def _divide(self, batch: Batch, job: LeasedJob, work: Bodies) -> None:
        """A body among them cannot be read: each gets a job of its own."""
        alone = [encode(Bodies(work.hook_id, work.kind, [body])) for body in work.bodies]
        async with self._database.transaction() as tx:
            await batch.divide(job, alone, tx)

    def _later(self, workspace_id: UUID, early: Early) -> NewJob:
        return NewJob(
            queue=EMAIL_EVENTS,
            kind=PROVIDER_EVENTS,
            payload=encode(early),
            workspace_id=workspace_id,
            run_at=self._clock.now() + timedelta(seconds=LATER_S[early.tries - 1]),
        )

    async def _events(self, workspace_id: UUID, work: Bodies) -> list[Told]:
        kind = kind_of(work.kind)
        events: list[Told] = []
        for count, (at_ms, body) in enumerate(work.bodies, 1):
            if work.kind == "ses":
                await self._confirm_subscription(workspace_id, UUID(bytes=work.hook_id), body)
            events += kind.read(body, _EPOCH + timedelta(milliseconds=at_ms))
            if count % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
        return events

    async def _confirm_subscription(self, workspace_id: UUID, hook_id: UUID, body: bytes) -> None:
        """SNS sends nothing to an address that has not said yes. Its message was signed."""
        if b"SubscribeURL" not in body:
            return
        url = ses.subscribe_url(document(body))
        if not url:
            return
        status = await self._confirm(url)
        if status != 200:
            raise Unavailable(f"SNS answers {status} to the confirmation")
        await self._hooks.confirmed(workspace_id, hook_id)
        _LOG.info("subscription confirmed", hook=ids.type_id(ids.PROVIDER_HOOK, hook_id))

    async def _matched(
        self, workspace_id: UUID, source: str, events: Sequence[Told]
    ) -> tuple[list[tuple[Occurrence, Told]], list[Told]]:
        """The events with their deliveries, and those for which there is none now."""
        found: list[tuple[Occurrence, Told]] = []
        by_provider_id: list[Told] = []
        for told in events:
            delivery_id = _own_id(told.delivery)
            if delivery_id is not None:
                one = occurrence_of(told, source, delivery_id, workspace_id)
                found.append((one, told))
            elif told.provider_id:
                by_provider_id.append(told)
            if len(found) % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
        if not by_provider_id:
            return found, []
        rows = await self._database.fetch(
            _SQL.find_by_provider_id,
            workspace_id,
            list({told.provider_id for told in by_provider_id}),
            ids.lowest_at(self._clock.now() - SEARCHED),
        )
        known: dict[str, list[tuple[UUID, str]]] = {}
        for row in rows:
            known.setdefault(row["provider_id"], []).append((row["id"], row["recipient"]))
        early: list[Told] = []
        for told in by_provider_id:
            delivery_id = _theirs(known.get(told.provider_id, ()), told.recipient)
            if delivery_id is None:
                early.append(told)
            else:
                found.append((occurrence_of(told, source, delivery_id, workspace_id), told))
        return found, early


def _own_id(text: str) -> UUID | None:
    if not text:
        return None
    try:
        return ids.parse_type_id(ids.DELIVERY, text)
    except InvalidInput:
        return None


def _theirs(deliveries: Sequence[tuple[UUID, str]], recipient: str) -> UUID | None:
    """Of the deliveries that share a provider's id, that of the recipient; the only one, where the
    provider names none."""
    if len(deliveries) == 1 and not recipient:
        return deliveries[0][0]
    for delivery_id, address in deliveries:
        if _normal(address) == _normal(recipient):
            return delivery_id
    return None


def _normal(address: str) -> str:
    try:
        return normalise(address)
    except InvalidInput:
        return address.lower()
