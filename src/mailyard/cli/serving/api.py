"""The API role: `/v1`, the live streams, the pages and the probes, on one port."""

from typing import TYPE_CHECKING

from mailyard.app import Application
from mailyard.net.guard import networks_in
from mailyard.settings import Settings
from mailyard.web.asgi import Front, build
from mailyard.web.behind import Behind
from mailyard.web.compressed import Compressed
from mailyard.web.serve import HttpServer

if TYPE_CHECKING:
    from mailyard.app.shards import Shards
    from mailyard.web.shards import ShardFront


class ApiService:
    """Granian in this process's loop, over the ASGI application of all routes."""

    def __init__(self, application: Application) -> None:
        settings = application.settings
        self._shards = _shards(application)
        self._front = _front(application, self._shards)
        served = Compressed(self._front) if settings.compress else self._front
        balancers = networks_in(settings.http_balancers)
        self._server = HttpServer(
            Behind(served, balancers) if balancers else served,
            host=settings.host,
            port=settings.port,
            drain_s=settings.drain_s,
            on_stop=self._front.drain,
        )

    async def start(self) -> None:
        if self._shards is not None:
            await self._shards.open()
        await self._front.start()
        await self._server.start()

    def reload(self, settings: Settings) -> None:
        """Rates, the limit of people, places of live connections, the drain."""
        self._front.reload(settings)
        if self._shards is not None:
            self._shards.reload(settings)
        self._server.drain_s = settings.drain_s

    async def drain(self, timeout_s: float) -> None:  # noqa: ARG002 (the server was told it)
        await self._server.stop()
        if self._shards is not None:
            await self._shards.close()


def _shards(application: Application) -> "Shards | None":
    """The database clusters, where there are several."""
    if not application.settings.shards:
        return None
    from mailyard.app.shards import Shards

    return Shards(application)


def _front(application: Application, shards: "Shards | None") -> "Front | ShardFront":
    if shards is None:
        return build(application)
    from mailyard.web.shards import ShardFront

    return ShardFront(shards)
