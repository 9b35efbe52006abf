"""Hostile URLs of public collections: each is refused, whatever its names stand for."""

import asyncio
import json
from ipaddress import ip_address
from pathlib import Path

import pytest
from guarded import hostile_network

from mailyard.core.errors import InvalidInput
from mailyard.net.guard import networks, refusal
from mailyard.net.http import AddressRefused, HttpClient, HttpFailure

INSIDE = ["127.0.0.1", "::1"]


async def tell(client: HttpClient, url: str) -> str:
    """What the client says of a URL."""
    try:
        await client.request("GET", url, total_s=5)
    except InvalidInput:
        return "no URL to fetch"
    except AddressRefused:
        return "refused"
    except HttpFailure as error:
        return f"failed: {error.message}"
    return "fetched"


async def test_every_hostile_url_is_refused(
    corpora: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every name, of attackers and of redirectors, stands for this machine here."""
    urls = [one["url"] for one in json.loads((corpora / "url-ssrf/ssrf-urls.json").read_text())]
    told: dict[str, str] = {}
    with hostile_network(monkeypatch, lambda _: INSIDE) as connected:
        client = HttpClient()
        try:
            for url in urls:
                told[url] = await tell(client, url)
        finally:
            await client.close()
    wrong = {url: said for url, said in told.items() if said not in ("refused", "no URL to fetch")}
    with capsys.disabled():
        refused = sum(said == "refused" for said in told.values())
        print(f"\nhostile URLs: {len(told) - len(wrong)} of {len(told)} refused", end="")
        print(f" ({refused} at the address, the rest as no URL to fetch)")
    assert wrong == {}
    assert connected == []


async def test_odd_urls_reach_public_addresses_or_nothing(
    corpora: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The WHATWG's own list: numbers in octal and hexadecimal, full-width digits, tabs inside."""
    cases = json.loads((corpora / "url-ssrf/whatwg-urltestdata.json").read_text())
    urls = sorted({one["input"] for one in cases} | {one["href"] for one in cases if "href" in one})
    with hostile_network(monkeypatch, lambda _: INSIDE) as connected:
        client = HttpClient()
        said = []
        try:
            for url in urls:
                said.append(await tell(client, url))
        finally:
            await client.close()
    with capsys.disabled():
        print(f"\nodd URLs: {len(urls)}, reached: {sorted(set(connected))}")
    assert "fetched" not in said
    assert all(refusal(address, ()) is None for address in connected), connected
    assert all(ip_address(address).is_global for address in connected)


async def test_no_redirect_of_the_collections_is_followed(
    corpora: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines: list[bytes] = []
    for path in sorted((corpora / "url-ssrf").glob("patt-*.txt")):
        lines += [line for line in path.read_bytes().splitlines() if line.strip()]
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.readuntil(b"\r\n\r\n")
        location = lines[asked]
        asked += 1
        writer.write(
            b"HTTP/1.1 302 X\r\nLocation: %b\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            % location
        )
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = HttpClient(allowed=networks(["127.0.0.1/32"]))
    try:
        for _ in lines:
            try:
                answer = await client.request("GET", f"http://127.0.0.1:{port}/", total_s=5)
            except HttpFailure:
                continue  # no header line: refused as an answer
            assert answer.status == 302
    finally:
        await client.close()
        server.close()
    with capsys.disabled():
        print(f"\nredirects: {asked} told, none followed")
    assert asked == len(lines)
