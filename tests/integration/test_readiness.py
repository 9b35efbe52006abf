"""What the checklist sees of real servers: over HTTP and TLS, in DNS, through a pooler, in rows."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from api_platform import Platform, start
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from dns_server import Fault, ScriptedDns
from http_script import answer, scripted
from integration.test_pooler import PROGRAM, pooler

from mailyard import __version__
from mailyard.core.clock import SystemClock
from mailyard.fleet.readiness import front, mail_names, needs, stores, watched
from mailyard.fleet.readiness.item import Item, Standing
from mailyard.fleet.readiness.mail_names import MailNames
from mailyard.net.dns import DnsLimits, Resolver
from mailyard.net.guard import networks
from mailyard.net.http import HttpClient
from mailyard.net.smtp_probe import TlsFinding, TlsState
from mailyard.net.tls import server_context
from mailyard.proving.demonstration import Verdict
from mailyard.proving.load_test import PAGE
from mailyard.storage.database import Database

MET, THIN, MISSING = Standing.MET, Standing.THIN, Standing.MISSING
HOST = "mail.yard.example"
NAMES = MailNames(HOST, "in.yard.example", "returns.yard.example", [ip_address("192.0.2.1")])
NOW = datetime.now(UTC)
QUICK = DnsLimits(
    try_timeout_s=0.3, rounds=1, ttl_floor_s=0.0, ttl_ceiling_s=0.0, negative_ceiling_s=0.0,
    failure_s=0.0,
)  # fmt: skip
KEPT = {"Cache-Control": "public, max-age=31536000, immutable", "Content-Encoding": "gzip"}
PAGE_KEPT = {"Cache-Control": "no-store"}
LINKS = b'<link href="/static/mailyard.0123456789ab.css" rel="stylesheet">'


def judged(item: Item, check: str, standing: Standing, said: str) -> None:
    assert item.check == check
    assert (item.standing, said in item.found) == (standing, True), item


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient(user_agent="test", allowed=networks(["127.0.0.0/8"]))
    yield client
    await client.close()


@pytest.fixture
async def zone() -> AsyncIterator[ScriptedDns]:
    async with ScriptedDns() as server:
        server.add(HOST, "A", "127.0.0.1", "192.0.2.1")
        server.add("in.yard.example", "MX", f"10 {HOST}.")
        server.add("returns.yard.example", "MX", f"10 {HOST}.")
        server.add("1.2.0.192.in-addr.arpa", "PTR", f"{HOST}.")
        yield server


@pytest.fixture
async def resolver(zone: ScriptedDns) -> AsyncIterator[Resolver]:
    resolver = Resolver([zone.address], SystemClock(), QUICK)
    yield resolver
    await resolver.close()


# Files that a CDN may keep.


@pytest.mark.parametrize(
    ("page", "asset", "standing", "said"),
    [
        ((200, LINKS, PAGE_KEPT), (200, b"x" * 5000, KEPT), MET, "immutable"),
        (
            (200, LINKS, PAGE_KEPT),
            (200, b"x" * 5000, {"Cache-Control": KEPT["Cache-Control"]}),
            THIN,
            "not compressed",
        ),
        ((200, LINKS, PAGE_KEPT), (200, b"", KEPT | {"Set-Cookie": "a=b"}), THIN, "a cookie"),
        (
            (200, LINKS, PAGE_KEPT),
            (200, b"", {"Cache-Control": "public, max-age=60"}),
            MISSING,
            "max-age=60",
        ),
        ((200, LINKS, PAGE_KEPT), (404, b"", KEPT), MISSING, "answers 404"),
        ((200, b"nothing", PAGE_KEPT), None, MISSING, "name no file"),
        ((200, LINKS, {"Cache-Control": "max-age=60"}), (200, b"", KEPT), MISSING, "keep them"),
        ((502, b"", {}), None, MISSING, "answers 502"),
    ],
)
async def test_cdn_headers(
    http: HttpClient, page: Any, asset: Any, standing: Standing, said: str
) -> None:
    steps = [answer(*one) for one in (page, asset) if one is not None]
    async with scripted(*steps) as server:
        seen = await front.see_front(server.url, http)
    judged(front.judge_cdn(seen), needs.CDN, standing, said)


async def test_a_page_that_does_not_answer(http: HttpClient) -> None:
    seen = await front.see_front("http://127.0.0.1:1", http)
    judged(front.judge_cdn(seen), needs.CDN, MISSING, "does not answer")
    away = await watched.scrape("http://127.0.0.1:1", http)
    judged(watched.judge_monitoring(away), needs.MONITORING, MISSING, "does not answer")


async def test_metrics_are_known_by_their_names(http: HttpClient) -> None:
    async with scripted(answer(200), answer(200, b"mailyard_queue_depth 1\n")) as server:
        seen = await watched.scrape(server.url, http)
    judged(watched.judge_monitoring(seen), needs.MONITORING, MET, "/metrics")
    async with scripted(answer(200), answer(200, b"<html>hello</html>")) as server:
        seen = await watched.scrape(server.url, http)
    judged(watched.judge_monitoring(seen), needs.MONITORING, MISSING, "figures of ours")


# Certificates.


def certificate(file: Path, name: str, days: float) -> Path:
    """A file with a key and a certificate for a DNS name or an address, ending in `days`."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    one = x509.IPAddress(ip_address(name)) if name[0].isdigit() else x509.DNSName(name)
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=100))
        .not_valid_after(NOW + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([one]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.mark.parametrize(
    ("days", "trusted", "standing", "said"),
    [
        (60, True, MET, "verified, until"),
        (5, True, THIN, "verified, until"),
        (60, False, MISSING, "self-signed certificate"),
        (-1, True, MISSING, "expired"),
    ],
)
async def test_https_as_a_client_sees_it(
    tmp_path: Path, days: float, trusted: bool, standing: Standing, said: str
) -> None:
    file = certificate(tmp_path / "c.pem", "127.0.0.1", days)
    context = ssl.create_default_context(cafile=str(file) if trusted else None)
    async with scripted(tls=server_context(file, file)) as server:
        seen = await front.see_https(server.url, context)
    judged(front.judge_https(server.url, seen, NOW), needs.HTTPS, standing, said)


async def test_https_that_is_none() -> None:
    judged(front.judge_https("http://a", None, NOW), needs.HTTPS, MISSING, "not encrypted")
    seen = await front.see_https("https://127.0.0.1:1", ssl.create_default_context())
    judged(front.judge_https("https://a", seen, NOW), needs.HTTPS, MISSING, "https://a: ")


VERIFIED = TlsFinding(TlsState.VERIFIED)


@pytest.mark.parametrize(
    ("name", "days", "seen", "standing", "said"),
    [
        (HOST, 60, VERIFIED, MET, "until"),
        ("*.yard.example", 60, None, MET, "until"),
        (HOST, 3, VERIFIED, THIN, "until"),
        (HOST, 60, TlsFinding(TlsState.AWAY, "no answer"), THIN, "not seen from here: no answer"),
        (HOST, 60, TlsFinding(TlsState.UNVERIFIED, "another"), MISSING, "strangers see: another"),
        (HOST, 60, TlsFinding(TlsState.NONE, "no STARTTLS"), MISSING, "no STARTTLS"),
        (HOST, -1, VERIFIED, MISSING, "it ended on"),
        ("other.example", 60, VERIFIED, MISSING, "is for other.example"),
    ],
)
def test_smtp_tls(
    tmp_path: Path,
    name: str,
    days: float,
    seen: TlsFinding | None,
    standing: Standing,
    said: str,
) -> None:
    file = certificate(tmp_path / "c.pem", name, days)
    judged(mail_names.judge_smtp_tls(HOST, file, seen, NOW), needs.SMTP_TLS, standing, said)


def test_smtp_tls_without_a_certificate_that_others_know(tmp_path: Path) -> None:
    none = mail_names.judge_smtp_tls(HOST, None, None, NOW)
    judged(none, needs.SMTP_TLS, MISSING, "made by this machine")
    broken = tmp_path / "c.pem"
    broken.write_text("nothing")
    judged(mail_names.judge_smtp_tls(HOST, broken, None, NOW), needs.SMTP_TLS, MISSING, str(broken))


async def test_strangers_are_answered_as_the_smtp_server_answers(
    tmp_path: Path, resolver: Resolver
) -> None:
    file = certificate(tmp_path / "c.pem", HOST, 60)

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        await reader.readline()
        writer.write(b"250-x\r\n250 STARTTLS\r\n")
        await reader.readline()
        writer.write(b"220 go\r\n")
        await writer.drain()
        await writer.start_tls(server_context(file, file))
        await reader.read(100)
        writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    trusting = ssl.create_default_context(cafile=str(file))
    async with server:
        good = await mail_names.see_smtp_tls(HOST, resolver, port=port, context=trusting)
        bad = await mail_names.see_smtp_tls(HOST, resolver, port=port)
    assert (good.state, bad.state) == (TlsState.VERIFIED, TlsState.UNVERIFIED)


# DNS.


async def test_names_that_stand_as_they_should(resolver: Resolver) -> None:
    item = mail_names.judge_dns(NAMES, await mail_names.see_dns(NAMES, resolver))
    judged(item, needs.DNS, MET, f"mail for in.yard.example comes to {HOST}; 1 sending addresses")
    unasked = MailNames(HOST, "in.yard.example", "", [])
    item = mail_names.judge_dns(unasked, await mail_names.see_dns(unasked, resolver))
    judged(item, needs.DNS, THIN, "sending addresses were not asked")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (MailNames("laptop", "in.yard.example", "", []), "'laptop' is no name of the Internet"),
        (MailNames(HOST, "inbox.localhost", "", []), "MAILYARD_INBOX_DOMAIN"),
        (MailNames("gone.yard.example", "in.yard.example", "", []), "has no address"),
        (MailNames(HOST, "other.example", "", []), "there is no MX record"),
        (MailNames(HOST, "in.yard.example", "away.example", []), "goes to elsewhere.example"),
        (MailNames(HOST, "in.yard.example", "", [ip_address("192.0.2.9")]), "192.0.2.9"),
    ],
)
async def test_names_that_lead_elsewhere(
    resolver: Resolver, zone: ScriptedDns, names: MailNames, said: str
) -> None:
    zone.add("away.example", "MX", "10 elsewhere.example.")
    item = mail_names.judge_dns(names, await mail_names.see_dns(names, resolver))
    judged(item, needs.DNS, MISSING, said)


