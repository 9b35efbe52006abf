"""Links that do something once (sign in, confirm, reset, accept), and ways off a list.

A link is taken for one by two things together: it carries a token, and its own words, its label or
the line that it stands in say what it does.
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Literal, get_args
from urllib.parse import unquote, urlsplit

from mailyard.protocol.meaning.finding import HTML, TEXT, Evidence, MagicLink, UnsubscribeWay
from mailyard.protocol.meaning.letter import Letter, evidence
from mailyard.protocol.meaning.shapes import URL, trimmed_url
from mailyard.protocol.meaning.words import TABLES, Lexicon, words_of

_TABLE = TABLES["link"]
_Purpose = Literal["reset", "invite", "confirm", "sign_in"]  # in the order of their telling
_PURPOSES: dict[_Purpose, Lexicon] = {
    name: Lexicon(_TABLE[name], _TABLE[f"{name}_scripts"]) for name in get_args(_Purpose)
}
_OFF = Lexicon(_TABLE["unsubscribe"], _TABLE["unsubscribe_scripts"])
_IN_URL: dict[_Purpose, re.Pattern[str]] = {
    "reset": re.compile(r"reset|recover|forgot|new-?password|set-?password", re.IGNORECASE),
    "invite": re.compile(r"invit|/join\b", re.IGNORECASE),
    "confirm": re.compile(r"verif|confirm|activat|validat|optin|opt-in", re.IGNORECASE),
    "sign_in": re.compile(
        r"magic|log-?_?in|sign-?_?in|passwordless|/auth\b|/session|one-?time|otp", re.IGNORECASE
    ),
}
_OFF_URL = re.compile(
    r"unsub|opt-?_?out|abmeld|desinscr|desabon|disiscri|uitschrij|wypis|odhlas|"
    r"email[-_]?pref|/preferences\b|list-manage",
    re.IGNORECASE,
)
_ASSET = re.compile(r"\.(?:png|jpe?g|gif|svg|webp|css|js|ico|woff2?)$", re.IGNORECASE)
_PIECE = re.compile(r"[A-Za-z0-9_.~%+-]{6,}")
_TOKEN_NAME = re.compile(
    r"(?:^|[?&;])(?:[a-z_-]*(?:token|code|key|otp|hash|sig|signature|secret|ticket|nonce|jwt)|t|k|c)"
    r"=([^&;#]{6,})",
    re.IGNORECASE,
)
_LINKS = 300  # read of one mail
_LABEL_CHARACTERS = 200
_LIST_URL = re.compile(r"<\s*((?:https?|mailto):[^<>\s]{3,2000})\s*>", re.IGNORECASE)


def links_of(letter: Letter) -> tuple[tuple[MagicLink, ...], tuple[UnsubscribeWay, ...]]:
    """(links that do something once, ways off the list), each address once."""
    links: dict[str, MagicLink] = {}
    off: dict[str, UnsubscribeWay] = {}
    for one in _header_ways(letter):
        off.setdefault(one.url, one)
    for url, label, context, seen in _all_links(letter):
        if _is_off(url, label, context):
            off.setdefault(url, UnsubscribeWay("link", url, seen))
            continue
        purpose = _purpose(url, label, context)
        if purpose is not None:
            links.setdefault(url, MagicLink(url, purpose, label[:_LABEL_CHARACTERS], seen))
    return tuple(links.values()), tuple(off.values())


def all_urls(letter: Letter) -> list[tuple[str, str, Evidence]]:
    """(url, label, evidence) of every http link of a letter, as they stand."""
    return [(url, label, seen) for url, label, _, seen in _all_links(letter)]


def _header_ways(letter: Letter) -> Iterator[UnsubscribeWay]:
    """RFC 2369 section 3.2; RFC 8058 section 3.1 says when a POST is enough."""
    one_click = "list-unsubscribe=one-click" in letter.list_unsubscribe_post.lower().replace(
        " ", ""
    )
    for found in _LIST_URL.finditer(letter.list_unsubscribe[:8000]):
        url = found[1]
        if url.lower().startswith("mailto:"):
            yield UnsubscribeWay("mail", url, None)
        else:
            secure = url.lower().startswith("https:")
            yield UnsubscribeWay("one_click" if one_click and secure else "link", url, None)


def _all_links(letter: Letter) -> Iterator[tuple[str, str, str, Evidence]]:
    """(url, label, the words around it, evidence); of the HTML first, for it has labels."""
    count = 0
    for anchor in letter.anchors:
        if not anchor.url.lower().startswith(("http://", "https://")):
            continue
        label = letter.html[anchor.start : anchor.end].strip()
        line = _around(letter.html, anchor.start, anchor.end)
        yield anchor.url, label, line, evidence(HTML, letter.html, anchor.start, anchor.end)
        count += 1
        if count >= _LINKS:
            return
    for part, text in ((TEXT, letter.text), (HTML, letter.html)):
        for found in URL.finditer(text):
            url = trimmed_url(found[0])
            if not url.lower().startswith("http"):
                continue
            end = found.start() + len(url)
            yield (
                url,
                "",
                _around(text, found.start(), end),
                evidence(part, text, found.start(), end),
            )
            count += 1
            if count >= _LINKS:
                return


def _around(text: str, start: int, end: int) -> str:
    """The line of a link, and the one before when the link stands alone in its own."""
    begin = text.rfind("\n", 0, start) + 1
    stop = text.find("\n", end)
    before = text[max(begin, start - 160) : start]
    after = text[end : min(end + 100, len(text) if stop < 0 else stop)]
    if len(before.strip(" <(*-:")) < 3:
        earlier = text[max(0, begin - 200) : begin].rstrip()
        before = earlier[earlier.rfind("\n") + 1 :] + " " + before
    return f"{URL.sub(' ', before)} {URL.sub(' ', after)}"


def _is_off(url: str, label: str, context: str) -> bool:
    if label and _OFF.in_text(label):
        return True
    if _OFF_URL.search(url):
        return True
    return not label and _OFF.in_text(context)


def _purpose(url: str, label: str, context: str) -> _Purpose | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    path = unquote(parts.path)
    if _ASSET.search(path) or not _has_token(path, parts.query, parts.fragment):
        return None
    said = f"{path}?{parts.query}"
    for name, pattern in _IN_URL.items():
        if pattern.search(said):
            return name
    for text in (label, context):
        for name, lexicon in _PURPOSES.items():
            if text and _says(lexicon, text):
                return name
    return None


def _says(lexicon: Lexicon, text: str) -> bool:
    words = words_of(text[-400:])
    return any(True for _ in lexicon.among(words)) or any(True for _ in lexicon.scripted(text))


def _has_token(path: str, query: str, fragment: str) -> bool:
    if _TOKEN_NAME.search(f"?{query}") or _TOKEN_NAME.search(f"?{fragment}"):
        return True
    pieces = [*path.split("/"), *re.split(r"[&;=]", query), *re.split(r"[&;=]", fragment)]
    return any(_looks_random(piece) for piece in pieces)


def _looks_random(piece: str) -> bool:
    """Twelve characters or more that no word is made of: digits among letters, or both cases."""
    if len(piece) < 12 or _PIECE.fullmatch(piece) is None:
        return False
    digits = sum(one.isdigit() for one in piece)
    letters = sum(one.isalpha() for one in piece)
    if digits >= 3 and letters >= 3 and not re.fullmatch(r"[a-z-]+\d{1,4}", piece):
        return True
    if digits == len(piece) and digits >= 12:
        return True
    changes = sum(
        a.islower() != b.islower() for a, b in pairwise(piece) if a.isalpha() and b.isalpha()
    )
    return len(piece) >= 20 and changes >= 6
