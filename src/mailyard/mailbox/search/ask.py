"""A tree as a condition in SQL about a row `s` of `search_line`.

The text is put together from the named conditions of `storage/sql/search.sql`; everything that a
search says is a parameter. Beside the condition stands a `guard`: what the index can find by itself
and the condition implies. Where the two are the same, no row's words need to be read. Asked for
words behind one another, the index would have to read the words of all that it finds: it is asked
for those words alone, and the condition is left to whoever goes through what was found, newest
first.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from mailyard.mailbox.search import document
from mailyard.mailbox.search.fact import sizes
from mailyard.mailbox.search.grams import UNBROKEN, folded, part_query, pieces_query, quoted
from mailyard.mailbox.search.tokens import SearchError
from mailyard.mailbox.search.tree import (
    And,
    Field,
    HasAttachment,
    InFolder,
    Is,
    Label,
    Match,
    Node,
    Not,
    Or,
    Part,
    Phrase,
    Received,
    Size,
    State,
    Word,
    matches,
)
from mailyard.storage.queries import load

_SQL = load("search")
_LEXEME = re.compile(r"'((?:[^']|'')*)'")
_PREFIXES = {
    Field.FROM: document.FROM,
    Field.TO: document.TO,
    Field.FILE: document.FILE,
    Field.LIST: document.LIST,
}
_STATES = {
    State.UNREAD: _SQL.is_unread,
    State.READ: _SQL.is_read,
    State.STARRED: _SQL.is_starred,
    State.MUTED: _SQL.is_muted,
    State.SNOOZED: _SQL.is_snoozed,
}
_IN_ORDER = {State.STARRED}  # indexed newest first, of a workspace too
_LAST_ID = UUID(int=(1 << 128) - 1)

# By language, what a text is there: lexemes behind one another as a tsquery; empty for stop words.
Lexemes = Mapping[tuple[str, str], str]


@dataclass(frozen=True, slots=True)
class Guard:
    """What the index finds: tsqueries as text on the words, on the parts; and lists of keys
    (`fact.py`), one of each of which a line has. At least one of them."""

    words: str | None = None
    parts: str | None = None
    facts: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Condition:
    """`text`, and `arguments` for its parameters from the first on.

    `guard` is implied by it; `exact`: it says the same. `marks`: conditions on a row `state` of
    `line_state` that it implies and that an index has in order. `wide`: the guard names so many
    words of the index that the newest
    lines are better looked at first. `lowest` and `highest`: no id outside of [lowest, highest)
    matches.
    """

    text: str
    arguments: tuple[Any, ...]
    guard: Guard | None
    exact: bool
    marks: tuple[str, ...]
    wide: bool
    lowest: UUID
    highest: UUID


FIRST_PARAMETER = 9
_SHORT = 3  # characters: very many words begin with fewer


def texts_of(node: Node) -> list[str]:
    """What has to be looked up in each language before `condition` can be written."""
    found: dict[str, None] = {}
    _texts(node, found)
    return list(found)


def _texts(node: Node, found: dict[str, None]) -> None:
    match node:
        case And(parts) | Or(parts):
            for part in parts:
                _texts(part, found)
        case Not(part):
            _texts(part, found)
        case Word() | Phrase() if node.field in (Field.TEXT, Field.SUBJECT):
            found[_broken(node.text)] = None


def _broken(text: str) -> str:
    return document.spaced(text).strip()


def condition(
    node: Node,
    lexemes: Lexemes,
    languages: Sequence[str],
    *,
    inbox_id: UUID | None,
    workspace_id: UUID,
    first: int = FIRST_PARAMETER,
) -> Condition:
    """The condition of `node` within an inbox, or a workspace.

    Raises SearchError where a search asks for what cannot be looked for.
    """
    writer = _Writer(lexemes, languages, first, in_inbox=inbox_id is not None)
    lowest, highest, rest = _bounds(node)
    if rest is None:
        return Condition("true", (), None, False, (), False, lowest, highest)
    found = writer.node(rest)
    guard = found.guard
    if guard is not None:
        scope = (
            quoted(f"{document.OF_INBOX}{inbox_id}")
            if inbox_id is not None
            else quoted(f"{document.OF_WORKSPACE}{workspace_id}")
        )
        words = scope if guard.words is None else f"{scope} & ( {guard.words} )"
        guard = Guard(words, guard.parts, guard.facts)
    arguments = tuple(writer.arguments)
    return Condition(
        found.text, arguments, guard, found.exact, found.marks, writer.wide, lowest, highest
    )


def words_query(node: Node, lexemes: Lexemes, languages: Sequence[str]) -> str | None:
    """What a found mail may show of the search, as a tsquery on its text; None when nothing."""
    writer = _Writer(lexemes, languages, FIRST_PARAMETER)
    found = [writer.shown(one) for one in matches(node)]
    queries = [query for query in found if query]
    return " | ".join(f"( {query} )" for query in queries) if queries else None


@dataclass(frozen=True, slots=True)
class _Found:
    text: str
    guard: Guard | None
    exact: bool = False
    marks: tuple[str, ...] = ()


def _bounds(node: Node) -> tuple[UUID, UUID, Node | None]:
    """The ids between which everything lies, and what is left to ask then."""
    parts = node.parts if isinstance(node, And) else (node,)
    lowest, highest = UUID(int=0), _LAST_ID
    rest = []
    for part in parts:
        if isinstance(part, Received):
            if part.since_ms is not None:
                lowest = max(lowest, _id_at(part.since_ms))
            if part.until_ms is not None:
                highest = min(highest, _id_at(part.until_ms))
        else:
            rest.append(part)
    if not rest:
        return lowest, highest, None
    return lowest, highest, rest[0] if len(rest) == 1 else And(tuple(rest))


def _id_at(moment_ms: int) -> UUID:
    """The lowest id of that millisecond."""
    return UUID(int=(moment_ms << 80) | (0x7 << 76) | (0x2 << 62))


class _Writer:
    def __init__(
        self, lexemes: Lexemes, languages: Sequence[str], first: int, *, in_inbox: bool = False
    ) -> None:
        self._lexemes = lexemes
        self._languages = languages
        self._first = first
        self.arguments: list[Any] = []
        self.wide = False
        self._in_order = _IN_ORDER | ({State.UNREAD} if in_inbox else set())

    def node(self, node: Node) -> _Found:
        match node:
            case And(parts):
                return self._all(list(map(self.node, parts)))
            case Or(parts):
                return self._any(list(map(self.node, parts)))
            case Not(part):
                return self._opposite(self.node(part))
            case Word() | Phrase() | Part():
                return self._match(node)
            case HasAttachment():
                return self._words(quoted(document.WITH_FILE + "file"))
            case Received(since_ms, until_ms):
                return self._received(since_ms, until_ms)
            case Size(larger, size_bytes):
                keys = tuple(sizes(larger=larger, size_bytes=size_bytes))
                than = _SQL.larger if larger else _SQL.smaller
                text = self._filled(than, size=min(size_bytes, 2**31 - 1))
                return _Found(text, Guard(facts=(keys,)))
            case Is(state):
                return self._stands(_STATES[state], in_order=state in self._in_order)
            case Label(name):
                return self._stands(self._filled(_SQL.is_labelled, name=name), in_order=True)
            case InFolder(name):
                return self._stands(self._filled(_SQL.is_in_folder, name=name))

    # Together ---------------------------------------------------------------------------------

    def _all(self, found: list[_Found]) -> _Found:
        guards = [one.guard for one in found if one.guard is not None]
        words = [guard.words for guard in guards if guard.words is not None]
        parts = [guard.parts for guard in guards if guard.parts is not None]
        facts = tuple(keys for guard in guards for keys in guard.facts)
        guard = Guard(_joined(" & ", words), _joined(" & ", parts), facts) if guards else None
        text = " AND ".join(f"({one.text})" for one in found)
        marks = tuple(mark for one in found for mark in one.marks)
        return _Found(text, guard, all(one.exact for one in found), marks)

    def _any(self, found: list[_Found]) -> _Found:
        text = " OR ".join(f"({one.text})" for one in found)
        words = [one.guard.words for one in found if one.guard and one.guard.words]
        parts = [one.guard.parts for one in found if one.guard and one.guard.parts]
        if len(words) == len(found):
            exact = not parts and all(one.exact for one in found)
            return _Found(text, Guard(words=_joined(" | ", words)), exact)
        if len(parts) == len(found):
            return _Found(text, Guard(parts=_joined(" | ", parts)))
        return _Found(text, None)

    def _opposite(self, found: _Found) -> _Found:
        text = f"NOT coalesce({found.text}, false)"
        if not found.exact or found.guard is None or self.wide:
            return _Found(text, None)
        return _Found(text, Guard(words=f"!( {found.guard.words} )"), exact=True)

    # One --------------------------------------------------------------------------------------

    def _match(self, node: Match) -> _Found:
        if isinstance(node, Part):
            if node.field is not Field.TEXT:
                raise SearchError(
                    node.place, "parts of words are looked for in the whole mail: no field here"
                )
            return self._of_parts(node.text)
        found = []
        if node.field in _PREFIXES:
            return self._words(self._of_field(node))
        broken = _broken(node.text)
        if broken:
            guard, query = self._of_text(node, broken)
            same = guard == query
            text = self._filled(_SQL.has_words, query=query)
            found.append(_Found(text, Guard(words=guard), same))
        for run in UNBROKEN.findall(folded(node.text)):
            found.append(self._of_parts(run))
        return found[0] if len(found) == 1 else self._all(found)

    def _words(self, query: str) -> _Found:
        return _Found(self._filled(_SQL.has_words, query=query), Guard(words=query), exact=True)

    def _of_parts(self, text: str) -> _Found:
        query = part_query(text)
        if query is None:
            return _Found("false", None)
        return _Found(
            self._filled(_SQL.has_parts, query=query), Guard(parts=pieces_query(text) or query)
        )

    def _of_text(self, node: Word | Phrase, text: str) -> tuple[str, str]:
        """What the index finds, and what is meant: as tsqueries."""
        prefix = document.SUBJECT if node.field is Field.SUBJECT else ""
        weight = "A" if prefix else ""
        guards: dict[str, None] = {}
        meant: dict[str, None] = {}
        for language in self._languages:
            lexemes = self._lexemes.get((language, text), "")
            if not lexemes:  # it is in every text of that language
                guards[quoted(f"c={language}")] = meant[quoted(f"c={language}")] = None
                continue
            alone = _LEXEME.findall(lexemes)
            guard = " & ".join(f"'{prefix}{one}'" for one in alone)
            guards[guard] = None
            if len(alone) == 1:
                meant[guard] = None
            else:
                meant[_LEXEME.sub(rf"'\1':{weight}", lexemes) if weight else lexemes] = None
        if isinstance(node, Word):
            self._note(node)
            for word in _plain_forms(text):
                ending = ":*" if node.prefix else ""
                plain = quoted(prefix + word) + ending
                guards[plain] = meant[plain] = None
        return _joined(" | ", guards) or "", _joined(" | ", meant) or ""

    def _of_field(self, node: Word | Phrase) -> str:
        self._note(node)
        prefix = _PREFIXES[node.field]
        words = document.words_of(node.text)
        ending = ":*" if isinstance(node, Word) and node.prefix else ""
        if not words:
            return quoted(prefix + folded(node.text)) + ending
        *before, last = [quoted(prefix + word) for word in document.plain_words(node.text)]
        together = " & ".join([*before, last + ending])
        whole = folded(node.text).strip().lstrip("@")
        return f"{quoted(prefix + whole)}{ending} | ( {together} )"

    def _note(self, node: Word | Phrase) -> None:
        if isinstance(node, Word) and node.prefix and len(node.text) <= _SHORT:
            self.wide = True

    def _received(self, since_ms: int | None, until_ms: int | None) -> _Found:
        texts = []
        if since_ms is not None:
            texts.append(self._filled(_SQL.since, id=_id_at(since_ms)))
        if until_ms is not None:
            texts.append(self._filled(_SQL.until, id=_id_at(until_ms)))
        return _Found(" AND ".join(texts), None)

    def _stands(self, how: str, *, in_order: bool = False) -> _Found:
        return _Found(_SQL.stands.replace("{how}", how), None, marks=(how,) if in_order else ())

    # What is shown ----------------------------------------------------------------------------

    def shown(self, node: Match) -> str | None:
        """What of `node` may stand in a text."""
        broken = _broken(node.text)
        if isinstance(node, Part) or node.field not in (Field.TEXT, Field.SUBJECT) or not broken:
            return None
        found = [
            lexemes
            for language in self._languages
            if (lexemes := self._lexemes.get((language, broken), ""))
        ]
        if isinstance(node, Word) and (node.prefix or not found):
            ending = ":*" if node.prefix else ""
            found += [quoted(word) + ending for word in _plain_forms(broken)]
        return _joined(" | ", dict.fromkeys(found))

    def _filled(self, text: str, **values: Any) -> str:
        """A named condition with the numbers of new parameters in place of its words."""
        for name, value in values.items():
            self.arguments.append(value)
            number = self._first + len(self.arguments) - 1
            text = text.replace(f"{{{name}}}", f"${number}")
        return text


def _plain_forms(text: str) -> list[str]:
    """A word as it is stored beside its stem: in lower case, and without marks."""
    lower = text.lower()
    return list(dict.fromkeys([lower, document.unmarked(folded(text))]))


def _joined(sign: str, queries: Iterable[str]) -> str | None:
    found = list(queries)
    if not found:
        return None
    return found[0] if len(found) == 1 else sign.join(f"( {query} )" for query in found)
