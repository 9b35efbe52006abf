"""Reading a search, by recursive descent. The grammar:

    search   = both { "or" both }
    both     = opposite { ["and"] opposite }
    opposite = ("not" | "-") opposite | "(" search ")" | field | match
    match    = word | word "*" | "*" word "*" | phrase in quotes
    field    = ("from" | "to" | "subject" | "filename" | "list") ":" (match | "(" search of matches ")")
             | "has" ":" "attachment" | "is" ":" state | "label" ":" name | "folder" ":" name
             | ("before" | "after") ":" day | ("larger" | "smaller") ":" size
    day      = 2026-01-31 | 2026-01 | 2026 | "today" | "yesterday" | 7d | 2w | 3m | 1y   (ago)
    size     = number ["k" | "M" | "G"]

`and`, `or`, `not` are read in any case; who looks for the word itself puts it in quotes. Days are
those of UTC; `after` takes its day in, `before` does not.
"""  # noqa: E501

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

from mailyard.core import limits
from mailyard.mailbox.search.tokens import Kind, SearchError, Token, tokens
from mailyard.mailbox.search.tree import (
    And,
    Field,
    HasAttachment,
    InFolder,
    Is,
    Label,
    Node,
    Not,
    Or,
    Part,
    Phrase,
    Received,
    Size,
    State,
    Word,
)

DEPTH = 20
_PART_CHARACTERS = 3
_WORD_FIELDS = {field.value: field for field in Field if field.value}
_STATES = {state.value: state for state in State}
_OTHERS = ("has", "is", "label", "folder", "in", "before", "after", "larger", "smaller")
FIELDS = (*_WORD_FIELDS, *_OTHERS)
_FIELDS = ", ".join(name for name in FIELDS if name != "in")
_SIZE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(k|m|g)?b?", re.IGNORECASE | re.ASCII)
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_AGO = re.compile(r"([0-9]{1,5})([dwmy])", re.IGNORECASE | re.ASCII)
_DAYS = {"d": 1, "w": 7, "m": 30, "y": 365}
_DATE = re.compile(r"([0-9]{4})(?:[-/]([0-9]{1,2}))?(?:[-/]([0-9]{1,2}))?", re.ASCII)
_DAY_EXPECTED = "a day like 2026-01-31, 2026-01, today, yesterday or 7d (ago)"


def parse(source: str, now: datetime) -> Node:
    """The tree of a search. Raises SearchError with the column and what was expected there."""
    return _Parser(source, now).whole()


