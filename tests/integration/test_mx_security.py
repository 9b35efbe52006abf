"""TLS towards mail servers: opportunistic, MTA-STS, DANE; and how it is counted."""

import ssl
from collections import Counter
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from mx_world import World, mx_world

from mailyard.core.clock import ManualClock
from mailyard.core.errors import InvalidInput
from mailyard.net.guard import networks
from mailyard.net.http import HttpClient
from mailyard.net.tls import ensure_certificate, server_context
from mailyard.protocol.dns_answer import Answer, NoRecords, Result
from mailyard.protocol.mta_sts import Mode, StsPolicy
from mailyard.sending.sts import HttpsFetcher, StsCache
from mailyard.sending.tls_count import TlsCounter
from mailyard.storage.database import Database


class Counts:
    """What was counted."""

    def __init__(self) -> None:
        self.seen: Counter[tuple[str, str, str]] = Counter()

    def note(self, domain: str, policy_type: str, host: str, result: str) -> None:
        del host
        self.seen[domain, policy_type, result] += 1


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of mx.good.example, its own authority."""
    return ensure_certificate(tmp_path_factory.mktemp("tls"), "mx.good.example")[0]


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


def enforce(*hosts: str) -> StsPolicy:
    return StsPolicy(Mode.ENFORCE, 86_400, hosts)


async def world_with(
    world: World, certificate: Path, policies: dict[str, StsPolicy]
) -> tuple[Counts, dict[str, str]]:
    """Three peers with the certificate of the first; what each domain's mail was answered."""
    tls = server_context(certificate, certificate)
    for domain in ("good.example", "other.example"):
        await world.peer(domain, tls=tls)
    await world.peer("clear.example")
    counts = Counts()
    world.transport(policies=policies, verified=trusting(certificate), tls_counts=counts)
    answers = await world.sent("a@good.example", "a@other.example", "a@clear.example")
    names = ("good", "other", "clear")
    return counts, {
        name: f"{one.outcome.value}: {one.reply}" for name, one in zip(names, answers, strict=True)
    }


async def test_without_a_policy_mail_is_encrypted_where_that_is_offered(certificate: Path) -> None:
    async with mx_world() as world:
        counts, said = await world_with(world, certificate, {})
    assert said["good"].endswith("TLSv1.3)")
    assert said["other"].endswith("TLSv1.3)")  # whose certificate it is does not matter
    assert said["clear"].endswith("not encrypted)")
    assert counts.seen == {
        ("good.example", "no-policy-found", "success"): 1,
        ("other.example", "no-policy-found", "success"): 1,
        ("clear.example", "no-policy-found", "starttls-not-supported"): 1,
    }


async def test_an_enforced_policy_wants_a_verified_certificate_or_no_delivery(
    certificate: Path,
) -> None:
    async with mx_world() as world:
        counts, said = await world_with(
            world,
            certificate,
            {name: enforce(f"mx.{name}") for name in
             ("good.example", "other.example", "clear.example")},
        )  # fmt: skip
    assert said["good"].endswith("TLSv1.3 and verified)")
    assert said["other"].startswith("later: TLS with mx.other.example")
    assert "Hostname mismatch" in said["other"]
    assert said["clear"].startswith("later: 5.7.10 TLS is required and the peer does not offer")
    assert counts.seen == {
        ("good.example", "sts", "success"): 1,
        ("other.example", "sts", "certificate-host-mismatch"): 1,
        ("clear.example", "sts", "starttls-not-supported"): 1,
    }


async def test_a_policy_in_testing_delivers_and_counts_what_would_have_failed(
    certificate: Path,
) -> None:
    async with mx_world() as world:
        testing = StsPolicy(Mode.TESTING, 86_400, ("mx.other.example",))
        counts, said = await world_with(world, certificate, {"other.example": testing})
    assert said["other"].startswith("accepted") and said["other"].endswith("TLSv1.3)")
    assert counts.seen["other.example", "sts", "certificate-host-mismatch"] == 1
    assert counts.seen["other.example", "sts", "success"] == 1


async def test_a_host_that_the_policy_does_not_name_gets_no_mail(certificate: Path) -> None:
    async with mx_world() as world:
        policies = {"good.example": enforce("mx.elsewhere.example")}
        _, said = await world_with(world, certificate, policies)
    assert said["good"].startswith("later: mx.good.example may not be used: the domain's MTA-STS")


