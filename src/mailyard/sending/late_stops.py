"""Suppressions that follow from an answer: noted at once, written a moment later, many together.

What a killed worker had not written is learnt again from the next answer.
"""

import asyncio
from uuid import UUID

import structlog

from mailyard.core.errors import MailyardError
from mailyard.protocol.address import normalise
from mailyard.sending.suppress import ALL, Reason, Stop, Suppressions
from mailyard.storage.database import Database

_log = structlog.get_logger(__name__)

EVERY_S = 1.0
WAITING_MAX = 10_000


class LateStops:
    """Called with what a mail server said of a recipient. `source`: who heard it."""

    def __init__(self, *, database: Database, suppressions: Suppressions, source: str) -> None:
        self._database = database
        self._suppressions = suppressions
        self._source = source
        self._waiting: list[Stop] = []

    def __call__(self, workspace_id: UUID, address: str, delivery_id: UUID, said: str) -> None:
        """Nothing more to `address`, because of what was `said` to this delivery."""
        if len(self._waiting) < WAITING_MAX:
            stop = Stop(
                workspace_id,
                normalise(address),
                ALL,
                Reason.HARD_BOUNCE,
                self._source,
                said,
                delivery_id,
            )
            self._waiting.append(stop)

    async def keep(self) -> None:
        """Write until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.flush()
            except (MailyardError, OSError) as error:
                _log.warning("suppressions_not_written", error=str(error))

    async def flush(self) -> None:
        """Write what waits."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        try:
            async with self._database.transaction() as tx:
                await self._suppressions.stop(waiting, tx)
        except BaseException:
            self._waiting = [*waiting, *self._waiting]
            raise
