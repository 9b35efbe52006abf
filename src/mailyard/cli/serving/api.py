"""The API role: `/v1`, the live streams, the pages and the probes, on one port."""

from mailyard.app import Application
from mailyard.net.guard import networks
from mailyard.settings import Settings
from mailyard.web.asgi import build
from mailyard.web.behind import Behind
from mailyard.web.compressed import Compressed
from mailyard.web.serve import HttpServer


class ApiService:
    """Granian in this process's loop, over the ASGI application of all routes."""

    def __init__(self, application: Application) -> None:
        settings = application.settings
        self._front = build(application)
        served = Compressed(self._front) if settings.compress else self._front
        balancers = networks(settings.http_balancers.replace(",", " ").split())
        self._server = HttpServer(
            Behind(served, balancers) if balancers else served,
            host=settings.host,
            port=settings.port,
            drain_s=settings.drain_s,
            on_stop=self._front.drain,
        )

    async def start(self) -> None:
        await self._front.start()
        await self._server.start()

    def reload(self, settings: Settings) -> None:
        """Rates, the limit of people, places of live connections, the drain."""
        self._front.reload(settings)
        self._server.drain_s = settings.drain_s

    async def drain(self, timeout_s: float) -> None:  # noqa: ARG002 (the server was told it)
        await self._server.stop()
