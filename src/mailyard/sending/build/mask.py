"""Template tags dressed so that tools for plain HTML and MJML carry them through unharmed.

A tag in content becomes a comment, which may stand anywhere, also between the rows of a table where
a parser of HTML moves text away; one in an attribute, in a style or in a comment becomes a word.
Afterwards the tags are put back; one that did not come through is an error, never a gap in a mail.
"""

import re
from collections.abc import Iterable, Mapping

from mailyard.sending.build.markup import Markup
from mailyard.sending.build.piece import Piece

_BRACES = re.compile(r"\{(?=[{%#])")


class Mask:
    """The tags of a markup, and the word that stands for each."""

    def __init__(self, markup: Markup) -> None:
        self.markup = markup
        self._word = _unused(markup.text)
        self._found = re.compile(f"<!--{self._word}([0-9]+)z-->|{self._word}([0-9]+)z")

    def put_on(self, plain: Iterable[int], added: Mapping[int, str] | None = None) -> str:
        """The text with its tags masked; those whose index is in `plain` as words.

        `added`: what to write at which offsets, beside.
        """
        as_words = frozenset(plain)
        text = self.markup.text
        stops = sorted({*map(self.markup.place, range(len(self.markup.tags))), *(added or ())})
        made: list[str] = []
        at = index = 0
        for stop in stops:
            made.append(text[at:stop])
            at = stop
            if added and stop in added:
                made.append(added[stop])
            if text[stop : stop + 1] == self.markup.mark:
                word = f"{self._word}{index}z"
                made.append(word if index in as_words else f"<!--{word}-->")
                index += 1
                at = stop + 1
        return "".join([*made, text[at:]])

    def take_off(self, text: str, needed: Iterable[int]) -> list[Piece]:
        """The pieces of what a tool made. Raises InvalidInput when a tag in `needed` is gone."""
        pieces: list[Piece] = []
        seen: set[int] = set()
        at = 0
        nowhere = self.markup.origin(0)
        for found in self._found.finditer(text):
            if found.start() > at:
                pieces.append(Piece(_without_code(text[at : found.start()]), nowhere))
            index = int(found[1] or found[2])
            seen.add(index)
            pieces.append(self.markup.tags[index])
            at = found.end()
        if at < len(text):
            pieces.append(Piece(_without_code(text[at:]), nowhere))
        for index in needed:
            if index not in seen:
                tag = self.markup.tags[index]
                raise self.markup.refuse(
                    self.markup.place(index), f"{tag.text[:60]} has no effect here"
                )
        return _apart(pieces)

    def offset(self, masked: str) -> int:
        """How long the beginning `masked` of a masked text was without the mask."""
        return len(self._found.sub(self.markup.mark, masked))


def _without_code(literal: str) -> str:
    """What a tool wrote is text: braces that would begin a tag are moved apart."""
    return _BRACES.sub("{ ", literal)


def _apart(pieces: list[Piece]) -> list[Piece]:
    """No literal may lend its last brace to the tag behind it."""
    for index in range(len(pieces) - 1):
        piece = pieces[index]
        if not piece.word and piece.text.endswith("{") and pieces[index + 1].word:
            pieces[index] = Piece(piece.text + " ", piece.origin)
    return pieces


def _unused(text: str) -> str:
    word = "zq"
    while word in text:
        word += "q"
    return word
