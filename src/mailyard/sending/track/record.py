"""What hits mean: the job `tracking-hits` writes events, counts people, and tells who listens.

    hits -> deliveries and their last clicks (two queries) -> judged -> events, firsts, counters,
    live events, the contacts' behaviour and the end of the job in one commit

A hit has an id, so a job that runs again writes and counts nothing twice. A campaign's delivery has
its row a moment after its mail has left: who was faster is looked for again, later each time.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import asyncpg
import structlog

from mailyard.bus.live import LiveEvents, Run
from mailyard.core import ids
from mailyard.core.clock import Clock, SystemClock
from mailyard.queue.batch import Batch, Handler
from mailyard.queue.engine import Engine
from mailyard.queue.job import EMAIL_EVENTS, LeasedJob
from mailyard.sending.track.hit import HITS, Hit, Hits, hits_job, network_of, read_hits
from mailyard.sending.track.judge import BURST, CLICKED, OPENED, Rules, Seen
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("tracking")
_SENDING_SQL = load("sending")
_LOG = structlog.get_logger(__name__)

TRACKED = "delivery.tracked"
CAMPAIGN_TRACKED = "campaign.tracked"
BATCH_JOBS = 8
LATER_S = (1.0, 5.0, 30.0, 300.0, 3600.0)  # when a delivery that is not there is looked for again
_LIVE_ITEMS = 200  # of one batch: the stream is for people who watch


class Act(NamedTuple):
    """A person opened or clicked; the id's time is when."""

    id: UUID
    workspace_id: UUID
    contact_id: UUID
    kind: str
    campaign_id: UUID | None
    delivery_id: UUID


class Acts(Protocol):
    """Who wants to know what contacts do; the composition root ties the knot."""

    async def record(self, acts: Sequence[Act], tx: Connection) -> None: ...


@dataclass(slots=True)
class _Event:
    """A hit that has its delivery."""

    hit: Hit
    id: UUID
    link_id: UUID | None
    kind: str
    delivery: asyncpg.Record
    machine: str

    @property
    def at_ms(self) -> int:
        return ids.unix_ms_of(self.id)


