"""What recipients say through the links in their mail: stop, this topic not, that one again.

Whoever has the mail may say so: the link's token names the delivery, and the delivery its address.
One click (RFC 8058) leaves the topic that the campaign was about; a campaign without a topic, or a
mail that is none of a campaign, is left by a suppression of the stream `campaign`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from mailyard.access.audit import Actor, Audit, Change
from mailyard.campaigns.topic import Choice, Topics
from mailyard.core import ids
from mailyard.core.clock import Clock, SystemClock
from mailyard.protocol.address import normalise
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.engine import Engine
from mailyard.queue.job import EMAIL_EVENTS, NewJob
from mailyard.sending import suppress
from mailyard.sending.suppress import Suppressions
from mailyard.sending.track.judge import UNSUBSCRIBED
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("topic")
_TRACKING_SQL = load("tracking")
_SENDING_SQL = load("sending")

REASON = suppress.Reason.UNSUBSCRIBED.value
UNSUBSCRIBE = "unsubscribe"
_AGAIN_S = 5.0
_JOB_ATTEMPTS = 12


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a mail, and what it was about."""

    workspace_id: UUID
    delivery_id: UUID
    address: str
    workspace: str
    campaign_id: UUID | None
    topic_id: UUID | None
    topic: str | None


@dataclass(frozen=True, slots=True)
class Preferences:
    """What an address gets. `stopped`: no campaign at all; `by_others`: and not by its own word."""

    stopped: bool
    by_others: bool
    choices: Sequence[Choice]


