"""HTML of received mail, made safe to show in a sandboxed frame.

An allow list of elements, attributes, URL schemes and style properties (nh3, html5ever's parser).
No scripts, no forms, no frames, no event handlers. Remote images tell the sender who reads and
when, so they are left out: `src` becomes `data-remote-src` (`remote_image` fetches them for a
reader who asks), and every other way to fetch something (srcset, background, `url(…)` in a style)
is dropped.
"""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

import nh3

from mailyard.core.limits import KIB

REMOTE_SOURCE = "data-remote-src"  # where the address of an image that was left out stands

_TAGS = frozenset((
    "a", "abbr", "acronym", "address", "b", "bdi", "bdo", "big", "blockquote", "br", "caption",
    "center", "cite", "code", "col", "colgroup", "dd", "del", "dfn", "dir", "div", "dl", "dt", "em",
    "figcaption", "figure", "font", "footer", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr",
    "i", "img", "ins", "kbd", "li", "main", "mark", "menu", "nav", "ol", "p", "pre", "q", "s",
    "samp", "section", "article", "aside", "small", "span", "strike", "strong", "sub", "sup",
    "table", "tbody", "td", "tfoot", "th", "thead", "time", "tr", "tt", "u", "ul", "var", "wbr",
))  # fmt: skip
_SILENT = frozenset((
    "script", "style", "title", "head", "noscript", "template", "iframe", "object", "embed",
    "applet", "svg", "math", "textarea", "select", "xmp", "noembed", "noframes", "plaintext",
))  # fmt: skip
_ATTRIBUTES = {
    "*": {"align", "dir", "lang", "style", "title", "valign"},
    "a": {"href"},
    "bdo": {"dir"},
    "blockquote": {"cite"},
    "col": {"span", "width"},
    "colgroup": {"span", "width"},
    "del": {"datetime"},
    "font": {"color", "face", "size"},
    "hr": {"color", "noshade", "size", "width"},
    "img": {"alt", "border", "height", "hspace", "src", "vspace", "width", REMOTE_SOURCE},
    "ins": {"datetime"},
    "li": {"type", "value"},
    "ol": {"start", "type"},
    "q": {"cite"},
    "table": {"bgcolor", "border", "cellpadding", "cellspacing", "height", "width"},
    "td": {"bgcolor", "colspan", "height", "nowrap", "rowspan", "width"},
    "th": {"bgcolor", "colspan", "height", "nowrap", "rowspan", "scope", "width"},
    "time": {"datetime"},
    "tr": {"bgcolor", "height"},
    "ul": {"type"},
}
_SET = {"a": {"target": "_blank"}, "img": {"referrerpolicy": "no-referrer"}}
# Nothing here can fetch, leave its place (position) or cover what is around the frame.
_STYLES = frozenset((
    "background-color", "border", "border-bottom", "border-bottom-color", "border-bottom-style",
    "border-bottom-width", "border-collapse", "border-color", "border-left", "border-left-color",
    "border-left-style", "border-left-width", "border-radius", "border-right", "border-right-color",
    "border-right-style", "border-right-width", "border-spacing", "border-style", "border-top",
    "border-top-color", "border-top-style", "border-top-width", "border-width", "box-sizing",
    "clear", "color", "direction", "display", "float", "font", "font-family", "font-size",
    "font-style", "font-variant", "font-weight", "height", "letter-spacing", "line-height",
    "list-style-type", "margin", "margin-bottom", "margin-left", "margin-right", "margin-top",
    "max-height", "max-width", "min-height", "min-width", "opacity", "overflow-wrap", "padding",
    "padding-bottom", "padding-left", "padding-right", "padding-top", "table-layout", "text-align",
    "text-decoration", "text-indent", "text-transform", "vertical-align", "white-space", "width",
    "word-break", "word-spacing", "word-wrap",
))  # fmt: skip
_SCHEMES = frozenset(("http", "https", "mailto", "tel", "cid", "data"))
_DATA_IMAGE = re.compile(
    r"data:image/(?:png|gif|jpeg|webp|avif|bmp);base64,[A-Za-z0-9+/=\s]*\Z", re.IGNORECASE
)
# What fetches, and escapes and controls, which only serve to hide it.
_FETCHES = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f]|url\s*\(|image-set|@import|expression\s*\(|\\", re.IGNORECASE
)


# html5ever is quadratic in nesting depth and in attributes of one tag. At these bounds, which no
# honest mail reaches (Gmail clips at 102 KB), the worst found costs about a second; without them a
# mail of 500 KB takes twenty.
HTML_CHARACTERS = 256 * KIB
HTML_TAGS = 10_000


@dataclass(frozen=True, slots=True)
class Sanitised:
    """Safe HTML, and how many remote images it names and leaves out.

    `clipped`: the mail was larger than this view shows.
    """

    html: str
    remote_images: int
    clipped: bool = False


class _Policy:
    """The attribute filter of one run; it counts the remote images as they pass."""

    __slots__ = ("remote_images",)

    def __init__(self) -> None:
        self.remote_images = 0

    def __call__(self, tag: str, attribute: str, value: str) -> str | None:
        if attribute == "style":
            return _without_fetches(value) if _FETCHES.search(value) else value
        if attribute == REMOTE_SOURCE:  # ours alone; a mail that brings it could count itself
            return None
        if tag == "img" and attribute == "src":
            return self._source(value)
        if attribute in ("href", "cite"):
            return value if _scheme(value) in ("http", "https", "mailto", "tel") else None
        return value

    def _source(self, value: str) -> str | None:
        scheme = _scheme(value)
        if scheme == "cid":
            return value
        if scheme == "data":
            return value if _DATA_IMAGE.match(value) else None
        if scheme not in ("http", "https"):
            return None
        self.remote_images += 1
        return f"{_MARK}{value}"


# A remote source passes the sanitiser under this scheme-safe mark and is renamed afterwards: nh3's
# filter can change a value, not a name. The sanitised text writes attributes in one way only.
_MARK = "https://remote.invalid/#"
_MARKED = re.compile(rf' src="{re.escape(_MARK)}([^"]*)"')


def _without_fetches(style: str) -> str:
    """The declarations that name nothing to fetch. nh3 then keeps the properties it knows."""
    return ";".join(part for part in style.split(";") if not _FETCHES.search(part))


def _scheme(url: str) -> str:
    """The scheme of an absolute URL, lower case; empty when there is none or it is not a URL."""
    try:
        return urlsplit(url.strip()).scheme
    except ValueError:
        return ""


def sanitise(html: str) -> Sanitised:
    """`html` without anything that acts or fetches. Never raises."""
    policy = _Policy()
    shown = _clipped(html.encode("utf-8", "replace").decode())
    clean = nh3.clean(
        shown,
        tags=_TAGS,
        clean_content_tags=_SILENT,
        attributes=_ATTRIBUTES,
        attribute_filter=policy,
        strip_comments=True,
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values=_SET,
        url_schemes=_SCHEMES,
        filter_style_properties=_STYLES,
        url_relative="deny",
    )
    if policy.remote_images:
        clean = _MARKED.sub(rf' {REMOTE_SOURCE}="\1"', clean)
    return Sanitised(clean, policy.remote_images, clipped=len(shown) < len(html))


def _clipped(html: str) -> str:
    """`html` within the bounds; what an unfinished last tag says is dropped by the parser."""
    html = html[:HTML_CHARACTERS]
    if html.count("<") <= HTML_TAGS:
        return html
    position = -1
    for _ in range(HTML_TAGS + 1):
        position = html.index("<", position + 1)
    return html[:position]