class Recorder:
    """Handles the jobs of hits."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        live: LiveEvents,
        rules: Rules,
        acts: Acts | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._database = database
        self._engine = engine
        self._live = live
        self._rules = rules
        self._acts = acts
        self._clock = clock or SystemClock()

    def handler(self) -> Handler:
        """What the worker runs."""
        return Handler(HITS, EMAIL_EVENTS, self.handle, BATCH_JOBS, concurrency=1)

    async def handle(self, batch: Batch) -> None:
        """Each workspace's hits in one commit, which ends their jobs."""
        of: dict[UUID, list[LeasedJob]] = {}
        for job in batch.jobs:
            if job.workspace_id is None:
                raise AssertionError("hits carry their workspace")
            of.setdefault(job.workspace_id, []).append(job)
        for workspace_id, jobs in of.items():
            await self._record(batch, workspace_id, jobs)

    async def _record(self, batch: Batch, workspace_id: UUID, jobs: Sequence[LeasedJob]) -> None:
        carried = [read_hits(job.payload) for job in jobs]
        events, known = await self._load(workspace_id, [hit for one in carried for hit in one.hits])
        blamed = await self._judge(workspace_id, events)
        async with self._database.transaction() as tx:
            await batch.complete(jobs, tx)
            for one in carried:
                early = [hit for hit in one.hits if hit.delivery not in known]
                if early:
                    await self._again(workspace_id, early, one.tries, tx)
            if events:
                await self._write(workspace_id, events, blamed, tx)
        self._live.announced()

    async def _load(
        self, workspace_id: UUID, hits: Sequence[Hit]
    ) -> tuple[list[_Event], set[bytes]]:
        """The hits that have their deliveries, and which deliveries those are."""
        wanted = sorted({UUID(bytes=hit.delivery) for hit in hits})
        rows = await self._database.fetch(
            _SQL.load_tracked, workspace_id, wanted[0], wanted[-1], wanted
        )
        found = {row["id"].bytes: row for row in rows}
        events = []
        for hit in {hit.id: hit for hit in hits}.values():
            delivery = found.get(hit.delivery)
            if delivery is None:
                continue
            kind = CLICKED if hit.link else OPENED
            identifier = UUID(bytes=hit.id)
            seen = Seen(
                kind,
                hit.method,
                hit.user_agent,
                hit.peer,
                _since_s(delivery["handed_off_at"], identifier),
            )
            link = UUID(bytes=hit.link) if hit.link else None
            events.append(_Event(hit, identifier, link, kind, delivery, self._rules.alone(seen)))
        return events, set(found)

    async def _judge(self, workspace_id: UUID, events: Sequence[_Event]) -> list[tuple[UUID, UUID]]:
        """Blame bursts of clicks on scanners; the (delivery, event) that stand written already and
        were taken for a person's."""
        clicks: dict[UUID, list[tuple[UUID, UUID, _Event | None]]] = {}
        for event in events:
            if event.link_id is not None:
                one = (event.id, event.link_id, event)
                clicks.setdefault(event.delivery["id"], []).append(one)
        if not clicks:
            return []
        since_ms = min(event.at_ms for event in events) - int(self._rules.burst_s * 1000)
        deliveries = sorted(clicks)
        rows = await self._database.fetch(
            _SQL.load_clicks,
            workspace_id,
            deliveries[0],
            deliveries[-1],
            deliveries,
            UUID(int=max(0, since_ms) << 80),
        )
        for row in rows:
            clicks[row["delivery_id"]].append((row["id"], row["link_id"], None))
        standing = {row["id"] for row in rows if not row["machine"]}
        blamed = []
        for delivery_id, of_delivery in clicks.items():
            if len(of_delivery) < self._rules.burst_links:
                continue
            of_delivery.sort(key=lambda click: click[0])
            timed = [(ids.unix_ms_of(click[0]), click[1]) for click in of_delivery]
            for index in self._rules.bursts(timed):
                identifier, _, known = of_delivery[index]
                if known is not None:
                    known.machine = known.machine or BURST
                elif identifier in standing:
                    blamed.append((delivery_id, identifier))
        return blamed

    async def _again(
        self, workspace_id: UUID, early: Sequence[Hit], tries: int, tx: Connection
    ) -> None:
        """Look for deliveries later that are not there; in the end they were dropped with age."""
        if tries >= len(LATER_S):
            _LOG.warning("tracking.without_delivery", hits=len(early))
            return
        run_at = self._clock.now() + timedelta(seconds=LATER_S[tries])
        job = hits_job(workspace_id, Hits(list(early), tries + 1), run_at)
        await self._engine.enqueue([job], tx)

    # Writing ----------------------------------------------------------------------------------

    async def _write(
        self,
        workspace_id: UUID,
        events: list[_Event],
        blamed: Sequence[tuple[UUID, UUID]],
        tx: Connection,
    ) -> None:
        events.sort(key=lambda event: (event.delivery["id"], event.id))
        rows = await self._database.fetch(
            _SQL.insert_events,
            workspace_id,
            [event.delivery["id"] for event in events],
            [event.id for event in events],
            [event.kind for event in events],
            [event.link_id for event in events],
            [event.machine for event in events],
            [event.hit.user_agent for event in events],
            [network_of(event.hit.peer) for event in events],
            tx=tx,
        )
        new = {row["id"] for row in rows}
        deliveries = {event.delivery["id"]: event.delivery for event in events}
        events = [event for event in events if event.id in new]
        counts: Counter[tuple[str, UUID]] = Counter()
        if blamed:
            await self._take_back(workspace_id, blamed, deliveries, counts, tx)
        await self._count(workspace_id, events, counts, tx)
        await self._tell(workspace_id, events, tx)

    async def _count(
        self,
        workspace_id: UUID,
        events: Sequence[_Event],
        counts: Counter[tuple[str, UUID]],
        tx: Connection,
    ) -> None:
        sources = await self._sources(workspace_id, events, tx)
        firsts: dict[tuple[UUID, str], _Event] = {}
        for event in events:
            who = "machine_" if event.machine else ""
            what = "clicks" if event.link_id is not None else "opens"
            for subject in _subjects(workspace_id, event.delivery):
                counts[f"track.{who}{what}", subject] += 1
            if event.link_id is not None:
                link = sources.get(event.link_id, event.link_id)
                counts[f"link.{who}clicks", link] += 1
            if not event.machine:
                firsts.setdefault((event.delivery["id"], event.kind), event)
        if firsts:
            rows = await self._database.fetch(
                _SQL.insert_firsts,
                workspace_id,
                [delivery_id for delivery_id, _ in firsts],
                [kind for _, kind in firsts],
                [ids.time_of(event.id) for event in firsts.values()],
                tx=tx,
            )
            for row in rows:
                delivery = firsts[row["delivery_id"], row["kind"]].delivery
                for subject in _subjects(workspace_id, delivery):
                    counts[f"track.{row['kind']}", subject] += 1
        await self._add(workspace_id, counts, tx)

    async def _take_back(
        self,
        workspace_id: UUID,
        blamed: Sequence[tuple[UUID, UUID]],
        of: Mapping[UUID, asyncpg.Record],
        counts: Counter[tuple[str, UUID]],
        tx: Connection,
    ) -> None:
        """Clicks that were a person's until now become a scanner's, in all counts."""
        deliveries = sorted({delivery_id for delivery_id, _ in blamed})
        rows = await self._database.fetch(
            _SQL.blame_machine,
            workspace_id,
            deliveries[0],
            deliveries[-1],
            [delivery_id for delivery_id, _ in blamed],
            [identifier for _, identifier in blamed],
            BURST,
            tx=tx,
        )
        links = [row["link_id"] for row in rows]
        sources = await self._sources_of(workspace_id, links, tx)
        for row in rows:
            link = sources.get(row["link_id"], row["link_id"])
            counts["link.clicks", link] -= 1
            counts["link.machine_clicks", link] += 1
            for subject in _subjects(workspace_id, of[row["delivery_id"]]):
                counts["track.clicks", subject] -= 1
                counts["track.machine_clicks", subject] += 1
        gone = await self._database.fetch(
            _SQL.forget_firsts, workspace_id, deliveries[0], deliveries[-1], deliveries, tx=tx
        )
        for row in gone:
            for subject in _subjects(workspace_id, of[row["delivery_id"]]):
                counts["track.clicked", subject] -= 1

    async def _sources(
        self, workspace_id: UUID, events: Sequence[_Event], tx: Connection
    ) -> dict[UUID, UUID]:
        links = [event.link_id for event in events if event.link_id is not None]
        return await self._sources_of(workspace_id, links, tx)

    async def _sources_of(
        self, workspace_id: UUID, links: Sequence[UUID], tx: Connection
    ) -> dict[UUID, UUID]:
        """The pattern of each link that came from one: clicks are counted for what a template
        has, not for each recipient's own address."""
        if not links:
            return {}
        rows = await self._database.fetch(
            _SQL.sources_of, workspace_id, list(dict.fromkeys(links)), tx=tx
        )
        return {row["id"]: row["source_id"] for row in rows}

    async def _add(
        self, workspace_id: UUID, counts: Counter[tuple[str, UUID]], tx: Connection
    ) -> None:
        left = {key: amount for key, amount in counts.items() if amount}
        if left:
            await self._database.execute(
                _SENDING_SQL.insert_counter_deltas,
                [workspace_id] * len(left),
                [name for name, _ in left],
                [subject for _, subject in left],
                list(left.values()),
                tx=tx,
            )

    async def _tell(self, workspace_id: UUID, events: Sequence[_Event], tx: Connection) -> None:
        if not events:
            return
        items = [_item(event) for event in events[:_LIVE_ITEMS]]
        runs: list[Run] = [(workspace_id, TRACKED, items)]
        campaigns = {event.delivery["campaign_id"] for event in events} - {None}
        if campaigns:
            told = [{"campaign_id": ids.type_id(ids.CAMPAIGN, one)} for one in campaigns]
            runs.append((workspace_id, CAMPAIGN_TRACKED, told))
        await self._live.publish_runs(runs, tx)
        if self._acts is None:
            return
        acts = [
            Act(
                event.id,
                workspace_id,
                event.delivery["contact_id"],
                event.kind,
                event.delivery["campaign_id"],
                event.delivery["id"],
            )
            for event in events
            if not event.machine and event.delivery["contact_id"] is not None
        ]
        if acts:
            await self._acts.record(acts, tx)


def _since_s(handed_off_at: datetime | None, hit: UUID) -> float | None:
    """Seconds from the hand-over to the hit; below zero when the clocks disagree."""
    if handed_off_at is None:
        return None
    return (ids.time_of(hit) - handed_off_at.astimezone(UTC)).total_seconds()


def _subjects(workspace_id: UUID, delivery: asyncpg.Record) -> list[UUID]:
    """What an event is counted for."""
    campaign_id = delivery["campaign_id"]
    return [workspace_id] if campaign_id is None else [workspace_id, campaign_id]


def _item(event: _Event) -> dict[str, Any]:
    delivery = event.delivery
    campaign_id, email_id = delivery["campaign_id"], delivery["email_id"]
    return {
        "delivery_id": ids.type_id(ids.DELIVERY, delivery["id"]),
        "campaign_id": campaign_id and ids.type_id(ids.CAMPAIGN, campaign_id),
        "email_id": email_id and ids.type_id(ids.EMAIL, email_id),
        "recipient": delivery["recipient"],
        "kind": event.kind,
        "machine": event.machine,
        "at": ids.time_of(event.id).isoformat(),
    }
