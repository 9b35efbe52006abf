"""The guarded HTTP client against servers that misbehave."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from http_script import LOOPBACK, Step, answer, hang_up, raw, scripted, silent

from mailyard.core.errors import InvalidInput
from mailyard.net.http import (
    AddressRefused,
    AnswerTooLarge,
    Exchange,
    HttpClient,
    HttpFailure,
    HttpOptions,
)
from mailyard.net.tls import ensure_certificate, server_context

HEAD = b"HTTP/1.1 200 OK\r\n"
BLOCK = b"200\r\n" + b"x" * 512 + b"\r\n"  # of a chunked body


@asynccontextmanager
async def client(*, guarded: bool = False, **options: object) -> AsyncIterator[HttpClient]:
    made = HttpClient(
        allowed=() if guarded else LOOPBACK,
        options=HttpOptions(**options),  # type: ignore[arg-type]
    )
    try:
        yield made
    finally:
        await made.close()


async def failure_of(
    step: Step, exchange: Exchange | None = None, **options: object
) -> HttpFailure:
    async with scripted(step) as server, client(**options) as http:
        with pytest.raises(HttpFailure) as caught:
            await http.request("POST", server.url, body=b"x", exchange=exchange)
    return caught.value


# What is asked.


async def test_an_answer_comes_whole_with_its_headers_in_lower_case() -> None:
    async with scripted(answer(201, b"made", {"X-Message-Id": "7"})) as server, client() as http:
        got = await http.request("POST", f"{server.url}/v1?a=b", headers={"X-A": "1"}, body=b"body")
        assert (got.status, got.body, got.headers["x-message-id"]) == (201, b"made", "7")
        (seen,) = server.seen
        assert (seen.method, seen.path, seen.body) == ("POST", "/v1?a=b", b"body")
        assert seen.headers["x-a"] == "1"
        assert seen.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "url",
    ["ftp://h/", "file:///etc/passwd", "//h/", "http:///x", "http://u:p@h/", "", "http://[/",
     "http://h:99999/"],
)  # fmt: skip
async def test_what_is_no_plain_http_url_is_refused_before_anything_is_done(url: str) -> None:
    async with client() as http:
        with pytest.raises(InvalidInput):
            await http.request("GET", url)


async def test_a_header_cannot_be_split() -> None:
    async with scripted(answer(200)) as server, client() as http:
        with pytest.raises(InvalidInput):
            await http.request("GET", server.url, headers={"X-A": "1\r\nX-B: 2"})
        assert server.seen == []


async def test_connections_are_kept_and_bounded_for_each_host() -> None:
    async with scripted(answer(200)) as server, client(connections_per_host=2) as http:
        await asyncio.gather(*(http.request("GET", server.url) for _ in range(20)))
        assert len(server.seen) == 20
        assert server.connections == 2


async def test_proxies_and_credentials_of_the_environment_are_not_looked_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with scripted(answer(500)) as proxy, scripted(answer(200)) as server, client() as http:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert (await http.request("GET", server.url)).status == 200
        assert proxy.seen == []
        assert "authorization" not in server.seen[0].headers


async def test_no_cookie_is_sent_back() -> None:
    async with scripted(answer(200, b"", {"Set-Cookie": "a=b"})) as server, client() as http:
        await http.request("GET", server.url)
        await http.request("GET", server.url)
        assert "cookie" not in server.seen[1].headers


# Where it may go.


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1"]
)
async def test_this_machine_is_not_reached_under_any_name(host: str) -> None:
    async with scripted(answer(200)) as server, client(guarded=True) as http:
        port = server.url.rsplit(":", 1)[1]
        with pytest.raises(HttpFailure) as caught:
            await http.request("GET", f"http://{host}:{port}/")
        assert not caught.value.written
        assert server.connections == 0


async def test_a_refused_address_says_why_and_what_can_be_done() -> None:
    async with client(guarded=True) as http:
        with pytest.raises(AddressRefused, match=r"metadata.*settings can allow it") as caught:
            await http.request("GET", "http://169.254.169.254/latest/meta-data/")
        assert not caught.value.retryable


@pytest.mark.parametrize("where", ["http://169.254.169.254/", "/elsewhere", "https://example.com/"])
async def test_a_redirect_is_an_answer_and_is_not_followed(where: str) -> None:
    async with scripted(answer(302, b"", {"Location": where})) as server, client() as http:
        got = await http.request("POST", server.url, body=b"x")
        assert (got.status, got.headers["location"]) == (302, where)
        assert len(server.seen) == 1


async def test_a_certificate_that_nobody_vouches_for_is_refused_before_anything_is_said(
    tmp_path: Path,
) -> None:
    context = server_context(*ensure_certificate(tmp_path, "localhost"))
    async with scripted(answer(200), tls=context) as server, client() as http:
        with pytest.raises(HttpFailure, match="certificate") as caught:
            await http.request("POST", server.url, body=b"secret")
        assert not caught.value.written
        assert server.seen == []


async def test_a_certificate_must_bear_the_name_that_was_asked_for(tmp_path: Path) -> None:
    certificate, key = ensure_certificate(tmp_path, "other.example")
    trusting = ssl.create_default_context(cafile=str(certificate))
    http = HttpClient(allowed=LOOPBACK, tls_context=trusting)
    async with scripted(answer(200), tls=server_context(certificate, key)) as server:
        with pytest.raises(HttpFailure, match="certificate"):
            await http.request("GET", server.url.replace("127.0.0.1", "localhost"))
        assert server.seen == []
    await http.close()


# What comes back, and whether the request may have arrived.


async def test_nothing_was_written_when_nobody_listens() -> None:
    async with scripted(answer(200)) as server:
        pass
    async with client() as http:
        with pytest.raises(HttpFailure, match="cannot connect") as caught:
            await http.request("POST", server.url, body=b"x")
    assert (caught.value.written, caught.value.status_seen) == (False, None)


async def test_a_server_that_never_finishes_tls_costs_the_connect_time() -> None:
    async def dumb(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(dumb, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with client(connect_s=0.1) as http:
        with pytest.raises(HttpFailure) as caught:
            await http.request("POST", f"https://127.0.0.1:{port}", body=b"x")
    assert not caught.value.written
    server.close()


async def test_a_request_that_waits_for_a_connection_in_vain_was_not_written() -> None:
    async with scripted(silent()) as server, client(connections_per_host=1, connect_s=0.1) as http:
        first = asyncio.ensure_future(http.request("POST", server.url, body=b"x"))
        while not server.seen:
            await asyncio.sleep(0.001)
        with pytest.raises(HttpFailure, match="no connection") as caught:
            await http.request("POST", server.url, body=b"y")
        assert not caught.value.written
        first.cancel()


@pytest.mark.parametrize(
    ("step", "status"),
    [
        (hang_up(), None),
        (hang_up(b"HTTP/1.1 20"), None),
        (hang_up(HEAD), None),
        (hang_up(HEAD + b"Content-Length: 10\r\n\r\nhalf"), 200),
        (hang_up(HEAD + b"Transfer-Encoding: chunked\r\n\r\nff\r\nhalf"), 200),
        (raw(b"SSH-2.0-OpenSSH_9.2\r\n"), None),
        (raw(b"\x00\xff\xfe" * 100), None),
        (raw(HEAD + b"Content-Length: two\r\n\r\n"), None),
        (raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n"), None),
    ],
)
async def test_a_broken_answer_is_a_failure_of_a_request_that_was_written(
    step: Step, status: int | None
) -> None:
    failure = await failure_of(step)
    assert failure.written
    assert failure.status_seen == status


async def test_a_silent_server_costs_the_read_time() -> None:
    failure = await failure_of(silent(), read_s=0.1)
    assert failure.written


async def test_a_body_in_drops_costs_the_total_time_and_no_more() -> None:
    async def drip(seen: object, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Content-Length: 1000000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    exchange = Exchange()
    failure = await failure_of(drip, exchange, read_s=0.2, total_s=0.3)
    assert failure.written
    assert exchange.status == 200


@pytest.mark.parametrize(
    "step",
    [
        raw(HEAD + b"Content-Length: 99999999999\r\n\r\n"),
        answer(200, b"x" * 1001),
        raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + 3 * BLOCK + b"0\r\n\r\n"),
    ],
)  # fmt: skip
async def test_an_answer_above_the_limit_is_not_read_to_its_end(step: Step) -> None:
    failure = await failure_of(step, answer_bytes=1000)
    assert isinstance(failure, AnswerTooLarge)
    assert failure.status_seen == 200


async def test_a_packed_answer_stays_packed() -> None:
    bomb = b"\x1f\x8b\x08\x00" + bytes(100)
    step = answer(200, bomb, {"Content-Encoding": "gzip"})
    async with scripted(step) as server, client() as http:
        assert (await http.request("GET", server.url)).body == bomb


@pytest.mark.parametrize("head", [b"X-A: " + b"a" * 100_000, b"X-A: 1\r\n" * 20_000])
async def test_a_head_without_end_is_refused(head: bytes) -> None:
    failure = await failure_of(raw(HEAD + head + b"\r\n\r\n"))
    assert failure.written


async def test_what_was_under_way_fails_when_the_client_closes() -> None:
    async with scripted(silent()) as server:
        http = HttpClient(allowed=LOOPBACK)
        asked = asyncio.ensure_future(http.request("GET", server.url))
        while not server.seen:
            await asyncio.sleep(0.001)
        await http.close()
        with pytest.raises(HttpFailure) as caught:
            await asked
        assert caught.value.written
