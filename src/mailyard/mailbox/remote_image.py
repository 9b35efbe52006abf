"""Images that a mail names on other servers, fetched by us when a reader asks for them.

The reader's browser fetches nothing: what a sender learns is that this server asked, not who reads,
where and with what. Everything goes through the guarded client, so that no mail makes us fetch from
inside; redirects are followed a few times, each through the same guard. Only what is an image by
its own bytes is shown, and never SVG, which is a document.
"""

import asyncio
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape, unescape
from urllib.parse import urljoin

from mailyard.core.errors import MailyardError
from mailyard.core.limits import MIB
from mailyard.mailbox.sanitise import REMOTE_SOURCE
from mailyard.net.http import HttpClient

IMAGES = 60  # of one mail
IMAGE_BYTES = 2 * MIB
ALL_BYTES = 12 * MIB
_AT_ONCE = 8
_REDIRECTS = 3
_TOTAL_S = 8.0
_REDIRECTED = frozenset((301, 302, 303, 307, 308))
_HEADERS = {"accept": "image/png,image/jpeg,image/gif,image/webp"}
_MAGIC = (
    ("image/png", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("image/jpeg", re.compile(rb"\xff\xd8\xff")),
    ("image/gif", re.compile(rb"GIF8[79]a")),
    ("image/webp", re.compile(rb"RIFF....WEBP", re.DOTALL)),
)
# As the sanitiser writes it, which knows one way only. In texts and values it escapes what this
# looks for, so that nothing but an image's own attribute matches.
_SOURCE = re.compile(rf'(<img\b[^>]*?) {REMOTE_SOURCE}="([^"]*)"')


class RemoteImages:
    """Fetches the images of one mail at a time."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    async def within(self, html: str) -> str:
        """Sanitised `html` with its remote images inside, as far as they come in time; the others
        stay left out."""
        urls = list(dict.fromkeys(unescape(url) for _, url in _SOURCE.findall(html)))[:IMAGES]
        images = await self._fetched(urls)

        def shown(found: re.Match[str]) -> str:
            image = images.get(unescape(found[2]))
            return found[0] if image is None else f'{found[1]} src="{escape(image)}"'

        return _SOURCE.sub(shown, html)

    async def _fetched(self, urls: Sequence[str]) -> Mapping[str, str]:
        places = asyncio.Semaphore(_AT_ONCE)
        images: dict[str, str] = {}
        left = ALL_BYTES

        async def fetch(url: str) -> None:
            nonlocal left
            async with places:
                image = await self._image(url) if left > 0 else None
            if image is not None and len(image) <= left:
                left -= len(image)
                images[url] = image

        tasks = [asyncio.create_task(fetch(url)) for url in urls]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_TOTAL_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return images

    async def _image(self, url: str) -> str | None:
        """The image as a `data:` address, or None where there is none."""
        for _ in range(1 + _REDIRECTS):
            try:
                answer = await self._http.request(
                    "GET", url, headers=_HEADERS, total_s=_TOTAL_S, answer_bytes=IMAGE_BYTES
                )
            except MailyardError:
                return None
            if answer.status in _REDIRECTED and "location" in answer.headers:
                url = urljoin(url, answer.headers["location"])
                continue
            kind = kind_of(answer.body) if answer.status == 200 else None
            return None if kind is None else f"data:{kind};base64,{b64encode(answer.body).decode()}"
        return None


def kind_of(content: bytes) -> str | None:
    """The media type of an image by its first bytes; None for what may not be shown."""
    return next((kind for kind, magic in _MAGIC if magic.match(content)), None)
