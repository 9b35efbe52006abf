"""Dressing mail: what a campaign or an email asks for, with the workspace's names and imprint."""

from collections import OrderedDict
from dataclasses import dataclass
from urllib.parse import quote
from uuid import UUID

from mailyard.sending.imprint import Imprints
from mailyard.sending.render import Compiled
from mailyard.sending.sign import sender_domain
from mailyard.sending.track.domain import TrackingNames
from mailyard.sending.track.dress import Imprint, Tracked, TrackedPage, Wishes
from mailyard.sending.track.link import Links
from mailyard.sending.track.token import Tokens
from mailyard.storage.database import Connection

_KEPT = 32  # campaigns whose dressed templates a process keeps


@dataclass(frozen=True, slots=True)
class Asked:
    """What a campaign asks for. `utm` as it is stored: `utm_source=…&utm_medium=…`, encoded.
    `automatic`: its mails carry a List-Unsubscribe of ours."""

    sender: str
    opens: bool
    clicks: bool
    utm: str
    automatic: bool


class Tracking:
    """Dresses mail. One for a process."""

    def __init__(
        self, *, tokens: Tokens, links: Links, names: TrackingNames, imprints: Imprints
    ) -> None:
        self.tokens = tokens
        self.links = links
        self.names = names
        self._imprints = imprints
        self._kept: OrderedDict[tuple[UUID, int, Wishes, bool], Tracked] = OrderedDict()

    async def of_campaign(
        self,
        workspace_id: UUID,
        campaign_id: UUID,
        template: Compiled,
        version: int,
        asked: Asked,
        tx: Connection | None = None,
    ) -> Tracked:
        """The campaign's dressed template; its addresses are stored when this returns, or with
        `tx`.

        Raises InvalidInput when the template and the workspace's footer do not go together.
        """
        settings = await self._imprints.remembered(workspace_id, tx)
        wishes = Wishes(
            base=await self.names.base_for(workspace_id, sender_domain(asked.sender), tx),
            opens=asked.opens,
            clicks=asked.clicks,
            utm=parse_utm(asked.utm),
            imprint=Imprint(settings.physical_address, settings.footer_html, settings.footer_text),
        )
        key = (campaign_id, version, wishes, asked.automatic)
        found = self._kept.get(key)
        if found is None:
            found = Tracked(
                tokens=self.tokens,
                workspace_id=workspace_id,
                campaign_id=campaign_id,
                template=template,
                wishes=wishes,
                automatic=asked.automatic,
            )
            self._kept[key] = found
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        await self.links.store(workspace_id, campaign_id, found.links, tx)
        return found

    async def of_email(
        self, workspace_id: UUID, sender: str, html: str, *, opens: bool, clicks: bool
    ) -> TrackedPage:
        """The HTML of one email; its addresses are stored when this returns."""
        page = TrackedPage(
            tokens=self.tokens,
            workspace_id=workspace_id,
            base=await self.names.base_for(workspace_id, sender_domain(sender)),
            html=html,
            opens=opens,
            clicks=clicks,
        )
        await self.links.store(workspace_id, None, page.links)
        return page


def parse_utm(stored: str) -> tuple[tuple[str, str], ...]:
    """(name, encoded value) of what `format_utm` wrote."""
    pairs = (piece.partition("=") for piece in stored.split("&") if piece)
    return tuple((name, value) for name, _, value in pairs)


def format_utm(tags: dict[str, str]) -> str:
    """Tags `source`, `medium`, … as they are appended to addresses."""
    return "&".join(f"utm_{name}={quote(value, safe='')}" for name, value in tags.items() if value)
