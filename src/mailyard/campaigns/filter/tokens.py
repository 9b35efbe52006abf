"""A filter's text as tokens, each with the place where it begins."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from mailyard.core.errors import InvalidInput

FILTER_CHARACTERS = 10_000
TEXT_CHARACTERS = 500  # between quotes
NUMBER_DIGITS = 15  # on each side of the point


class Kind(Enum):
    """What a token is. The value is how an error names it."""

    WORD = "a word"
    NAME = "a name in backquotes"
    TEXT = "text in quotes"
    NUMBER = "a number"
    DAY = "a date"
    SIGN = "a sign"
    END = "the end"


@dataclass(frozen=True, slots=True)
class Token:
    """`text`: what stands there; of a TEXT or NAME what it means. `place` counts characters."""

    kind: Kind
    text: str
    place: int


class FilterError(InvalidInput):
    """The filter cannot be read. `line` and `column` count from 1."""

    def __init__(self, source: str, place: int, message: str, *, field: str = "filter") -> None:
        before = source[:place]
        self.line = before.count("\n") + 1
        self.column = place - (before.rfind("\n") + 1) + 1
        super().__init__(f"line {self.line}, column {self.column}: {message}", field=field)


_TOKEN = re.compile(
    r"""(?P<space>\s+)
    | (?P<DAY>[0-9]{4}-[0-9]{2}-[0-9]{2}(?![0-9A-Za-z_]))
    | (?P<NUMBER>-?[0-9]+(?:\.[0-9]+)?(?![0-9A-Za-z_.-]))
    | (?P<WORD>[^\W\d]\w*)
    | (?P<TEXT>"(?:[^"\\\n]|\\["\\])*"|'(?:[^'\\\n]|\\['\\])*')
    | (?P<NAME>`[^`\n]+`)
    | (?P<SIGN><=|>=|!=|[=<>(),])
    """,
    re.VERBOSE,
)
_ESCAPED = re.compile(r"\\(.)")


def tokens(source: str) -> Iterator[Token]:
    """The tokens of a filter, the last of kind END. Raises FilterError."""
    if len(source) > FILTER_CHARACTERS:
        raise FilterError(source, 0, f"a filter has at most {FILTER_CHARACTERS:,} characters")
    if "\0" in source:
        raise FilterError(source, source.index("\0"), "a filter cannot contain NUL")
    place = 0
    while place < len(source):
        match = _TOKEN.match(source, place)
        if match is None:
            raise FilterError(source, place, _why(source, place))
        if match.lastgroup != "space":
            yield _token(source, match)
        place = match.end()
    yield Token(Kind.END, "", len(source))


def _token(source: str, match: re.Match[str]) -> Token:
    kind, text, place = Kind[match.lastgroup or ""], match[0], match.start()
    if kind in (Kind.TEXT, Kind.NAME):
        text = text[1:-1]
        if kind is Kind.TEXT:
            text = _ESCAPED.sub(r"\1", text)
        if len(text) > TEXT_CHARACTERS:
            raise FilterError(source, place, f"a text has at most {TEXT_CHARACTERS} characters")
    elif kind is Kind.NUMBER and max(map(len, text.lstrip("-").split("."))) > NUMBER_DIGITS:
        raise FilterError(
            source, place, f"a number has at most {NUMBER_DIGITS} digits on each side of its point"
        )
    return Token(kind, text, place)


def _why(source: str, place: int) -> str:
    character = source[place]
    if character in "\"'":
        return "this text is not closed, or has a backslash before what needs none"
    if character == "`":
        return "this name is not closed"
    if character.isdigit() or character == "-":
        return "this is neither a number nor a date like 2026-01-31"
    if character == "!":
        return 'write != for "is not", and the word not before a condition'
    return f"nothing begins with {character!r}"
