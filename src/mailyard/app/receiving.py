"""Inboxes and what lies in them."""

from functools import cached_property
from typing import TYPE_CHECKING

from mailyard.app.access import Access

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailyard.analysis.follow import ArrivalAnalysis
    from mailyard.analysis.meaning import Meanings
    from mailyard.mailbox.ending import Endings
    from mailyard.mailbox.follow import Follower as MailboxFollower
    from mailyard.mailbox.inbox import Inboxes
    from mailyard.mailbox.mail_file import MailFiles
    from mailyard.mailbox.mailbox import Mailboxes
    from mailyard.mailbox.message import Messages
    from mailyard.mailbox.purge import Purges
    from mailyard.mailbox.remote_image import RemoteImages
    from mailyard.mailbox.reservation import Reservations
    from mailyard.mailbox.search.index import Indexer, IndexFollower
    from mailyard.mailbox.search.reindex import Reindexer
    from mailyard.mailbox.search.search import Search
    from mailyard.mailbox.search.vectors import Vectors
    from mailyard.net.dns import Resolver
    from mailyard.receiving.authenticate import Authenticator
    from mailyard.receiving.domain import ReceivingDomains
    from mailyard.receiving.domain_route import InboundRoutes
    from mailyard.receiving.elsewhere import Elsewhere
    from mailyard.receiving.forward import ForwardFollower
    from mailyard.receiving.gate import Gate
    from mailyard.receiving.ingest import Follower, Ingest
    from mailyard.receiving.policy import MailPolicies
    from mailyard.receiving.reports import ReportFollower, Reports
    from mailyard.receiving.verdict import Verdicts


