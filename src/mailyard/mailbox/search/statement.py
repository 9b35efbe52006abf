"""The statements of a search, put together from the named queries of `storage/sql/search.sql`.

Each takes the workspace, the inbox and its class (or nulls), the span of ids, how many lines to
look at, how many hits to show, the keys of the span (`fact.py`; null where lines are not found by
the index), and then the arguments of the condition.
"""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import asyncpg

from mailyard.mailbox.search.ask import FIRST_PARAMETER, Condition
from mailyard.mailbox.search.embedder import Vector
from mailyard.mailbox.search.fact import span
from mailyard.storage.queries import Query, load, name_of, timed_as

QUERIES = load("search")

FIRST_OF_BEST = FIRST_PARAMETER + 1
_BY_ORDER = QUERIES.in_workspace, QUERIES.in_inbox
_BY_INDEX = QUERIES.in_workspace_found, QUERIES.in_inbox_found
_CARRIED = ", s.size_bytes, s.words, s.parts"  # what a condition asks about
_BY_STATE = QUERIES.in_workspace_marked, QUERIES.in_inbox_marked


class Scope(NamedTuple):
    """Where is looked: in a workspace, or in one of its inboxes of that class. No line in it has an
    id below `lowest`."""

    workspace_id: UUID
    inbox_id: UUID | None
    retention_days: int | None
    lowest: UUID

    def within(self, text: Query, queries: tuple[Query, Query]) -> str:
        """A statement with its condition to lie in here: the first in a workspace."""
        return text.replace("{scope}", queries[self.inbox_id is not None])


class Span(NamedTuple):
    """Ids of lines: from `lowest` on, below `before`."""

    lowest: UUID
    before: UUID


Statement = tuple[Query, list[object]]


def walk(scope: Scope, asked: Condition, ids: Span, lines: int, limit: int) -> Statement:
    """The newest `lines`, looked at one by one."""
    text = scope.within(QUERIES.walk, _BY_ORDER).replace("{condition}", asked.text)
    return _named(text, QUERIES.walk), [*_first(scope, ids, lines, limit), None, *asked.arguments]


def seek(scope: Scope, asked: Condition, ids: Span, lines: int, limit: int) -> Statement:
    """The newest `lines` of those that the index finds."""
    arguments = [*_first(scope, ids, lines, limit), span(ids.lowest, ids.before)]
    return _found(QUERIES.seek, scope, asked, arguments)


def marked(scope: Scope, asked: Condition, ids: Span, lines: int, limit: int) -> Statement:
    """The newest `lines` of those that stand in a mailbox as asked."""
    marks = " AND ".join(f"({mark})" for mark in asked.marks)
    text = scope.within(QUERIES.marked, _BY_STATE).replace("{marks}", marks)
    text = text.replace("{condition}", asked.text)
    arguments = [*_first(scope, ids, lines, limit), None, *asked.arguments]
    return _named(text, QUERIES.marked), arguments


def best(
    scope: Scope, asked: Condition, words: str, ids: Span, lines: int, limit: int, offset: int
) -> Statement:
    """Of the newest `lines` that the index finds those that fit `words` best. `asked` has its first
    parameter at FIRST_OF_BEST."""
    arguments = [*_first(scope, ids, lines, limit), span(ids.lowest, ids.before), offset]
    return _found(QUERIES.best, scope, asked, arguments, ranking=words)


def near(
    scope: Scope,
    ids: Span,
    model: int,
    vector: Vector,
    candidates: int,
    offset: int,
    limit: int,
    others: bool | None,
) -> Statement:
    """Of the lines of the span those whose vectors are nearest. `others`: whether inboxes that do
    not say so for themselves are among those that are looked through; None: none says so."""
    text = scope.within(QUERIES.near, _BY_ORDER)
    found = (candidates, offset, limit)
    arguments = [*_scope(scope), *ids, model, vector.bits, vector.half, *found, others]
    return _named(text, QUERIES.near), arguments


def count(scope: Scope, asked: Condition, ids: Span) -> Statement:
    """How many lines of the span the index finds."""
    arguments: list[object] = [*_scope(scope), *ids, span(ids.lowest, ids.before)]
    text = scope.within(QUERIES.count_found, _BY_INDEX)
    return _named(text.replace("{guard}", _guard(asked, arguments)), QUERIES.count_found), arguments


def reach(scope: Scope, ids: Span, lines: int) -> Statement:
    """The newest id in the span, and the one `lines` behind it."""
    query = QUERIES.reach_in_workspace if scope.inbox_id is None else QUERIES.reach_in_inbox
    return query, [*_scope(scope), *ids, lines]


def lines(scope: Scope, hits: Sequence[asyncpg.Record]) -> Statement:
    """What the hits show, of those that a living inbox shows."""
    columns = ("inbox_id", "message_id", "retention_days", "language")
    return QUERIES.lines, [scope.workspace_id, *([hit[one] for hit in hits] for one in columns)]


def _found(
    own: Query,
    scope: Scope,
    asked: Condition,
    arguments: list[object],
    ranking: str | None = None,
) -> Statement:
    """A statement by the index; the queries of the guard behind the condition's arguments."""
    assert asked.guard is not None
    text = scope.within(own, _BY_INDEX)
    if asked.exact:
        text = text.replace("{condition}", "true").replace("{carried}", "")
    else:
        text = text.replace("{condition}", asked.text).replace("{carried}", _CARRIED)
        arguments += asked.arguments
    if ranking is not None:
        arguments.append(ranking)
        text = text.replace("{ranking}", f"${len(arguments)}::tsquery")
    return _named(text.replace("{guard}", _guard(asked, arguments)), own), arguments


def _guard(asked: Condition, arguments: list[object]) -> str:
    """What the index is asked, its queries added to `arguments`."""
    guard = asked.guard
    assert guard is not None
    texts = []
    for template, word, value in (
        (QUERIES.has_words, "{query}", guard.words),
        (QUERIES.has_parts, "{query}", guard.parts),
        *((QUERIES.of_keys, "{keys}", list(keys)) for keys in guard.facts),
    ):
        if value is not None:
            arguments.append(value)
            texts.append(template.replace(word, f"${len(arguments)}"))
    return " AND ".join(texts)


def _first(scope: Scope, ids: Span, lines: int, limit: int) -> list[object]:
    return [*_scope(scope), *ids, lines, limit]


def _scope(scope: Scope) -> tuple[object, ...]:
    return scope.workspace_id, scope.inbox_id, scope.retention_days


def _named(text: str, own: Query) -> Query:
    """A statement whose time is counted under the name of the query that it was made of."""
    return timed_as(text, name_of(own))
