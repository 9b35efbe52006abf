"""The mail of one campaign: its template compiled, its mould poured once, ready for recipients."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import msgspec
from msgspec import structs

from mailyard.core.ids import deterministic_uuid7
from mailyard.protocol.address import parse_mailbox
from mailyard.protocol.dkim.sign import Prepared, Series, Signer
from mailyard.sending import header
from mailyard.sending.delivery import unix_ms
from mailyard.sending.mould import Mould
from mailyard.sending.personal import CONTACT, PREFERENCES, Personal
from mailyard.sending.render import Compiled
from mailyard.sending.return_path import ReturnPaths
from mailyard.sending.sign import Signing, sender_domain
from mailyard.sending.template import Templates
from mailyard.sending.track.dress import Tracked
from mailyard.sending.track.link import StoredLink
from mailyard.sending.track.tracking import Asked, Tracking
from mailyard.sending.transport import CAMPAIGN, Outgoing, Recipient

DELIVERY_MARK = "{delivery}"
"""In a campaign's List-Unsubscribe address: replaced by the delivery's id in hexadecimal."""

_decode_attributes = msgspec.json.Decoder(dict[str, Any]).decode


class Written(NamedTuple):
    """A mail for one contact, composed. `links` are addresses of its own, which are stored before
    it leaves."""

    delivery_id: UUID
    contact_id: UUID
    address: str
    outgoing: Outgoing
    links: tuple[StoredLink, ...] = ()


class Draft(NamedTuple):
    """A mail whose `fields` are to be signed and put in front."""

    written: Written
    fields: Sequence[Prepared]

    def signed(self) -> Written:
        if not self.fields:
            return self.written
        delivery_id, contact_id, address, outgoing, links = self.written
        content = b"".join([*[field.signed() for field in self.fields], outgoing.content])
        return Written(
            delivery_id, contact_id, address, structs.replace(outgoing, content=content), links
        )


class CampaignMail:
    """Writes a campaign's mail. The delivery's id is the Message-ID's first half."""

    def __init__(
        self,
        *,
        workspace_id: UUID,
        campaign_id: UUID,
        type: str,
        first_started_at: datetime,
        template: Compiled,
        sender: str,
        reply_to: str,
        list_unsubscribe: str,
        hostname: str,
        signers: Sequence[Signer] = (),
        return_paths: ReturnPaths | None = None,
        tracked: Tracked | None = None,
        personal: Personal | None = None,
        return_domain: str = "",
    ) -> None:
        """`tracked`: the dressed template; None when there is nothing of ours in it. Without a
        `list_unsubscribe` the address is that of `tracked`."""
        self._workspace_id = workspace_id
        self._type = type
        self._key = campaign_id.bytes
        self._unix_ms = unix_ms(first_started_at)
        self._template = template if tracked is None else tracked.template
        self._personal = personal if PREFERENCES in template.asks else None
        self._preferences: Mapping[str, dict[str, bool]] = {}
        self._with_contact = CONTACT in template.asks
        self._tracked = None if tracked is None or tracked.idle else tracked
        self._unsubscribe_base = "" if tracked is None or list_unsubscribe else f"{tracked.base}/u/"
        mailbox = parse_mailbox(sender)
        self._reverse_path = mailbox.address
        self._sender_is_utf8 = header.needs_smtp_utf8(mailbox.address)
        self._mould = Mould(
            sender=mailbox,
            reply_to=[parse_mailbox(reply_to)] if reply_to else [],
            seed=campaign_id.hex,
        )
        self._list_unsubscribe = list_unsubscribe
        self._unsubscribe_is_own = DELIVERY_MARK in list_unsubscribe
        self._hostname = hostname
        self._series = Series(signers) if signers else None
        self._return_paths = return_paths
        self._return_domain = return_domain  # the sending domain's own; empty: the shared one

    @property
    def unix_ms(self) -> int:
        """The time inside all delivery ids of the campaign."""
        return self._unix_ms

    def delivery_id(self, address: str, group: int | None) -> UUID:
        """The one id that this recipient has in this campaign; `group` is the number of the chunk
        that he stands in, None in campaigns from before ids had it."""
        return deterministic_uuid7(self._unix_ms, self._key, address.encode(), group)

    @property
    def asks_people(self) -> bool:
        """Whether `look_up` has to come first."""
        return self._personal is not None

    async def look_up(self, addresses: Sequence[str]) -> None:
        """Before their mails are written: what the template asks of these people."""
        if self._personal is not None:
            self._preferences = await self._personal.preferences(self._workspace_id, addresses)

    def write(
        self,
        delivery_id: UUID,
        contact_id: UUID,
        address: str,
        name: str,
        attributes: str,
        date: datetime,
    ) -> Written:
        """The mail for one contact. Raises InvalidInput when its data do not fill the template."""
        return self.draft(delivery_id, contact_id, address, name, attributes, date).signed()

    def draft(
        self,
        delivery_id: UUID,
        contact_id: UUID,
        address: str,
        name: str,
        attributes: str,
        date: datetime,
    ) -> Draft:
        """As `write`, before its keys are used: who writes many signs some behind one another."""
        data = _decode_attributes(attributes)
        data["name"] = name
        data["address"] = address
        if self._with_contact:
            data[CONTACT] = dict(data)
        if self._personal is not None:
            data[PREFERENCES] = self._preferences.get(address, {})
        unsubscribe = self._list_unsubscribe
        if self._unsubscribe_is_own:
            unsubscribe = unsubscribe.replace(DELIVERY_MARK, delivery_id.hex)
        tracked = self._tracked
        links: tuple[StoredLink, ...] = ()
        if tracked is None:
            subject, html, text = self._template.render(data)
        else:
            preferences = tracked.fill(data, delivery_id.bytes)
            subject, html, text = self._template.render(data)
            html, links = tracked.lead(html, delivery_id.bytes)
            if self._unsubscribe_base:
                unsubscribe = self._unsubscribe_base + preferences
        content = self._mould.compose(
            name,
            address,
            subject,
            text,
            html,
            f"{delivery_id.hex}@{self._hostname}",
            date,
            unsubscribe,
        )
        fields: Sequence[Prepared] = ()
        if self._series is not None:
            fields = self._series.prepare(content, date.timestamp())
        reverse_path = self._reverse_path
        if self._return_paths is not None:
            reverse_path = self._return_paths.reverse_path(
                delivery_id, address, reverse_path, self._return_domain
            )
        written = Written(
            delivery_id,
            contact_id,
            address,
            Outgoing(
                reverse_path,
                (Recipient(delivery_id, address),),
                content,
                not content.isascii(),
                self._sender_is_utf8 or (not address.isascii() and header.needs_smtp_utf8(address)),
                self._workspace_id,
                CAMPAIGN,
                self._type,
            ),
            links,
        )
        return Draft(written, fields)


