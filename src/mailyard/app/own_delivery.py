"""Own delivery to the recipients' mail servers: DNS, receivers, limits over all workers."""

from functools import cached_property
from typing import TYPE_CHECKING

from mailyard.app.receiving import Receiving

if TYPE_CHECKING:
    from mailyard.net.dns import Resolver
    from mailyard.ratelimit.adapters.postgres_leases import PostgresLeases
    from mailyard.sending.shape.receiver import Book
    from mailyard.sending.shaping import Shaping
    from mailyard.sending.sts import StsCache
    from mailyard.sending.suppress import Suppressions
    from mailyard.sending.tls_count import TlsCounter
    from mailyard.sending.transports.mx.transport import MxTransport


class OwnDelivery(Receiving):
    """What a worker needs to be a mail server that sends."""

    @cached_property
    def dns(self) -> "Resolver":
        """DNS with a cache: for mail on its way."""
        from mailyard.net.dns import Resolver
        from mailyard.net.dns_servers import parse_servers, system_servers

        text, validates = self.settings.dns_servers, self.settings.dns_validates
        servers = parse_servers(text, validates=validates) if text else system_servers()
        resolver = Resolver(servers, self.clock)
        self.ends.append(resolver.close)
        return resolver

    @cached_property
    def suppressions(self) -> "Suppressions":
        from mailyard.sending.suppress import Suppressions

        return Suppressions(database=self.database)

    @cached_property
    def receivers(self) -> "Book":
        """How fast each destination may be written to. Raises ConfigurationError."""
        from mailyard.core.errors import ConfigurationError
        from mailyard.sending.shape.book import SHIPPED, read_book, shipped, shipped_text

        file = self.settings.shaping_file
        if file is None:
            return shipped()
        try:
            text = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"MAILYARD_SHAPING_FILE is {str(file)!r}, which cannot be read: {error}"
            ) from error
        return read_book([(SHIPPED, shipped_text()), (str(file), text)])

    @cached_property
    def leases(self) -> "PostgresLeases":
        from mailyard.ratelimit.adapters.postgres_leases import PostgresLeases

        return PostgresLeases(database=self.database)

    @cached_property
    def shaping(self) -> "Shaping":
        from mailyard.sending.shaping import Shaping

        return Shaping(database=self.database, book=self.receivers, clock=self.clock)

    @cached_property
    def tls_results(self) -> "TlsCounter":
        from mailyard.sending.tls_count import TlsCounter

        return TlsCounter(database=self.database, clock=self.clock)

    @cached_property
    def sts(self) -> "StsCache":
        """What MTA-STS asks of the domains that are written to."""
        from mailyard.net.guard import networks
        from mailyard.net.http import HttpClient
        from mailyard.sending.sts import HttpsFetcher, StsCache

        allowed = networks(self.settings.mx_networks.replace(",", " ").split())
        http = HttpClient(allowed=allowed)
        cache = StsCache(
            database=self.database, dns=self.dns, fetcher=HttpsFetcher(http), clock=self.clock
        )
        self.ends += [http.close, cache.close]
        return cache

    def mx_transport(self, name: str = "mx") -> "MxTransport":
        """A way out of our own. One a process, for its shares of limits are its own."""
        from random import Random

        from mailyard.net.guard import networks, refusal
        from mailyard.net.mail_route import MailRouter
        from mailyard.sending.late_stops import LateStops
        from mailyard.sending.shaping_board import SiteBoard
        from mailyard.sending.transports.mx.road import Roads
        from mailyard.sending.transports.mx.secure import Security
        from mailyard.sending.transports.mx.source import Source
        from mailyard.sending.transports.mx.transport import MxTransport
        from mailyard.sending.transports.mx.yard import MxOptions

        settings = self.settings
        stops = LateStops(database=self.database, suppressions=self.suppressions, source=name)
        allowed = networks(settings.mx_networks.replace(",", " ").split())
        router = MailRouter(
            self.dns,
            Random(),
            own_names=(settings.smtp_name,),
            own_addresses=(),
            may_connect=lambda address: refusal(str(address), allowed) is None,
        )
        return MxTransport(
            name=name,
            roads=Roads(router, self.sts, self.clock),
            security=Security(router),
            book=self.receivers,
            rate=self.limits,
            leases=self.leases,
            source=Source("", settings.smtp_name),
            board=SiteBoard(database=self.database, book=self.receivers, clock=self.clock),
            tls_counts=self.tls_results,
            suppress=stops,
            keepers=(self.tls_results, stops),
            options=MxOptions(port=settings.mx_port),
            clock=self.clock,
        )
