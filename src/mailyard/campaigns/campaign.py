"""Campaigns: one template to one list, or to one segment. Create, start, pause, resume, cancel, and
how far it is.

Who is in it: the members that the list has at the first start. A contact that is added afterwards
is not; one that is deleted, or taken off the list, before its turn gets no mail; one whose fields
are changed before its turn gets the mail with the new ones.

Of a segment: what its filter says at the first start, with days counted from then. Whoever matches
when the chunk that he would stand in is cut is in it, and stays in it.
"""

from collections.abc import Awaitable, Callable
from uuid import UUID

import asyncpg

from mailyard.campaigns.audience import Audience
from mailyard.campaigns.campaign_value import (
    Campaign,
    NewCampaign,
    campaign_of,
    check_new,
    checked_utm,
)
from mailyard.campaigns.mail import CampaignMail, today
from mailyard.campaigns.plan import chunk_job, plan_job
from mailyard.campaigns.progress import Progress, ProgressEvents, read_progress
from mailyard.campaigns.segment import Segments
from mailyard.campaigns.start import start_job
from mailyard.campaigns.states import Event, State, after
from mailyard.campaigns.timing import check_when
from mailyard.core import ids, limits
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import InvalidInput, MailyardError, NotFound
from mailyard.queue.engine import Engine
from mailyard.sending.imprint import Imprints
from mailyard.sending.template import Templates
from mailyard.sending.track.tracking import Asked, Tracking
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("campaign")
_LAST_ID = UUID(int=(1 << 128) - 1)

SAMPLE_CONTACTS = 100


