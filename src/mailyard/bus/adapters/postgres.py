"""The bus over PostgreSQL's LISTEN and NOTIFY.

A NOTIFY takes a lock on the whole database at its commit, so it never rides in anybody's
transaction: a process gathers its announcements and sends at most one NOTIFY each `GATHER_S`, in a
transaction of its own. Subscribers of the same process wake at once, without the server.
"""

import asyncio
from random import Random

import asyncpg
import structlog

from mailyard.bus.adapters.gathering import GatheringBus
from mailyard.bus.bus import Topics
from mailyard.core.backoff import Backoff
from mailyard.core.errors import Unavailable
from mailyard.storage.database import Database
from mailyard.storage.queries import load

GATHER_S = 0.020  # DESIGN section 4: at most one NOTIFY a process in 20 ms
BUSY_GATHER_S = 0.060  # while there is always something
_CHANNEL = "mailyard"
_PAYLOAD_BYTES = 7_900  # PostgreSQL refuses 8,000 and more
_CHECK_S = 10.0  # how often the listening connection is asked whether it still lives
_RECONNECT = Backoff(first_s=0.1, cap_s=5.0)

_SQL = load("bus")
_LOG = structlog.get_logger(__name__)


class PostgresBus(GatheringBus):
    """One listening connection a process. `open` it before use, on the loop that uses it."""

    def __init__(self, *, database: Database, topics: Topics | None = None) -> None:
        super().__init__(topics)
        self._database = database

    async def _send_forever(self) -> None:
        pause_s = GATHER_S
        while True:
            # What came together in a pause says that more will: each wake-up costs every process.
            pause_s = min(2 * pause_s, BUSY_GATHER_S) if self._pending else GATHER_S
            await self._something_pending.wait()
            self._something_pending.clear()
            payload = self._gathered()
            if self._pending:
                self._something_pending.set()
            try:
                await self._database.fetchval(_SQL.notify, _CHANNEL, payload)
            except (Unavailable, asyncpg.PostgresError) as error:
                # Whoever waits also looks by itself, so a lost wake-up costs time and nothing else.
                _LOG.warning("wake-up not sent", error=str(error))
            await asyncio.sleep(pause_s)

    def _gathered(self) -> str:
        topics: list[str] = []
        size_bytes = 0
        for topic in list(self._pending):
            size_bytes += len(topic.encode()) + 1
            if topics and size_bytes > _PAYLOAD_BYTES:
                break
            topics.append(topic)
            del self._pending[topic]
        return "\n".join(topics)

    async def _listen_forever(self) -> None:
        random = Random()
        failures = 0
        while True:
            try:
                await self._listen()
                failures = 0
            except (Unavailable, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                failures += 1
                _LOG.warning("the bus lost its connection", error=str(error), failures=failures)
                await asyncio.sleep(_RECONNECT.delay_s(failures, random))

    async def _listen(self) -> None:
        connection = await self._database.direct()
        lost = asyncio.Event()
        try:
            connection.add_termination_listener(lambda *_: lost.set())
            await connection.add_listener(_CHANNEL, self._received)
            self._topics.wake_all()  # what was announced before we listened was not heard
            while not lost.is_set():
                try:
                    async with asyncio.timeout(_CHECK_S):
                        await lost.wait()
                except TimeoutError:
                    await connection.execute(_SQL.still_there, timeout=_CHECK_S)
        finally:
            connection.terminate()

    def _received(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        for topic in str(payload).split("\n"):
            self._topics.wake(topic)
