"""A search's text as tokens, each with the place where it begins."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from mailyard.core.errors import InvalidInput
from mailyard.core.limits import SEARCH_QUERY_CHARACTERS


class Kind(Enum):
    """What a token is. The value is how an error names it."""

    WORD = "a word"
    PHRASE = "a phrase in quotes"
    FIELD = "a field"
    OPEN = "("
    CLOSE = ")"
    MINUS = "-"
    END = "the end"


@dataclass(frozen=True, slots=True)
class Token:
    """`text`: of a PHRASE what stands between the quotes, of a FIELD its name in lower case."""

    kind: Kind
    text: str
    place: int


class SearchError(InvalidInput):
    """The search cannot be read. `column` counts characters from 1."""

    def __init__(self, place: int, message: str) -> None:
        self.column = place + 1
        super().__init__(f"column {self.column}: {message}", field="q")


# A field: letters and a colon. What follows may stand behind a space (`from: ann`). An address of a
# page (`https://…`) and a time (`10:30`) are words.
_TOKEN = re.compile(
    r"""(?P<space>\s+)
    | (?P<PHRASE>"[^"]*"|“[^”]*”|„[^“”]*[“”]|«[^»]*»)
    | (?P<FIELD>[A-Za-z]+:)(?!//)\s*
    | (?P<OPEN>\()
    | (?P<CLOSE>\))
    | (?P<MINUS>-(?=[^\s\-)]))
    | (?P<WORD>[^\s()"“„«][^\s()"“”«»]*)
    """,
    re.VERBOSE,
)


def tokens(source: str) -> Iterator[Token]:
    """The tokens of a search, the last of kind END. Raises SearchError."""
    if len(source) > SEARCH_QUERY_CHARACTERS:
        raise SearchError(
            SEARCH_QUERY_CHARACTERS, f"a search has at most {SEARCH_QUERY_CHARACTERS} characters"
        )
    for place, character in enumerate(source):
        if character == "\0" or "\ud800" <= character <= "\udfff":
            raise SearchError(place, "a search has no NUL and no half of a character")
    place = 0
    while place < len(source):
        match = _TOKEN.match(source, place)
        if match is None:
            raise SearchError(place, "this quote is not closed")
        dash = match.lastgroup == "WORD" and not any(map(str.isalnum, match[0]))
        if match.lastgroup != "space" and not dash:  # a lone dash or bullet looks for nothing
            kind = Kind[match.lastgroup or ""]
            text = match[match.lastgroup or 0]
            if kind is Kind.PHRASE:
                text = text[1:-1]
            elif kind is Kind.FIELD:
                text = text[:-1].lower()
            yield Token(kind, text, place)
        place = match.end()
    yield Token(Kind.END, "", len(source))
