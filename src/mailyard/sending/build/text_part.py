"""The text part of a mail, made from its HTML: one rule, with the structure kept.

It is made once, from the template: values, conditions and loops stay template code in it.

    heading 1, 2      underlined with = or -; other headings stand alone
    paragraph         an empty line before and behind
    list              `- ` before each item, `1. ` where an ordered list has no loop in it
    table with data   a row a line, ` | ` between cells; one for layout is as if it were not there
    link              its text and the address in angle brackets (RFC 3986, appendix C)
    image             its alternative text
    hidden            left out, as are styles and comments
"""

import re
from collections.abc import Sequence
from itertools import groupby

from mailyard.sending.build.markup import DEPTH, Markup, Node
from mailyard.sending.build.piece import Piece, joined
from mailyard.sending.position import Origin

_PARAGRAPHS = frozenset((
    "p", "blockquote", "pre", "dl", "ul", "ol", "table", "h1", "h2", "h3", "h4", "h5", "h6", "hr",
    "figure",
))  # fmt: skip
_LINES = frozenset((
    "div", "section", "article", "header", "footer", "main", "nav", "aside", "address", "li",
    "dt", "dd", "tr", "td", "th", "thead", "tbody", "tfoot", "caption", "center", "form",
    "fieldset", "figcaption", "body",
))  # fmt: skip
_SKIPPED = frozenset((
    "head", "style", "script", "title", "template", "noscript", "svg", "object", "iframe",
    "select", "textarea", "xmp",
))  # fmt: skip
_UNDERLINES = {"h1": "=", "h2": "-"}
_UNDERLINE_MAX = 60
_SPACES = re.compile(r"[ \t\r\n\f]+")
_BRACES = re.compile(r"\{(?=[{%#])")
_SAFE = re.compile(r"\|\s*safe\b(?!\s*\()")
_ESCAPED = re.compile(r"\|\s*(?:e|escape)\b(?!\s*\()")
_FOOTER = re.compile(r"\{\{[-+]?\s*footer\s*(?:\|\s*safe\s*)?[-+]?\}\}")
_HIDDEN = re.compile(r"(?:^|;)\s*(?:display\s*:\s*none|mso-hide\s*:\s*all)", re.IGNORECASE)
_VALUE_WIDTH = 8  # what a value counts for under a heading


def text_of(pieces: Sequence[Piece], field: str) -> list[Piece]:
    """The text template of an HTML template. Raises InvalidInput with the place."""
    markup = Markup(pieces, field)
    writer = _Writer(markup, markup.nodes())
    writer.write()
    return _cleaned(writer.out)


class _Table:
    """What is known of a table or an ordered list once its end is seen."""

    __slots__ = ("dynamic", "layout")

    def __init__(self, layout: bool) -> None:
        self.layout = layout
        self.dynamic = False


