"""What writes mail, and finds out what became of it."""

from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mailyard.app.ways_out import WaysOut

if TYPE_CHECKING:
    from mailyard.access.account import Accounts
    from mailyard.access.letter import Letter
    from mailyard.mailbox.draft import Drafts
    from mailyard.mailbox.note import Notes
    from mailyard.net.dns import Resolver
    from mailyard.net.http import HttpClient
    from mailyard.sending.accept import Emails
    from mailyard.sending.allowance import Allowances
    from mailyard.sending.delivery import Deliveries
    from mailyard.sending.domain import Domains
    from mailyard.sending.domain_check import OwnSide
    from mailyard.sending.forwarded import Forwarding
    from mailyard.sending.imprint import Imprints
    from mailyard.sending.return_path import ReturnPaths
    from mailyard.sending.returns.address import ReturnAddresses
    from mailyard.sending.returns.hook import ProviderHooks
    from mailyard.sending.returns.intake import HookIntake
    from mailyard.sending.returns.record import Recorder
    from mailyard.sending.suppress_file import SuppressionFiles
    from mailyard.sending.template import Templates
    from mailyard.sending.track.domain import TrackingDomains, TrackingNames
    from mailyard.sending.track.hit import HitCollector
    from mailyard.sending.track.report import TrackingReport
    from mailyard.sending.track.tracking import Tracking


