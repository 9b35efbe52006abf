"""Searching: from a text to the mails that it finds, newest first (`newest.py`) or the best of the
newest (`best.py`), each with the words that show it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from uuid import UUID

import asyncpg

from mailyard.core import limits
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import InvalidInput
from mailyard.core.ids import lowest_at, time_of
from mailyard.mailbox.inbox import Inboxes
from mailyard.mailbox.message_value import Summary, summary_of
from mailyard.mailbox.search.ask import FIRST_PARAMETER, Condition, condition, texts_of, words_query
from mailyard.mailbox.search.best import best
from mailyard.mailbox.search.index import Indexer
from mailyard.mailbox.search.language import SIMPLE
from mailyard.mailbox.search.newest import Fetch, Newest
from mailyard.mailbox.search.parse import parse
from mailyard.mailbox.search.saying import read
from mailyard.mailbox.search.snippet import Snippets
from mailyard.mailbox.search.statement import FIRST_OF_BEST, Scope, Span
from mailyard.mailbox.search.tree import Node
from mailyard.mailbox.search.vectors import Vectors
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import Query, load
from mailyard.storage.raw_mail import IN_ROWS, RawMail

QUERIES = load("search")

NEWEST, BEST = "newest", "best"
SORTS = (NEWEST, BEST)
WORDS, MEANING = "words", "meaning"
MODES = (WORDS, MEANING)
_FIRST = UUID(int=0)


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


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is looked for, and where; `saying`: by meaning."""

    saying: str
    node: Node
    scope: Scope
    languages: list[str]
    lexemes: dict[tuple[str, str], str]

    @property
    def words(self) -> str | None:
        """What a found mail may show of it."""
        return words_query(self.node, self.lexemes, self.languages)

    def condition(self, first: int = FIRST_PARAMETER) -> Condition:
        """As SQL, its parameters from `first` on."""
        return condition(
            self.node,
            self.lexemes,
            self.languages,
            inbox_id=self.scope.inbox_id,
            workspace_id=self.scope.workspace_id,
            first=first,
        )


