"""What a leader may still do.

A leader may be stopped at any instant (a debugger, a paused machine, an event loop that stands
still) and come back without noticing, when another has long been leading. Two things hold it off:

- its *lease* runs out by its own clock, also while the machine sleeps; whoever asks before he acts
  is told so without a question to the database;
- its *epoch* stands in a row: a transaction that holds the row's present epoch cannot be passed by
  a new leader before it has ended, and one of an older epoch fails.
"""

import time

import structlog

from mailyard.core.errors import MailyardError
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("process")
_LOG = structlog.get_logger(__name__)


class Fenced(MailyardError):
    """Another leads by now: what was to be done here is his to do."""

    code = "fenced"
    status = 409


def now_s() -> float:
    """A clock that nobody sets, and that goes on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Fence:
    """The term of one leader of `duty`, with its `epoch`."""

    def __init__(self, database: Database, duty: str, epoch: int, lease_s: float) -> None:
        self.duty = duty
        self.epoch = epoch
        self._database = database
        self._lease_s = lease_s
        self._until = now_s() + lease_s

    def renewed(self, asked_at: float) -> None:
        """The database has confirmed the lease; it was asked at `asked_at` (by `now_s`)."""
        self._until = asked_at + self._lease_s

    @property
    def left_s(self) -> float:
        """Seconds that the lease still has; never below 0."""
        return max(0.0, self._until - now_s())

    @property
    def holds(self) -> bool:
        """Whether the lease has not run out."""
        return self.left_s > 0.0

    async def hold(self, tx: Connection) -> None:
        """Nobody takes over before `tx` ends. Raises Fenced when somebody has already.

        Should this process be stopped inside `tx`, the server ends it after a few seconds.
        """
        if not await self._database.fetchval(_SQL.hold_epoch, self.duty, self.epoch, tx=tx):
            raise Fenced(f"epoch {self.epoch} of {self.duty} is over: another process leads")
