"""Features that come gradually: to 25, 50, then 100 percent of the workspaces, and back at once.

Whether a workspace has one is a hash of the two: so it is the same in every process and tomorrow,
who has a feature at 25 percent has it at 50 too, and each feature begins with others.

    if await features.on(PERSON_LIMIT, workspace_id): …

A feature stands here as long as it is on its way; when all have it the question leaves the code,
and the feature this list. How far each is stands in a row; a process hears of a change by the bus,
and looks by itself every few seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Protocol
from uuid import UUID

import asyncpg
import structlog

from mailyard.core.clock import Clock
from mailyard.core.errors import InvalidInput, NotFound, Unavailable
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("feature")
_LOG = structlog.get_logger(__name__)

STAGES = (0, 25, 50, 100)  # percent
TOPIC = "features"
LOOK_EVERY_S = 5.0
COUNTED = 10_000  # workspaces among which is counted who has a feature
_PARTS = 10_000


@dataclass(frozen=True, slots=True)
class Feature:
    """`percent`: to how many it comes as long as nobody says otherwise."""

    name: str
    about: str
    percent: int


PERSON_LIMIT = Feature(
    "person-limit", "API requests of people who are signed in count by MAILYARD_USER_LIMIT.", 100
)
FEATURES: Mapping[str, Feature] = {one.name: one for one in (PERSON_LIMIT,)}


@dataclass(frozen=True, slots=True)
class Rollout:
    """How far a feature has come. `changed_at` None: as the program says."""

    feature: Feature
    percent: int
    changed_at: datetime | None

    def reaches(self, workspace_id: UUID) -> bool:
        """Whether the workspace has it."""
        return part_of(self.feature.name, workspace_id) < self.percent * _PARTS // 100


@dataclass(frozen=True, slots=True)
class Reach:
    """A rollout, and how many of the workspaces (the oldest COUNTED of them) have it."""

    rollout: Rollout
    having: int
    counted: int


class News(Protocol):
    """A subscription to a topic of the bus."""

    def heard(self) -> bool: ...


class Wakeups(Protocol):
    """Of the bus what is needed here."""

    def announce(self, topic: str) -> None: ...

    def subscribe(self, topic: str) -> News: ...


def part_of(name: str, workspace_id: UUID) -> int:
    """The place of a workspace among _PARTS, another for each feature."""
    digest = blake2b(name.encode() + b"\0" + workspace_id.bytes, digest_size=8).digest()
    return int.from_bytes(digest, "big") % _PARTS


class Features:
    """One a process. A database that is away leaves things as they were."""

    def __init__(self, *, database: Database, bus: Wakeups, clock: Clock) -> None:
        self._database = database
        self._bus = bus
        self._clock = clock
        self._news = bus.subscribe(TOPIC)
        self._known = {name: Rollout(one, one.percent, None) for name, one in FEATURES.items()}
        self._looked_at_s: float | None = None

    async def on(self, feature: Feature, workspace_id: UUID) -> bool:
        """Whether the workspace has it, as of LOOK_EVERY_S ago at most."""
        if self._stale():
            await self._look()
        return self._known[feature.name].reaches(workspace_id)

    async def all(self) -> list[Reach]:
        """Every feature that is on its way, by name."""
        await self._look()
        rows = await self._database.fetch(_SQL.workspaces, COUNTED)
        return [
            Reach(rollout, sum(rollout.reaches(row["id"]) for row in rows), len(rows))
            for _, rollout in sorted(self._known.items())
        ]

    async def roll_out(self, name: str, percent: int, tx: Connection) -> Rollout:
        """From the commit of `tx` on it comes to `percent` of the workspaces; how far it was.
        Call `announce` after it. Raises NotFound, InvalidInput."""
        if name not in FEATURES:
            raise NotFound(f"no such feature; on their way are {', '.join(sorted(FEATURES))}")
        if percent not in STAGES:
            raise InvalidInput(
                f"{percent} is no stage: {', '.join(map(str, STAGES))}", field="percent"
            )
        await self._look()
        before = self._known[name]
        await self._database.execute(_SQL.roll_out, name, percent, tx=tx)
        return before

    def announce(self) -> None:
        """After the commit: every process looks at once."""
        self._looked_at_s = None
        self._bus.announce(TOPIC)

    def _stale(self) -> bool:
        if self._news.heard() or self._looked_at_s is None:
            return True
        return self._clock.monotonic() - self._looked_at_s > LOOK_EVERY_S

    async def _look(self) -> None:
        self._looked_at_s = self._clock.monotonic()
        try:
            rows = await self._database.fetch(_SQL.rollouts)
        except (Unavailable, asyncpg.PostgresError, OSError) as error:
            _LOG.warning("features not read", error=str(error))
            return
        said = {row["name"]: row for row in rows}
        for name, feature in FEATURES.items():
            row = said.get(name)
            self._known[name] = (
                Rollout(feature, feature.percent, None)
                if row is None
                else Rollout(feature, row["percent"], row["changed_at"])
            )
