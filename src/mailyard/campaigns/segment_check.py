"""Who is in a segment, as a preflight wants to know it: as `list_check.py`, slice by slice."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from mailyard.campaigns.audience import Audience, Audiences
from mailyard.campaigns.list_check import EXAMPLES, LIST_S, Failure, trap_words
from mailyard.campaigns.preflight import LIST_DEAD, LIST_STALE, Lack, ListFacts
from mailyard.core.errors import Unavailable
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("preflight")


async def check_segment(
    database: Database,
    audiences: Audiences,
    audience: Audience,
    sent_at: datetime | None,
    variables: Sequence[str],
    failure: Failure,
    now: datetime,
) -> ListFacts:
    """The facts of a segment for a campaign whose template uses `variables`. `sent_at`: when a
    campaign to it was last begun."""
    try:
        async with asyncio.timeout(LIST_S):
            seen = _Seen()
            async for row in audiences.look(
                audience,
                _SQL.check_slice,
                variables=list(variables),
                stale=now - LIST_STALE,
                dead=now - LIST_DEAD,
                **dict(zip(("locals", "domains", "tops"), trap_words(), strict=True)),
            ):
                seen.add(row)
            return ListFacts(
                members=seen.members,
                lacks=await _lacks(database, audience.workspace_id, seen, failure),
                traps=seen.traps,
                trap_examples=tuple(seen.trap_examples[:EXAMPLES]),
                stale=seen.stale if sent_at is None or sent_at < now - LIST_STALE else 0,
                dead=seen.dead if sent_at is None or sent_at < now - LIST_DEAD else 0,
            )
    except (TimeoutError, Unavailable):
        return ListFacts(whole=False)


class _Seen:
    """What slices sum up to."""

    def __init__(self) -> None:
        self.members = self.stale = self.dead = self.traps = 0
        self.trap_examples: list[str] = []
        self.lacking: Counter[str] = Counter()
        self.lacking_examples: dict[str, UUID] = {}

    def add(self, row: asyncpg.Record) -> None:
        self.members += row["members"]
        self.stale += row["stale"]
        self.dead += row["dead"]
        self.traps += row["traps"]
        if len(self.trap_examples) < EXAMPLES:
            self.trap_examples += row["trap_examples"] or []
        for name, contacts, example in msgspec.json.decode(row["lacks"] or "[]"):
            self.lacking[name] += contacts
            self.lacking_examples.setdefault(name, UUID(example))


async def _lacks(
    database: Database, workspace_id: UUID, seen: _Seen, failure: Failure
) -> tuple[Lack, ...]:
    """A contact that lacks a variable says whether the template does without it."""
    if not seen.lacking:
        return ()
    rows = await database.fetch(
        _SQL.contacts_to_try, workspace_id, list(seen.lacking_examples.values())
    )
    by_id = {row["id"]: row for row in rows}
    return tuple(
        Lack(name, seen.lacking[name], by_id[example]["address"], failure(by_id[example]))
        for name, example in sorted(seen.lacking_examples.items())
        if example in by_id
    )
