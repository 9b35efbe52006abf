"""Where something stands in a template, as its author counts: source, line, column.

What is rendered is not always what was written: layouts are filled, MJML becomes HTML, styles move
into elements. Template tags survive all of that, so a finished source carries one origin for each
of its tags, and a place in it is said as the place of the tag that it belongs to.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

OPENING = re.compile(r"\{[{%#]")


class Origin(NamedTuple):
    """Where a tag was written. `source`: `html`, or `html of footer` for another template's."""

    source: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.source}, line {self.line}, column {self.column}"


def origin_of(text: str, offset: int, source: str) -> Origin:
    """The line and column (from 1) of character `offset` of `text`."""
    start = text.rfind("\n", 0, offset) + 1
    return Origin(source, text.count("\n", 0, offset) + 1, offset - start + 1)


class Positions:
    """Says where the characters of a finished source come from. Without origins: from itself.

    `before`: of the source that this one was rewritten from, its tags as they were and in order.
    """

    __slots__ = ("_before", "_field", "_origins", "_text")

    def __init__(
        self,
        text: str,
        field: str,
        origins: Sequence[Origin] = (),
        before: "Positions | None" = None,
    ) -> None:
        self._text = text
        self._field = field
        self._origins = origins
        self._before = before

    def at(self, offset: int) -> Origin:
        """The origin of the character at `offset`."""
        if self._before is not None:
            return self._before.at(self._offset_before(self._before._text, offset))
        if self._origins:
            tags = sum(1 for _ in OPENING.finditer(self._text, 0, offset + 2))
            return Origin(*self._origins[min(max(tags - 1, 0), len(self._origins) - 1)])
        return origin_of(self._text, offset, self._field)

    def _offset_before(self, before: str, offset: int) -> int:
        """Where the tag at `offset` stood: as the same one of those that read like it."""
        found = None
        for found in OPENING.finditer(self._text, 0, offset + 2):  # noqa: B007 - the last one
            pass
        if found is None:
            return 0
        start = found.start()
        end = self._text.find("%}" if found[0] == "{%" else "}}", start)
        tag = self._text[start : end + 2]
        place = -1
        for _ in range(self._text.count(tag, 0, start) + 1):
            place = before.find(tag, place + 1)
        return max(place, 0)

    def at_byte(self, offset: int) -> Origin:
        """The same for an offset in the UTF-8 of the source, as the engine counts."""
        return self.at(len(self._text.encode()[:offset].decode(errors="ignore")))
