"""Own delivery to the recipients' mail servers: DNS, receivers, limits over all workers."""

from functools import cached_property
from typing import TYPE_CHECKING

from mailyard.app.receiving import Receiving

if TYPE_CHECKING:
    from mailyard.net.dns import Resolver
    from mailyard.ratelimit.adapters.postgres_leases import PostgresLeases
    from mailyard.sending.shape.receiver import Book
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

    def mx_transport(self, name: str = "mx") -> "MxTransport":
        """A way out of our own. One a process, for its shares of limits are its own."""
        from random import Random

        from mailyard.net.guard import networks, refusal
        from mailyard.net.mail_route import MailRouter
        from mailyard.sending.transports.mx.road import Roads
        from mailyard.sending.transports.mx.secure import Security
        from mailyard.sending.transports.mx.source import Source
        from mailyard.sending.transports.mx.transport import MxTransport
        from mailyard.sending.transports.mx.yard import MxOptions

        settings = self.settings
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
            roads=Roads(router, None, self.clock),
            security=Security(router),
            book=self.receivers,
            rate=self.limits,
            leases=self.leases,
            source=Source("", settings.smtp_name),
            options=MxOptions(port=settings.mx_port),
            clock=self.clock,
        )