class _Parser:
    """One reading of one text. Each method takes what it is named for and moves behind it."""

    def __init__(self, source: str, now: datetime) -> None:
        self._tokens = list(tokens(source))
        self._next = 0
        self._now = now.astimezone(UTC)
        self._terms = 0

    def whole(self) -> Node:
        if self._at(Kind.END):
            return Received()  # at any time: all mail
        node = self._search(0, Field.TEXT)
        if not self._at(Kind.END):
            raise self._expected("the end")
        return node

    # Tokens -----------------------------------------------------------------------------------

    @property
    def _ahead(self) -> Token:
        return self._tokens[self._next]

    def _at(self, *kinds: Kind) -> bool:
        return self._ahead.kind in kinds

    def _take(self) -> Token:
        token = self._ahead
        self._next += 1
        return token

    def _is(self, word: str) -> bool:
        return self._at(Kind.WORD) and self._ahead.text.lower() == word

    def _expected(self, what: str) -> SearchError:
        token = self._ahead
        found = {
            Kind.END: "the end",
            Kind.FIELD: f"{token.text}:",
            Kind.PHRASE: "a phrase",
        }.get(token.kind, token.text[:40])
        return SearchError(token.place, f"expected {what}, found {found}")

    # Together ---------------------------------------------------------------------------------

    def _search(self, depth: int, field: Field) -> Node:
        parts = [self._both(depth, field)]
        while self._is("or"):
            self._take()
            parts.append(self._both(depth, field))
        return Or(tuple(parts)) if len(parts) > 1 else parts[0]

    def _both(self, depth: int, field: Field) -> Node:
        parts = [self._opposite(depth, field)]
        while True:
            if self._is("and"):
                self._take()
            elif self._at(Kind.END, Kind.CLOSE) or self._is("or"):
                return And(tuple(parts)) if len(parts) > 1 else parts[0]
            parts.append(self._opposite(depth, field))

    def _opposite(self, depth: int, field: Field) -> Node:
        if depth > DEPTH:
            raise SearchError(self._ahead.place, f"a search is nested {DEPTH} deep at most")
        if self._is("not") or self._at(Kind.MINUS):
            self._take()
            return Not(self._opposite(depth + 1, field))
        if self._at(Kind.OPEN):
            self._take()
            node = self._search(depth + 1, field)
            if not self._at(Kind.CLOSE):
                raise self._expected(")")
            self._take()
            return node
        if self._at(Kind.FIELD):
            if field is not Field.TEXT:
                raise self._expected(f"a word or a phrase behind {field.value}:")
            return self._field(depth)
        return self._match(field)

    # One --------------------------------------------------------------------------------------

    def _count(self, token: Token) -> None:
        self._terms += 1
        if self._terms > limits.SEARCH_TERMS:
            raise SearchError(token.place, f"a search has at most {limits.SEARCH_TERMS} terms")

    def _match(self, field: Field) -> Node:
        token = self._ahead
        if token.kind not in (Kind.WORD, Kind.PHRASE) or self._is("or") or self._is("and"):
            behind = f" behind {field.value}:" if field is not Field.TEXT else ""
            raise self._expected(f"a word or a phrase{behind}")
        self._count(token)
        self._take()
        if token.kind is Kind.PHRASE:
            if not token.text.strip():
                raise SearchError(token.place, "there is nothing between these quotes")
            return Phrase(token.text, field, token.place)
        return self._word(token, field)

    def _word(self, token: Token, field: Field) -> Node:
        text = token.text
        if text.startswith("*"):
            part = text.strip("*")
            if "*" in part:
                raise SearchError(token.place, "stars stand at the beginning and the end of a word")
            if sum(map(str.isalnum, part)) < _PART_CHARACTERS:
                raise SearchError(
                    token.place, f"a part of a word has at least {_PART_CHARACTERS} characters"
                )
            return Part(part, field, token.place)
        if "*" in text.rstrip("*"):
            raise SearchError(token.place, "stars stand at the beginning and the end of a word")
        stem = text.rstrip("*")
        return Word(stem, stem != text, field, token.place)

    def _field(self, depth: int) -> Node:
        token = self._take()
        name = token.text
        if name in _WORD_FIELDS:
            if self._at(Kind.OPEN):
                return self._opposite(depth, _WORD_FIELDS[name])
            return self._match(_WORD_FIELDS[name])
        readers: dict[str, Callable[[str, Token], Node]] = {
            "has": self._has,
            "is": self._state,
            "label": lambda text, _: Label(text),
            "folder": lambda text, _: InFolder(text),
            "in": lambda text, _: InFolder(text),
            "before": lambda text, at: Received(until_ms=self._day(text, at)),
            "after": lambda text, at: Received(since_ms=self._day(text, at)),
            "larger": lambda text, at: Size(True, _size(text, at)),
            "smaller": lambda text, at: Size(False, _size(text, at)),
        }
        if name not in readers:
            raise SearchError(
                token.place,
                f"there is no field {name[:40]}:, only {_FIELDS}; put it in quotes to look for it",
            )
        value = self._ahead
        if value.kind not in (Kind.WORD, Kind.PHRASE) or not value.text.strip():
            raise self._expected(f"a value behind {name}:")
        self._count(token)
        self._take()
        return readers[name](value.text, value)

    def _has(self, text: str, token: Token) -> Node:
        if text.lower() not in ("attachment", "attachments", "file", "files"):
            raise SearchError(token.place, f"expected attachment behind has:, found {text[:40]}")
        return HasAttachment()

    def _state(self, text: str, token: Token) -> Node:
        state = _STATES.get(text.lower())
        if state is None:
            raise SearchError(
                token.place, f"expected {', '.join(_STATES)} behind is:, found {text[:40]}"
            )
        return Is(state)

    def _day(self, text: str, token: Token) -> int:
        """The first millisecond of the day."""
        today = self._now.date()
        try:
            day = _day_of(text.lower(), today)
        except (ValueError, OverflowError):
            day = None
        if day is None or day.year < 1970:
            raise SearchError(token.place, f"expected {_DAY_EXPECTED}, found {text[:40]}")
        return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)


def _day_of(text: str, today: date) -> date | None:
    if text in ("today", "yesterday"):
        return today - timedelta(days=text == "yesterday")
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return today - timedelta(days=int(ago[1]) * _DAYS[ago[2]])
    written = _DATE.fullmatch(text)
    if written is None:
        return None
    return date(int(written[1]), int(written[2] or 1), int(written[3] or 1))


def _size(text: str, token: Token) -> int:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise SearchError(token.place, f"expected a size like 500k or 2M, found {text[:40]}")
    return int(float(match[1]) * _UNITS[(match[2] or "").lower()])
