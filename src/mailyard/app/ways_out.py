"""The ways out: signing, providers, routes, the relay."""

from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import UUID

from mailyard.app.own_delivery import OwnDelivery

if TYPE_CHECKING:
    from mailyard.net.http import HttpClient
    from mailyard.sending.outbound import Outbound
    from mailyard.sending.provider import ProviderBook
    from mailyard.sending.provider_health import ProviderWatch
    from mailyard.sending.provider_trial import Trials
    from mailyard.sending.routing import Routing
    from mailyard.sending.sign import Signing
    from mailyard.sending.transport import Transport
    from mailyard.sending.upkeep import Shelf, Upkeep


class WaysOut(OwnDelivery):
    """What a worker hands mail to, and who signs it."""

    @cached_property
    def signing(self) -> "Signing":
        from mailyard.sending.sign import Signing

        def spares(workspace_id: UUID) -> bool:
            # Who has no way out of his own (the API) signs for nobody's provider.
            return "outbound" in self.__dict__ and self.outbound.rewrites(workspace_id)

        return Signing(database=self.database, vault=self.vault, clock=self.clock, spares=spares)

    @cached_property
    def providers(self) -> "ProviderBook":
        from mailyard.sending.provider import ProviderBook

        return ProviderBook(database=self.database, vault=self.vault, bus=self.bus)

    @cached_property
    def routing(self) -> "Routing":
        from mailyard.sending.routing import Routing

        return Routing(database=self.database)

    @cached_property
    def provider_http(self) -> "HttpClient":
        """The way to providers' APIs."""
        from mailyard.net.guard import networks_in
        from mailyard.net.http import HttpClient

        allowed = networks_in(self.settings.provider_networks)
        http = HttpClient(allowed=allowed)
        self.ends.append(http.close)
        return http

    @cached_property
    def provider_shelf(self) -> "Shelf":
        """What makes the transports of stored providers."""
        from random import Random

        from mailyard.net.guard import networks_in
        from mailyard.sending.transports.kinds import Workshop
        from mailyard.sending.upkeep import Shelf

        settings = self.settings
        allowed = networks_in(settings.provider_networks)
        workshop = Workshop(
            hello=settings.smtp_name,
            http=lambda: self.provider_http,
            rate=self.limits,
            clock=self.clock,
            random=Random(),
            data=settings.data,
            allowed=allowed,
            own=self.mx_transport,
        )
        return Shelf(vault=self.vault, workshop=workshop)

    @cached_property
    def provider_watch(self) -> "ProviderWatch":
        from mailyard.sending.provider_health import ProviderWatch

        return ProviderWatch(database=self.database)

    @cached_property
    def provider_trials(self) -> "Trials":
        from mailyard.sending.provider_trial import Trials

        return Trials(
            providers=self.providers,
            shelf=self.provider_shelf,
            signing=self.signing,
            suppressions=self.suppressions,
            hostname=self.settings.smtp_name,
            clock=self.clock,
        )

    @cached_property
    def outbound(self) -> "Outbound":
        """The way out of a worker: stored providers by stored routes, or the relay."""
        from mailyard.sending.outbound import Outbound

        return Outbound(
            relay=self.transport, make=lambda key: self.provider_shelf.make(key), clock=self.clock
        )

    @cached_property
    def upkeep(self) -> "Upkeep":
        """What has `outbound` follow the stored plan."""
        from mailyard.sending.upkeep import Upkeep

        return Upkeep(
            database=self.database,
            bus=self.bus,
            shelf=self.provider_shelf,
            outbound=self.outbound,
        )

    @cached_property
    def transport(self) -> "Transport":
        """The way out: the relay of the settings, or our own listener in a fresh install, or the
        recipients' own mail servers."""
        from mailyard.protocol.smtp.client_mail import StartTls
        from mailyard.sending.transports.smtp import SmtpOptions, SmtpTransport

        settings = self.settings
        if settings.delivery == "mx":
            return self.mx_transport()
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
