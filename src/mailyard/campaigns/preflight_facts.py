"""Gathers what the preflight's rules ask: the domain's last check, the mail as contacts would get
it, its links, the list, what was sent before. Nothing is changed by it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import asyncpg

from mailyard.campaigns.audience import Audiences
from mailyard.campaigns.link_check import check_links
from mailyard.campaigns.list_check import check_list, check_silence
from mailyard.campaigns.list_kinds import Asked, Tries, asked_by, written_in_turns
from mailyard.campaigns.mail import CampaignMail, Draft, campaign_mail, today
from mailyard.campaigns.preflight import (
    RATE_DAYS,
    CampaignFacts,
    DomainFacts,
    Item,
    ListFacts,
    MailFacts,
    RateFacts,
    blocking,
    judge_campaign,
    judge_domain,
)
from mailyard.campaigns.segment import Segments
from mailyard.campaigns.segment_check import check_segment
from mailyard.core import ids
from mailyard.core.clock import Clock
from mailyard.core.errors import Conflict, MailyardError, NotFound
from mailyard.net.http import HttpClient
from mailyard.protocol.mime import parse
from mailyard.sending.domain import Domain, Domains
from mailyard.sending.imprint import Imprints
from mailyard.sending.sign import Signing, sender_domain
from mailyard.sending.template import Templates
from mailyard.sending.track.tracking import Tracking
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("preflight")
_CAMPAIGN_SQL = load("campaign")

MAILS_TRIED = 20
SINGLE_EMAILS = 10_000  # the workspace's newest: some tenths of a second, however many there are
_COUNTED = ("sent", "bounced", "complained")


class PreflightBlocked(Conflict):
    """A start that the preflight speaks against; `items` are those that block."""

    code = "preflight_blocked"

    def __init__(self, items: tuple[Item, ...]) -> None:
        what = "; ".join(item.message for item in items)
        super().__init__(f"the preflight blocks: {what}. Mend that, or force the start")
        self.items = items


class Preflights:
    """Runs preflights. `outside`: whether mail of a workspace leaves to other people's servers."""

    def __init__(
        self,
        *,
        database: Database,
        templates: Templates,
        signing: Signing,
        tracking: Tracking,
        domains: Domains,
        imprints: Imprints,
        http: HttpClient,
        outside: Callable[[UUID], Awaitable[bool]],
        hostname: str,
        clock: Clock,
    ) -> None:
        self._database = database
        self._templates = templates
        self._signing = signing
        self._tracking = tracking
        self._domains = domains
        self._imprints = imprints
        self._http = http
        self._outside = outside
        self._hostname = hostname
        self._clock = clock
        self._segments = Segments(
            database=database, audiences=Audiences(database=database, clock=clock)
        )

    async def campaign(self, workspace_id: UUID, campaign_id: UUID) -> tuple[Item, ...]:
        """The items of a campaign. Raises NotFound."""
        row = await self._database.fetchrow(_CAMPAIGN_SQL.get_campaign, workspace_id, campaign_id)
        if row is None:
            raise NotFound("no such campaign")
        return judge_campaign(await self._facts(workspace_id, row))

    async def domain(self, workspace_id: UUID, domain_id: UUID) -> tuple[Item, ...]:
        """The items of a sending domain. Raises NotFound."""
        domain = await self._domains.get(workspace_id, domain_id)
        return judge_domain(
            self._facts_of(domain),
            await self._rates(workspace_id, domain.name),
            outside=await self._outside(workspace_id),
        )

    async def clear_to_start(
        self, workspace_id: UUID, campaign_id: UUID, *, force: bool
    ) -> tuple[str, ...]:
        """The keys of the blocking items that were forced past; none where nothing blocks.

        Raises PreflightBlocked without `force`, NotFound. Where no mail leaves the house nothing is
        asked.
        """
        if not await self._outside(workspace_id):
            return ()
        found = blocking(await self.campaign(workspace_id, campaign_id))
        if found and not force:
            raise PreflightBlocked(found)
        return tuple(item.key for item in found)

    async def _facts(self, workspace_id: UUID, row: asyncpg.Record) -> CampaignFacts:
        name = sender_domain(row["sender"])
        template = await self._templates.compiled(
            workspace_id, row["template_id"], row["template_version"]
        )
        sources = template.sources
        now = self._clock.now()
        own = await self._database.fetch(_SQL.own_names, workspace_id)
        mail, why = await self._mail(workspace_id, row, now)

        async def tries(contacts: Sequence[asyncpg.Record]) -> list[str]:
            if mail is None:  # nobody's can be written, which is an item of its own
                return [""] * len(contacts)
            await mail.look_up([contact["address"] for contact in contacts])
            return await written_in_turns(partial(_failure, mail, now), contacts)

        domain, rates, seen, links, listed = await asyncio.gather(
            self._domain_facts(workspace_id, name),
            self._rates(workspace_id, name),
            self._mail_facts(workspace_id, row, mail, why, now),
            check_links(self._http, sources["html"], sources["text"], [one["name"] for one in own]),
            self._list_facts(workspace_id, row, asked_by(template), tries, now),
        )
        return CampaignFacts(
            outside=await self._outside(workspace_id),
            domain=domain,
            rates=rates,
            mail=seen,
            links=links,
            list=listed,
        )

    async def _list_facts(
        self,
        workspace_id: UUID,
        row: asyncpg.Record,
        asked: Asked,
        tries: Tries,
        now: datetime,
    ) -> ListFacts:
        """Who would get the campaign: the list's members, or whoever matches the segment."""
        audiences = self._segments.audiences
        if row["segment_id"] is None:
            listed = f'list "{ids.type_id(ids.LIST, row["list_id"])}"'
            audience = await audiences.read_pinned(workspace_id, listed)
            facts = await check_list(
                self._database, workspace_id, row["list_id"], row["id"], asked, tries, now
            )
        else:
            audience = await self._segments.audience(workspace_id, row["segment_id"])
            sent_at = await self._database.fetchval(
                _SQL.last_send_to_segment, workspace_id, row["segment_id"], row["id"]
            )
            facts = await check_segment(
                self._database, audiences, audience, sent_at, asked, tries, now
            )
        if not row["track_opens"] and not row["track_clicks"]:
            return facts
        known_long, silent = await check_silence(audiences, audience)
        return replace(facts, known_long=known_long, silent=silent)

    async def _domain_facts(self, workspace_id: UUID, name: str) -> DomainFacts:
        domain_id = await self._database.fetchval(_SQL.domain_by_name, workspace_id, name)
        if domain_id is None:
            return DomainFacts(name or "the sender's domain", known=False)
        return self._facts_of(await self._domains.get(workspace_id, domain_id))

    def _facts_of(self, domain: Domain) -> DomainFacts:
        ago = None if domain.checked_at is None else self._clock.now() - domain.checked_at
        return DomainFacts(
            domain.name,
            known=True,
            signs=domain.signs,
            verdicts=domain.verdicts,
            checked_ago=ago,
        )

    async def _rates(self, workspace_id: UUID, name: str) -> RateFacts:
        since = self._clock.now() - timedelta(days=RATE_DAYS)
        campaigns, single = await asyncio.gather(
            self._database.fetchrow(_SQL.rates, workspace_id, name, since),
            self._database.fetchrow(
                _SQL.single_rates, workspace_id, name, ids.lowest_at(since), SINGLE_EMAILS
            ),
        )
        assert campaigns is not None and single is not None, "aggregates have a row"
        return RateFacts(*(campaigns[one] + single[one] for one in _COUNTED))

    async def _mail(
        self, workspace_id: UUID, row: asyncpg.Record, now: datetime
    ) -> tuple[CampaignMail | None, str]:
        """The campaign's mail as it would be written now, or why it cannot be."""
        described: Mapping[str, Any] = {**row, "first_started_at": now}
        try:
            mail = await campaign_mail(
                self._templates,
                self._signing,
                self._tracking,
                self._hostname,
                workspace_id,
                row["id"],
                described,
            )
        except MailyardError as error:
            return None, error.message
        return mail, ""

    async def _mail_facts(
        self,
        workspace_id: UUID,
        row: asyncpg.Record,
        mail: CampaignMail | None,
        why: str,
        now: datetime,
    ) -> MailFacts:
        if mail is None:
            return MailFacts(failure=why)
        if row["segment_id"] is None:
            contacts = await self._database.fetch(
                _SQL.first_members, workspace_id, row["list_id"], MAILS_TRIED
            )
        else:
            audience = await self._segments.audience(workspace_id, row["segment_id"])
            async with self._database.transaction() as tx:
                contacts = await self._segments.audiences.first_members(
                    audience, MAILS_TRIED, now, tx
                )
        contents = []
        await mail.look_up([contact["address"] for contact in contacts])
        for contact in contacts:
            try:
                contents.append(_write(mail, contact, now))
            except MailyardError as error:
                why = why or f"{contact['address']}: {error.message}"
        if not contents:
            return MailFacts(failure=why or "there is nobody to try it on")
        imprint = await self._imprints.get(workspace_id)
        return mail_facts(contents, imprint.physical_address)


