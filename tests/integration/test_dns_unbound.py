"""The resolver against Unbound, which validates DNSSEC: what is authenticated, what is bogus."""

import asyncio
import os
import socket
import subprocess
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path

import dns.dnssec
import dns.zone
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from mailyard.core.clock import SystemClock
from mailyard.net.dns import DnsLimits, Resolver
from mailyard.net.dns_servers import DnsServer
from mailyard.protocol.dns_answer import (
    Answer,
    MxRecord,
    NoName,
    NoRecords,
    TemporaryFailure,
    TlsaRecord,
    Trouble,
)

UNBOUND = Path("/usr/sbin/unbound")
ZONE = f"""$TTL 300
@ SOA ns admin 1 3600 600 86400 60
@ NS ns
@ MX 10 mx
@ TXT "v=spf1 " "-all"
ns A 127.0.0.1
mx A 192.0.2.1
alias CNAME mx
altered A 192.0.2.2
_25._tcp.mx TLSA 3 1 1 {"ab" * 32}
"""
CONFIGURATION = """server:
  interface: 127.0.0.1@{port}
  do-daemonize: no
  chroot: ""
  username: ""
  directory: "{folder}"
  pidfile: ""
  use-syslog: no
  ede: yes
  local-zone: "test." nodefault
  trust-anchor: "signed.test. IN DNSKEY {key}"
auth-zone:
  name: "signed.test"
  zonefile: "{folder}/signed.zone"
  for-downstream: no
  for-upstream: yes
  fallback-enabled: no
"""

pytestmark = pytest.mark.skipif(
    not UNBOUND.exists() and os.environ.get("CI") != "true",
    reason="no unbound; see tests/services",
)


def signed_zone() -> tuple[str, str]:
    """(the zone with its signatures, its key); one address was altered after signing."""
    many = "".join(f"many MX {number} host{number}\n" for number in range(100))
    zone = dns.zone.from_text(ZONE + many, origin="signed.test.", relativize=False)
    private = ec.generate_private_key(ec.SECP256R1())
    algorithm = dns.dnssec.Algorithm.ECDSAP256SHA256
    key = dns.dnssec.make_dnskey(private.public_key(), algorithm, flags=257)
    with zone.writer() as transaction:
        dns.dnssec.sign_zone(
            zone, transaction, keys=[(private, key)], lifetime=86_400, add_dnskey=True
        )
    return zone.to_text(relativize=False).replace("192.0.2.2", "192.0.2.66"), key.to_text()


@pytest.fixture
async def resolver(tmp_path: Path) -> AsyncIterator[Resolver]:
    text, key = signed_zone()
    (tmp_path / "signed.zone").write_text(text)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    configuration = tmp_path / "unbound.conf"
    configuration.write_text(CONFIGURATION.format(port=port, folder=tmp_path, key=key))
    server = subprocess.Popen(
        [UNBOUND, "-d", "-c", configuration], stderr=(tmp_path / "log").open("w")
    )
    servers = [DnsServer("127.0.0.1", port, validates=True)]
    resolver = Resolver(servers, SystemClock(), DnsLimits(failure_s=0))
    for _ in range(200):
        if not isinstance(await resolver.ns("signed.test"), TemporaryFailure):
            break
        await asyncio.sleep(0.05)
    yield resolver
    await resolver.close()
    server.terminate()
    server.wait()


async def test_what_a_validating_server_says(resolver: Resolver) -> None:
    mx = await resolver.mx("signed.test")
    assert isinstance(mx, Answer) and 200 < mx.ttl_s <= 300
    assert mx == Answer((MxRecord(10, "mx.signed.test"),), mx.ttl_s, True, "signed.test")
    alias = await resolver.addresses("alias.signed.test")
    assert isinstance(alias, Answer) and 200 < alias.ttl_s <= 300
    assert alias == Answer((IPv4Address("192.0.2.1"),), alias.ttl_s, True, "mx.signed.test")
    tlsa = await resolver.tlsa("mx.signed.test")
    assert isinstance(tlsa, Answer) and tlsa.authenticated
    assert tlsa.records == (TlsaRecord(3, 1, 1, b"\xab" * 32),)
    txt = await resolver.txt("signed.test")
    assert isinstance(txt, Answer) and txt.records == ("v=spf1 -all",)


async def test_absence_is_authenticated_too(resolver: Resolver) -> None:
    assert await resolver.mx("absent.signed.test") == NoName(60, True)
    assert await resolver.txt("mx.signed.test") == NoRecords(60, True)


async def test_a_hundred_hosts_come_by_tcp(resolver: Resolver) -> None:
    many = await resolver.mx("many.signed.test")
    assert isinstance(many, Answer) and many.authenticated
    assert len(many.records) == 100


async def test_an_altered_record_is_a_temporary_failure_that_says_why(resolver: Resolver) -> None:
    altered = await resolver.addresses("altered.signed.test")
    assert isinstance(altered, TemporaryFailure)
    assert altered.trouble is Trouble.SERVER_FAILURE
    assert "BOGUS" in altered.detail
