"""The newest mails that match: one span of time after the other, until a page is full.

The first span holds the newest few thousand lines. What was found there says how long the next one
should be to fill the page, without more lines to check than a moment takes: a common word fills a
page in the first, at the cost of its lines, and a rare one is rare everywhere. What the index
cannot say by itself (words behind one another, a label) is asked of the lines that it found, newest
first. Where a mailbox marks fewer lines than the index finds, these are gone through; and where the
index can say nothing, all, in their order.
"""

from collections.abc import Awaitable, Callable
from itertools import count
from typing import NamedTuple
from uuid import UUID

import asyncpg

from mailyard.core import limits
from mailyard.mailbox.search import statement
from mailyard.mailbox.search.ask import Condition
from mailyard.mailbox.search.statement import Scope, Span, Statement

BUDGET_LINES = 120_000
_WALKS = (1_500, 6_000, 24_000, 24_000, 24_000, 24_000)  # lines looked at one by one
_MARKS = (200, 1_000, 5_000, 20_000, 40_000, 60_000)  # lines that a mailbox marks, likewise
_NEWEST_LINES = 4_000  # the first span holds so many
_LINES = 10_000  # that the index found, looked at in one go
_ASIDE = 5_000  # that a span should hold where each is to be checked
_ROOM = 1.3  # times what should fill the page
_LONGER, _LONGEST = 8, 256  # times the span before
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
        if self._asked.marks:
            return bool(await self._by_marks(0))
        for lines in _WALKS:
            if await self._look(statement.walk, self._lowest, lines):
                return True
            if self._over:
                break
        return False

    async def _by_index(self) -> bool:
        if self._asked.wide and await self._look(statement.walk, self._lowest, _WALKS[0]):
            return True
        if self._over:
            return False
        length = await self._first_span()
        for nth in count():
            since = UUID(int=max(self._lowest.int, self._before.int - length))
            looked = await self._seek(since)
            if self._over:
                return False
            self._before = since
            if since <= self._lowest:
                return True
            if nth == 0 and self._asked.marks:
                whole = await self._by_marks(length // max(1, looked))
                if whole is not None:
                    return whole
            length *= self._longer(looked)
        raise AssertionError("a span is never empty")

    async def _by_marks(self, apart: int) -> bool | None:
        """Through what a mailbox marks; None where that is more than what the index finds, which
        lies `apart` from one another."""
        for lines in _MARKS:
            before = self._before
            if await self._look(statement.marked, self._lowest, lines):
                return True
            if self._over:
                return False
            if before.int - self._before.int < apart * lines:
                return None
        return False

    async def _seek(self, since: UUID) -> int:
        """All that the index finds down to `since`, or until the page is full; how many lines."""
        budget = self._budget
        while not await self._look(statement.seek, since, _LINES) and not self._over:
            pass
        return budget - self._budget

    def _longer(self, looked: int) -> int:
        """How many times as long the next span is, where the last one held `looked` lines."""
        if not looked:
            return _LONGEST
        missing = (self._limit + 1 - len(self._found)) * _ROOM / max(1, len(self._found))
        times = max(_LONGER, missing)
        if not self._asked.exact:
            times = min(times, _ASIDE / looked)
        return int(min(max(times, 1), _LONGEST))

    # --------------------------------------------------------------------------------------------

    @property
    def _over(self) -> bool:
        return len(self._found) > self._limit or self._budget <= 0

    async def _first_span(self) -> int:
        """Its length in ids; then nothing lies at `before` or behind it."""
        ids = Span(self._lowest, self._before)
        if ids.lowest >= ids.before:
            return 0
        query, arguments = statement.reach(self._scope, ids, _NEWEST_LINES)
        rows = await self._fetch(query, *arguments)
        row = rows[0] if rows else None
        if row is None or row["newest"] is None:
            self._before = self._lowest
            return 0
        self._before = UUID(int=row["newest"].int + 1)
        lowest = row["lowest"] or self._lowest
        return int(self._before.int - lowest.int)

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
