"""The newest mails that match: one span of time after the other, until a page is full.

The first span holds the newest few thousand lines, the next ones are eight and some hundred times
as long, then comes the rest: a common word fills a page in the first, at the cost of its lines, and
a rare one is rare in all of them. What the index cannot say by itself (words behind one another, a
label) is asked of the lines that it found, newest first. Where the index can say nothing, lines are
looked at one by one, in their order; where a mailbox marks few, those.
"""

from collections.abc import Awaitable, Callable
from typing import NamedTuple
from uuid import UUID

import asyncpg

from mailyard.core import limits
from mailyard.mailbox.search import statement
from mailyard.mailbox.search.ask import Condition
from mailyard.mailbox.search.statement import Scope, Span, Statement

BUDGET_LINES = 120_000
_WALKS = (1_500, 6_000, 24_000, 24_000, 24_000, 24_000)  # lines looked at one by one
_MARKED = 3_000  # lines that a mailbox marks, in no order: all of them, or none
_NEWEST_LINES = 4_000  # the first span holds so many
_SPANS = (8, 256)  # times the first; then the rest
_LINES = 10_000  # that the index found, looked at in one go
_LAST = UUID(int=(1 << 128) - 1)

Fetch = Callable[..., Awaitable[list[asyncpg.Record]]]


class Page(NamedTuple):
    """The lines of a page. `following`: where the next one begins, if there may be one. `cut`:
    there may be more on this one too, but it has been looked for long enough."""

    rows: list[asyncpg.Record]
    following: UUID | None
    cut: bool


class Newest:
    """One page of one search."""

    def __init__(
        self, fetch: Fetch, scope: Scope, asked: Condition, *, cursor: UUID | None, limit: int
    ) -> None:
        self._fetch = fetch
        self._scope = scope
        self._asked = asked
        self._limit = limit
        self._lowest = max(scope.lowest, asked.lowest)
        self._before = min(asked.highest, cursor or _LAST)
        self._found: dict[UUID, asyncpg.Record] = {}
        self._budget = BUDGET_LINES

    async def page(self) -> Page:
        """The newest `limit` mails below the cursor."""
        if self._asked.guard is None:
            whole = await self._by_order()
        else:
            whole = await self._by_index()
        rows = list(self._found.values())
        if len(rows) > self._limit:
            kept = rows[: self._limit]
            return Page(kept, kept[-1]["message_id"], cut=False)
        return Page(rows, None, cut=False) if whole else Page(rows, self._before, cut=True)

    # Each answers whether everything has been looked at. -----------------------------------------

    async def _by_order(self) -> bool:
        for nth, lines in enumerate(_WALKS):
            if nth == 1 and await self._by_state():
                return True
            if await self._look(statement.walk, self._lowest, lines):
                return True
            if self._over:
                break
        return False

    async def _by_index(self) -> bool:
        if self._asked.wide and await self._look(statement.walk, self._lowest, _WALKS[0]):
            return True
        for nth, since in enumerate(await self._spans()):
            if self._over or (nth == 1 and await self._by_state()):
                break
            while not await self._look(statement.seek, since, _LINES):
                if self._over:
                    return False
            self._before = since
        else:
            return True
        return not self._over

    async def _by_state(self) -> bool:
        """All lines that a mailbox marks as asked, where these are few."""
        if not self._asked.states or self._scope.inbox_id is None:
            return False
        ids = Span(self._lowest, self._before)
        rows = await self._rows(
            statement.marked(self._scope, self._asked, ids, _MARKED, self._limit + 1)
        )
        if rows[0]["found"] >= _MARKED:
            return False  # some of many: they say nothing
        return await self._taken(rows, _MARKED)

    # --------------------------------------------------------------------------------------------

    @property
    def _over(self) -> bool:
        return len(self._found) > self._limit or self._budget <= 0

    async def _spans(self) -> list[UUID]:
        """Where the spans begin, the newest first; the last where everything does."""
        ids = Span(self._lowest, self._before)
        if ids.lowest >= ids.before:
            return []
        query, arguments = statement.reach(self._scope, ids, _NEWEST_LINES)
        rows = await self._fetch(query, *arguments)
        row = rows[0] if rows else None
        if row is None or row["newest"] is None:
            return []
        self._before = UUID(int=row["newest"].int + 1)
        if row["lowest"] is None:
            return [self._lowest]
        newest, lowest = row["newest"].int, row["lowest"].int
        longer = [UUID(int=max(0, newest - times * (newest - lowest))) for times in _SPANS]
        return [row["lowest"], *(one for one in longer if one > self._lowest), self._lowest]

    async def _look(
        self, make: Callable[[Scope, Condition, Span, int, int], Statement], since: UUID, lines: int
    ) -> bool:
        """Look at `lines` lines down to `since`; whether these were all."""
        ids = Span(since, self._before)
        if ids.lowest >= ids.before:
            return True
        rows = await self._rows(make(self._scope, self._asked, ids, lines, self._limit + 1))
        self._budget -= rows[0]["looked"]
        return await self._taken(rows, lines)

    async def _rows(self, made: Statement) -> list[asyncpg.Record]:
        query, arguments = made
        return await self._fetch(query, *arguments)

    async def _taken(self, rows: list[asyncpg.Record], lines: int) -> bool:
        """Keep what was found; whether nothing was left out."""
        hits = [row for row in rows if row["message_id"] is not None]
        for row in await self._rows(statement.lines(self._scope, hits)) if hits else ():
            self._found.setdefault(row["message_id"], row)
        head = rows[0]
        if len(hits) > self._limit:  # hits beyond those were not looked at
            self._before = self._below(hits[-1]["message_id"], lines)
            return False
        if head["looked"] >= lines:
            self._before = self._below(head["lowest"], lines)
            return False
        return True

    def _below(self, reached: UUID, lines: int) -> UUID:
        """Where to go on: of a workspace the last mail may have more lines."""
        if self._scope.inbox_id is None and lines > limits.SMTP_RECIPIENTS_PER_MESSAGE:
            again = UUID(int=reached.int + 1)
            if again < self._before:
                return again
        return reached