class Search:
    """Over the mail of all workspaces' inboxes, one workspace or inbox at a time."""

    def __init__(
        self,
        *,
        database: Database,
        inboxes: Inboxes,
        indexer: Indexer,
        vectors: Vectors,
        raw_mail: RawMail = IN_ROWS,
        clock: Clock | None = None,
    ) -> None:
        self._database = database
        self._inboxes = inboxes
        self._indexer = indexer
        self._vectors = vectors
        self._clock = clock or SystemClock()
        self._snippets = Snippets(database=database, raw_mail=raw_mail)

    async def find(
        self,
        workspace_id: UUID,
        text: str,
        *,
        inbox_id: UUID | None = None,
        sort: str = NEWEST,
        mode: str = WORDS,
        cursor: UUID | None = None,
        limit: int = limits.API_PAGE_ITEMS,
        snippets: bool = True,
    ) -> Found:
        """The mails that `text` finds: in an inbox, or in all living ones of the workspace.

        A mail in several inboxes is found once. By meaning, those that say the like come, the
        nearest first. Raises SearchError (with a column), NotFound for an inbox, InvalidInput for
        another `sort` or `mode` or a `mode` that is switched off.
        """
        for name, value, known in (("sort", sort, SORTS), ("mode", mode, MODES)):
            if value not in known:
                raise InvalidInput(f"{name} is one of {', '.join(known)}", field=name)
        asked = await self._asked(workspace_id, text, inbox_id, mode)
        limit = max(1, min(limit, limits.API_PAGE_ITEMS_MAX))
        until = None
        if mode == MEANING:
            rows, following = await self._by_meaning(asked, cursor, limit)
        elif sort == BEST and asked.words is not None and asked.condition().guard is not None:
            rows, following = await self._best(asked, asked.words, cursor, limit)
        else:
            rows, following, until = await self._newest(asked, cursor, limit)
        summaries = [summary_of(row) for row in rows]
        if not snippets:
            return Found([Hit(one, "", "") for one in summaries], following, until)
        marked = await self._snippets.of(workspace_id, rows, asked.node, asked.words)
        hits = [
            Hit(summary, snippet, subject)
            for summary, (snippet, subject) in zip(summaries, marked, strict=True)
        ]
        return Found(hits, following, until)

    async def plan(self, workspace_id: UUID, text: str, inbox_id: UUID | None = None) -> str:
        """How PostgreSQL answers the search, with its times (for an operator, and the bench)."""
        asked = await self._asked(workspace_id, text, inbox_id)
        plans: list[str] = []
        async with self._database.transaction() as tx:
            fetch = await self._fetching(tx, by_index=True)

            async def explained(query: Query, *arguments: object) -> list[asyncpg.Record]:
                explain = Query(f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) {query}")
                plan = await fetch(explain, *arguments)
                plans.append("\n".join(row[0] for row in plan))
                return await fetch(query, *arguments)

            page = Newest(
                explained,
                asked.scope,
                asked.condition(),
                cursor=None,
                limit=limits.API_PAGE_ITEMS,
            )
            await page.page()
        return "\n\n".join(plans)

    # -----------------------------------------------------------------------------------------

    async def _newest(
        self, asked: _Asked, cursor: UUID | None, limit: int
    ) -> tuple[list[asyncpg.Record], UUID | None, datetime | None]:
        plain = asked.condition()
        async with self._database.transaction() as tx:
            fetch = await self._fetching(tx, by_index=plain.guard is not None)
            page = Newest(fetch, asked.scope, plain, cursor=cursor, limit=limit)
            rows, following, cut = await page.page()
        return rows, following, time_of(following) if cut and following is not None else None

    async def _best(
        self, asked: _Asked, words: str, cursor: UUID | None, limit: int
    ) -> tuple[list[asyncpg.Record], UUID | None]:
        """From the place that `cursor` counts to. Beyond the newest matches there is nothing."""
        offset = min(cursor.int, limits.SEARCH_RANKED) if cursor is not None else 0
        async with self._database.transaction() as tx:
            fetch = await self._fetching(tx, by_index=True)
            rows, more = await best(
                fetch,
                asked.scope,
                asked.condition(FIRST_OF_BEST),
                words,
                offset=offset,
                limit=limit,
            )
        return _each_once(rows), UUID(int=offset + limit) if more else None

    async def _by_meaning(
        self, asked: _Asked, cursor: UUID | None, limit: int
    ) -> tuple[list[asyncpg.Record], UUID | None]:
        """From the place that `cursor` counts to, as above."""
        workspace_id, inbox_id = asked.scope.workspace_id, asked.scope.inbox_id
        finds = await self._indexer.finds_by_meaning(workspace_id, inbox_id)
        if self._vectors.available and not finds:
            raise InvalidInput(
                "search by meaning is switched off in this "
                + (
                    "workspace: PATCH /v1/search/settings"
                    if inbox_id is None
                    else "inbox: PATCH "
                    "/v1/search/settings, or PUT /v1/inboxes/{inbox_id}/search for it alone,"
                )
                + ' with {"by_meaning": true}, then index anew what lies there',
                field="mode",
            )
        bounds = asked.condition()
        ids = Span(max(asked.scope.lowest, bounds.lowest), bounds.highest)
        offset = min(cursor.int, limits.SEARCH_RANKED) if cursor is not None else 0
        rows = await self._vectors.nearest(
            asked.scope,
            ids,
            asked.saying,
            offset=offset,
            limit=limit,
            others=(await self._indexer.setting(workspace_id)).others,
        )
        more = len(rows) == limit
        return _each_once(rows), UUID(int=offset + limit) if more else None

    async def _fetching(self, tx: Connection, *, by_index: bool) -> Fetch:
        fetch = partial(self._database.fetch, tx=tx)
        if by_index:
            await fetch(QUERIES.by_index)
        return fetch

    async def _asked(
        self, workspace_id: UUID, text: str, inbox_id: UUID | None, mode: str = WORDS
    ) -> _Asked:
        now = self._clock.now()
        saying, node = read(text, now) if mode == MEANING else ("", parse(text, now))
        scope = await self._scope(workspace_id, inbox_id)
        languages, lexemes = await self._lexemes(workspace_id, node)
        return _Asked(saying, node, scope, languages, lexemes)

    async def _scope(self, workspace_id: UUID, inbox_id: UUID | None) -> Scope:
        if inbox_id is None:
            return Scope(workspace_id, None, None, _FIRST)
        inbox = await self._inboxes.get(workspace_id, inbox_id)
        lowest = lowest_at(inbox.created_at) if inbox.created_at.timestamp() > 0 else _FIRST
        return Scope(workspace_id, inbox_id, inbox.retention_days, lowest)

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


def _each_once(rows: Sequence[asyncpg.Record]) -> list[asyncpg.Record]:
    seen: dict[UUID, asyncpg.Record] = {}
    for row in rows:
        seen.setdefault(row["message_id"], row)
    return list(seen.values())
