"""The text that an HTML part shows to its reader, with the links in it. Linear, bounded, no parser.

What a reader does not see is not there: style, script, comments, and elements that say of themselves
that they are hidden. So a text that is hidden from a person is hidden from whoever reads for one.
"""

import re
from dataclasses import dataclass
from html import unescape

CHARACTERS = 1_000_000
TAGS = 50_000
_DEPTH = 200

_TAG = re.compile(r"</?([a-zA-Z][a-zA-Z0-9:-]*+)")
_REST = re.compile(r"[^>\"']*+(?:(?:\"[^\"]*+\"|'[^']*+')[^>\"']*+)*+>")
_ATTRIBUTE = re.compile(r"([a-zA-Z][a-zA-Z0-9:-]*+)\s*+=\s*+(?:\"([^\"]*+)\"|'([^']*+)'|([^\s\"'>]++))")
_SPACES = re.compile(r"[ \t\r\n\f\xa0]+")
_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff]")
_SKIPPED = frozenset(("head", "style", "script", "title", "template", "noscript", "svg", "object",
                      "iframe", "select", "textarea", "math", "audio", "video"))  # fmt: skip
_VOID = frozenset(("br", "hr", "img", "input", "meta", "link", "area", "base", "col", "embed",
                   "source", "track", "wbr"))  # fmt: skip
_PARAGRAPHS = frozenset(("p", "blockquote", "pre", "ul", "ol", "dl", "table", "h1", "h2", "h3", "h4",
                         "h5", "h6", "hr"))  # fmt: skip
_LINES = frozenset(("div", "section", "article", "header", "footer", "main", "nav", "aside", "li", "dt",
                    "dd", "tr", "address", "center", "form", "body", "br"))  # fmt: skip
_CELLS = frozenset(("td", "th"))
_HIDDEN_ATTRIBUTE = re.compile(r"(?:^|[\s\"'])hidden(?=[\s=>/]|$)", re.IGNORECASE)
_HIDES = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)|mso-hide\s*:\s*all"
    r"|(?<!-)opacity\s*:\s*0*\.?0*\s*(?:;|!|$)"
    r"|font-size\s*:\s*0*(?:\.\d+|[01](?:\.\d+)?)?(?:px|pt)\s*(?:;|!|$)|font-size\s*:\s*0[^\d.]"
    r"|text-indent\s*:\s*-\d{3}|(?<![-\w])(?:left|top|right)\s*:\s*-\d{3}|clip\s*:\s*rect\(0"
    r"|scale\(0|(?<![-\w])color\s*:\s*transparent",
    re.IGNORECASE,
)
# A layout's `height:0` hides nothing where the element grows with its content.
_FLAT = re.compile(r"(?:height|width)\s*:\s*[01](?:px|pt|em|%)?\s*(?:;|!|$)", re.IGNORECASE)
_COLOUR = re.compile(r"(?<![-\w])color\s*:\s*([#\w(), ]+?)\s*(?:;|!|$)", re.IGNORECASE)
_GROUND = re.compile(r"background(?:-color)?\s*:\s*([#\w(), ]+?)\s*(?:;|!|$)", re.IGNORECASE)
_WHITE = frozenset(("#fff", "#ffffff", "white", "rgb(255,255,255)", "#fefefe", "#fdfdfd"))


@dataclass(frozen=True, slots=True)
class Anchor:
    """A link: where its label stands in the text."""

    url: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Visible:
    """What is seen, with `\\n` line ends; `hidden` counts the elements that were left out."""

    text: str
    anchors: tuple[Anchor, ...]
    hidden: int


def visible(html: str) -> Visible:
    """The text of an HTML part as its reader sees it. Never raises."""
    return _Reader(html[:CHARACTERS]).read()


