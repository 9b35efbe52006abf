"""Leases that all processes share, one row for a key and a holder in `connection_lease`."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from mailyard.core.clock import Clock
from mailyard.ratelimit.lease import Claim, Lease, Part, check, part_of
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("lease")


class PostgresLeases:
    """One transaction a call, for all keys at once. Time is the database's, or `clock`'s.

    Calls of all processes follow one another (one advisory lock): a call is three short statements
    every LEASE_RENEW_S, and the rule needs to see what the others have.
    """

    def __init__(self, *, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock

    async def hold(self, holder: UUID, claims: Sequence[Claim], ttl_s: float) -> list[Lease]:
        check(claims, ttl_s)
        async with self._database.transaction() as tx:
            await self._database.execute(_SQL.lock_leases, tx=tx)
            now = await self._now(tx)
            # A statement of its own: it sees what whoever had the lock before has committed.
            keys = [claim.key for claim in claims]
            rows = await self._database.fetch(_SQL.read_others, keys, holder, now, tx=tx)
            others: defaultdict[str, list[Part]] = defaultdict(list)
            for row in rows:
                others[row["key"]].append(Part(row["held"], row["wanted"]))
            leases = [part_of(claim, others[claim.key]) for claim in claims]
            await self._database.execute(
                _SQL.write_leases,
                keys,
                holder,
                [lease.held for lease in leases],
                [claim.wanted for claim in claims],
                now + timedelta(seconds=ttl_s),
                tx=tx,
            )
        return leases

    async def release(self, holder: UUID) -> None:
        await self._database.execute(_SQL.release_leases, holder)

    async def sweep(self) -> None:
        """Forget what is void. A duty of the scheduler."""
        await self._database.execute(_SQL.sweep_leases)

    async def _now(self, tx: Connection) -> datetime:
        if self._clock is not None:
            return self._clock.now()
        now: datetime = await self._database.fetchval(_SQL.time, tx=tx)
        return now
