"""The composition root: settings become services here, and only here an adapter is picked.

Every service is made when it is first asked for, and its module imported then: a role pays, in
time and memory, for what it uses and nothing else.
"""

from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mailyard.bus.adapters.postgres import PostgresBus
from mailyard.bus.live import LiveEvents
from mailyard.core.clock import SystemClock
from mailyard.queue.engines.postgres import PostgresEngine
from mailyard.settings import Settings
from mailyard.storage import cluster
from mailyard.storage.database import Database, DatabaseAddress

if TYPE_CHECKING:
    import ssl

    from mailyard.access.audit import Audit
    from mailyard.access.idempotency import Idempotency
    from mailyard.access.key import ApiKeys
    from mailyard.access.session import Sessions
    from mailyard.access.user import Users
    from mailyard.access.vault import Vault
    from mailyard.access.workspace import Workspaces
    from mailyard.campaigns.campaign import Campaigns
    from mailyard.campaigns.contact import Contacts
    from mailyard.campaigns.contact_list import Lists
    from mailyard.campaigns.importing import Imports
    from mailyard.campaigns.progress import ProgressEvents
    from mailyard.mailbox.inbox import Inboxes
    from mailyard.mailbox.message import Messages
    from mailyard.net.dns import Resolver
    from mailyard.proving.demo import Demos
    from mailyard.queue.admin import QueueAdmin
    from mailyard.ratelimit.adapters.postgres import PostgresRateLimit
    from mailyard.sending.accept import Emails
    from mailyard.sending.delivery import Deliveries
    from mailyard.sending.domain import Domains
    from mailyard.sending.sign import Signing
    from mailyard.sending.suppress import Suppressions
    from mailyard.sending.template import Templates
    from mailyard.sending.transports.smtp import SmtpTransport


def database_address(settings: Settings) -> DatabaseAddress:
    """Where the platform's PostgreSQL is, its own or the one that the settings name."""
    url = settings.database_url or cluster.url_of(settings.data)
    return DatabaseAddress(
        url=url,
        direct_url=settings.database_direct_url or url,
        connections=settings.database_connections,
        behind_pooler=settings.database_pooler,
    )