def mail_facts(contents: list[bytes], physical_address: str) -> MailFacts:
    """What is to be seen in whole mails: headers and signatures of the first, the largest HTML."""
    first = parse(contents[0])
    html, text = first.html or "", first.text or ""
    unsubscribe = first.header("List-Unsubscribe") or ""
    post = first.header("List-Unsubscribe-Post") or ""
    wanted = " ".join(physical_address.split())
    shown = " ".join(f"{html.replace('<br>', ' ')} {text}".split())
    return MailFacts(
        unsubscribe=unsubscribe,
        one_click="<https://" in unsubscribe and post.strip() == "List-Unsubscribe=One-Click",
        signed=signed_names(contents[0]),
        html_bytes=max(len((parse(one).html or "").encode()) for one in contents),
        has_html=bool(html),
        has_text=bool(text.strip()),
        physical_address=physical_address,
        shows_address=bool(wanted) and wanted in shown,
    )


def signed_names(content: bytes) -> frozenset[str]:
    """The header names that every DKIM signature of a mail covers; empty when there is none."""
    covered: frozenset[str] | None = None
    for name, value in parse(content).headers:
        if name.lower() != "dkim-signature":
            continue
        parts = (part.partition("=") for part in value.split(";"))
        tags = {tag.strip(): text for tag, _, text in parts}
        names = frozenset(one.strip().lower() for one in tags.get("h", "").split(":"))
        covered = names if covered is None else covered & names
    return covered or frozenset()


def _write(mail: CampaignMail, contact: asyncpg.Record, now: datetime) -> bytes:
    return _draft(mail, contact, now).signed().outgoing.content


def _draft(mail: CampaignMail, contact: asyncpg.Record, now: datetime) -> Draft:
    delivery_id = mail.delivery_id(contact["address"], None)
    return mail.draft(
        delivery_id,
        contact["id"],
        contact["address"],
        contact["name"],
        contact["attributes"],
        today(now),
    )


def _failure(mail: CampaignMail, now: datetime, contact: asyncpg.Record) -> str:
    """Why the mail for `contact` cannot be written. It is not signed: that is most of the work."""
    try:
        _draft(mail, contact, now)
    except MailyardError as error:
        return error.message
    return ""