class _Reader:
    def __init__(self, html: str) -> None:
        self._html = html
        self._out: list[str] = []
        self._length = 0
        self._breaks = 0
        self._space = False
        self._skipping: list[str] = []
        self._hidden = 0
        self._ground = False  # something has a ground of its own: white may be seen on it
        self._open: tuple[str, int] | None = None
        self._anchors: list[Anchor] = []
        self._quotes_close = True
        self._lower = ""

    def read(self) -> Visible:
        html, position, tags = self._html, 0, 0
        while position < len(html):
            opening = html.find("<", position)
            if opening < 0 or tags > TAGS:
                self._text(html[position:] if opening < 0 else html[position:opening])
                break
            if opening > position:
                self._text(html[position:opening])
            tags += 1
            position = self._markup(opening)
        self._end_anchor()
        return Visible("".join(self._out), tuple(self._anchors), self._hidden)

    def _markup(self, opening: int) -> int:
        """What begins with `<` at `opening`; where the next text begins."""
        html = self._html
        if html.startswith("<!--", opening):
            end = html.find("-->", opening + 4)
            return len(html) if end < 0 else end + 3
        if html.startswith(("<!", "<?"), opening):
            end = html.find(">", opening)
            return len(html) if end < 0 else end + 1
        tag = _TAG.match(html, opening)
        if tag is None:
            self._text("<")
            return opening + 1
        end = self._end_of(tag.end())
        name = tag[1].lower()
        if html[opening + 1] == "/":
            self._close(name)
        else:
            self._start(name, html[tag.end() : end])
        if name in ("style", "script") and html[opening + 1] != "/":
            self._lower = self._lower or html.lower()
            close = self._lower.find(f"</{name}", end)
            return len(html) if close < 0 else close
        return end

    def _end_of(self, start: int) -> int:
        """Behind the `>` of a tag. Once a quote is never closed, quotes count no more: so the whole
        stays linear."""
        if self._quotes_close:
            rest = _REST.match(self._html, start)
            if rest is not None:
                return rest.end()
            self._quotes_close = False
        end = self._html.find(">", start)
        return len(self._html) if end < 0 else end + 1

    def _start(self, name: str, rest: str) -> None:
        if self._skipping:
            if name not in _VOID and not rest.rstrip(">").endswith("/") and len(self._skipping) < _DEPTH:
                self._skipping.append(name)
            return
        attributes = _attributes(rest) if "=" in rest else {}
        if name in _SKIPPED or self._is_hidden(name, rest, attributes):
            if name not in _SKIPPED:
                self._hidden += 1
            if name not in _VOID:
                self._skipping.append(name)
            return
        if name == "br":
            self._breaks += 1
        elif name in _PARAGRAPHS:
            self._breaks = max(self._breaks, 2)
        elif name in _LINES:
            self._breaks = max(self._breaks, 1)
        elif name in _CELLS:
            self._space = True
        elif name == "img" and attributes.get("alt"):
            self._text(attributes["alt"])
        elif name == "a":
            self._end_anchor()
            url = "".join(attributes.get("href", "").split())
            if url:
                self._open = (url, -1)
        if "bgcolor" in attributes or "background" in attributes.get("style", ""):
            self._ground = True

    def _close(self, name: str) -> None:
        if self._skipping:
            if name in self._skipping:
                while self._skipping.pop() != name:
                    pass
            return
        if name == "a":
            self._end_anchor()
        elif name in _PARAGRAPHS:
            self._breaks = max(self._breaks, 2)
        elif name in _LINES:
            self._breaks = max(self._breaks, 1)

    def _is_hidden(self, name: str, rest: str, attributes: dict[str, str]) -> bool:
        if "hidden" in rest and _HIDDEN_ATTRIBUTE.search(rest):
            return True
        style = attributes.get("style", "")
        if not style or name == "img":
            return False
        if _HIDES.search(style):
            return True
        if _FLAT.search(style) and "overflow" in style and "hidden" in style:
            return True
        colour, ground = _COLOUR.search(style), _GROUND.search(style)
        if colour is None:
            return False
        said = colour[1].replace(" ", "").lower()
        if ground is not None:
            return said == ground[1].replace(" ", "").lower()
        return said in _WHITE and not self._ground

    def _text(self, text: str) -> None:
        if self._skipping:
            return
        if "&" in text:
            text = unescape(text)
        text = _INVISIBLE.sub("", _SPACES.sub(" ", text))
        if text.startswith(" "):
            self._space = True
        stripped = text.strip(" ")
        if not stripped:
            return
        if self._breaks and self._length:
            self._put("\n" * min(self._breaks, 3))
        elif self._space and self._length:
            self._put(" ")
        if self._open is not None and self._open[1] < 0:
            self._open = (self._open[0], self._length)
        self._breaks, self._space = 0, text.endswith(" ")
        self._put(stripped)

    def _put(self, text: str) -> None:
        self._out.append(text)
        self._length += len(text)

    def _end_anchor(self) -> None:
        if self._open is not None:
            url, start = self._open
            place = self._length if start < 0 else start
            self._anchors.append(Anchor(url, place, self._length))
            self._open = None


def _attributes(rest: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, double, single, bare in _ATTRIBUTE.findall(rest):
        value = double or single or bare
        found.setdefault(name.lower(), unescape(value) if "&" in value else value)
    return found