class Application:
    """The services of one process. `open` before use, `close` at the end."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = SystemClock()
        self.database = Database(database_address(settings))
        self.bus = PostgresBus(database=self.database)
        self.live = LiveEvents(database=self.database, bus=self.bus)
        self.engine = PostgresEngine(database=self.database, bus=self.bus)

    async def open(self) -> None:
        """Connect. Raises Unavailable when the database does not answer."""
        await self.database.open()
        await self.bus.open()

    async def close(self) -> None:
        """End what this process holds, in the reverse order of its making."""
        if "templates" in self.__dict__:
            await self.templates.close()
        if "fresh_dns" in self.__dict__:
            await self.fresh_dns.close()
        await self.bus.close()
        await self.database.close()

    # Access.

    @cached_property
    def audit(self) -> "Audit":
        from mailyard.access.audit import Audit

        return Audit(database=self.database)

    @cached_property
    def workspaces(self) -> "Workspaces":
        from mailyard.access.workspace import Workspaces

        return Workspaces(database=self.database, audit=self.audit)

    @cached_property
    def users(self) -> "Users":
        from mailyard.access.user import Users

        return Users(database=self.database, audit=self.audit)

    @cached_property
    def sessions(self) -> "Sessions":
        from mailyard.access.session import Sessions

        return Sessions(database=self.database, audit=self.audit)

    @cached_property
    def keys(self) -> "ApiKeys":
        from mailyard.access.key import ApiKeys

        return ApiKeys(database=self.database, audit=self.audit, clock=self.clock)

    @cached_property
    def idempotency(self) -> "Idempotency":
        from mailyard.access.idempotency import Idempotency

        return Idempotency(database=self.database)

    @cached_property
    def vault(self) -> "Vault":
        """What seals stored secrets, under the settings' key or one made in the data folder."""
        from mailyard.access.vault import Vault, ensure_master_key, parse_master_keys

        settings = self.settings
        return Vault(
            lambda: parse_master_keys(settings.master_key) or ensure_master_key(settings.data)
        )

    @cached_property
    def limits(self) -> "PostgresRateLimit":
        from mailyard.ratelimit.adapters.postgres import PostgresRateLimit

        return PostgresRateLimit(database=self.database)

    @cached_property
    def queue_admin(self) -> "QueueAdmin":
        from mailyard.queue.admin import QueueAdmin

        return QueueAdmin(engine=self.engine)

    # Receiving.

    @cached_property
    def inboxes(self) -> "Inboxes":
        from mailyard.mailbox.inbox import Inboxes

        return Inboxes(
            database=self.database, domains=[self.settings.inbox_domain], clock=self.clock
        )

    @cached_property
    def messages(self) -> "Messages":
        from mailyard.mailbox.message import Messages

        return Messages(database=self.database, inboxes=self.inboxes)

    # Sending.

    @cached_property
    def templates(self) -> "Templates":
        from mailyard.sending.template import Templates

        return Templates(database=self.database)

    @cached_property
    def emails(self) -> "Emails":
        from mailyard.sending.accept import Emails

        return Emails(
            database=self.database, engine=self.engine, templates=self.templates, clock=self.clock
        )

    @cached_property
    def deliveries(self) -> "Deliveries":
        from mailyard.sending.delivery import Deliveries

        return Deliveries(database=self.database, clock=self.clock)

    @cached_property
    def suppressions(self) -> "Suppressions":
        from mailyard.sending.suppress import Suppressions

        return Suppressions(database=self.database)

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
        return Resolver(servers, self.clock, remembering_nothing)

    @cached_property
    def domains(self) -> "Domains":
        from mailyard.sending.domain import Domains

        return Domains(database=self.database, vault=self.vault, clock=self.clock)

    @cached_property
    def signing(self) -> "Signing":
        from mailyard.sending.sign import Signing

        return Signing(database=self.database, vault=self.vault, clock=self.clock)

    @cached_property
    def transport(self) -> "SmtpTransport":
        """The way out: the relay of the settings, or our own listener in a fresh install."""
        from mailyard.protocol.smtp.client_mail import StartTls
        from mailyard.sending.transports.smtp import SmtpOptions, SmtpTransport

        settings = self.settings
        tls_on_connect = False
        if not settings.relay_url:
            host = "127.0.0.1" if settings.smtp_host in ("0.0.0.0", "::") else settings.smtp_host
            port, starttls = settings.smtp_port, StartTls.NONE
        else:
            parts = urlsplit(settings.relay_url)
            tls_on_connect = parts.scheme == "smtps"
            host, port = parts.hostname or "", parts.port or (465 if tls_on_connect else 25)
            starttls = StartTls[settings.relay_tls.upper()]
        return SmtpTransport(
            name="relay",
            host=host,
            port=port,
            hello=settings.smtp_name,
            options=SmtpOptions(
                connections=settings.relay_connections,
                starttls=starttls,
                tls_on_connect=tls_on_connect,
            ),
        )

    # Contacts and campaigns.

    @cached_property
    def contacts(self) -> "Contacts":
        from mailyard.campaigns.contact import Contacts

        return Contacts(database=self.database)

    @cached_property
    def lists(self) -> "Lists":
        from mailyard.campaigns.contact_list import Lists

        return Lists(database=self.database)

    @cached_property
    def imports(self) -> "Imports":
        from mailyard.campaigns.importing import Imports

        return Imports(database=self.database, engine=self.engine)

    @cached_property
    def progress(self) -> "ProgressEvents":
        from mailyard.campaigns.progress import ProgressEvents

        return ProgressEvents(database=self.database, live=self.live)

    @cached_property
    def campaigns(self) -> "Campaigns":
        from mailyard.campaigns.campaign import Campaigns

        return Campaigns(
            database=self.database,
            engine=self.engine,
            templates=self.templates,
            progress=self.progress,
            hostname=self.settings.smtp_name,
            clock=self.clock,
        )

    # Proving.

    @cached_property
    def demos(self) -> "Demos":
        from mailyard.proving.demo import Demos

        return Demos(database=self.database, engine=self.engine)

    def tls_context(self) -> "ssl.SSLContext":
        """The SMTP server's certificate: the owner's, or the one made at the first start."""
        from mailyard.net.tls import ensure_certificate, server_context

        settings = self.settings
        if settings.tls_cert is not None and settings.tls_key is not None:
            return server_context(settings.tls_cert, settings.tls_key)
        return server_context(*ensure_certificate(settings.data / "tls", settings.smtp_name))
