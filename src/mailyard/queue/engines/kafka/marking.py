"""How far things are done: told to the group, and cut off the log.

Every couple of seconds a process that works commits, for the partitions that the group has dealt to
it, the offset below which everything is done without a gap. A job that ends before one in front of
it moves nothing: whoever begins at the committed offset misses no job.
"""

import asyncio
from contextlib import suppress

import structlog

from mailyard.core.errors import MailyardError
from mailyard.queue.engines.kafka.intake import Intake
from mailyard.queue.engines.kafka.lag import Lag

COMMIT_EVERY_S = 2.0

_LOG = structlog.get_logger(__name__)


class Marks:
    """Commits the low-water marks of the topics that it is told. One a process."""

    def __init__(self, intake: Intake, lag: Lag) -> None:
        self._intake = intake
        self._lag = lag
        self._topics: set[str] = set()
        self._committing: asyncio.Task[None] | None = None

    def keep(self, topic: str) -> None:
        """Commit those of `topic` from now on."""
        self._topics.add(topic)
        if self._committing is None:
            self._committing = asyncio.create_task(self._keep(), name="kafka-commit")

    async def close(self) -> None:
        """Commit a last time."""
        if self._committing is not None:
            self._committing.cancel()
            await asyncio.gather(self._committing, return_exceptions=True)
            with suppress(MailyardError):
                await self._commit()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_EVERY_S)
            try:
                await self._commit()
            except Exception as error:  # away, or whatever: the next time tells it all
                _LOG.warning("offsets not committed", error=str(error))

    async def _commit(self) -> None:
        """Tell the group the low-water marks of this process's partitions, and cut below them."""
        assigned = set(self._intake.assigned)
        if assigned:
            low = await self._lag.low_water(sorted(self._topics))
            own = {place: offset for place, offset in low.items() if place in assigned}
            await self._intake.commit(own)
            await self._lag.cut(own, assigned)
