"""Searching: from a text to the mails that it finds, newest first or the best of the newest.

Newest first, lines of the scope are looked at one by one, in their order: what is in one mail of
thirty is found so at once. What is rarer is found by the index, which knows all of it and nothing
of its order; it is asked for no more than `_FEW` lines. Where there are more, they are common
enough for looking at the newest lines to find a page of them, in growing steps; and where even that
did not (a word of last year), all that the index finds is put in order. A search that has looked at
`BUDGET_LINES` lines answers with what it has, and with a cursor that goes on there.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg

from mailyard.core import limits
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import InvalidInput
from mailyard.core.ids import lowest_at, time_of
from mailyard.mailbox.inbox import Inboxes
from mailyard.mailbox.message import Summary, summary_of
from mailyard.mailbox.search.ask import FIRST_PARAMETER, Condition, condition, texts_of, words_query
from mailyard.mailbox.search.index import Indexer
from mailyard.mailbox.search.language import SIMPLE
from mailyard.mailbox.search.parse import parse
from mailyard.mailbox.search.snippet import Snippets
from mailyard.mailbox.search.tree import Node
from mailyard.storage.database import Database
from mailyard.storage.queries import Query, load, name_of, timed_as
from mailyard.storage.raw_mail import IN_ROWS, RawMail

QUERIES = load("search")

BUDGET_LINES = 120_000
NEWEST, BEST = "newest", "best"
SORTS = (NEWEST, BEST)
_WALK = 1_500
_FEW = 3_000
_WALKS = (6_000, 24_000)
_FOUND = (10_000, 30_000, 60_000)  # of what the index finds, newest first
_FIRST = UUID(int=0)
_LAST = UUID(int=(1 << 128) - 1)


@dataclass(frozen=True, slots=True)
class Hit:
    """A mail that was found. `snippet`: HTML, all text escaped, what matches in `<mark>`."""

    summary: Summary
    snippet: str
    subject: str  # in the same way


@dataclass(frozen=True, slots=True)
class Found:
    """A page. `next_cursor` goes into the next call's `cursor`; None at the end.

    A page with fewer than asked for may have a cursor: so far was looked (`looked_until`).
    """

    hits: list[Hit]
    next_cursor: UUID | None
    looked_until: datetime | None


class _Scope(NamedTuple):
    workspace_id: UUID
    inbox_id: UUID | None
    retention_days: int | None
    lowest: UUID

    def text(self, by_index: bool) -> Query:
        """The condition on a line `s` to lie in it."""
        if by_index:
            found = QUERIES.in_workspace_found, QUERIES.in_inbox_found
            return found[self.inbox_id is not None]
        return QUERIES.in_workspace if self.inbox_id is None else QUERIES.in_inbox


class _Step(NamedTuple):
    """Looking at up to `lines` lines: in their order, or those that the index finds, at most `cap`
    of them in no order."""

    by_index: bool
    lines: int
    cap: int | None = None


def _steps(asked: Condition) -> list[_Step]:
    """What is tried in turn until a page is full or there is nothing more."""
    walks = [_Step(False, lines) for lines in _WALKS]
    if asked.guard is None:
        return [_Step(False, _WALK), *walks, *(_Step(False, _WALKS[-1]) for _ in range(3))]
    few = _Step(True, _FEW, _FEW)
    return [_Step(False, _WALK), few, *walks, *(_Step(True, lines) for lines in _FOUND)]


class Search:
    """Over the mail of all workspaces' inboxes, one workspace or inbox at a time."""

    def __init__(
        self,
        *,
        database: Database,
        inboxes: Inboxes,
        indexer: Indexer,
        raw_mail: RawMail = IN_ROWS,
        clock: Clock | None = None,
    ) -> None:
        self._database = database
        self._inboxes = inboxes
        self._indexer = indexer
        self._clock = clock or SystemClock()
        self._snippets = Snippets(database=database, raw_mail=raw_mail)

    async def find(
        self,
        workspace_id: UUID,
        text: str,
        *,
        inbox_id: UUID | None = None,
        sort: str = NEWEST,
        cursor: UUID | None = None,
        limit: int = limits.API_PAGE_ITEMS,
        snippets: bool = True,
    ) -> Found:
        """The mails that `text` finds: in an inbox, or in all living ones of the workspace.

        A mail in several inboxes is found once. Raises SearchError (with a column), NotFound for an
        inbox, InvalidInput for another `sort`.
        """
        if sort not in SORTS:
            raise InvalidInput(f"sort is one of {', '.join(SORTS)}", field="sort")
        node = parse(text, self._clock.now())
        scope = await self._scope(workspace_id, inbox_id)
        limit = max(1, min(limit, limits.API_PAGE_ITEMS_MAX))
        languages, lexemes = await self._lexemes(workspace_id, node)
        asked = condition(
            node,
            lexemes,
            languages,
            inbox_id=inbox_id,
            workspace_id=workspace_id,
            first=FIRST_PARAMETER + (sort == BEST),
        )
        words = words_query(node, lexemes, languages)
        if sort == BEST and asked.guard is not None and words is not None:
            rows, following = await self._best(scope, asked, words, cursor, limit)
            until = None
        else:
            rows, following, until = await self._newest(scope, asked, cursor, limit)
        summaries = [summary_of(row) for row in rows]
        if not snippets:
            return Found([Hit(one, "", "") for one in summaries], following, until)
        marked = await self._snippets.of(workspace_id, rows, node, words)
        hits = [
            Hit(summary, snippet, subject)
            for summary, (snippet, subject) in zip(summaries, marked, strict=True)
        ]
        return Found(hits, following, until)

    async def plan(self, workspace_id: UUID, text: str, inbox_id: UUID | None = None) -> str:
        """How PostgreSQL answers the search, with its times (for an operator, and the bench)."""
        node = parse(text, self._clock.now())
        scope = await self._scope(workspace_id, inbox_id)
        languages, lexemes = await self._lexemes(workspace_id, node)
        asked = condition(node, lexemes, languages, inbox_id=inbox_id, workspace_id=workspace_id)
        plans = []
        few = _Step(True, _FEW, _FEW)
        for step in (
            (_Step(False, _WALK), few) if asked.guard is not None else (_Step(False, _WALK),)
        ):
            query, arguments = _newest_query(scope, asked, step)
            rows = await self._by_index(
                Query(f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) {query}"),
                *_arguments(scope, max(scope.lowest, asked.lowest), asked.highest),
                step.lines,
                limits.API_PAGE_ITEMS,
                *arguments,
            )
            plans.append("\n".join(row[0] for row in rows))
        return "\n\n".join(plans)

    # -----------------------------------------------------------------------------------------

    async def _scope(self, workspace_id: UUID, inbox_id: UUID | None) -> _Scope:
        if inbox_id is None:
            return _Scope(workspace_id, None, None, _FIRST)
        inbox = await self._inboxes.get(workspace_id, inbox_id)
        lowest = lowest_at(inbox.created_at) if inbox.created_at.timestamp() > 0 else _FIRST
        return _Scope(workspace_id, inbox_id, inbox.retention_days, lowest)

    async def _lexemes(
        self, workspace_id: UUID, node: Node
    ) -> tuple[list[str], dict[tuple[str, str], str]]:
        rows = await self._database.fetch(QUERIES.languages, workspace_id)
        languages = [row["language"] for row in rows] or [SIMPLE]
        texts = texts_of(node)
        if not texts:
            return languages, {}
        found = await self._database.fetch(QUERIES.lexize, languages, texts)
        return languages, {
            (row["language"], texts[row["nth"] - 1]): row["lexemes"] for row in found
        }

    async def _newest(
        self, scope: _Scope, asked: Condition, cursor: UUID | None, limit: int
    ) -> tuple[list[asyncpg.Record], UUID | None, datetime | None]:
        lowest = max(scope.lowest, asked.lowest)
        before = min(asked.highest, cursor or _LAST)
        found: dict[UUID, asyncpg.Record] = {}
        budget = BUDGET_LINES
        for step in _steps(asked):
            rows = await self._round(scope, asked, lowest, before, step, limit + 1)
            head = rows[0]
            budget -= head["looked"]
            if step.cap is not None and head["looked"] >= step.cap:
                continue  # some of many, and not the newest: they say nothing
            for row in rows:
                if row["message_id"] is not None:
                    found.setdefault(row["message_id"], row)
            if len(found) > limit:
                kept = list(found.values())[:limit]
                return kept, kept[-1]["message_id"], None
            cut = head["hits"] >= limit + 1  # hits beyond those were not looked at
            if not cut and head["looked"] < step.lines:
                return list(found.values()), None, None
            reached = head["lowest_hit"] if cut else head["lowest"]
            before = self._below(scope, reached, before, step.lines)
            if budget <= 0:
                break
        return list(found.values()), before, time_of(before)

    @staticmethod
    def _below(scope: _Scope, reached: UUID, before: UUID, size: int) -> UUID:
        """Where the next step begins: of a workspace the last mail may have more lines."""
        if scope.inbox_id is None and size > limits.SMTP_RECIPIENTS_PER_MESSAGE:
            again = UUID(int=reached.int + 1)
            if again < before:
                return again
        return reached

    async def _round(
        self,
        scope: _Scope,
        asked: Condition,
        lowest: UUID,
        before: UUID,
        step: "_Step",
        limit: int,
    ) -> list[asyncpg.Record]:
        query, arguments = _newest_query(scope, asked, step)
        every = (*_arguments(scope, lowest, before), step.lines, limit, *arguments)
        if not step.by_index:
            return await self._database.fetch(query, *every)
        return await self._by_index(query, *every)

    async def _by_index(self, query: Query, *arguments: object) -> list[asyncpg.Record]:
        async with self._database.transaction() as tx:
            await self._database.fetch(QUERIES.by_index, tx=tx)
            return await self._database.fetch(query, *arguments, tx=tx)

    async def _best(
        self, scope: _Scope, asked: Condition, words: str, cursor: UUID | None, limit: int
    ) -> tuple[list[asyncpg.Record], UUID | None]:
        """From the place that `cursor` counts to. Beyond the newest matches there is nothing."""
        offset = min(cursor.int, limits.SEARCH_RANKED) if cursor is not None else 0
        arguments: list[object] = [] if asked.exact else list(asked.arguments)
        first = FIRST_PARAMETER + 1
        ranking = f"${first + len(arguments)}::tsquery"
        arguments.append(words)
        guard = _guard(asked, first, arguments)
        text = QUERIES.best.replace("{scope}", scope.text(True)).replace("{ranking}", ranking)
        text = text.replace("{guard}", guard)
        text = text.replace("{condition}", "true" if asked.exact else asked.text)
        rows = await self._by_index(
            _named(text, QUERIES.best),
            *_arguments(scope, max(scope.lowest, asked.lowest), asked.highest),
            limits.SEARCH_RANKED,
            limit,
            offset,
            *arguments,
        )
        seen: dict[UUID, asyncpg.Record] = {}
        for row in rows:
            seen.setdefault(row["message_id"], row)
        following = offset + limit if len(rows) == limit else None
        return list(seen.values()), None if following is None else UUID(int=following)


