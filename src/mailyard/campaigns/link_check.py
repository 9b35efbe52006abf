"""Whether the links of a template lead anywhere, asked of their servers within bounds.

Only links that are the same for everybody are tried, and only with HEAD: a link of one person's may
do something when it is followed. What may be connected to is the HTTP client's rule.
"""

import asyncio
import re
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from mailyard.campaigns.preflight import LinkFacts
from mailyard.core.errors import InvalidInput
from mailyard.net.http import AddressRefused, HttpClient, HttpFailure
from mailyard.sending.track.markup import address_of, has_code, hrefs

LINKS_TRIED = 50
AT_ONCE = 8
LINK_S = 5.0
LINKS_S = 12.0  # all together
_TEXT_LINK = re.compile(r"https?://[^\s<>\"'\]\[]{1,2000}")
_GONE = (404, 410)
# Names that lead anywhere without showing it; receivers' filters know them (Google: "don't hide").
SHORTENERS = frozenset(
    ["bit.ly", "buff.ly", "cutt.ly", "goo.gl", "is.gd", "ow.ly", "rb.gy", "rebrand.ly", "s.id",
     "shorturl.at", "t.co", "t.ly", "tiny.cc", "tinyurl.com", "v.gd"]
)  # fmt: skip


def links_of(html: str, text: str) -> tuple[tuple[str, ...], int]:
    """The web addresses in a template's sources that have no variable in them, each once, and how
    many have one."""
    found: dict[str, None] = {}
    with_code = 0
    for href in hrefs(html):
        if has_code(href.value):
            with_code += 1
        elif (url := address_of(href.value)) is not None:
            found.setdefault(url)
    for match in _TEXT_LINK.finditer(text):
        if "{" in match[0]:
            with_code += 1
        else:
            found.setdefault(match[0].rstrip(".,;:!?)"))
    return tuple(found), with_code


async def check_links(
    http: HttpClient, html: str, text: str, own_names: Iterable[str]
) -> LinkFacts:
    """What stands behind a template's links."""
    urls, with_code = links_of(html, text)
    tried = urls[:LINKS_TRIED]
    gate = asyncio.Semaphore(AT_ONCE)

    async def ask(url: str) -> tuple[bool, str]:
        async with gate:
            return await _ask(http, url)

    tasks = [asyncio.create_task(ask(url)) for url in tried]
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=LINKS_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    answers = [
        (False, "it did not answer in time") if task.cancelled() else task.result()
        for task in tasks
    ]
    judged = [(url, *answer) for url, answer in zip(tried, answers, strict=True)]
    hosts = {url: (urlsplit(url).hostname or "") for url in urls}
    own = tuple(own_names)
    return LinkFacts(
        broken=tuple((url, why) for url, is_broken, why in judged if is_broken),
        doubtful=tuple((url, why) for url, is_broken, why in judged if why and not is_broken),
        tried=len(tried),
        untried=len(urls) - len(tried) + with_code,
        foreign=tuple(
            dict.fromkeys(
                host for host in hosts.values() if not _is_own(host, own) and not _hides(host)
            )
        ),
        hidden=tuple(url for url, host in hosts.items() if _hides(host)),
        plain=tuple(url for url in urls if url.lower().startswith("http:")),
    )


async def _ask(http: HttpClient, url: str) -> tuple[bool, str]:
    """(leads nowhere for certain, what is wrong)."""
    try:
        answer = await http.request("HEAD", url, total_s=LINK_S, answer_bytes=64 * 1024)
    except AddressRefused as error:
        return True, error.message
    except InvalidInput as error:
        return True, f"no address of the web: {error.message}"
    except HttpFailure as error:
        return False, error.message
    if answer.status in _GONE:
        return True, f"its server says {answer.status}"
    return False, f"its server says {answer.status}" if answer.status >= 500 else ""


def _is_own(host: str, own: Sequence[str]) -> bool:
    return any(f".{host}".endswith(f".{name}") or f".{name}".endswith(f".{host}") for name in own)


def _hides(host: str) -> bool:
    if host in SHORTENERS:
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
