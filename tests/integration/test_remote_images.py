"""Remote images of a mail: fetched by us, through the guarded client, and only images shown."""

import asyncio
from collections.abc import AsyncIterator
from ipaddress import ip_network

import pytest

from mailyard.mailbox.remote_image import RemoteImages
from mailyard.mailbox.sanitise import sanitise
from mailyard.net.http import HttpClient

GIF = b"GIF89a" + b"\0" * 20
ANSWERS = {
    "/x.gif?a=1&b=2": (200, b"", GIF),
    "/to": (302, b"location: /x.gif?a=1&b=2\r\n", b""),
    "/inside": (302, b"location: http://169.254.169.254/x.gif\r\n", b""),
    "/loop": (302, b"location: /loop\r\n", b""),
    "/x.svg": (200, b"content-type: image/png\r\n", b"<svg onload=alert(1)>"),
    "/gone": (404, b"", GIF),
}


@pytest.fixture
async def sender() -> AsyncIterator[tuple[str, list[str]]]:
    """A sender's web server: its address, and what it was asked for."""
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        asked.append(head)
        status, more, body = ANSWERS[head.split(" ")[1]]
        writer.write(b"HTTP/1.1 %d x\r\ncontent-length: %d\r\n" % (status, len(body)))
        writer.write(b"connection: close\r\n" + more + b"\r\n" + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


async def shown(html: str, *, guarded: bool = False) -> str:
    http = HttpClient(allowed=() if guarded else (ip_network("127.0.0.0/8"),))
    try:
        return await RemoteImages(http).within(sanitise(html).html)
    finally:
        await http.close()


async def test_images_come_inside_and_what_is_none_stays_out(
    sender: tuple[str, list[str]],
) -> None:
    at, asked = sender
    good = await shown(f'<img alt="a" src="{at}/x.gif?a=1&amp;b=2"><img src="{at}/to">')
    assert good.count(' src="data:image/gif;base64,R0lGODlh') == 2
    assert "http://" not in good
    for head in asked:
        assert "cookie" not in head.lower()
        assert "referer" not in head.lower()
    for path in ("/inside", "/loop", "/x.svg", "/gone"):
        assert " src=" not in await shown(f'<img src="{at}{path}">')


async def test_nothing_inside_is_fetched_and_no_text_is_taken_for_an_image(
    sender: tuple[str, list[str]],
) -> None:
    at, asked = sender
    assert " src=" not in await shown(f'<img src="{at}/x.gif?a=1&b=2">', guarded=True)
    mark = f'data-remote-src="{at}/x.gif?a=1&b=2"'
    text = await shown(f"<p>&lt;img {mark}&gt; {mark}</p><b title='<img {mark}'>x</b>")
    assert "data:image" not in text
    assert asked == []