class _Writer:
    def __init__(self, markup: Markup, nodes: list[Node]) -> None:
        self._markup = markup
        self._nodes = nodes
        self.out: list[Piece] = []
        self._breaks = 0  # line breaks due before the next text
        self._hard = False  # whether they are a `br`'s, which stands where it stands
        self._loop = (-1, 0)  # where a loop begins that has no text yet, and the breaks due there
        self._space = False  # a space is due before the next text
        self._written = False  # whether there may be text before this
        self._skipping: list[str] = []
        self._tables: list[_Table] = []
        self._lists: list[int | None] = []  # the number of the next item; None: a dash
        self._links: list[tuple[list[Piece], int]] = []
        self._cells = 0
        self._preformatted = 0
        self._known = self._look_ahead()

    def write(self) -> None:
        for index, node in enumerate(self._nodes):
            if node.kind == "text":
                self._text(node)
            elif node.kind == "start":
                self._start(node, index)
            elif node.kind == "end":
                self._end(node)

    def _look_ahead(self) -> dict[int, _Table]:
        """For the node of each table and list: whether it is layout, whether code is in it."""
        known: dict[int, _Table] = {}
        stack: list[tuple[str, _Table]] = []
        for index, node in enumerate(self._nodes):
            if node.kind == "text" and self._statements(node):
                for _, one in stack:
                    one.dynamic = True
            if len(stack) > DEPTH:
                raise self._markup.refuse(node.begin, f"tables and lists nest deeper than {DEPTH}")
            if node.kind == "start" and node.name in ("table", "ol", "ul"):
                for _, one in stack:
                    one.layout = True  # a table around a table or a list is there for the layout
                role = self._markup.word(node, "role")
                known[index] = _Table(layout=role in ("presentation", "none"))
                stack.append((node.name, known[index]))
            elif node.kind == "start" and node.name in _PARAGRAPHS:
                for _, one in stack:
                    one.layout = True
            elif node.kind == "end" and stack and stack[-1][0] == node.name:
                stack.pop()
        return known

    def _statements(self, node: Node) -> bool:
        indexes = self._markup.tags_in(node.begin, node.stop)
        return any(self._markup.tags[index].word in ("if", "for") for index in indexes)

    # Text ----------------------------------------------------------------------------------------

    def _text(self, node: Node) -> None:
        if self._skipping:
            return
        for piece in self._markup.pieces(node.begin, node.stop):
            if not piece.word:
                self._literal(piece.text)
            elif piece.word == "{{":
                self._put(_as_text(piece))
            elif piece.word != "{#":
                self._statement(piece)

    def _literal(self, text: str) -> None:
        if self._preformatted:
            self._put(Piece(text, _NOWHERE))
            return
        words = _SPACES.sub(" ", text.replace("\u00a0", " "))
        if words.startswith(" "):
            self._space = True
        stripped = words.strip(" ")
        if not stripped:
            return
        self._put(Piece(stripped, _NOWHERE))
        self._space = words.endswith(" ")

    def _put(self, piece: Piece) -> None:
        """Text or a value, behind what is due before it."""
        self._open_loop()
        if self._breaks and self._written:
            self._line_breaks(self._breaks)
        elif self._space and self._written:
            self.out.append(Piece(" ", _NOWHERE))
        self._breaks, self._space, self._hard, self._written = 0, False, False, True
        self.out.append(piece)

    def _statement(self, piece: Piece) -> None:
        """Code is not text: breaks stay due behind it, as they are in each of its branches.

        A loop has in it the breaks that its first text asks for, and before it what is due more.
        """
        self._open_loop()
        if self._written and self._hard:
            self._line_breaks(self._breaks)
            self._breaks, self._hard = 0, False
        elif self._written and self._space and not self._breaks:
            self.out.append(Piece(" ", _NOWHERE))
            self._space = False
        if piece.word == "for":
            self._loop = (len(self.out), self._breaks if self._written else 0)
            self._breaks = 0
        self.out.append(piece)
        self._written = True

    def _open_loop(self) -> None:
        place, due = self._loop
        if place >= 0:
            self._loop = (-1, 0)
            if due > self._breaks:
                self.out.insert(place, Piece("\n" * (due - self._breaks), _NOWHERE))

    def _line_breaks(self, lines: int) -> None:
        self.out.append(Piece("\n" * lines, _NOWHERE))

    def _break(self, lines: int) -> None:
        self._breaks = max(self._breaks, lines)
        self._space = self._hard = False

    # Elements ------------------------------------------------------------------------------------

    def _start(self, node: Node, index: int) -> None:
        if self._skipping:
            if node.opens and node.name == self._skipping[-1]:
                self._skipping.append(node.name)
            return
        if node.name in _SKIPPED or self._is_hidden(node):
            if node.opens:
                self._skipping.append(node.name)
            return
        self._set_tags(node)
        name = node.name
        if name == "br":
            self._breaks += 1
            self._hard = True
        elif name == "hr":
            self._break(2)
            self._put(Piece("-" * 40, _NOWHERE))
            self._break(2)
        elif name == "img":
            self._image(node)
        elif name == "a" and node.opens:
            self._links.append((self._markup.attribute(node, "href"), len(self.out)))
        elif name in _UNDERLINES:
            self._break(2)
            self._links.append(([], len(self.out)))
        elif name in ("td", "th") and self._tables and not self._tables[-1].layout:
            self._cell()
        elif name == "li":
            self._item()
        elif name in _PARAGRAPHS:
            self._break(1 if name in ("ul", "ol") and self._lists else 2)
        elif name in _LINES:
            self._break(1)
        if name == "pre" and node.opens:
            self._preformatted += 1
        if name == "table" and node.opens:
            self._tables.append(self._known[index])
        if name == "tr":
            self._cells = 0
        if name in ("ul", "ol") and node.opens:
            ordered = name == "ol" and not self._known[index].dynamic
            self._lists.append(1 if ordered else None)

    def _end(self, node: Node) -> None:
        name = node.name
        if self._skipping:
            if name == self._skipping[-1]:
                self._skipping.pop()
            return
        if name == "a" and self._links:
            self._end_link(*self._links.pop())
        elif name in _UNDERLINES and self._links:
            self._underline(self._links.pop()[1], _UNDERLINES[name])
            self._break(2)
        elif name in ("td", "th") and self._tables and not self._tables[-1].layout:
            self._space = False
        elif name in _PARAGRAPHS:
            self._break(1 if name in ("ul", "ol") and len(self._lists) > 1 else 2)
        elif name in _LINES:
            self._break(1)
        if name == "pre" and self._preformatted:
            self._preformatted -= 1
        if name == "table" and self._tables:
            self._tables.pop()
        if name in ("ul", "ol") and self._lists:
            self._lists.pop()

    def _set_tags(self, node: Node) -> None:
        """Code in attributes goes with them, but for what it sets."""
        for index in self._markup.tags_in(node.begin, node.stop):
            if self._markup.tags[index].word == "set":
                self._statement(self._markup.tags[index])

    def _is_hidden(self, node: Node) -> bool:
        return bool(node.attributes) and (
            bool(_HIDDEN.search(self._markup.word(node, "style")))
            or any(name == "hidden" for name, _, _ in self._markup.attributes(node))
        )

    def _image(self, node: Node) -> None:
        for piece in self._markup.attribute(node, "alt"):
            if piece.word in ("", "{{"):
                self._literal(piece.text) if not piece.word else self._put(_as_text(piece))
            elif piece.word != "{#":
                self._statement(piece)

    def _cell(self) -> None:
        self._cells += 1
        if self._cells > 1:
            self._breaks = 0
            self._space = False
            self._put(Piece(" | ", _NOWHERE))

    def _item(self) -> None:
        self._break(1)
        number = self._lists[-1] if self._lists else None
        indent = "  " * max(0, len(self._lists) - 1)
        self._put(Piece(f"{indent}- " if number is None else f"{indent}{number}. ", _NOWHERE))
        if number is not None:
            self._lists[-1] = number + 1

    def _end_link(self, href: list[Piece], begin: int) -> None:
        href = [_as_text(piece) if piece.word == "{{" else piece for piece in href]
        address = "".join([piece.text for piece in href]).strip()
        shown = "".join([piece.text for piece in self.out[begin:]]).strip()
        bare = address.removeprefix("mailto:").removeprefix("tel:")
        if not address or address.startswith("#") or shown in (address, bare):
            return
        if shown.rstrip("/") == address.removeprefix("https://").removeprefix("http://").rstrip(
            "/"
        ):
            return
        self._space = bool(shown) or self._space
        self._put(Piece("<", _NOWHERE))
        if bare != address:
            self.out.append(Piece(bare, _NOWHERE)) if not any(p.word for p in href) else None
        if bare == address or any(piece.word for piece in href):
            self.out += href
        self.out.append(Piece(">", _NOWHERE))

    def _underline(self, begin: int, sign: str) -> None:
        width = sum(
            _VALUE_WIDTH if piece.word == "{{" else 0 if piece.word else len(piece.text.strip("\n"))
            for piece in self.out[begin:]
        )
        if width:
            self._breaks = 1
            self._put(Piece(sign * min(max(width, 3), _UNDERLINE_MAX), _NOWHERE))


_NOWHERE = Origin("text, made from the HTML", 0, 0)


def _as_text(piece: Piece) -> Piece:
    """A value as it is written into text: its markup, if it has any, is taken off.

    The workspace's footer has a text of its own.
    """
    if _FOOTER.match(piece.text):
        return Piece("{{ footer }}", piece.origin, piece.word)
    text = _ESCAPED.sub("", _SAFE.sub("|striptags", piece.text))
    return Piece(text, piece.origin, piece.word)


def _cleaned(pieces: list[Piece]) -> list[Piece]:
    """Literal text joined; braces in it that would be code are moved apart."""
    made: list[Piece] = []
    for is_literal, group in groupby(pieces, lambda piece: not piece.word):
        run = list(group)
        made += [Piece(joined(run), _NOWHERE)] if is_literal else run
    for index, piece in enumerate(made):
        if piece.word:
            continue
        text = _BRACES.sub("{ ", piece.text)
        if text.endswith("{") and index + 1 < len(made):
            text += " "
        made[index] = Piece(text, piece.origin)
    if made and not made[-1].text.endswith("\n"):
        made.append(Piece("\n", _NOWHERE))
    return made