class Campaigns:
    """Creates, moves and reads campaigns. The caller writes the audit row."""

    def __init__(
        self,
        *,
        database: Database,
        engine: Engine,
        templates: Templates,
        progress: ProgressEvents,
        tracking: Tracking,
        imprints: Imprints,
        segments: Segments,
        hostname: str = "localhost",
        clock: Clock | None = None,
    ) -> None:
        self._database = database
        self._engine = engine
        self._templates = templates
        self._progress = progress
        self._tracking = tracking
        self._imprints = imprints
        self._segments = segments
        self._hostname = hostname
        self._clock = clock or SystemClock()

    async def create(
        self, workspace_id: UUID, new: NewCampaign, tx: Connection | None = None
    ) -> Campaign:
        """A draft. Raises InvalidInput naming the field, NotFound for the list or the template."""
        check_new(new)
        local_time = check_when(new.send_at, new.local_time, self._clock.now())
        utm = checked_utm(new.utm)
        topic_id = None
        if new.topic is not None:
            topic_id = ids.parse_type_id(ids.TOPIC, new.topic, "topic")
            if not await self._database.fetchval(_SQL.has_topic, workspace_id, topic_id, tx=tx):
                raise NotFound("no such topic", field="topic")
        usual = await self._imprints.get(workspace_id, tx)
        list_id, segment_id = await self._recipients(workspace_id, new, tx)
        template_id = ids.parse_type_id(ids.TEMPLATE, new.template, "template")
        template = await self._database.fetchrow(
            _SQL.read_template_version, workspace_id, template_id, new.template_version, tx=tx
        )
        if template is None:
            raise NotFound("no such template or version", field="template")
        campaign_id = ids.uuid7()
        await self._database.execute(
            _SQL.insert_campaign,
            workspace_id,
            campaign_id,
            new.name,
            new.type,
            template_id,
            new.template_version,
            list_id,
            new.sender,
            new.reply_to,
            new.list_unsubscribe,
            new.rate_per_s,
            topic_id,
            usual.track_opens if new.track.opens is None else new.track.opens,
            usual.track_clicks if new.track.clicks is None else new.track.clicks,
            utm,
            new.send_at,
            local_time,
            segment_id,
            tx=tx,
        )
        return await self.get(workspace_id, campaign_id, tx)

    async def get(
        self, workspace_id: UUID, campaign_id: UUID, tx: Connection | None = None
    ) -> Campaign:
        """One campaign. Raises NotFound."""
        row = await self._database.fetchrow(_SQL.get_campaign, workspace_id, campaign_id, tx=tx)
        if row is None:
            raise NotFound("no such campaign")
        return campaign_of(row)

    async def page(
        self,
        workspace_id: UUID,
        *,
        before: UUID | None = None,
        limit: int = limits.API_PAGE_ITEMS,
    ) -> list[Campaign]:
        """Campaigns, newest first, with ids below `before`."""
        rows = await self._database.fetch(
            _SQL.page_campaigns, workspace_id, before or _LAST_ID, limit
        )
        return [campaign_of(row) for row in rows]

    # The moves. With `tx` they are part of the caller's transaction, who calls `tell` after it.

    async def start(
        self, workspace_id: UUID, campaign_id: UUID, tx: Connection | None = None
    ) -> Campaign:
        """Begin to send; a draft with a `send_at` to come is scheduled for it, one that is
        scheduled begins now. Raises NotFound, Conflict, and InvalidInput when the template asks
        for a variable that some of the list's first contacts lack."""
        if tx is None:
            return await self._alone(self.start, workspace_id, campaign_id)
        await self._database.execute(_SQL.pin_template, workspace_id, campaign_id, tx=tx)
        campaign = await self.get(workspace_id, campaign_id, tx)
        audience = None
        if campaign.segment_id is not None:
            audience = await self._segments.audience(workspace_id, campaign.segment_id, tx=tx)
        await self._try_template(campaign, audience, tx)
        row = await self._locked(workspace_id, campaign_id, tx)
        send_at = row["send_at"]
        if send_at is not None and send_at > self._clock.now() and row["state"] == State.DRAFT:
            await self._move(workspace_id, campaign_id, Event.SCHEDULE, tx)
            await self._engine.enqueue([start_job(workspace_id, campaign_id, send_at)], tx)
            return await self.get(workspace_id, campaign_id, tx)
        await self._move(workspace_id, campaign_id, Event.START, tx)
        pinned = audience.pinned() if audience is not None else None
        await self._database.fetchval(_SQL.start_campaign, workspace_id, campaign_id, pinned, tx=tx)
        await self._engine.enqueue([plan_job(workspace_id, campaign_id)], tx)
        return await self.get(workspace_id, campaign_id, tx)

    async def start_in_time(self, workspace_id: UUID, campaign_id: UUID) -> None:
        """Begin to send if it is still scheduled: its time has come. Raises InvalidInput."""
        async with self._database.transaction() as tx:
            if await self.hold(workspace_id, campaign_id, tx) is not State.SCHEDULED:
                return
            await self.start(workspace_id, campaign_id, tx)
        await self.tell(workspace_id, campaign_id)

    async def pause(
        self, workspace_id: UUID, campaign_id: UUID, tx: Connection | None = None
    ) -> Campaign:
        """Stop naming recipients; what was named is handed over and recorded. One that is scheduled
        becomes a draft again. Raises as `start`."""
        if tx is None:
            return await self._alone(self.pause, workspace_id, campaign_id)
        await self._move(workspace_id, campaign_id, Event.PAUSE, tx)
        return await self.get(workspace_id, campaign_id, tx)

    async def resume(
        self, workspace_id: UUID, campaign_id: UUID, tx: Connection | None = None
    ) -> Campaign:
        """Go on where it was paused. Raises as `start`."""
        if tx is None:
            return await self._alone(self.resume, workspace_id, campaign_id)
        row = await self._move(workspace_id, campaign_id, Event.RESUME, tx)
        chunks = await self._database.fetch(_SQL.read_open_chunks, workspace_id, campaign_id, tx=tx)
        jobs = [
            chunk_job(workspace_id, campaign_id, chunk["number"], run_at=chunk["due_at"])
            for chunk in chunks
        ]
        if not row["planned"]:
            jobs.append(plan_job(workspace_id, campaign_id))
        await self._engine.enqueue(jobs, tx)
        await self._database.fetchval(_SQL.finish_campaign, workspace_id, campaign_id, tx=tx)
        return await self.get(workspace_id, campaign_id, tx)

    async def cancel(
        self, workspace_id: UUID, campaign_id: UUID, tx: Connection | None = None
    ) -> Campaign:
        """Stop for good: whoever was not named gets no mail. Raises as `start`."""
        if tx is None:
            return await self._alone(self.cancel, workspace_id, campaign_id)
        await self._move(workspace_id, campaign_id, Event.CANCEL, tx)
        return await self.get(workspace_id, campaign_id, tx)

    async def hold(self, workspace_id: UUID, campaign_id: UUID, tx: Connection) -> State:
        """The state before a move; nobody else moves it until `tx` ends. Raises NotFound."""
        return State((await self._locked(workspace_id, campaign_id, tx))["state"])

    async def tell(self, workspace_id: UUID, campaign_id: UUID) -> None:
        """Publish where the campaign is, after a move has committed."""
        await self._progress.tell(workspace_id, campaign_id)

    async def progress(self, workspace_id: UUID, campaign_id: UUID) -> Progress:
        """Counts per state, the rate now, the estimated end. Raises NotFound."""
        return await read_progress(self._database, workspace_id, campaign_id)

    async def _move(
        self, workspace_id: UUID, campaign_id: UUID, event: Event, tx: Connection
    ) -> asyncpg.Record:
        """Move the campaign's state by the table, its row held until commit."""
        row = await self._locked(workspace_id, campaign_id, tx)
        state = after(State(row["state"]), event)
        await self._database.execute(
            _SQL.set_campaign_state, workspace_id, campaign_id, state.value, tx=tx
        )
        return row

    async def _locked(
        self, workspace_id: UUID, campaign_id: UUID, tx: Connection
    ) -> asyncpg.Record:
        row = await self._database.fetchrow(_SQL.lock_campaign, workspace_id, campaign_id, tx=tx)
        if row is None:
            raise NotFound("no such campaign")
        return row

    async def _alone(
        self,
        move: Callable[[UUID, UUID, Connection], Awaitable[Campaign]],
        workspace_id: UUID,
        campaign_id: UUID,
    ) -> Campaign:
        """A move in a transaction of its own."""
        async with self._database.transaction() as tx:
            moved = await move(workspace_id, campaign_id, tx)
        await self.tell(workspace_id, campaign_id)
        return moved

    async def _recipients(
        self, workspace_id: UUID, new: NewCampaign, tx: Connection | None
    ) -> tuple[UUID | None, UUID | None]:
        """The list or the segment that a new campaign goes to. Raises InvalidInput, NotFound."""
        if (new.list is None) == (new.segment is None):
            raise InvalidInput("a campaign goes to a list or to a segment: say one", field="list")
        if new.list is not None:
            list_id = ids.parse_type_id(ids.LIST, new.list, "list")
            if not await self._database.fetchval(_SQL.has_list, workspace_id, list_id, tx=tx):
                raise NotFound("no such list", field="list")
            return list_id, None
        segment_id = ids.parse_type_id(ids.SEGMENT, new.segment or "", "segment")
        try:
            await self._segments.get(workspace_id, segment_id, tx=tx)
        except NotFound:
            raise NotFound("no such segment", field="segment") from None
        return None, segment_id

    async def _try_template(
        self, campaign: Campaign, audience: Audience | None, tx: Connection
    ) -> None:
        workspace_id, campaign_id = campaign.workspace_id, campaign.id
        compiled = await self._templates.compiled(
            workspace_id, campaign.template_id, campaign.template_version, tx=tx
        )
        now = self._clock.now()
        tracked = await self._tracking.of_campaign(
            workspace_id,
            campaign_id,
            compiled,
            campaign.template_version,
            Asked(
                sender=campaign.sender,
                opens=campaign.track_opens,
                clicks=campaign.track_clicks,
                utm=campaign.utm,
                automatic=not campaign.list_unsubscribe,
            ),
            tx,
        )
        mail = CampaignMail(
            workspace_id=workspace_id,
            campaign_id=campaign_id,
            type=campaign.type,
            first_started_at=now,
            template=compiled,
            sender=campaign.sender,
            reply_to=campaign.reply_to,
            list_unsubscribe=campaign.list_unsubscribe,
            hostname=self._hostname,
            tracked=tracked,
            personal=self._templates.personal,
        )
        nobody = campaign_id  # a mail that is only tried has neither a delivery nor a contact
        if audience is None:
            rows = await self._database.fetch(
                _SQL.sample_members, workspace_id, campaign.list_id, SAMPLE_CONTACTS, tx=tx
            )
        else:
            rows = await self._segments.audiences.first_members(audience, SAMPLE_CONTACTS, now, tx)
        await mail.look_up([row["address"] for row in rows])
        for row in rows:
            try:
                mail.write(
                    nobody, nobody, row["address"], row["name"], row["attributes"], today(now)
                )
            except MailyardError as error:
                raise InvalidInput(
                    f"the mail for {row['address']} cannot be written: {error.message}",
                    field="template",
                ) from error
