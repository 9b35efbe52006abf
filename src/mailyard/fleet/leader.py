"""One scheduler leads, the others stand by: an advisory lock on a session, and an epoch in a row.

The lock is the server's and ends with the session, so a dead leader is replaced as soon as its
connection is. The epoch tells two leaders apart when the old one has not noticed yet: whoever
finds a larger epoch than its own stops.
"""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import asyncpg
import structlog

from mailyard.core.errors import Unavailable
from mailyard.storage.database import AWAY, Database
from mailyard.storage.queries import load

QUERIES = load("process")
ASK_S = 2.0
_LOG = structlog.get_logger(__name__)


class Leader:
    """Runs `lead` while this process is the leader of `duty`; cancels it when it no longer is."""

    def __init__(
        self,
        *,
        database: Database,
        duty: str,
        holder: UUID,
        lead: Callable[[], Awaitable[None]],
        ask_s: float = ASK_S,
    ) -> None:
        self._database = database
        self._duty = duty
        self._holder = holder
        self._lead = lead
        self._ask_s = ask_s
        self.epoch: int | None = None

    async def run(self) -> None:
        """Stand by and lead in turns, until cancelled."""
        while True:
            try:
                await self._try_to_lead()
            except (Unavailable, *AWAY) as error:
                _LOG.warning("leader_connection_lost", duty=self._duty, error=str(error))
            self.epoch = None
            await asyncio.sleep(self._ask_s)

    async def _try_to_lead(self) -> None:
        connection = await self._database.direct()
        try:
            if not await connection.fetchval(QUERIES.try_lead, self._duty):
                return
            self.epoch = await connection.fetchval(QUERIES.take_epoch, self._duty, self._holder)
            _LOG.info("leading", duty=self._duty, epoch=self.epoch)
            leading = asyncio.ensure_future(self._lead())
            try:
                await self._while_leading(connection, leading)
            finally:
                leading.cancel()
                await asyncio.gather(leading, return_exceptions=True)
        finally:
            connection.terminate()

    async def _while_leading(
        self, connection: "asyncpg.Connection[asyncpg.Record]", leading: "asyncio.Future[None]"
    ) -> None:
        while not leading.done():
            await asyncio.wait([leading], timeout=self._ask_s)
            if not await connection.fetchval(QUERIES.still_leading, self._duty, self.epoch):
                _LOG.warning("another_leads", duty=self._duty, epoch=self.epoch)
                return
        await leading