class Sending(WaysOut):
    """Templates, domains, deliveries, tracking."""

    @cached_property
    def templates(self) -> "Templates":
        from mailyard.cache.adapters.memory import MemoryCache
        from mailyard.campaigns.personal import CachedPersonal
        from mailyard.sending.ready import Ready
        from mailyard.sending.template import Templates

        ready = Ready(
            database=self.database, bus=self.bus, cache=self.shared_cache, clock=self.clock
        )
        personal = CachedPersonal(database=self.database, cache=MemoryCache(clock=self.clock))
        templates = Templates(database=self.database, ready=ready, personal=personal)
        self.ends.append(templates.close)
        return templates

    @cached_property
    def emails(self) -> "Emails":
        from mailyard.sending.accept import Emails

        return Emails(
            database=self.database,
            engine=self.engine,
            templates=self.templates,
            allowances=self.allowances,
            raw_mail=self.raw_mail,
            clock=self.clock,
        )

    # What is written in mailboxes.

    @cached_property
    def notes(self) -> "Notes":
        """Templates and signatures of mailboxes."""
        from mailyard.mailbox.note import Notes

        return Notes(
            database=self.database,
            inboxes=self.inboxes,
            mailboxes=self.mailboxes,
            clock=self.clock,
        )

    @cached_property
    def drafts(self) -> "Drafts":
        from mailyard.mailbox.draft import Drafts

        return Drafts(
            database=self.database,
            inboxes=self.inboxes,
            messages=self.messages,
            mailboxes=self.mailboxes,
            notes=self.notes,
            engine=self.engine,
            clock=self.clock,
        )

    @cached_property
    def accounts(self) -> "Accounts":
        """Sign-up, invitations, forgotten passwords: their letters are mails of the first
        workspace."""
        from mailyard.access.account import Accounts
        from mailyard.sending.own import post_letter

        async def post(letter: "Letter", key: str) -> None:
            first = await self.workspaces.first()
            await post_letter(self.emails, first, self.settings.account_sender, letter, key)

        return Accounts(
            database=self.database,
            engine=self.engine,
            audit=self.audit,
            users=self.users,
            workspaces=self.workspaces,
            plans=self.plans,
            limits=self.limits,
            post=post,
            page_url=self.settings.page_url,
            may_sign_up=self.settings.sign_up,
        )

    @cached_property
    def forwarding(self) -> "Forwarding":
        """What sends received mail on, where a route says so."""
        from mailyard.sending.forwarded import Forwarding

        return Forwarding(
            database=self.database,
            emails=self.emails,
            signing=self.signing,
            authserv_id=self.settings.smtp_name,
            raw_mail=self.raw_mail,
            clock=self.clock,
        )

    @cached_property
    def allowances(self) -> "Allowances":
        from mailyard.sending.allowance import Allowances

        return Allowances(database=self.database, plans=self.plans)

    @cached_property
    def deliveries(self) -> "Deliveries":
        from mailyard.sending.delivery import Deliveries

        return Deliveries(database=self.database, raw_mail=self.raw_mail, clock=self.clock)

    @cached_property
    def return_paths(self) -> "ReturnPaths | None":
        """What makes the return-paths of sent mail; None where it goes out without."""
        from mailyard.sending.return_path import ReturnPaths

        domain = self.settings.returns_at
        if not domain:
            return None
        return ReturnPaths(domain=domain, keys=self.vault.keys_for("return-path"))

    @cached_property
    def return_addresses(self) -> "ReturnAddresses | None":
        """Where the listener takes mail that comes back; None where none is asked for."""
        from mailyard.sending.returns.address import ReturnAddresses

        if self.return_paths is None:
            return None
        return ReturnAddresses(
            paths=self.return_paths, domain=self.settings.returns_at, clock=self.clock
        )

    @cached_property
    def recorder(self) -> "Recorder":
        """What writes into the stories of deliveries what happened after their hand-over."""
        from mailyard.sending.returns.record import Recorder

        return Recorder(
            database=self.database,
            live=self.live,
            suppressions=self.suppressions,
            clock=self.clock,
        )

    @cached_property
    def suppression_files(self) -> "SuppressionFiles":
        """Suppressions as CSV files, in and out."""
        from mailyard.sending.suppress_file import SuppressionFiles

        return SuppressionFiles(database=self.database, suppressions=self.suppressions)

    @cached_property
    def provider_hooks(self) -> "ProviderHooks":
        """Where providers send their events."""
        from mailyard.sending.returns.hook import ProviderHooks

        return ProviderHooks(
            database=self.database, vault=self.vault, clock=self.clock, names=self.names
        )

    @cached_property
    def hook_intake(self) -> "HookIntake":
        """What takes providers' events."""
        from mailyard.core.errors import Unavailable
        from mailyard.sending.returns.intake import HookIntake

        async def fetch(url: str) -> bytes:
            answer = await self.http.request("GET", url, total_s=5.0)
            if answer.status != 200:
                raise Unavailable(f"{url} answers {answer.status}")
            return answer.body

        return HookIntake(
            database=self.database,
            engine=self.engine,
            hooks=self.provider_hooks,
            fetch=fetch,
            clock=self.clock,
        )

    @cached_property
    def http(self) -> "HttpClient":
        """The guarded client for what is fetched from the world."""
        from mailyard.net.http import HttpClient

        client = HttpClient()
        self.ends.append(client.close)
        return client

    @cached_property
    def fresh_dns(self) -> "Resolver":
        """DNS as it is this moment: for who has just changed a record and wants to know."""
        from mailyard.net.dns import DnsLimits, Resolver
        from mailyard.net.dns_servers import parse_servers, system_servers

        text = self.settings.dns_servers
        servers = parse_servers(text, validates=False) if text else system_servers()
        remembering_nothing = DnsLimits(
            deadline_s=5.0,
            ttl_floor_s=0.0,
            ttl_ceiling_s=0.0,
            negative_ceiling_s=0.0,
            failure_s=0.0,
        )
        resolver = Resolver(servers, self.clock, remembering_nothing)
        self.ends.append(resolver.close)
        return resolver

    @cached_property
    def domains(self) -> "Domains":
        from mailyard.sending.domain import Domains

        return Domains(database=self.database, vault=self.vault, clock=self.clock)

    @cached_property
    def own_side(self) -> "OwnSide":
        """Our own part in the records of sending domains."""
        from mailyard.app.own_side import own_side

        return own_side(self.settings)

    # Tracking.

    @cached_property
    def imprints(self) -> "Imprints":
        from mailyard.sending.imprint import Imprints

        return Imprints(database=self.database, clock=self.clock)

    @cached_property
    def tracking_names(self) -> "TrackingNames":
        from mailyard.sending.track.domain import TrackingNames

        return TrackingNames(
            database=self.database, default=self.settings.page_url, clock=self.clock
        )

    @cached_property
    def tracking_domains(self) -> "TrackingDomains":
        from mailyard.sending.track.domain import TrackingDomains

        target = urlsplit(self.settings.page_url).hostname or "localhost"
        return TrackingDomains(database=self.database, target=target, clock=self.clock)

    @cached_property
    def tracking(self) -> "Tracking":
        from mailyard.sending.track.link import Links
        from mailyard.sending.track.token import Tokens
        from mailyard.sending.track.tracking import Tracking

        return Tracking(
            tokens=Tokens(self.vault.keys_for),
            links=Links(database=self.database),
            names=self.tracking_names,
            imprints=self.imprints,
        )

    @cached_property
    def tracking_report(self) -> "TrackingReport":
        from mailyard.sending.track.report import TrackingReport

        return TrackingReport(database=self.database, links=self.tracking.links)

    @cached_property
    def hits(self) -> "HitCollector":
        from mailyard.sending.track.hit import HitCollector

        return HitCollector(engine=self.engine)