class Receiving(Access):
    """What reads received mail."""

    @cached_property
    def dns(self) -> "Resolver":
        """DNS with a cache: for mail on its way, and for who sent what comes in."""
        from mailyard.net.dns import Resolver
        from mailyard.net.dns_servers import parse_servers, system_servers

        text, validates = self.settings.dns_servers, self.settings.dns_validates
        servers = parse_servers(text, validates=validates) if text else system_servers()
        resolver = Resolver(servers, self.clock)
        self.ends.append(resolver.close)
        return resolver

    @cached_property
    def inboxes(self) -> "Inboxes":
        from mailyard.mailbox.inbox import Inboxes

        return Inboxes(
            database=self.database,
            domains=[self.settings.inbox_domain],
            clock=self.clock,
            cache=self.cache,
            allowance=self.allowance,
            names=self.names,
        )

    @cached_property
    def messages(self) -> "Messages":
        from mailyard.mailbox.message import Messages

        return Messages(
            database=self.database,
            inboxes=self.inboxes,
            follower=self.mailbox_follower,
            cache=self.cache,
            raw_mail=self.raw_mail,
            clock=self.clock,
        )

    @cached_property
    def mailboxes(self) -> "Mailboxes":
        from mailyard.mailbox.mailbox import Mailboxes

        return Mailboxes(
            database=self.database,
            inboxes=self.inboxes,
            live=self.live,
            engine=self.engine,
            clock=self.clock,
        )

    @cached_property
    def receiving_domains(self) -> "ReceivingDomains":
        from mailyard.receiving.domain import ReceivingDomains

        return ReceivingDomains(
            database=self.database,
            installation=[self.settings.inbox_domain],
            host=self.mail_host,
            clock=self.clock,
            names=self.names,
        )

    @cached_property
    def mail_host(self) -> str:
        """The server that mail for receiving domains is sent to: of the region, or this one."""
        here = self.regions.here
        return here.smtp[0] if here is not None and here.smtp else self.settings.smtp_name

    @cached_property
    def inbound_routes(self) -> "InboundRoutes":
        from mailyard.app.route_inboxes import RouteInboxes
        from mailyard.receiving.domain_route import InboundRoutes

        return InboundRoutes(
            database=self.database,
            inboxes=RouteInboxes(self.inboxes),
            refused=[self.settings.inbox_domain],
        )

    @cached_property
    def purges(self) -> "Purges":
        from mailyard.mailbox.purge import Purges

        return Purges(
            database=self.database,
            engine=self.engine,
            cache=self.cache,
            blobs=self.blob_upkeep,
        )

    @cached_property
    def endings(self) -> "Endings":
        from mailyard.mailbox.ending import Endings

        return Endings(
            database=self.database,
            engine=self.engine,
            follower=self.mailbox_follower,
            live=self.live,
            cache=self.cache,
            clock=self.clock,
        )

    @cached_property
    def mail_policies(self) -> "MailPolicies":
        from mailyard.receiving.policy import MailPolicies

        return MailPolicies(database=self.database)

    @cached_property
    def reservations(self) -> "Reservations":
        from mailyard.mailbox.reservation import Reservations

        return Reservations(
            database=self.database, domains=[self.settings.inbox_domain], names=self.names
        )

    @cached_property
    def elsewhere(self) -> "Elsewhere":
        """Where the listener looks for addresses that are no inbox's."""
        from mailyard.receiving.elsewhere import Elsewhere

        return Elsewhere(
            database=self.database,
            bus=self.bus,
            domains=[self.settings.inbox_domain],
            clock=self.clock,
        )

    @cached_property
    def mail_files(self) -> "MailFiles":
        """Whole mailboxes as files, out and in."""
        from mailyard.mailbox.mail_file import MailFiles

        return MailFiles(
            database=self.database,
            inboxes=self.inboxes,
            engine=self.engine,
            allowance=self.allowance,
            raw_mail=self.raw_mail,
            clock=self.clock,
        )

    @cached_property
    def remote_images(self) -> "RemoteImages":
        """What fetches images of mail for a reader; public addresses only."""
        from mailyard.mailbox.remote_image import RemoteImages
        from mailyard.net.http import HttpClient

        http = HttpClient(user_agent="Mozilla/5.0")  # some servers give others nothing
        self.ends.append(http.close)
        return RemoteImages(http)

    @cached_property
    def meanings(self) -> "Meanings":
        """What the rules find in mail."""
        from mailyard.analysis.meaning import Meanings

        return Meanings(database=self.database, raw_mail=self.raw_mail)

    @cached_property
    def followers(self) -> "Sequence[Follower]":
        """What writes what follows from mail that came in, in ingest's transaction. The mailboxes'
        comes last: it holds them until the commit."""
        return (
            self.forward_follower,
            self.report_follower,
            self.index_follower,
            self.arrival_analysis,
            self.mailbox_follower,
        )

    @cached_property
    def arrival_analysis(self) -> "ArrivalAnalysis":
        from mailyard.analysis.follow import ArrivalAnalysis

        return ArrivalAnalysis(database=self.database, engine=self.engine)

    @cached_property
    def forward_follower(self) -> "ForwardFollower":
        from mailyard.receiving.forward import ForwardFollower

        return ForwardFollower(database=self.database, engine=self.engine)

    @cached_property
    def indexers(self) -> "Sequence[Follower]":
        """Those of the followers that are for mail that was sent too."""
        return (self.index_follower,)

    @cached_property
    def mailbox_follower(self) -> "MailboxFollower":
        from mailyard.mailbox.follow import Follower

        return Follower(database=self.database, live=self.live)

    @cached_property
    def reports(self) -> "Reports":
        """What receivers report of mail in our domains' names."""
        from mailyard.receiving.reports import Reports

        return Reports(database=self.database, clock=self.clock, cache=self.cache)

    @cached_property
    def report_follower(self) -> "ReportFollower":
        from mailyard.receiving.reports import ReportFollower

        return ReportFollower(engine=self.engine)

    @cached_property
    def verdicts(self) -> "Verdicts":
        """Who sent mail, as it was found, and what inboxes do with forged mail."""
        from mailyard.receiving.verdict import Verdicts

        return Verdicts(
            database=self.database,
            authserv_id=self.settings.smtp_name,
            raw_mail=self.raw_mail,
        )

    @cached_property
    def authenticator(self) -> "Authenticator":
        """Checks who sent mail. Raises ConfigurationError."""
        from mailyard.net.special_names import unasked
        from mailyard.receiving.authenticate import Authenticator, read_suffixes

        settings = self.settings
        suffixes = settings.public_suffix_file
        return Authenticator(
            dns=self.dns,
            clock=self.clock,
            receiver=settings.smtp_name,
            unasked=unasked(own_servers=bool(settings.dns_servers)),
            loopback=settings.check_loopback,
            organisation=read_suffixes(suffixes) if suffixes is not None else None,
        )

    @cached_property
    def gate(self) -> "Gate | None":
        """What ingest asks who sent a mail; None where the settings say that nobody asks."""
        from mailyard.receiving.gate import Gate

        if not self.settings.check_senders:
            return None
        return Gate(
            authenticator=self.authenticator,
            database=self.database,
            engine=self.engine,
            live=self.live,
        )

    @cached_property
    def admitting(self) -> "Ingest":
        """What lets mail into inboxes that somebody has looked at: nobody is asked who sent it."""
        from mailyard.receiving.ingest import Ingest

        return Ingest(
            database=self.database,
            live=self.live,
            followers=self.followers,
            raw_mail=self.raw_mail,
        )

    @cached_property
    def ingest(self) -> "Ingest":
        """What makes accepted mail visible."""
        from mailyard.receiving.ingest import Ingest

        return Ingest(
            database=self.database,
            live=self.live,
            followers=self.followers,
            gate=self.gate,
            raw_mail=self.raw_mail,
        )

    @cached_property
    def index_follower(self) -> "IndexFollower":
        from mailyard.mailbox.search.index import IndexFollower

        return IndexFollower(engine=self.engine)

    @cached_property
    def indexer(self) -> "Indexer":
        from mailyard.mailbox.search.index import Indexer

        return Indexer(
            database=self.database,
            engine=self.engine,
            vectors=self.vectors,
            cache=self.cache,
            raw_mail=self.raw_mail,
            clock=self.clock,
        )

    @cached_property
    def vectors(self) -> "Vectors":
        """What finds mail by meaning, where the settings have it."""
        from mailyard.mailbox.search.vectors import Vectors

        if not self.settings.semantic_search:
            return Vectors(database=self.database, embedder=None)
        from mailyard.mailbox.search.embedders.wordllama import WordLlama

        return Vectors(database=self.database, embedder=WordLlama())

    @cached_property
    def reindexer(self) -> "Reindexer":
        from mailyard.mailbox.search.reindex import Reindexer

        return Reindexer(database=self.database, engine=self.engine)

    @cached_property
    def search(self) -> "Search":
        from mailyard.mailbox.search.search import Search

        return Search(
            database=self.database,
            inboxes=self.inboxes,
            indexer=self.indexer,
            vectors=self.vectors,
            raw_mail=self.raw_mail,
            clock=self.clock,
        )
