"""One scheduler leads, the others stand by: an advisory lock on a session, a lease and an epoch.

The lock is the server's and ends with the session, so a dead leader is replaced as soon as its
connection is. One that lives and does nothing (stopped, or cut off behind a connection that nobody
closes) renews its lease no more: it stops by its own clock after LEASE_S, and after UNSEAT_S a
standby has the server end its session. The epoch tells two leaders apart whatever their clocks
say: what must be done once is done under it (`fence`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import asyncpg
import structlog

from mailyard.core.errors import Unavailable
from mailyard.fleet.fence import Fence, now_s
from mailyard.storage.database import AWAY, Database
from mailyard.storage.queries import load

QUERIES = load("process")
ASK_S = 2.0
LEASE_S = 10.0
UNSEAT_S = 15.0  # by the database's clock; later than LEASE_S, so that the old leader has stopped
_CONNECT_S = 10.0
_LOG = structlog.get_logger(__name__)


class Leader:
    """Runs `lead` while this process is the leader of `duty`; cancels it when it no longer is."""

    def __init__(
        self,
        *,
        database: Database,
        duty: str,
        holder: UUID,
        lead: Callable[[Fence], Awaitable[None]],
        ask_s: float = ASK_S,
    ) -> None:
        assert ask_s < LEASE_S < UNSEAT_S, "renewed several times, and over before it is taken"
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
        async with asyncio.timeout(_CONNECT_S):
            connection = await self._database.direct()
        try:
            while not await self._ask(connection, QUERIES.try_lead, self._duty):
                await self._unseat(connection)
                await asyncio.sleep(self._ask_s)
            epoch = int(await self._ask(connection, QUERIES.take_epoch, self._duty, self._holder))
            fence = Fence(self._database, self._duty, epoch, LEASE_S)
            self.epoch = epoch
            _LOG.info("leading", duty=self._duty, epoch=epoch)
            leading = asyncio.ensure_future(self._lead(fence))
            try:
                await self._while_leading(connection, leading, fence)
            finally:
                leading.cancel()
                await asyncio.gather(leading, return_exceptions=True)
        finally:
            connection.terminate()

    async def _while_leading(
        self,
        connection: "asyncpg.Connection[asyncpg.Record]",
        leading: "asyncio.Future[None]",
        fence: Fence,
    ) -> None:
        """Return or raise as soon as the lease cannot be renewed."""
        while not leading.done():
            asked_at = now_s()
            if not await connection.fetchval(
                QUERIES.renew_lease, self._duty, fence.epoch, timeout=fence.left_s or self._ask_s
            ):
                _LOG.warning("another_leads", duty=self._duty, epoch=fence.epoch)
                return
            fence.renewed(asked_at)
            await asyncio.wait([leading], timeout=self._ask_s)
        await leading

    async def _unseat(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        """End the session of a leader whose lease has run out."""
        try:
            ended = await self._ask(connection, QUERIES.unseat, self._duty, UNSEAT_S)
        except asyncpg.InsufficientPrivilegeError as error:
            _LOG.warning("leader_cannot_be_unseated", duty=self._duty, error=str(error))
            return
        if ended:
            _LOG.warning("leader_unseated", duty=self._duty, silent_s=UNSEAT_S)

    async def _ask(
        self, connection: "asyncpg.Connection[asyncpg.Record]", query: str, *args: object
    ) -> Any:
        return await connection.fetchval(query, *args, timeout=LEASE_S)
