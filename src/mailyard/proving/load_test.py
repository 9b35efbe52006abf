"""What load tests have shown, kept: how much, when, of which version, by how many processes.

A demonstration is one, wherever it was begun: a command tells its verdict over the API, the page's
button writes it itself. `mailyard doctor --for STAGE` asks for the last one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from mailyard import __version__
from mailyard.core import ids
from mailyard.core.errors import InvalidInput
from mailyard.core.limits import API_PAGE_ITEMS
from mailyard.proving.demonstration import RECIPIENTS_MAX, Verdict
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("load_test")
_LAST_ID = UUID(int=(1 << 128) - 1)

LOAD_TEST = "lt"  # the prefix of its ids
COMMAND = "command"
PAGE = "page"


@dataclass(frozen=True, slots=True)
class LoadTest:
    """One, as it was recorded. `at`: when it ended. `processes`: how many lived then, by role."""

    id: UUID
    at: datetime
    origin: str
    version: str
    recipients: int
    per_second: int
    clean: bool
    verdict: Mapping[str, Any]
    processes: Mapping[str, int]


class LoadTests:
    """Writes and reads them."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def add(self, origin: str, verdict: Verdict, tx: Connection | None = None) -> LoadTest:
        """Keep a verdict that came just now. Raises InvalidInput when its figures cannot be."""
        check(verdict)
        row = await self._database.fetchrow(
            _SQL.add,
            ids.uuid7(),
            origin,
            __version__,
            verdict.recipients,
            verdict.per_second,
            verdict.clean,
            msgspec.json.encode(verdict.as_json()).decode(),
            tx=tx,
        )
        assert row is not None, "an INSERT without a condition returns its row"
        return _load_test(row)

    async def list(
        self, *, before: UUID | None = None, limit: int = API_PAGE_ITEMS
    ) -> Sequence[LoadTest]:
        """The newest first."""
        rows = await self._database.fetch(_SQL.list, before or _LAST_ID, limit)
        return [_load_test(row) for row in rows]

    async def last(self, recipients: int) -> LoadTest | None:
        """The newest with at least `recipients`; where there is none, the newest of all."""
        row = await self._database.fetchrow(_SQL.last, recipients)
        return None if row is None else _load_test(row)


def check(verdict: Verdict) -> None:
    """A verdict can be one. Raises InvalidInput."""
    counts = (verdict.sent, verdict.received, verdict.lost, verdict.twice, verdict.wrong)
    if not 1 <= verdict.recipients <= RECIPIENTS_MAX:
        raise InvalidInput(f"1 to {RECIPIENTS_MAX:,} recipients", field="recipients")
    if min(*counts, verdict.unknown, verdict.per_second) < 0 or verdict.seconds <= 0:
        raise InvalidInput("counts are not below 0, and a test takes time", field="seconds")
    if verdict.received > verdict.recipients:
        raise InvalidInput("more received than there were recipients", field="received")
    if verdict.per_second > verdict.recipients / verdict.seconds + 1:
        raise InvalidInput("a rate is recipients by seconds", field="per_second")


def _load_test(row: asyncpg.Record) -> LoadTest:
    return LoadTest(
        id=row["id"],
        at=ids.time_of(row["id"]),
        origin=row["origin"],
        version=row["version"],
        recipients=row["recipients"],
        per_second=row["per_second"],
        clean=row["clean"],
        verdict=msgspec.json.decode(row["verdict"]),
        processes=msgspec.json.decode(row["processes"]),
    )