def _newest_query(scope: _Scope, asked: Condition, step: _Step) -> tuple[Query, list[object]]:
    """The statement of a step, and the arguments behind its first seven."""
    own = QUERIES.seek if step.by_index else QUERIES.walk
    arguments: list[object] = []
    text = own.replace("{scope}", scope.text(step.by_index))
    if step.by_index and asked.exact:
        text = text.replace("{condition}", "true")
    else:
        arguments += asked.arguments
        text = text.replace("{condition}", asked.text)
    if step.by_index:
        text = text.replace("{guard}", _guard(asked, FIRST_PARAMETER, arguments))
        text = text.replace("{cap}", "ALL" if step.cap is None else str(step.cap))
    return _named(text, own), arguments


def _guard(asked: Condition, first: int, arguments: list[object]) -> str:
    """What the index is asked, its queries added to `arguments`."""
    assert asked.guard is not None
    texts = []
    for template, query in (
        (QUERIES.has_words, asked.guard.words),
        (QUERIES.has_parts, asked.guard.parts),
    ):
        if query is not None:
            arguments.append(query)
            texts.append(template.replace("{query}", f"${first + len(arguments) - 1}"))
    return " AND ".join(texts)


def _named(text: str, own: Query) -> Query:
    """A statement whose time is counted under the name of the query that it was made of."""
    return timed_as(text, name_of(own))


def _arguments(scope: _Scope, lowest: UUID, before: UUID) -> tuple[object, ...]:
    return scope.workspace_id, scope.inbox_id, scope.retention_days, lowest, before
