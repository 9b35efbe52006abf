"""HTML and MJML with template tags in it, read as markup: which tag stands where.

A source is held as one text in which each template tag is one character of the private use area
(`Markup.text`, `Markup.tags`), so that offsets stay simple.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mailyard.core.errors import InvalidInput
from mailyard.protocol.character_reference import unescaped
from mailyard.sending.build.piece import Piece, joined, moved
from mailyard.sending.position import Origin

DEPTH = 250  # deeper nesting overflows what reads it after us

VOID = frozenset((
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source",
    "track", "wbr",
))  # fmt: skip  # HTML, section 13.1.2
OPTIONAL_END = frozenset((
    "p", "li", "dt", "dd", "tr", "td", "th", "thead", "tbody", "tfoot", "option", "optgroup",
    "colgroup", "body", "head", "html",
))  # fmt: skip  # HTML, section 13.1.2.4
_RAW = frozenset((
    "style", "script", "title", "textarea", "xmp", "mj-style", "mj-title", "mj-preview",
))  # fmt: skip
# What MJML reads as text alone: a comment in it is refused or lost.
TEXT_ONLY = frozenset((
    "mj-title", "mj-preview", "mj-style", "mj-button", "mj-navbar-link", "mj-social-element",
    "mj-accordion-title", "mj-accordion-text",
))  # fmt: skip

_NODE = re.compile(
    r"""<!--(?P<comment>.*?)(?:-->|\Z)
    |<!(?P<declaration>[^<>]*+)>
    |</(?P<end>[a-zA-Z][^\s/<>]*+)[^<>]*+>
    |<(?P<start>[a-zA-Z][^\s/<>]*+)(?P<attributes>(?:"[^"]*+"|'[^']*+'|[^'"<>]++)*+)>""",
    re.VERBOSE | re.DOTALL,
)
_ATTRIBUTE = re.compile(
    r"""([^\s"'>/=]++)(?:\s*+=\s*+(?:"([^"]*+)"|'([^']*+)'|([^\s"'=<>`]++)))?""", re.DOTALL
)


class Node(NamedTuple):
    """`kind`: start, end, text, raw (inside style and the like), comment, declaration."""

    kind: str
    begin: int
    stop: int
    name: str = ""
    attributes: str = ""
    closed: bool = False  # `<x/>`, or an element that never has content

    @property
    def opens(self) -> bool:
        return self.kind == "start" and not self.closed


class Markup:
    """Pieces as one text of markup, and its nodes."""

    def __init__(self, pieces: Sequence[Piece], field: str) -> None:
        self.field = field
        self.tags = [piece for piece in pieces if piece.word]
        self.mark = _unused("".join([piece.text for piece in pieces if not piece.word]))
        self.text = "".join([self.mark if piece.word else piece.text for piece in pieces])
        self._pieces = pieces
        self._places = [found.start() for found in re.finditer(self.mark, self.text)]

    def nodes(self) -> list[Node]:
        """The text as a row of nodes."""
        nodes: list[Node] = []
        text, position = self.text, 0
        while (found := _NODE.search(text, position)) is not None:
            if found.start() > position:
                nodes.append(Node("text", position, found.start()))
            position = found.end()
            kind = found.lastgroup or ""
            if kind == "attributes":
                kind = "start"
            name = (found["start"] or found["end"] or "").lower()
            attributes = found["attributes"] or ""
            closed = kind == "start" and (attributes.endswith("/") or name in VOID)
            nodes.append(Node(kind, found.start(), position, name, attributes, closed))
            if kind == "start" and name in _RAW and not closed:
                end = re.compile(f"</{name}[\\s/>]", re.IGNORECASE).search(text, position)
                stop = end.start() if end else len(text)
                if stop > position:
                    nodes.append(Node("raw", position, stop, name))
                position = stop
        if position < len(text):
            nodes.append(Node("text", position, len(text)))
        return nodes

    def tags_in(self, begin: int, stop: int) -> range:
        """The indexes of the template tags between two offsets."""
        return range(bisect_left(self._places, begin), bisect_left(self._places, stop))

    def blank(self, begin: int, stop: int) -> None:
        """Write spaces between two offsets, where no tag stands."""
        self.text = self.text[:begin] + " " * (stop - begin) + self.text[stop:]

    def place(self, index: int) -> int:
        """The offset of a template tag."""
        return self._places[index]

    def attributes(self, node: Node) -> list[tuple[str, int, int]]:
        """The attributes of a node: the name in small letters, and where the value stands."""
        begin = node.begin + 1 + len(node.name)
        all_found = []
        for found in _ATTRIBUTE.finditer(self.text, begin, begin + len(node.attributes)):
            group = next((one for one in (2, 3, 4) if found[one] is not None), 0)
            place = (found.start(group), found.end(group)) if group else (found.end(), found.end())
            all_found.append((found[1].lower(), *place))
        return all_found

    def attribute(self, node: Node, name: str) -> list[Piece]:
        """The value of an attribute, its entities read; empty when it has none."""
        for known, begin, stop in self.attributes(node):
            if known == name:
                return self.pieces(begin, stop)
        return []

    def word(self, node: Node, name: str) -> str:
        """The literal text of an attribute in small letters; empty when it has none."""
        return joined(one for one in self.attribute(node, name) if not one.word).strip().lower()

    def pieces(self, begin: int, stop: int) -> list[Piece]:
        """What stands between two offsets, its entities read."""
        return [piece for piece, _ in self.placed(begin, stop)]

    def placed(self, begin: int, stop: int) -> Iterator[tuple[Piece, int]]:
        """The same with the offset of each piece."""
        at = begin
        for index in self.tags_in(begin, stop):
            place = self._places[index]
            if place > at:
                yield Piece(unescaped(self.text[at:place]), _NOWHERE), at
            yield self.tags[index], place
            at = place + 1
        if stop > at:
            yield Piece(unescaped(self.text[at:stop]), _NOWHERE), at

    def refuse(self, offset: int, message: str) -> InvalidInput:
        return InvalidInput(f"{self.origin(offset)}: {message}", field=self.field)

    def origin(self, offset: int) -> Origin:
        """Where what stands at an offset of the text was written."""
        at = 0
        for piece in self._pieces:
            size = 1 if piece.word else len(piece.text)
            if at + size > offset:
                return piece.origin if piece.word else moved(piece.origin, piece.text, offset - at)
            at += size
        return self._pieces[-1].origin if self._pieces else Origin(self.field, 1, 1)


_NOWHERE = Origin("", 0, 0)


def _unused(text: str) -> str:
    """A private character that the text does not hold."""
    for code in range(0xE000, 0xF8FF):
        if chr(code) not in text:
            return chr(code)
    raise InvalidInput("it holds every character of the private use area")
