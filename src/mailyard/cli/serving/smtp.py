"""The SMTP role: the listener, and the accept decision behind it."""

from mailyard.app import Application
from mailyard.core.errors import ConfigurationError
from mailyard.receiving.accept import Acceptor
from mailyard.receiving.listener import Listener, ListenerLimits


class SmtpService:
    """Several of these, in as many processes, share one port."""

    def __init__(self, application: Application) -> None:
        settings = application.settings
        self._place = f"{settings.smtp_host}:{settings.smtp_port}"
        self._acceptor = Acceptor(
            database=application.database,
            engine=application.engine,
            hostname=settings.smtp_name,
            clock=application.clock,
        )
        self._listener = Listener(
            host=settings.smtp_host,
            port=settings.smtp_port,
            handler=self._acceptor,
            hostname=settings.smtp_name,
            tls_context=application.tls_context(),
            listener_limits=ListenerLimits(
                connections=settings.smtp_connections,
                connections_per_address=settings.smtp_connections_per_address,
            ),
        )

    async def start(self) -> None:
        try:
            await self._listener.start()
        except OSError as error:
            raise ConfigurationError(
                f"cannot serve SMTP on {self._place}: {error.strerror or error}; "
                "set MAILYARD_SMTP_PORT to a free port"
            ) from error

    async def drain(self, timeout_s: float) -> None:
        await self._listener.drain(timeout_s)
        await self._acceptor.close()
