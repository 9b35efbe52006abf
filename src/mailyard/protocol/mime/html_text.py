"""HTML turned into the text that a person would read. Never raises; one pass; bounded.

Blocks become lines, paragraphs are set apart, quotations begin with `> `, list items with `- `, an
image leaves its `alt`. Text that is not shown (style sheets, `display:none`) is left out, because
what a reader cannot see must not speak to a search or to a model. Where each link's words stand is
told, so that whoever looks for a link can point at it.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from mailyard.core import limits
from mailyard.protocol.character_reference import unescaped
from mailyard.protocol.mime.body import storable

# A tag as browsers cut it: a quote counts behind an equals sign only, and what is never closed runs
# to the end. Each alternative matches once it has begun, so that nothing is read twice.
_ATTRIBUTES = r"""(?:[^>=]++|=\s*+(?:"[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z))?+)*+"""
_MARKUP = re.compile(
    rf"<(?P<silent>style|script|title|textarea|xmp|iframe|noembed|noframes)(?=[\s/>])"
    rf"{_ATTRIBUTES}(?:>.*?(?:</(?P=silent)(?=[\s/>])[^>]*+(?:>|\Z)|\Z)|\Z)"
    rf"|<(?P<close>/?)(?P<name>[a-z][a-z0-9:-]{{0,30}}+)(?P<attributes>{_ATTRIBUTES})(?:>|\Z)"
    r"|<!--(?:-?>|.*?(?:--!?>|\Z))"
    r"|<[!?/][^>]*+(?:>|\Z)",
    re.IGNORECASE | re.DOTALL,
)
_ATTRIBUTE = re.compile(
    r"""([^\s=>"'/]++)\s*+=\s*+(?:"([^"]*+)(?:"|\Z)|'([^']*+)(?:'|\Z)|([^\s>"']++))"""
)
_HIDDEN = re.compile(
    r"display\s*+:\s*+none|visibility\s*+:\s*+(?:hidden|collapse)|mso-hide\s*+:\s*+all"
    r"|(?<![\w-])opacity\s*+:\s*+0?\.?0*+\s*+(?:;|!|\Z)"
    r"|max-(?:height|width)\s*+:\s*+0(?:px)?\s*+(?:;|!|\Z)|text-indent\s*+:\s*+-\d{3}"
    r"|(?<![\w-])(?:left|top)\s*+:\s*+-\d{3}|(?<![\w-])color\s*+:\s*+transparent",
    re.IGNORECASE,
)
# Frames of layouts have no size of their own; words in a `span` without one are for machines.
_TINY = re.compile(
    r"(?<![\w-])font-size\s*+:\s*+(?:0?(?:\.\d++)?|1)(?:px|pt|em|rem|%)?\s*+(?:;|!|\Z)",
    re.IGNORECASE,
)
_INLINE = frozenset(
    ("a", "b", "em", "font", "i", "label", "p", "small", "span", "strong", "sub", "sup", "u")
)
_UNQUOTED = re.compile(r"\"[^\"]*+\"|'[^']*+'")
_HIDDEN_ITSELF = re.compile(r"(?:^|\s)hidden(?=[\s=]|$)", re.IGNORECASE)

_LINE = frozenset((
    "address", "article", "aside", "br", "caption", "center", "dd", "div", "dt", "fieldset",
    "figcaption", "figure", "footer", "form", "header", "hr", "li", "main", "nav", "option",
    "section", "tbody", "tfoot", "thead", "tr", "body", "html",
))  # fmt: skip
_PARAGRAPH = frozenset(
    ("blockquote", "dl", "h1", "h2", "h3", "h4", "h5", "h6", "menu", "ol", "p", "pre", "table",
     "ul")
)  # fmt: skip
_CELL = frozenset(("td", "th"))
_VOID = frozenset(("area", "base", "br", "col", "hr", "img", "input", "link", "meta", "wbr"))
_QUOTES = 10  # levels that are marked
_LINKS = 1_000
_ADDRESS_CHARACTERS = 4 * limits.KIB


class Link(NamedTuple):
    """A link with an address of its own: its words are `text[start:end]`."""

    start: int
    end: int
    url: str


class HtmlText(NamedTuple):
    """`clipped`: there was more than `limits.MIME_TEXT_CHARACTERS`, or more HTML than is read."""

    text: str
    links: Sequence[Link]
    clipped: bool


def text_of_html(html: str) -> HtmlText:
    """The text of `html`, of which `limits.MIME_TEXT_HTML_CHARACTERS` are read."""
    read = html[: limits.MIME_TEXT_HTML_CHARACTERS]
    page = _Page(heeds_hidden=True)
    page.read(read)
    if page.is_hiding:  # what was hidden is never closed: it hides nothing, then
        page = _Page(heeds_hidden=False)
        page.read(read)
    return page.result(clipped=len(read) < len(html))


class _Page:
    """One pass: `_owed` line breaks are written before the next visible character, if any."""

    __slots__ = (
        "_heeds_hidden", "_hidden_by", "_hidden_depth", "_href", "_length", "_link_start",
        "_links", "_out", "_owed", "_pre", "_quoted", "_quotes", "_space",
    )  # fmt: skip

    def __init__(self, *, heeds_hidden: bool) -> None:
        self._heeds_hidden = heeds_hidden
        self._out: list[str] = []
        self._length = 0
        self._owed = 0
        self._space = False
        self._pre = 0
        self._quotes = 0  # around what is read
        self._quoted = 0  # around the line that was written last
        self._links: list[Link] = []
        self._href = ""
        self._link_start = -1
        self._hidden_by = ""
        self._hidden_depth = 0

    @property
    def is_hiding(self) -> bool:
        return bool(self._hidden_by)

    def read(self, html: str) -> None:
        position = 0
        for found in _MARKUP.finditer(html):
            if found.start() > position and not self._hidden_by:
                self._words(html[position : found.start()])
            position = found.end()
            name = found["name"]
            if name:
                self._tag(name.lower(), bool(found["close"]), found["attributes"])
            if self._length > limits.MIME_TEXT_CHARACTERS:
                return
        if not self._hidden_by:
            self._words(html[position:])

    def result(self, clipped: bool) -> HtmlText:
        self._end_link()
        text = storable("".join(self._out))
        most = limits.MIME_TEXT_CHARACTERS
        links = [link for link in self._links if link.end <= most]
        return HtmlText(text[:most], links, clipped or len(text) > most)

    def _tag(self, name: str, closes: bool, attributes: str) -> None:
        if self._hidden_by:
            if name != self._hidden_by:
                return
            self._hidden_depth += -1 if closes else 1
            if self._hidden_depth and name != "p":  # a paragraph ends where the next one begins
                return
            self._hidden_by = ""
        if self._heeds_hidden and attributes and not closes and self._hides(name, attributes):
            return
        if name == "a":
            self._end_link()
            if not closes and attributes:
                self._href = _attribute(attributes, "href")
        elif name == "img":
            if attributes:
                self._words(_attribute(attributes, "alt"), escaped=False)
        elif name in _CELL:
            self._space = True
        elif name in _LINE:
            self._owe(1, name == "br")
            if name == "li" and not closes:
                self._write("- ")
        elif name in _PARAGRAPH:
            self._owe(2, False)
            if name == "blockquote":
                self._quotes = max(0, min(self._quotes + (-1 if closes else 1), _QUOTES))
            elif name == "pre":
                self._pre = max(0, self._pre + (-1 if closes else 1))

    def _hides(self, name: str, attributes: str) -> bool:
        if name in _VOID or attributes.rstrip().endswith("/"):
            return False
        if not _is_hidden(name, attributes):
            return False
        self._hidden_by, self._hidden_depth = name, 1
        return True

    def _owe(self, breaks: int, always: bool) -> None:
        """Line breaks before what follows. Those of tags merge, those of `<br>` add up to two."""
        self._space = False
        self._owed = min(self._owed + 1, 2) if always else max(self._owed, breaks)

    def _words(self, text: str, escaped: bool = True) -> None:
        if escaped:
            text = unescaped(text)
        if self._pre:
            lines = text.replace("\r", "").split("\n")
            for count, line in enumerate(lines):
                if count:
                    self._owe(1, True)
                if line:
                    self._write(line)
            return
        words = text.split()
        if not words:
            self._space = self._space or bool(text)
            return
        self._space = self._space or text[0].isspace()
        self._write(" ".join(words))
        self._space = text[-1].isspace()

    def _write(self, text: str) -> None:
        if self._owed or not self._length:
            mark = "> " * self._quotes
            if not self._length:
                self._add(mark)
            elif self._owed == 1:
                self._add("\n" + mark)
            else:
                between = "> " * min(self._quotes, self._quoted)
                self._add(f"\n{between.rstrip()}\n{mark}")
            self._owed = 0
            self._quoted = self._quotes
            self._space = False
        elif self._space:
            self._add(" ")
            self._space = False
        if self._href and self._link_start < 0:
            self._link_start = self._length
        self._add(text)

    def _add(self, text: str) -> None:
        if text:
            self._out.append(text)
            self._length += len(text)

    def _end_link(self) -> None:
        if self._href and len(self._links) < _LINKS:
            start = self._link_start if self._link_start >= 0 else self._length
            self._links.append(Link(start, self._length, self._href))
        self._href = ""
        self._link_start = -1


def _is_hidden(name: str, attributes: str) -> bool:
    lower = attributes.lower()
    if "style" in lower:
        style = _attribute(attributes, "style")
        if _HIDDEN.search(style) or (name in _INLINE and _TINY.search(style)):
            return True
    return "hidden" in lower and _HIDDEN_ITSELF.search(_UNQUOTED.sub("", attributes)) is not None


def _attribute(attributes: str, lower_name: str) -> str:
    """The value of an attribute, its references read; empty when there is none."""
    for name, double, single, bare in _ATTRIBUTE.findall(attributes):
        if name.lower() == lower_name:
            return storable(unescaped(double or single or bare).strip())[:_ADDRESS_CHARACTERS]
    return ""
