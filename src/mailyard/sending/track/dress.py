"""A template with links of ours in it: rewritten once, filled a mail at a time.

A link that is plain text in the source becomes `https://base/c/{{ mailyard_link_0 }}`, so that what
is left to do for a recipient is to render one more variable. One whose address holds template code
is marked in the source and replaced in what was rendered: only then its address is known.

Never followed: everything that is no http(s) address, links of ours, `data-track="off"`. The text
part beside an HTML part keeps its addresses: a person reads them, and the HTML's are followed. Of a
mail that is text alone they are led through us.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple
from uuid import UUID

from mailyard.protocol.character_reference import unescaped
from mailyard.sending.render import Compiled
from mailyard.sending.track.link import StoredLink, link_id
from mailyard.sending.track.markup import Href, address_of, bare_urls, has_code, hrefs, with_utm
from mailyard.sending.track.token import CLICK, OPEN, PREFERENCES, Maker, Tokens

_SLOT = re.compile(
    r"\{\{-?\s*(footer|unsubscribe_url|preferences_url|physical_address)\s*(?:\|\s*safe\s*)?-?\}\}"
)
_MARKED = re.compile(r"""(["'])mailyard-link-(\d+):(.*?)\1""", re.DOTALL)
_BODY_END = re.compile(r"</body\s*>", re.IGNORECASE)
_LINK = "mailyard_link_{}"
_OPEN = "mailyard_open"
_PREFERENCES = "mailyard_preferences"
_PIXEL = (
    '<img src="{}/o/{}.gif" width="1" height="1" alt="" border="0" '
    'style="height:1px;width:1px;border:0;display:block">'
)

Utm = tuple[tuple[str, str], ...]


class Imprint(NamedTuple):
    """What every mail of a workspace says of its sender. Templates have slots for it."""

    physical_address: str = ""
    footer_html: str = ""
    footer_text: str = ""


NO_IMPRINT = Imprint()


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a campaign's mail is dressed. `base`: where its links lead, without a slash at the end.
    `utm`: (name, encoded value)."""

    base: str
    opens: bool = False
    clicks: bool = False
    utm: Utm = ()
    imprint: Imprint = NO_IMPRINT


@dataclass(frozen=True, slots=True)
class Dressed:
    """A template's rewritten sources. `urls[n]` is behind the variable `mailyard_link_<n>`,
    `patterns[n]` the address of the links with mark `n`, as the template has it."""

    html: str
    text: str
    urls: tuple[str, ...]
    patterns: tuple[str, ...]


def dress(html: str, text: str, wishes: Wishes) -> Dressed:
    """The sources of a template as `wishes` have it."""
    imprint = wishes.imprint
    html = _with_footer(html, imprint.footer_html, _before_end)
    text = _with_footer(text, imprint.footer_text, lambda whole, end: f"{whole.rstrip()}\n\n{end}")
    html = _filled(html, wishes.base, escape(imprint.physical_address).replace("\n", "<br>"))
    text = _filled(text, wishes.base, imprint.physical_address)
    urls: dict[str, int] = {}
    patterns: list[str] = []
    if wishes.clicks or wishes.utm:
        if html:
            html = _led(html, hrefs(html), wishes, urls, patterns)
        else:
            text = _led_text(text, wishes, urls)
    if wishes.opens and html:
        html = _before_end(html, _PIXEL.format(wishes.base, f"{{{{ {_OPEN} }}}}"))
    return Dressed(html, text, tuple(urls), tuple(patterns))


def _led(
    html: str, links: Iterable[Href], wishes: Wishes, urls: dict[str, int], patterns: list[str]
) -> str:
    pieces: list[str] = []
    at = 0
    for found in links:
        becomes = _rewritten(found.value, found.quoted, wishes, urls, patterns)
        if becomes is not None:
            pieces += (html[at : found.start], becomes)
            at = found.end
    return "".join((*pieces, html[at:]))


def _led_text(text: str, wishes: Wishes, urls: dict[str, int]) -> str:
    pieces: list[str] = []
    at = 0
    for found in bare_urls(text):
        if is_ours(found.value, wishes.base) or address_of(found.value) is None:
            continue
        pieces += (
            text[at : found.start],
            _address(with_utm(found.value, wishes.utm), wishes, urls),
        )
        at = found.end
    return "".join((*pieces, text[at:]))


def _address(url: str, wishes: Wishes, urls: dict[str, int]) -> str:
    """Where a link to `url` leads."""
    if not wishes.clicks:
        return url
    number = urls.setdefault(url, len(urls))
    return f"{wishes.base}/c/{{{{ {_LINK.format(number)} }}}}"


def _rewritten(
    value: str, quoted: bool, wishes: Wishes, urls: dict[str, int], patterns: list[str]
) -> str | None:
    if has_code(value):
        begin = value.strip()
        if not quoted or is_ours(begin, wishes.base):
            return None
        if not begin[:4].lower().startswith(("http", "{{", "{%")):
            return None
        patterns.append(unescaped(begin))
        return f"mailyard-link-{len(patterns) - 1}:{begin}"
    url = address_of(value)
    if url is None or is_ours(url, wishes.base):
        return None
    url = with_utm(url, wishes.utm)
    return _address(url, wishes, urls) if wishes.clicks else escape(url)


def is_ours(url: str, base: str) -> bool:
    """Whether an address is one of ours already: unsubscribing is not followed."""
    return url.startswith((f"{base}/u/", f"{base}/p/", f"{base}/c/"))


def _with_footer(source: str, footer: str, added: Callable[[str, str], str]) -> str:
    """The footer in its slot; at the end when there is none."""
    if not source:
        return source
    slots = 0

    def slot(found: re.Match[str]) -> str:
        nonlocal slots
        if found[1] != "footer":
            return found[0]
        slots += 1
        return footer

    filled = _SLOT.sub(slot, source)
    return filled if slots or not footer else added(source, footer)


def _filled(source: str, base: str, physical_address: str) -> str:
    token = f"{{{{ {_PREFERENCES} }}}}"
    values = {
        "unsubscribe_url": f"{base}/u/{token}",
        "preferences_url": f"{base}/p/{token}",
        "physical_address": physical_address,
        "footer": "",
    }
    return _SLOT.sub(lambda found: values[found[1]], source)


def _before_end(html: str, piece: str) -> str:
    ends = list(_BODY_END.finditer(html))
    at = ends[-1].start() if ends else len(html)
    return html[:at] + piece + html[at:]


class Tracked:
    """The mail of one campaign, dressed: fills the variables of one mail after the other."""

    __slots__ = (
        "_campaign_id", "_clicks", "_maker", "_names", "_patterns", "_preferences", "_spare",
        "_tokens", "_utm", "_workspace_id", "base", "links", "template",
    )  # fmt: skip

    def __init__(
        self,
        *,
        tokens: Tokens,
        workspace_id: UUID,
        campaign_id: UUID,
        template: Compiled,
        wishes: Wishes,
        automatic: bool,
    ) -> None:
        """`automatic`: mails carry a List-Unsubscribe of ours."""
        sources = template.sources
        dressed = dress(sources["html"], sources["text"], wishes)
        self.template = template.rewritten(dressed.html, dressed.text)
        self.base = wishes.base
        self._workspace_id, self._campaign_id = workspace_id, campaign_id
        self._tokens, self._clicks, self._utm = tokens, wishes.clicks, wishes.utm
        known = {
            pattern: StoredLink(
                link_id(workspace_id, campaign_id, f"pattern {pattern}"), pattern, pattern=True
            )
            for pattern in dressed.patterns
        }
        self._patterns = tuple(known[pattern].id for pattern in dressed.patterns)
        plain = [StoredLink(link_id(workspace_id, campaign_id, url), url) for url in dressed.urls]
        self.links = (*plain, *known.values()) if wishes.clicks else ()
        used = set(self.template.variables)
        self._spare = used & {"unsubscribe_url", "preferences_url", "physical_address", "footer"}
        self._preferences = automatic or _PREFERENCES in used or bool(self._spare)
        names: list[str] = []
        wanted: list[tuple[bytes, UUID]] = []
        if self._preferences:
            names.append(_PREFERENCES)
            wanted.append((PREFERENCES, workspace_id))
        if _OPEN in used:
            names.append(_OPEN)
            wanted.append((OPEN, workspace_id))
        for number, link in enumerate(plain):
            names.append(_LINK.format(number))
            wanted.append((CLICK, link.id))
        self._names = tuple(names)
        self._maker: Maker = tokens.maker(wanted)

    @property
    def idle(self) -> bool:
        """Whether a mail is the same without it."""
        return not self._names and not self._patterns

    def fill(self, data: dict[str, Any], delivery: bytes) -> str:
        """Put a mail's tokens into `data`; that of its preferences, empty when it has none."""
        made = self._maker.make(delivery)
        data.update(zip(self._names, made, strict=True))
        preferences = made[0] if self._preferences else ""
        if self._spare:
            data.setdefault("physical_address", "")
            data.setdefault("footer", "")
            data["unsubscribe_url"] = f"{self.base}/u/{preferences}"
            data["preferences_url"] = f"{self.base}/p/{preferences}"
        return preferences

    def lead(self, html: str, delivery: bytes) -> tuple[str, tuple[StoredLink, ...]]:
        """A mail's HTML with its marked links led through us, and the addresses to store first."""
        if not self._patterns:
            return html, ()
        stored: dict[UUID, StoredLink] = {}

        def led(found: re.Match[str]) -> str:
            quote, number, value = found[1], int(found[2]), found[3]
            url = address_of(value)
            if url is None or number >= len(self._patterns):
                return f"{quote}{value}{quote}"
            url = with_utm(url, self._utm)
            if not self._clicks:
                return f"{quote}{escape(url)}{quote}"
            one = link_id(self._workspace_id, self._campaign_id, url)
            stored[one] = StoredLink(one, url, self._patterns[number])
            (token,) = self._tokens.maker([(CLICK, one)]).make(delivery)
            return f"{quote}{self.base}/c/{token}{quote}"

        return _MARKED.sub(led, html), tuple(stored.values())


class TrackedPage:
    """The HTML of one transactional mail, cut at its links: each recipient gets his own."""

    __slots__ = ("_base", "_maker", "_numbers", "_pieces", "links")

    def __init__(
        self,
        *,
        tokens: Tokens,
        workspace_id: UUID,
        base: str,
        html: str,
        opens: bool,
        clicks: bool,
    ) -> None:
        urls: dict[str, int] = {}
        pieces, numbers, at = [], [], 0
        for found in hrefs(html) if clicks else ():
            url = address_of(found.value)
            if url is not None and not is_ours(url, base):
                pieces.append(html[at : found.start] + f"{base}/c/")
                numbers.append(urls.setdefault(url, len(urls)))
                at = found.end
        rest = html[at:]
        self.links = tuple(StoredLink(link_id(workspace_id, None, url), url) for url in urls)
        wanted = [(CLICK, link.id) for link in self.links]
        if opens:
            head, _, tail = _before_end(rest, "\0").partition("\0")
            before, _, after = _PIXEL.format(base, "\0").partition("\0")
            pieces.append(head + before)
            numbers.append(len(wanted))
            wanted.append((OPEN, workspace_id))
            rest = after + tail
        self._pieces, self._numbers = (*pieces, rest), tuple(numbers)
        self._maker = tokens.maker(wanted)

    def write(self, delivery: bytes) -> str:
        """The HTML for one recipient: the same for the same delivery."""
        made = self._maker.make(delivery)
        written = [self._pieces[0]]
        for piece, number in zip(self._pieces[1:], self._numbers, strict=True):
            written += (made[number], piece)
        return "".join(written)
