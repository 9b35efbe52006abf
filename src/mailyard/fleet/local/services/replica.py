"""The replica: a standby of the embedded PostgreSQL, which lists and pages are read from."""

import asyncio
from collections.abc import Sequence
from urllib.parse import quote

from mailyard.core.errors import MailyardError
from mailyard.fleet.local.place import Place
from mailyard.fleet.local.process import Say
from mailyard.fleet.local.service import Moment, Service
from mailyard.storage import cluster
from mailyard.storage.embedded_replica import EmbeddedReplica, slot_name

_AGAIN_S = 1.0


class Replica(Service):
    """One standby, kept running."""

    moment = Moment.DATABASE
    instead = ("database_url", "database_replicas")

    def __init__(self, place: Place, say: Say, *, connections: int, memory_bytes: int) -> None:
        super().__init__()
        self._name = "replica-1"
        self._data = place.folder(self._name)
        self._data.chmod(0o711)  # who runs PostgreSQL must reach its own folder in it
        self._say = say
        self._server = EmbeddedReplica(
            place.data,
            self._data,
            connections=connections,
            memory_bytes=memory_bytes,
            say=lambda line: say(self._name, line),
        )
        self._keeper: asyncio.Task[None] | None = None
        self.slots = [slot_name(1)]
        folder = quote(str(cluster.socket_folder(self._data)))
        self.settings = {
            "database_replicas": f"postgresql://{cluster.ROLE}@/{cluster.DATABASE}?host={folder}"
        }

    def places(self) -> Sequence[tuple[str, str]]:
        return [(self._name, str(cluster.socket_folder(self._data)))]

    async def start(self) -> None:
        await self._server.start()
        self._keeper = asyncio.create_task(self._keep(), name=self._name)

    async def stop(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await self._server.stop()

    async def _keep(self) -> None:
        """Start it again whenever it ends, until we stop."""
        while True:
            status = await self._server.wait()
            self._say(self._name, f"ended with status {status}, starts again")
            while True:
                await asyncio.sleep(_AGAIN_S)
                try:
                    await self._server.restart()
                    break
                except (MailyardError, OSError) as error:
                    self._say(self._name, str(error))
