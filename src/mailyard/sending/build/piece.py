"""A source cut into literal text and tags; each piece knows where it was written."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from mailyard.sending.language import Lexer
from mailyard.sending.position import Origin, Positions, origin_of

_STATEMENT = re.compile(r"\{%[-+]?\s*([a-z]+)")


class Piece(NamedTuple):
    """Literal text, or one of `{{ … }}`, `{% … %}`, `{# … #}`, as it was written."""

    text: str
    origin: Origin
    word: str = ""  # of a tag: `if`, `for`, …; `{{` for a value, `{#` for a comment

    @property
    def strips_before(self) -> bool:
        """Whether the tag takes the whitespace before it away."""
        return self.text[2] == "-"

    @property
    def strips_behind(self) -> bool:
        """Whether the tag takes the whitespace behind it away."""
        return self.text[-3] == "-"

    def lstripped(self) -> "Piece":
        text = self.text.lstrip()
        return Piece(text, moved(self.origin, self.text, len(self.text) - len(text)))

    def rstripped(self) -> "Piece":
        return Piece(self.text.rstrip(), self.origin)


def cut(source: str, name: str, field: str) -> list[Piece]:
    """`source` in pieces. `name` is what origins call it, `field` what errors name.

    Raises InvalidInput for a tag that is not closed or holds what no tag can.
    """
    pieces: list[Piece] = []
    behind, origin = 0, Origin(name, 1, 1)
    for start, end, _ in Lexer(source, field, Positions(source, name)).tags():
        if start > behind:
            literal = source[behind:start]
            pieces.append(Piece(literal, origin))
            origin = moved(origin, literal, len(literal))
        text = source[start:end]
        found = _STATEMENT.match(text)
        pieces.append(Piece(text, origin, found[1] if found else text[:2]))
        origin = moved(origin, text, len(text))
        behind = end
    if behind < len(source):
        pieces.append(Piece(source[behind:], origin))
    return pieces


def joined(pieces: Iterable[Piece]) -> str:
    """The pieces as one source."""
    return "".join([piece.text for piece in pieces])


def origins(pieces: Iterable[Piece]) -> list[Origin]:
    """Where each tag of the pieces was written."""
    return [piece.origin for piece in pieces if piece.word]


def moved(origin: Origin, text: str, size: int) -> Origin:
    """The origin of the character `size` behind the beginning of `text`, which is at `origin`."""
    inside = origin_of(text, size, origin.source)
    if inside.line == 1:
        return Origin(origin.source, origin.line, origin.column + inside.column - 1)
    return Origin(origin.source, origin.line + inside.line - 1, inside.column)
