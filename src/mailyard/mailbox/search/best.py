"""The best of the newest matches: as many of the newest lines are searched as hold them."""

import math
from typing import NamedTuple
from uuid import UUID

import asyncpg

from mailyard.core import limits
from mailyard.mailbox.search import statement
from mailyard.mailbox.search.ask import Condition
from mailyard.mailbox.search.newest import Fetch
from mailyard.mailbox.search.statement import Scope, Span

_SAMPLE_LINES = 4_000  # the newest lines, which say how common the matches are
_ENOUGH = 1.1  # times the lines that should hold the newest matches, or more where the sample is
_ERRORS = 2.0  # small: so many of its standard errors
_LONGER = 2  # times these, where they held too few
_LAST = UUID(int=(1 << 128) - 1)


class Ranked(NamedTuple):
    """The lines of a page; whether another may follow."""

    rows: list[asyncpg.Record]
    more: bool


async def best(
    fetch: Fetch, scope: Scope, asked: Condition, words: str, *, offset: int, limit: int
) -> Ranked:
    """Those of the newest SEARCH_RANKED matches that fit `words` best, from place `offset` on."""
    whole = Span(max(scope.lowest, asked.lowest), min(asked.highest, _LAST))
    for ids in await _spans(fetch, scope, asked, whole):
        query, arguments = statement.best(
            scope, asked, words, ids, limits.SEARCH_RANKED, limit, offset
        )
        rows = await fetch(query, *arguments)
        if rows[0]["found"] >= limits.SEARCH_RANKED or ids.lowest == whole.lowest:
            hits = [row for row in rows if row["message_id"] is not None]
            query, arguments = statement.lines(scope, hits)
            return Ranked(await fetch(query, *arguments), len(hits) == limit)
    return Ranked([], False)


async def _spans(fetch: Fetch, scope: Scope, asked: Condition, whole: Span) -> list[Span]:
    """What is tried: the newest lines that should hold enough matches, and all of them."""
    if whole.lowest >= whole.before:
        return []
    query, arguments = statement.reach(scope, whole, _SAMPLE_LINES)
    rows = await fetch(query, *arguments)
    row = rows[0] if rows else None
    if row is None or row["newest"] is None:
        return []
    whole = Span(whole.lowest, UUID(int=row["newest"].int + 1))
    if row["lowest"] is None:
        return [whole]
    ids = Span(row["lowest"], whole.before)
    query, arguments = statement.count(scope, asked, ids)
    matches = (await fetch(query, *arguments))[0]["found"]
    if not matches:
        return [whole]
    enough = max(_ENOUGH, 1.0 + _ERRORS / math.sqrt(matches))
    newest, lowest = row["newest"].int, row["lowest"].int
    length = int((newest - lowest) * limits.SEARCH_RANKED / matches * enough)
    tried = [newest - length, newest - _LONGER * length]
    spans = [Span(UUID(int=one), whole.before) for one in tried if one > whole.lowest.int]
    return [*spans, whole]
