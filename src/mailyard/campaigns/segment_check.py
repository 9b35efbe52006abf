"""Who is in a segment, as a preflight wants to know it: as `list_check.py`, slice by slice."""

import asyncio
from collections import Counter
from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from mailyard.campaigns.audience import Audience, Audiences
from mailyard.campaigns.list_check import EXAMPLES, LIST_S, trap_words
from mailyard.campaigns.list_kinds import KINDS_TRIED, Asked, Kind, Tries, try_kinds
from mailyard.campaigns.preflight import LIST_DEAD, LIST_STALE, ListFacts
from mailyard.core.errors import Unavailable
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("preflight")

_KINDS_HELD = 20 * KINDS_TRIED  # of all slices together, until the largest are known


async def check_segment(
    database: Database,
    audiences: Audiences,
    audience: Audience,
    sent_at: datetime | None,
    asked: Asked,
    tries: Tries,
    now: datetime,
) -> ListFacts:
    """The facts of a segment for a campaign whose template asks `asked` of contacts. `sent_at`:
    when a campaign to it was last begun."""
    try:
        async with asyncio.timeout(LIST_S):
            seen = _Seen()
            async for row in audiences.look(
                audience,
                _SQL.check_slice,
                fields=asked.fields,
                deciding=asked.deciding,
                kinds=KINDS_TRIED,
                stale=now - LIST_STALE,
                dead=now - LIST_DEAD,
                **dict(zip(("locals", "domains", "tops"), trap_words(), strict=True)),
            ):
                seen.add(row)
            tried = await try_kinds(
                database,
                audience.workspace_id,
                asked,
                seen.most_frequent(),
                sorted(seen.lacking.items()),
                seen.members,
                tries,
            )
            return ListFacts(
                members=seen.members,
                lacks=tried.lacks,
                untried=tried.untried,
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
        self._kinds: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def add(self, row: asyncpg.Record) -> None:
        self.members += row["members"]
        self.stale += row["stale"]
        self.dead += row["dead"]
        self.traps += row["traps"]
        if len(self.trap_examples) < EXAMPLES:
            self.trap_examples += row["trap_examples"] or []
        for name, contacts in msgspec.json.decode(row["lacks"] or "[]"):
            self.lacking[name] += contacts
        for kind, contacts, example in msgspec.json.decode(row["kinds"] or "[]"):
            if len(self._examples) < _KINDS_HELD or kind in self._examples:
                self._kinds[kind] += contacts
                self._examples.setdefault(kind, example)

    def most_frequent(self) -> list[Kind]:
        """The kinds of contacts to try, the largest first."""
        return [
            Kind(contacts, UUID(self._examples[kind]))
            for kind, contacts in self._kinds.most_common(KINDS_TRIED)
        ]