class PreferenceCenter:
    """Reads and keeps what recipients say."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        suppressions: Suppressions,
        topics: Topics,
        audit: Audit,
        clock: Clock | None = None,
    ) -> None:
        self._database = database
        self._engine = engine
        self._suppressions = suppressions
        self._topics = topics
        self._audit = audit
        self._clock = clock or SystemClock()

    async def holder(self, workspace_id: UUID, delivery_id: UUID) -> Holder | None:
        """Who has the mail of a delivery; None when it is not there: not yet, or no more."""
        row = await self._database.fetchrow(_SQL.whose_mail, workspace_id, delivery_id)
        if row is None:
            return None
        return Holder(
            workspace_id,
            delivery_id,
            row["recipient"],
            row["workspace"],
            row["campaign_id"],
            row["topic_id"] if row["topic"] is not None else None,
            row["topic"],
        )

    async def read(self, holder: Holder) -> Preferences:
        """What the holder's address gets now."""
        rows = await self._database.fetch(
            _SQL.stopped, holder.workspace_id, normalise(holder.address)
        )
        others = any(row["stream"] == suppress.ALL or row["reason"] != REASON for row in rows)
        choices = await self._topics.choices(holder.workspace_id, holder.address)
        return Preferences(bool(rows), others, choices)

    async def unsubscribe(self, workspace_id: UUID, delivery_id: UUID) -> None:
        """One click: leave what the mail was about. Durable on return; said again it changes
        nothing. A campaign's row may come a moment after its mail: then a job does it."""
        holder = await self.holder(workspace_id, delivery_id)
        if holder is None:
            run_at = self._clock.now() + timedelta(seconds=_AGAIN_S)
            await self._engine.enqueue([_job(workspace_id, delivery_id, run_at)])
            return
        async with self._database.transaction() as tx:
            await self._leave(holder, tx)

    async def _leave(self, holder: Holder, tx: Connection) -> None:
        if holder.topic_id is None:
            await self._stop(holder, tx)
        else:
            await self._choose(holder, {holder.topic_id: False}, tx)
        await self._count(holder, tx)

    async def stop(self, holder: Holder) -> None:
        """No campaign any more."""
        async with self._database.transaction() as tx:
            await self._stop(holder, tx)
            await self._count(holder, tx)

    async def save(self, holder: Holder, wanted: Collection[UUID]) -> None:
        """These topics, of those that there are, and no others; campaigns again if they were
        stopped by this address' own word."""
        async with self._database.transaction() as tx:
            choices = await self._topics.choices(holder.workspace_id, holder.address, tx)
            said = {one.topic.id: one.topic.id in wanted for one in choices}
            changed = {
                one.topic.id: said[one.topic.id]
                for one in choices
                if one.subscribed is not said[one.topic.id]
            }
            await self._choose(holder, changed, tx)
            lifted = await self._database.fetchval(
                _SQL.lift_unsubscribe,
                holder.workspace_id,
                normalise(holder.address),
                REASON,
                tx=tx,
            )
            if lifted is not None:
                await self._tell(
                    holder,
                    Change(
                        "suppression.remove",
                        ids.type_id(ids.SUPPRESSION, lifted),
                        {"address": normalise(holder.address), "reason": REASON},
                    ),
                    tx,
                )
            if any(not subscribed for subscribed in changed.values()):
                await self._count(holder, tx)

    async def _stop(self, holder: Holder, tx: Connection) -> None:
        added = await self._suppressions.add_many(
            holder.workspace_id,
            [holder.address],
            suppress.CAMPAIGN,
            REASON,
            tx,
            source="link",
            evidence=ids.type_id(ids.DELIVERY, holder.delivery_id),
        )
        for one in added:
            after = {"address": one.address, "stream": one.stream, "reason": one.reason}
            subject = ids.type_id(ids.SUPPRESSION, one.id)
            await self._tell(holder, Change("suppression.add", subject, None, after), tx)

    async def _choose(self, holder: Holder, said: dict[UUID, bool], tx: Connection) -> None:
        if not said:
            return
        changed = await self._topics.choose(holder.workspace_id, holder.address, said, tx)
        for topic_id, subscribed in changed.items():
            after = {"address": normalise(holder.address), "subscribed": subscribed}
            subject = ids.type_id(ids.TOPIC, topic_id)
            await self._tell(holder, Change("topic.choose", subject, None, after), tx)

    async def _tell(self, holder: Holder, change: Change, tx: Connection) -> None:
        delivery = ids.type_id(ids.DELIVERY, holder.delivery_id)
        actor = Actor("recipient", delivery, holder.workspace_id)
        await self._audit.record_many(actor, [change], tx)

    async def _count(self, holder: Holder, tx: Connection) -> None:
        """The delivery's story has it, and the campaign counts it, once."""
        row = await self._database.fetchrow(
            _TRACKING_SQL.insert_firsts,
            holder.workspace_id,
            [holder.delivery_id],
            [UNSUBSCRIBED],
            [self._clock.now()],
            tx=tx,
        )
        if row is None:
            return
        await self._database.execute(
            _TRACKING_SQL.insert_events,
            holder.workspace_id,
            [holder.delivery_id],
            [ids.uuid7()],
            [UNSUBSCRIBED],
            [None],
            [""],
            [""],
            [""],
            tx=tx,
        )
        subjects = [holder.workspace_id]
        if holder.campaign_id is not None:
            subjects.append(holder.campaign_id)
        await self._database.execute(
            _SENDING_SQL.insert_counter_deltas,
            [holder.workspace_id] * len(subjects),
            [f"track.{UNSUBSCRIBED}"] * len(subjects),
            subjects,
            [1] * len(subjects),
            tx=tx,
        )

    # Those whose delivery was not there yet ---------------------------------------------------

    def handler(self) -> Handler:
        """What the worker runs."""
        return Handler(UNSUBSCRIBE, EMAIL_EVENTS, self.handle, batch_size=1, concurrency=1)

    async def handle(self, batch: Batch) -> None:
        """Look for the delivery again."""
        job = batch.jobs[0]
        if job.workspace_id is None:
            raise AssertionError("an unsubscribe carries its workspace")
        holder = await self.holder(job.workspace_id, UUID(bytes=job.payload))
        if holder is None:
            await batch.retry([job], _AGAIN_S * 2**job.attempt, "its delivery is not there")
            return
        async with self._database.transaction() as tx:
            await self._leave(holder, tx)
            await batch.complete([job], tx)


def _job(workspace_id: UUID, delivery_id: UUID, run_at: datetime) -> NewJob:
    return NewJob(
        queue=EMAIL_EVENTS,
        kind=UNSUBSCRIBE,
        payload=delivery_id.bytes,
        workspace_id=workspace_id,
        run_at=run_at,
        unique_key=delivery_id.hex,
        max_attempts=_JOB_ATTEMPTS,
    )