async def campaign_mail(
    templates: Templates,
    signing: Signing,
    tracking: Tracking,
    hostname: str,
    workspace_id: UUID,
    campaign_id: UUID,
    row: asyncpg.Record | Mapping[str, Any],
    return_paths: ReturnPaths | None = None,
) -> CampaignMail:
    """The mail that a campaign's row describes. Raises NotFound, InvalidInput."""
    template = await templates.compiled(workspace_id, row["template_id"], row["template_version"])
    domain = sender_domain(row["sender"])
    signers = await signing.signers(workspace_id, domain)
    tracked = await tracking.of_campaign(
        workspace_id, campaign_id, template, row["template_version"], asked_of(row)
    )
    return CampaignMail(
        workspace_id=workspace_id,
        campaign_id=campaign_id,
        type=row["type"],
        first_started_at=row["first_started_at"],
        template=template,
        sender=row["sender"],
        reply_to=row["reply_to"],
        list_unsubscribe=row["list_unsubscribe"],
        hostname=hostname,
        signers=signers,
        return_paths=return_paths,
        return_domain=signing.return_domain(workspace_id, domain),
        tracked=tracked,
        personal=templates.personal,
    )


def asked_of(row: asyncpg.Record | Mapping[str, Any]) -> Asked:
    """How a campaign's mail is to be followed. Who names no List-Unsubscribe gets ours."""
    return Asked(
        sender=row["sender"],
        opens=row["track_opens"],
        clicks=row["track_clicks"],
        utm=row["utm"],
        automatic=not row["list_unsubscribe"],
    )


def today(clock_now: datetime) -> datetime:
    """The Date header's instant, in whole seconds, so that it is formatted once a second."""
    return clock_now.astimezone(UTC).replace(microsecond=0)
