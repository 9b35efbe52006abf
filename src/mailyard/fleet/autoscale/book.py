"""The decisions, each a row with all that it was made from: why 3 became 5."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from mailyard.core import ids
from mailyard.core.clock import Clock, SystemClock
from mailyard.fleet.autoscale.decide import Decision
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("monitoring")
LAST_ID = UUID(int=(1 << 128) - 1)
KEPT_DAYS = 90


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision as it was recorded."""

    id: UUID
    at: datetime
    actuator: str
    group: str
    kind: str
    was: int
    became: int
    wanted: int | None
    reason: str
    inputs: Mapping[str, Any]


class DecisionBook:
    """Writes and reads decisions."""

    def __init__(self, *, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock or SystemClock()

    async def add(self, actuator: str, decision: Decision, inputs: Mapping[str, Any]) -> UUID:
        """Record one."""
        decision_id = ids.uuid7()
        await self._database.execute(
            _SQL.add_decision,
            decision_id,
            actuator,
            decision.group,
            decision.kind,
            decision.was,
            decision.became,
            decision.wanted,
            decision.reason,
            msgspec.json.encode(inputs).decode(),
        )
        return decision_id

    async def list(
        self, *, group: str | None = None, before: UUID = LAST_ID, limit: int = 100
    ) -> Sequence[Decided]:
        """The newest first."""
        rows = await self._database.fetch(_SQL.list_decisions, before, group, limit)
        return [
            Decided(
                id=row["id"],
                at=ids.time_of(row["id"]),
                actuator=row["actuator"],
                group=row["group_name"],
                kind=row["kind"],
                was=row["was"],
                became=row["became"],
                wanted=row["wanted"],
                reason=row["reason"],
                inputs=msgspec.json.decode(row["inputs"]),
            )
            for row in rows
        ]

    async def forget(self) -> None:
        """Old ones are of no use to anybody."""
        before = ids.lowest_at(self._clock.now() - timedelta(days=KEPT_DAYS))
        await self._database.execute(_SQL.forget_decisions, before)