async def test_dns_that_cannot_say(resolver: Resolver, zone: ScriptedDns) -> None:
    zone.fault("in.yard.example", "MX", *[Fault.SERVFAIL] * 20)
    item = mail_names.judge_dns(NAMES, await mail_names.see_dns(NAMES, resolver))
    judged(item, needs.DNS, THIN, "DNS could not say")


# Rows and connections.


@pytest.mark.skipif(
    not PROGRAM.exists() and os.environ.get("CI") != "true", reason="pgbouncer is not installed"
)
async def test_a_pooler_is_known_by_what_its_connections_share(
    database_url: str, tmp_path: Path
) -> None:
    with pooler(database_url, tmp_path / "pooler", 3) as pooled:
        shared = await stores.judge_pooling(True, pooled, database_url)
    judged(shared, needs.POOLING, MET, "5 idle connections share")
    none = await stores.judge_pooling(True, database_url, "postgresql://elsewhere/x")
    judged(none, needs.POOLING, MISSING, "hold 5 server processes: they are not shared")


def verdict(recipients: int, lost: int = 0) -> Verdict:
    came = recipients - lost
    return Verdict(recipients, recipients, came, lost, 0, 0, 0, 1.0, came, 0.0)


def told(verdict: Verdict) -> dict[str, Any]:
    """As `mailyard demo` tells it."""
    return {name: value for name, value in verdict.as_json().items() if name != "clean"}