async def test_dane_lets_in_whom_dns_names_and_nobody_else(certificate: Path) -> None:
    der = x509.load_pem_x509_certificate(certificate.read_bytes()).public_bytes(Encoding.DER)
    async with mx_world(authenticated=True) as world:
        name = f"_{25}._tcp.mx.good.example"
        world.dns.add(name, "TLSA", f"3 0 1 {sha256(der).hexdigest()}")
        world.dns.add("_25._tcp.mx.other.example", "TLSA", f"3 0 1 {'00' * 32}")
        counts, said = await world_with(world, certificate, {})
    assert said["good"].endswith("TLSv1.3 and verified)")
    assert said["other"].startswith("later: mx.other.example [127.1.0.3]: DANE: no TLSA record")
    assert said["clear"].endswith("not encrypted)")
    assert counts.seen["other.example", "tlsa", "validation-failure"] == 1


class Texts:
    """TXT records that change under the reader's hands."""

    def __init__(self) -> None:
        self.record = "v=STSv1; id=1;"

    async def txt(self, name: str) -> Result[str]:
        if not self.record:
            return NoRecords(0.0, False)
        return Answer((self.record,), 0.0, False, name)


class Files:
    """Policy files, and how often they were fetched."""

    def __init__(self) -> None:
        self.content = b"version: STSv1\nmode: enforce\nmx: mx.good.example\nmax_age: 86400\n"
        self.fetched = 0

    async def fetch(self, domain: str) -> bytes:
        del domain
        self.fetched += 1
        if not self.content:
            raise InvalidInput("nothing there")
        return self.content


async def test_a_policy_is_fetched_once_and_held_for_all_workers(database: Database) -> None:
    clock, texts, files = ManualClock(datetime.now(UTC)), Texts(), Files()

    def worker() -> StsCache:
        return StsCache(database=database, dns=texts, fetcher=files, clock=clock)

    first = worker()
    expected = enforce("mx.good.example")
    assert await first.policy_for("good.example") == expected
    assert await first.policy_for("good.example") == expected
    assert files.fetched == 1

    texts.record, files.content = "", b""  # DNS and the web server are gone, or forged
    assert await worker().policy_for("good.example") == expected
    clock.advance(86_401)
    assert await worker().policy_for("good.example") is None

    texts.record = "v=STSv1; id=2;"
    other = worker()
    assert await other.policy_for("good.example") is None
    assert await other.policy_for("good.example") is None
    assert await worker().policy_for("good.example") is None
    assert files.fetched == 2  # the failure is known to all for five minutes
    clock.advance(301)
    files.content = b"version: STSv1\nmode: none\nmax_age: 60\n"
    assert await other.policy_for("good.example") == StsPolicy(Mode.NONE, 60, ())


async def test_a_policy_file_comes_verified_as_text_and_without_redirects(
    certificate: Path, tmp_path: Path
) -> None:
    import asyncio

    own, key = ensure_certificate(tmp_path, "localhost")
    said = [b""]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said[0])
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=server_context(own, key))
    url = f"https://localhost:{server.sockets[0].getsockname()[1]}/.well-known/mta-sts.txt"
    loopback = networks(["127.0.0.0/8", "::1"])
    http = HttpClient(allowed=loopback, tls_context=trusting(own))
    stranger = HttpClient(allowed=loopback, tls_context=trusting(certificate))
    try:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n"
        said[0] = head + b"Content-Type: text/plain; charset=utf-8\r\n\r\nok"
        assert await HttpsFetcher(http).fetch_url(url) == b"ok"
        with pytest.raises(Exception, match="certificate"):
            await HttpsFetcher(stranger).fetch_url(url)
        said[0] = head + b"Content-Type: text/html\r\n\r\nok"
        with pytest.raises(InvalidInput, match="text/html"):
            await HttpsFetcher(http).fetch_url(url)
        said[0] = b"HTTP/1.1 301 Moved\r\nLocation: https://x.example/\r\nContent-Length: 0\r\n\r\n"
        with pytest.raises(InvalidInput, match="301"):
            await HttpsFetcher(http).fetch_url(url)
    finally:
        await http.close()
        await stranger.close()
        server.close()


async def test_tls_results_of_all_workers_add_up_by_day(database: Database) -> None:
    clock = ManualClock(datetime.now(UTC))
    workers = [TlsCounter(database=database, clock=clock) for _ in range(2)]
    for worker in workers:
        worker.note("a.example", "sts", "mx.a.example", "success")
        worker.note("a.example", "sts", "mx.a.example", "certificate-expired")
        worker.note("b.example", "no-policy-found", "mx.b.example", "success")
        await worker.flush()
        await worker.flush()
    today = clock.now().date()
    page = await workers[0].page(today)
    assert [(one.domain, one.result, one.sessions) for one in page] == [
        ("a.example", "certificate-expired", 2),
        ("a.example", "success", 2),
        ("b.example", "success", 2),
    ]
    assert len(await workers[0].of_domain(today, "a.example")) == 2
