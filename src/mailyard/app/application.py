"""The services of one process, opened and closed."""

from functools import cached_property
from typing import TYPE_CHECKING

from mailyard.app.access import read_book
from mailyard.app.operations import Operating

if TYPE_CHECKING:
    import ssl

    from mailyard.proving.demo import Demos
    from mailyard.proving.load_test import LoadTests
    from mailyard.settings import Settings
    from mailyard.storage.backup.record import BackupLog


class Application(Operating):
    """The services of one process. `open` before use, `close` at the end."""

    async def open(self) -> None:
        """Connect. Raises Unavailable when the database does not answer."""
        await self.database.open()
        if self.fleet is not None:
            await self.fleet.meet(self.presence_table)
            await self.fleet.link.open()
        await self.bus.open()

    async def close(self) -> None:
        """End what this process holds, in the reverse order of its making."""
        for end in reversed(self.ends):
            await end()
        await self.bus.close()
        if self.fleet is not None:
            await self.fleet.link.close()
        await self.database.close()

    def reload(self, settings: "Settings") -> None:
        """Go by what may change while it works. Raises ConfigurationError, and then nothing has
        changed."""
        book = read_book(settings)
        if "limit_policies" in self.__dict__:
            self.limit_policies.book = book
        self.settings = settings

    @cached_property
    def demos(self) -> "Demos":
        from mailyard.proving.demo import Demos

        return Demos(database=self.database, engine=self.engine)

    @cached_property
    def load_tests(self) -> "LoadTests":
        from mailyard.proving.load_test import LoadTests

        return LoadTests(database=self.database)

    @cached_property
    def backup_log(self) -> "BackupLog":
        """What became of backups; whoever takes them has more (`app/backup.py`)."""
        from mailyard.storage.backup.record import BackupLog

        return BackupLog(database=self.database)

    def tls_context(self) -> "ssl.SSLContext":
        """The SMTP server's certificate: the owner's, or the one made at the first start."""
        from mailyard.net.tls import ensure_certificate, server_context

        settings = self.settings
        if settings.tls_cert is not None and settings.tls_key is not None:
            return server_context(settings.tls_cert, settings.tls_key)
        return server_context(*ensure_certificate(settings.data / "tls", settings.smtp_name))
