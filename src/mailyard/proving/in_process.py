"""The demonstration's platform from inside: the services themselves, for the page's button.

Mail still goes out and comes in over real SMTP; only the questions do not pass through HTTP.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from mailyard.campaigns.campaign import Campaigns
from mailyard.campaigns.campaign_value import NewCampaign
from mailyard.campaigns.contact_list import Lists
from mailyard.campaigns.importing import Imports
from mailyard.core import ids
from mailyard.mailbox.inbox import Inboxes
from mailyard.mailbox.inbox_value import NewInbox
from mailyard.mailbox.message import Messages
from mailyard.proving.demonstration import (
    INBOX_TTL_S,
    LABEL,
    CampaignState,
    Csv,
    ImportState,
    Received,
)
from mailyard.proving.over_http import SENDER
from mailyard.queue.engine import Engine
from mailyard.queue.job import INBOUND_EMAIL
from mailyard.sending.template import Templates


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What the demonstration uses of the platform."""

    engine: Engine
    inboxes: Inboxes
    messages: Messages
    lists: Lists
    imports: Imports
    templates: Templates
    campaigns: Campaigns


class ServicePlatform:
    """The services as one workspace uses them."""

    def __init__(self, services: Services, workspace_id: UUID) -> None:
        self._services = services
        self._workspace_id = workspace_id

    async def make_inboxes(self, local_parts: Sequence[str], label: str) -> list[tuple[str, str]]:
        made = await self._services.inboxes.create(
            self._workspace_id,
            [NewInbox(local_part, INBOX_TTL_S, "", (LABEL, label)) for local_part in local_parts],
        )
        return [(ids.type_id(ids.INBOX, inbox.id), inbox.address) for inbox in made]

    async def make_list(self, name: str) -> str:
        made = await self._services.lists.create(self._workspace_id, name)
        return ids.type_id(ids.LIST, made.id)

    async def begin_import(self, list_id: str, file_name: str, csv: Csv) -> str:
        begun = await self._services.imports.upload(
            self._workspace_id, file_name, csv(), list_id=ids.parse_type_id(ids.LIST, list_id)
        )
        return ids.type_id(ids.IMPORT, begun.id)

    async def import_state(self, import_id: str) -> ImportState:
        one = await self._services.imports.get(
            self._workspace_id, ids.parse_type_id(ids.IMPORT, import_id)
        )
        return ImportState(
            state=one.state,
            read_bytes=one.read_bytes,
            size_bytes=one.size_bytes,
            imported=one.rows_imported,
            rejected=one.rows_rejected,
            error=one.error,
        )

    async def make_template(self, name: str, subject: str, html: str, text: str) -> str:
        source = await self._services.templates.prove(subject, html, text)
        made = await self._services.templates.create(self._workspace_id, name, source)
        return ids.type_id(ids.TEMPLATE, made.id)

    async def begin_campaign(self, name: str, list_id: str, template_id: str) -> str:
        made = await self._services.campaigns.create(
            self._workspace_id,
            NewCampaign(name=name, list=list_id, template=template_id, sender=SENDER, type="demo"),
        )
        await self._services.campaigns.start(self._workspace_id, made.id)
        return ids.type_id(ids.CAMPAIGN, made.id)

    async def campaign_state(self, campaign_id: str) -> CampaignState:
        progress = await self._services.campaigns.progress(
            self._workspace_id, ids.parse_type_id(ids.CAMPAIGN, campaign_id)
        )
        return CampaignState(
            state=progress.state.value,
            accepted=progress.counts["accepted"],
            unknown=progress.counts["unknown"],
            settled=progress.recipients - progress.waiting,
        )

    async def inbound_waiting(self) -> int:
        depths = await self._services.engine.depth([INBOUND_EMAIL])
        return sum(depth.ready + depth.leased for depth in depths)

    async def read_inboxes(self, inbox_ids: Sequence[str]) -> list[Received]:
        found = await self._services.messages.read_inboxes(
            self._workspace_id,
            [ids.parse_type_id(ids.INBOX, inbox_id) for inbox_id in inbox_ids],
            each=10,
            headers=False,
        )
        return [
            Received(
                inbox=ids.type_id(ids.INBOX, message.summary.inbox_id),
                subject=message.summary.subject,
                text=message.content.text,
                html=message.content.html_source,
            )
            for message in found
        ]

    async def count_mail(self, label: str) -> int:
        return await self._services.messages.count(self._workspace_id, label)
