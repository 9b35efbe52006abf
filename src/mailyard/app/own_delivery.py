"""Own delivery to the recipients' mail servers: DNS, receivers, limits over all workers."""

from functools import cached_property
from typing import TYPE_CHECKING

from mailyard.app.analysis import Analysing
from mailyard.core.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from mailyard.receiving.policy import Doorkeeper
    from mailyard.sending.shape.receiver import Book
    from mailyard.sending.shaping import Shaping
    from mailyard.sending.source_file import SourceList
    from mailyard.sending.source_pool import SourcePool
    from mailyard.sending.sts import StsCache
    from mailyard.sending.suppress import Suppressions
    from mailyard.sending.tls_count import TlsCounter
    from mailyard.sending.transports.mx.transport import MxTransport


class OwnDelivery(Analysing):
    """What a worker needs to be a mail server that sends."""

    @cached_property
    def doorkeeper(self) -> "Doorkeeper":
        """What a listener asks whom workspaces take mail from."""
        from mailyard.net.guard import ANYWHERE
        from mailyard.net.http import HttpClient
        from mailyard.receiving.policy import Doorkeeper, Scanner
        from mailyard.receiving.scan import RspamdScanner, RulesScanner

        scanner: Scanner = RulesScanner()
        if self.settings.rspamd_url:
            # The operator's own machine, wherever it is: nobody else names this address.
            http = HttpClient(allowed=ANYWHERE)
            self.ends.append(http.close)
            scanner = RspamdScanner(
                http=http, url=self.settings.rspamd_url, otherwise=RulesScanner()
            )
        return Doorkeeper(database=self.database, limits=self.limits, scanner=scanner)

    @cached_property
    def suppressions(self) -> "Suppressions":
        from mailyard.sending.suppress import Suppressions

        return Suppressions(database=self.database)

    @cached_property
    def receivers(self) -> "Book":
        """How fast each destination may be written to. Raises ConfigurationError."""
        from mailyard.sending.shape.book import SHIPPED, read_book, shipped, shipped_text

        file = self.settings.shaping_file
        if file is None:
            return shipped()
        text = _text_of(file, "MAILYARD_SHAPING_FILE")
        return read_book([(SHIPPED, shipped_text()), (str(file), text)])

    @cached_property
    def source_lists(self) -> "dict[str, SourceList]":
        """The pools of source addresses by name. Raises ConfigurationError."""
        from mailyard.sending.source_file import DEFAULT_POOL, alone, read_sources

        settings = self.settings
        if settings.sources_file is None:
            return {DEFAULT_POOL: alone(settings.smtp_name)}
        text = _text_of(settings.sources_file, "MAILYARD_SOURCES_FILE")
        return read_sources(str(settings.sources_file), text, settings.smtp_name, settings.region)

    def source_pool(self, name: str) -> "SourcePool":
        """A pool at work in this process. Raises ConfigurationError."""
        from mailyard.sending.source_pool import SourcePool

        lists = self.source_lists
        if name not in lists:
            raise ConfigurationError(
                f"there is no pool of source addresses {name!r}; there are {', '.join(lists)}"
            )
        return SourcePool(sources=lists[name], database=self.database, clock=self.clock)

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
        from mailyard.net.guard import networks_in
        from mailyard.net.http import HttpClient
        from mailyard.sending.sts import HttpsFetcher, StsCache

        allowed = networks_in(self.settings.mx_networks)
        http = HttpClient(allowed=allowed)
        cache = StsCache(
            database=self.database, dns=self.dns, fetcher=HttpsFetcher(http), clock=self.clock
        )
        self.ends += [http.close, cache.close]
        return cache

    @cached_property
    def source_pools(self) -> "dict[str, SourcePool]":
        """All pools, for who wants to see how they stand. Raises ConfigurationError."""
        return {name: self.source_pool(name) for name in self.source_lists}

    def mx_transport(self, name: str = "mx", pool: str = "default") -> "MxTransport":
        """A way out of our own, from the addresses of a pool. Raises ConfigurationError."""
        from random import Random

        from mailyard.net.guard import networks_in, refusal
        from mailyard.net.mail_route import MailRouter
        from mailyard.sending.late_stops import LateStops
        from mailyard.sending.shaping_board import SiteBoard
        from mailyard.sending.transports.mx.road import Roads
        from mailyard.sending.transports.mx.secure import Security
        from mailyard.sending.transports.mx.transport import MxTransport
        from mailyard.sending.transports.mx.yard import MxOptions

        settings = self.settings
        stops = LateStops(database=self.database, suppressions=self.suppressions, source=name)
        allowed = networks_in(settings.mx_networks)
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
            sources=self.source_pool(pool),
            board=SiteBoard(database=self.database, book=self.receivers, clock=self.clock),
            tls_counts=self.tls_results,
            suppress=stops,
            keepers=(self.tls_results, stops),
            options=MxOptions(port=settings.mx_port, connections_max=_connections_max()),
            clock=self.clock,
        )


def _connections_max() -> int:
    """Half of the files that a process may have open, and not more than is of use."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 4_000 if soft == resource.RLIM_INFINITY else max(50, min(4_000, soft // 2))


def _text_of(file: "Path", variable: str) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{variable} is {str(file)!r}, which cannot be read: {error}"
        ) from error
