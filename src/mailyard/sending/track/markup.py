"""Where the links are in HTML: one pass over the text, which is kept as it is in between.

The HTML of mail is not a document that a parser would give back unchanged: conditional comments of
Outlook, template code inside tags, unbalanced elements. So only the tags that lead somewhere are
looked at, in comments too (a button for Outlook stands in one). A tag that does not end within
_TAG_CHARACTERS is passed over with what follows it, so the work is linear whatever the text is.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from mailyard.protocol.character_reference import unescaped

_TAG_CHARACTERS = 16 * 1024
URL_CHARACTERS = 8 * 1024
_CODE = r"\{\{[^{}]{0,1000}\}\}|\{%[^{}]{0,1000}%\}"
_TAG = re.compile(
    rf"""<(?:a|area|v:[a-z]+)(?=[\s/])
         (?: {_CODE} | "(?:{_CODE}|[^"])*+" | '(?:{_CODE}|[^'])*+' | [^<>"'] )*+ >""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_START = re.compile(r"<(?:a|area|v:[a-z]+)(?=[\s/])", re.IGNORECASE)
_ATTRIBUTE = re.compile(
    rf"""{_CODE}
       | ([^\s"'<>/={{}}]+)
         (?: \s*=\s* (?: "((?:{_CODE}|[^"])*+)" | '((?:{_CODE}|[^'])*+)' | ([^\s"'<>`=]+) ) )?""",
    re.DOTALL | re.VERBOSE,
)
_BARE = re.compile(rf"https?://[^\s<>\"{{}}|\\^`]{{1,{URL_CHARACTERS}}}", re.IGNORECASE)
_HAS_CODE = re.compile(r"\{[{%#]")


class Href(NamedTuple):
    """The value of one link's `href`: html[start:end], and whether quotes stand around it."""

    start: int
    end: int
    value: str
    quoted: bool


def hrefs(html: str) -> Iterator[Href]:
    """The links of `html` that may be followed, in order: none with `data-track="off"`."""
    at = 0
    while (begun := _START.search(html, at)) is not None:
        start = begun.start()
        tag = _TAG.match(html, start, start + _TAG_CHARACTERS)
        if tag is None:
            at = start + _TAG_CHARACTERS
            continue
        at = tag.end()
        found = _href(html, start, at)
        if found is not None:
            yield found


def bare_urls(text: str) -> Iterator[Href]:
    """The web addresses in plain text, in order, without the punctuation that ends a sentence; none
    that template code goes on with."""
    for found in _BARE.finditer(text):
        value = found[0].rstrip(".,;:!?*_'")
        while value.endswith(")") and value.count(")") > value.count("("):
            value = value[:-1].rstrip(".,;:!?*_'")
        if text[found.end() : found.end() + 1] != "{":
            yield Href(found.start(), found.start() + len(value), value, False)


def _href(html: str, start: int, end: int) -> Href | None:
    found: Href | None = None
    for attribute in _ATTRIBUTE.finditer(html, start, end):
        group = attribute.lastindex or 0
        name = attribute[1].lower() if group > 1 else ""
        if name == "data-track":
            if attribute[group].strip().lower() == "off":
                return None
        elif name == "href" and found is None:
            found = Href(*attribute.span(group), attribute[group], group != 4)
    return found


def has_code(value: str) -> bool:
    """Whether template code stands in an attribute's value."""
    return _HAS_CODE.search(value) is not None


def address_of(value: str) -> str | None:
    """The web address that an attribute's value is; None for everything else: `mailto:`, an anchor,
    a path, what is no address at all."""
    url = unescaped(value).strip()
    if not url[:8].lower().startswith(("http://", "https://")) or len(url) > URL_CHARACTERS:
        return None
    if any(character <= " " or character == "\x7f" for character in url):
        return None
    try:
        url.encode()
        host = urlsplit(url).hostname
    except ValueError:  # a broken bracket, a lone surrogate
        return None
    return url if host else None


def with_utm(url: str, utm: tuple[tuple[str, str], ...]) -> str:
    """`url` with the tags that it does not have yet; `utm` are (name, encoded value)."""
    if not utm:
        return url
    head, mark, fragment = url.partition("#")
    query = head.partition("?")[2]
    names = {piece.partition("=")[0].lower() for piece in query.split("&")}
    added = "&".join(f"{name}={value}" for name, value in utm if name not in names)
    if not added:
        return url
    joint = ("" if head[-1] in "?&" else "&") if "?" in head else "?"
    return f"{head}{joint}{added}{mark}{fragment}"