@pytest.fixture
async def platform(database: Database) -> AsyncIterator[Platform]:
    platform = await start(database)
    yield platform
    await platform.close()


async def test_a_load_test_is_recorded_with_what_ran(platform: Platform) -> None:
    made = await platform.call("POST", "/v1/load-tests", json=told(verdict(20_000)))
    assert made.status == 201, made.body
    assert (made.json["clean"], made.json["origin"]) == (True, "command")
    assert made.json["version"] == __version__
    await platform.call("POST", "/v1/load-tests", json=told(verdict(50, lost=1)))
    listed = (await platform.call("GET", "/v1/load-tests")).json["items"]
    assert [(one["recipients"], one["clean"]) for one in listed] == [(50, False), (20_000, True)]
    assert listed[1]["verdict"]["per_second"] == 20_000


@pytest.mark.parametrize(
    ("name", "value"), [("per_second", 50_000), ("received", 20_001), ("seconds", 0), ("lost", -1)]
)
async def test_figures_that_cannot_be_are_refused(
    platform: Platform, name: str, value: int
) -> None:
    made = await platform.call("POST", "/v1/load-tests", json=told(verdict(20_000)) | {name: value})
    assert made.status == 422 and made.json["field"] == name, made.body


async def test_the_last_one_that_is_large_enough_counts(platform: Platform) -> None:
    tests = platform.app.load_tests
    assert await tests.last(10_000) is None
    large = await tests.add(PAGE, verdict(10_000))
    small = await tests.add(PAGE, verdict(100))
    assert await tests.last(10_000) == large
    assert await tests.last(50_000) == small


async def test_only_the_operator_records_and_sees_load_tests(platform: Platform) -> None:
    _, key = await platform.other_workspace()
    for method, body in (("GET", None), ("POST", told(verdict(100)))):
        reply = await platform.call(method, "/v1/load-tests", key=key, json=body)
        assert reply.status == 403
