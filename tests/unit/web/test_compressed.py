"""Answers compressed where it pays, and left alone where it would harm."""

import gzip
from collections.abc import Callable

import brotli
import pytest
import zstandard

from mailyard.access.mask import masked, unmasked
from mailyard.web.coding import BROTLI, GZIP, ZSTD, choose
from mailyard.web.compressed import LEAST_BYTES, Compressed
from mailyard.web.protocol import Asgi, Message, Receive, Scope, Send

TEXT = b'{"a": "b"} ' * 200
UNPACK: dict[str, Callable[[bytes], bytes]] = {
    GZIP: gzip.decompress,
    BROTLI: brotli.decompress,
    ZSTD: zstandard.ZstdDecompressor().decompress,
}


def serving(*pieces: bytes, status: int = 200, **headers: str) -> Asgi:
    """An application that answers with `pieces`; header names with _ for -."""
    given = {"content_type": "application/json", **headers}
    if len(pieces) == 1:
        given.setdefault("content_length", str(len(pieces[0])))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        said = [(name.replace("_", "-").encode(), text.encode()) for name, text in given.items()]
        await send({"type": "http.response.start", "status": status, "headers": said})
        for number, piece in enumerate(pieces, 1):
            more = number < len(pieces)
            await send({"type": "http.response.body", "body": piece, "more_body": more})

    return app


async def answer(
    app: Asgi,
    accept: str = "gzip, br, zstd",
    *,
    method: str = "GET",
    query: bytes = b"",
    **more: str,
) -> tuple[dict[str, str], list[bytes]]:
    """Headers and pieces as the client sees them."""
    headers = [(b"accept-encoding", accept.encode())] if accept else []
    headers += [(name.replace("_", "-").encode(), text.encode()) for name, text in more.items()]
    scope = {"type": "http", "method": method, "query_string": query, "headers": headers}
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError("nobody asks")

    await Compressed(app)(scope, receive, send)
    said = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return said, [message["body"] for message in sent[1:]]


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        ("gzip, deflate, br, zstd", ZSTD),
        ("gzip, deflate, br", BROTLI),
        ("gzip", GZIP),
        ("GZIP;Q=0.5, br;q=0.4", GZIP),
        ("*", ZSTD),
        ("*;q=0.1, gzip", GZIP),
    ],
)
async def test_text_is_packed_as_the_client_likes_it(accept: str, coding: str) -> None:
    said, [body] = await answer(serving(TEXT, etag='"x"', vary="cookie"), accept)
    assert said["content-encoding"] == coding
    assert UNPACK[coding](body) == TEXT and len(body) < len(TEXT) / 4
    assert said["content-length"] == str(len(body))
    assert said["vary"] == "cookie, accept-encoding"
    assert said["etag"] == 'W/"x"'


@pytest.mark.parametrize("accept", ["", "identity", "deflate", "gzip;q=0", "br;q=x", "*;q=0"])
async def test_who_takes_nothing_gets_it_plain(accept: str) -> None:
    said, [body] = await answer(serving(TEXT), accept)
    assert body == TEXT and "content-encoding" not in said


async def test_a_large_one_is_packed_too() -> None:
    said, [body] = await answer(serving(TEXT * 100))
    assert UNPACK[said["content-encoding"]](body) == TEXT * 100


@pytest.mark.parametrize(
    "app",
    [
        serving(b"x" * (LEAST_BYTES - 1)),
        serving(TEXT, content_type="image/png"),
        serving(TEXT, content_type="text/event-stream"),
        serving(TEXT, content_encoding="gzip"),
        serving(TEXT, cache_control="no-transform"),
        serving(TEXT, status=404),
        serving(TEXT, status=201),
        serving(TEXT, TEXT),
    ],
    ids=["small", "picture", "events", "packed", "no-transform", "error", "made", "pieces"],
)
async def test_what_does_not_pay_or_must_not_is_left_alone(app: Asgi) -> None:
    said, pieces = await answer(app)
    assert said.get("content-encoding") in (None, "gzip")
    assert b"".join(pieces) in (TEXT, TEXT + TEXT, b"x" * (LEAST_BYTES - 1))


async def test_an_event_goes_out_before_the_next_one_comes() -> None:
    seen: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        head = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        for number in range(3):
            await send({"type": "http.response.body", "body": b"data\n\n", "more_body": True})
            seen.append(number)

    _, pieces = await answer(app)
    assert pieces == [b"data\n\n"] * 3


async def test_nothing_that_another_site_asks_for_or_that_repeats_its_address_is_packed() -> None:
    page = serving(TEXT, content_type="text/html; charset=utf-8")
    for said, _ in (
        await answer(page, sec_fetch_site="cross-site"),
        await answer(page, sec_fetch_site="same-site"),
        await answer(page, query=b"q=guess"),
        await answer(page, method="POST"),
    ):
        assert "content-encoding" not in said
    said, _ = await answer(page, sec_fetch_site="same-origin")
    assert "content-encoding" in said
    said, _ = await answer(serving(TEXT), query=b"limit=50")
    assert "content-encoding" in said


def test_a_token_is_never_the_same_twice_in_a_page() -> None:
    token = "a-token_of-43-characters"
    shown = {masked(token) for _ in range(50)}
    assert len(shown) == 50 and {unmasked(one) for one in shown} == {token}
    assert unmasked(token) == token
    for wrong in ("", "m.", "m.!", "m.AAAA", "m." + "A" * 4_001):
        assert unmasked(wrong) != token


def test_a_header_without_end_or_sense_is_no_burden() -> None:
    assert choose("," * 100_000, (GZIP,)) is None
    assert choose("gzip;q=nan", (GZIP,)) in (None, GZIP)
