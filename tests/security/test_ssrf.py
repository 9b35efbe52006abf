"""What users name to be fetched reaches nothing that is not public, by no way round."""

import asyncio

import pytest
from guarded import hostile_network

from mailyard.core.errors import InvalidInput
from mailyard.net.guard import networks
from mailyard.net.http import AddressRefused, HttpClient, HttpFailure

PUBLIC, INSIDE = "93.184.215.14", "127.0.0.1"


async def fetch(client: HttpClient, url: str) -> type[Exception]:
    """What comes of it where nothing can be reached."""
    with pytest.raises((HttpFailure, InvalidInput)) as caught:
        await client.request("POST", url, body=b"secret", total_s=5)
    return caught.type


async def test_a_name_that_changes_its_mind_reaches_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DNS rebinding: what was looked at is what is connected to, each time anew."""
    asked = 0

    def rebinding(_name: str) -> list[str]:
        nonlocal asked
        asked += 1
        return [PUBLIC] if asked == 1 else [INSIDE]

    with hostile_network(monkeypatch, rebinding) as connected:
        client = HttpClient()
        try:
            assert await fetch(client, "http://rebind.example/") is HttpFailure
            assert connected == [PUBLIC]
            client._session.connector.clear_dns_cache()  # type: ignore[union-attr]
            assert await fetch(client, "http://rebind.example/") is AddressRefused
            assert await fetch(client, "http://rebind.example/") is AddressRefused
        finally:
            await client.close()
    assert set(connected) == {PUBLIC}
    assert asked >= 2


@pytest.mark.parametrize(
    "inside",
    [INSIDE, "169.254.169.254", "::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "fd00:ec2::254"],
)
async def test_a_name_with_a_public_and_a_private_address_reaches_the_public_one_alone(
    monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    for answers in ([PUBLIC, inside], [inside, PUBLIC]):
        with hostile_network(monkeypatch, lambda _: answers) as connected:  # noqa: B023
            client = HttpClient()
            try:
                await fetch(client, "https://both.example/")
            finally:
                await client.close()
        assert set(connected) <= {PUBLIC}


async def test_no_proxy_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://192.0.2.77:3128")
    monkeypatch.setenv("NO_PROXY", "")
    with hostile_network(monkeypatch, lambda _: [PUBLIC]) as connected:
        client = HttpClient()
        try:
            for scheme in ("http", "https"):
                assert await fetch(client, f"{scheme}://a.example/") is HttpFailure
        finally:
            await client.close()
    assert set(connected) == {PUBLIC}


async def test_a_redirect_is_an_answer_and_nothing_is_followed() -> None:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).split(b" ")[1])
        writer.write(
            b"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:%d/inside\r\n"
            b"Content-Length: 0\r\nConnection: close\r\n\r\n" % port
        )
        writer.close()

    server = await asyncio.start_server(serve, INSIDE, 0)
    port = server.sockets[0].getsockname()[1]
    client = HttpClient(allowed=networks(["127.0.0.0/8"]))
    try:
        answer = await client.request("GET", f"http://127.0.0.1:{port}/outside")
    finally:
        await client.close()
        server.close()
    assert (answer.status, asked) == (307, [b"/outside"])
