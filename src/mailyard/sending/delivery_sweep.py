"""What own delivery forgets, once a minute: a sweep that needs none of its services.

Events of two weeks, sites of a month, TLS results of five weeks, counts of a plan's longest time,
MTA-STS policies until they run out, leases until they are void.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta

from mailyard.core import ids
from mailyard.core.clock import Clock
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SHAPING, _STS, _TLS = load("shaping"), load("sts"), load("tls")
_SOURCE, _LEASE = load("source"), load("lease")

EVENTS_KEPT = timedelta(days=14)
SITES_KEPT = timedelta(days=30)
RESULTS_KEPT = timedelta(days=35)
COUNTS_KEPT = timedelta(days=120)


def sweep_of(database: Database, clock: Clock) -> Callable[[], Awaitable[None]]:
    """The sweep, as the scheduler's job runs it."""

    async def sweep() -> None:
        now = clock.now()
        oldest_event = ids.uuid7(int((now - EVENTS_KEPT).timestamp() * 1000))
        await database.execute(_SHAPING.sweep_events, oldest_event)
        await database.execute(_SHAPING.sweep_sites, now - SITES_KEPT)
        await database.execute(_STS.sweep_policies, now)
        await database.execute(_TLS.sweep_results, (now - RESULTS_KEPT).date())
        await database.execute(_TLS.sweep_reported, (now - RESULTS_KEPT).date())
        await database.execute(_SOURCE.sweep_counts, (now - COUNTS_KEPT).date())
        await database.execute(_LEASE.sweep_leases)

    return sweep
