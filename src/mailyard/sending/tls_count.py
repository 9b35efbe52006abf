"""How TLS went, counted by day, domain and policy as RFC 8460 reports it.

A worker counts in memory and adds its counts to the table every few seconds; a killed worker loses
a few seconds of them.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime

import structlog

from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import MailyardError
from mailyard.queue.job import CLEANUP, NewJob
from mailyard.queue.schedule import Every, Schedule
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("tls")
_log = structlog.get_logger(__name__)

REPORT_TLS = "report-tls"  # the job that reports a day's counts to their domains
EVERY_S = 5.0
NAMES_MAX = 50_000  # counted apart in one interval; what is above waits for no memory


def report_schedule() -> Schedule:
    """When reports are due: an hour's job finds those of its hour."""
    return Schedule(REPORT_TLS, Every(3600), _report_job)


def _report_job(_tick: datetime) -> NewJob:
    return NewJob(queue=CLEANUP, kind=REPORT_TLS, payload=b"", unique_key=REPORT_TLS)


@dataclass(frozen=True, slots=True)
class TlsResult:
    """`sessions` with `host` of `domain` that ended so, under what kind of policy."""

    domain: str
    policy_type: str
    host: str
    result: str
    sessions: int


Cursor = tuple[str, str, str, str]
FIRST: Cursor = ("", "", "", "")


class TlsCounter:
    """Counts of one worker, and reads those of all."""

    def __init__(self, *, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock or SystemClock()
        self._counts: Counter[tuple[date, str, str, str, str]] = Counter()

    def note(self, domain: str, policy_type: str, host: str, result: str) -> None:
        """A session has got its TLS, or has not."""
        key = (self._clock.now().date(), domain, policy_type, host, result)
        if key in self._counts or len(self._counts) < NAMES_MAX:
            self._counts[key] += 1

    async def keep(self) -> None:
        """Write until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.flush()
            except (MailyardError, OSError) as error:
                _log.warning("tls_results_not_written", error=str(error))

    async def flush(self) -> None:
        """Add what was counted to the table."""
        counts, self._counts = self._counts, Counter()
        if not counts:
            return
        try:
            columns = [list(column) for column in zip(*counts, strict=True)]
            await self._database.execute(_SQL.add_results, *columns, list(counts.values()))
        except BaseException:
            self._counts.update(counts)
            raise

    async def page(self, day: date, *, after: Cursor = FIRST, limit: int = 100) -> list[TlsResult]:
        """The results of a day, in the order of their names."""
        domain, policy_type, host, result = after
        rows = await self._database.fetch(
            _SQL.list_results, day, domain, limit, policy_type, host, result
        )
        return [TlsResult(*row) for row in rows]

    async def of_domain(self, day: date, domain: str) -> list[TlsResult]:
        """The results of a day for one domain."""
        rows = await self._database.fetch(_SQL.results_of, day, domain)
        return [TlsResult(*row) for row in rows]
