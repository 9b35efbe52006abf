"""An audit log that cannot be written, and what of the database a change has changed then."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from mailyard.access.audit import Audit
from mailyard.core.errors import Unavailable
from mailyard.storage.database import Database
from mailyard.storage.queries import Query

_TABLES = Query(
    "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
    "AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY relname"
)
# Counters that are folded, and lines, which are made apart from the transaction that needs one.
_RESTLESS = {"queue_line", "queue_delta", "queue_count", "queue_fold"}


@contextmanager
def the_log_is_full(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every row of the log is written, and then its statement fails."""
    record_many = Audit.record_many

    async def written_and_lost(*arguments: Any, **named: Any) -> None:
        await record_many(*arguments, **named)
        raise Unavailable("the log is full")

    with monkeypatch.context() as patch:
        patch.setattr(Audit, "record_many", written_and_lost)
        yield


async def contents(database: Database) -> dict[str, int]:
    """A sum over all rows of each table."""
    tables = [row["relname"] for row in await database.fetch(_TABLES)]
    parts = [
        f"SELECT '{table}' AS name, count(*) + coalesce(sum(hashtextextended(t::text, 0)), 0) "
        f"AS sum FROM {table} AS t"
        for table in tables
        if table not in _RESTLESS
    ]
    rows = await database.fetch(Query(" UNION ALL ".join(parts)))
    return {row["name"]: int(row["sum"]) for row in rows}


def differing(before: Mapping[str, int], after: Mapping[str, int]) -> set[str]:
    """The tables whose contents are not the same."""
    return {name for name in before if before[name] != after[name]}
