"""All records of a sending domain: which to set, what is wrong with each, what to write instead.

DNS is a server of its own on loopback, and so is the mail server whose TLS is looked at.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from api_platform import VAULT, Platform, start
from dns_server import Fault, ScriptedDns
from domains_seen import keys_stand
from sending_world import World

from mailyard.app.own_side import own_side
from mailyard.core.clock import SystemClock
from mailyard.net.dns import DnsLimits, Resolver
from mailyard.net.smtp_probe import TlsState, probe_tls
from mailyard.net.tls import client_context, ensure_certificate, server_context
from mailyard.protocol.dns_records import Purpose, State, Verdict
from mailyard.sending.domain import Domains, fresh_keys
from mailyard.sending.domain_check import OwnSide
from mailyard.sending.request import EmailRequest
from mailyard.sending.return_path import ReturnPaths
from mailyard.sending.source_file import read_sources
from mailyard.settings import load_settings
from mailyard.storage.database import Database

HOST = "mail.yard.example"
NAMES = DnsLimits(
    try_timeout_s=0.3, rounds=1, ttl_floor_s=0.0, ttl_ceiling_s=0.0, negative_ceiling_s=0.0,
    failure_s=0.0,
)  # fmt: skip


@pytest.fixture
async def zone() -> AsyncIterator[ScriptedDns]:
    async with ScriptedDns() as server:
        server.add(HOST, "A", "127.0.0.1")
        yield server


@pytest.fixture
async def platform(database: Database, zone: ScriptedDns) -> AsyncIterator[Platform]:
    platform = await start(database)
    platform.app.fresh_dns = Resolver([zone.address], SystemClock(), NAMES)
    platform.app.own_side = OwnSide(
        hello=HOST,
        spf_terms=("ip4:192.0.2.1",),
        takes_returns=True,
        addresses=(ip_address("192.0.2.1"),),
        smtp_port=9,  # nobody listens there
    )
    yield platform
    await platform.app.fresh_dns.close()
    await platform.close()


async def ask(platform: Platform, method: str, path: str, body: Any = None) -> Any:
    reply = await platform.call(method, path, json=body)
    assert reply.status in (200, 201), reply.body
    return reply.json


def publish(zone: ScriptedDns, domain: Any) -> None:
    """Set every record as the answer gives it, from its line of a zone file."""
    for record in domain["records"]:
        name, _, kind, value = record["zone"].split(" ", 3)
        zone.add(name.removesuffix("."), kind, value)


def states(domain: Any) -> dict[str, str]:
    every = [*domain["records"], *domain["checks"]]
    return {f"{one['purpose']} {one['name'].partition('.')[0]}": one["state"] for one in every}


async def test_what_is_given_to_copy_is_what_the_check_wants(
    platform: Platform, zone: ScriptedDns
) -> None:
    domain = await ask(
        platform, "POST", "/v1/domains", {"name": "shop.example", "return_path": "bounces"}
    )
    assert (domain["status"], domain["checked_at"]) == ("unchecked", None)
    assert {one["state"] for one in domain["records"]} == {"unchecked"}
    assert [(one["purpose"], one["kind"], one["required"]) for one in domain["records"]] == [
        ("dkim", "TXT", True),
        ("dkim", "TXT", True),
        ("return_path", "MX", True),
        ("return_path_spf", "TXT", True),
        ("spf", "TXT", False),
        ("dmarc", "TXT", True),
    ]
    publish(zone, domain)
    zone.add("1.2.0.192.in-addr.arpa", "PTR", f"{HOST}.")
    zone.add(HOST, "A", "192.0.2.1")
    seen = await ask(platform, "POST", f"/v1/domains/{domain['id']}/check")
    assert seen["status"] == "ready"
    assert seen["signs"] and seen["return_path_ready"]
    found = states(seen)
    assert found.pop(f"tls {HOST.partition('.')[0]}") == "unknown"  # nobody listens there
    assert set(found.values()) == {"good"}, found
    assert "alignment _dmarc" in found and "address_name 192" in found
    assert seen == await ask(platform, "GET", f"/v1/domains/{domain['id']}")


def test_the_addresses_of_the_pools_are_among_those_that_we_send_from(tmp_path: Path) -> None:
    """Each under the name that it says; what is private is behind a public one of the settings."""
    file = tmp_path / "sources.toml"
    file.write_text(
        '[pool.default]\n[[pool.default.address]]\nipv4 = "9.9.9.9"\nhello = "mx2.yard.dev"\n'
        '[[pool.default.address]]\nipv4 = "9.9.9.10"\nipv6 = "2620:fe::9"\n'
        '[[pool.default.address]]\nipv4 = "10.0.0.7"\n'
    )
    told = {"MAILYARD_HOSTNAME": "mx.yard.dev", "MAILYARD_SENDING_ADDRESSES": "9.9.9.11"}
    settings = load_settings(told | {"MAILYARD_SOURCES_FILE": str(file)})
    pools = read_sources(str(file), file.read_text(), settings.smtp_name)
    own = own_side(settings, list(pools["default"].hosts.values()))
    assert {name: [str(one) for one in each] for name, each in own.by_name().items()} == {
        "mx.yard.dev": ["9.9.9.11", "9.9.9.10", "2620:fe::9"],
        "mx2.yard.dev": ["9.9.9.9"],
    }
    assert "ip4:9.9.9.9" in own.spf_terms and "ip6:2620:fe::9" in own.spf_terms
    assert not any("10.0.0.7" in term for term in own.spf_terms)


async def test_each_of_our_addresses_is_asked_for_the_name_that_it_says(
    platform: Platform, zone: ScriptedDns
) -> None:
    first, second = ip_address("192.0.2.1"), ip_address("192.0.2.2")
    platform.app.own_side = OwnSide(
        hello=HOST, addresses=(first, second), names={second: "mx2.yard.example"}, smtp_port=9
    )
    for number, name in ((1, HOST), (2, "mx2.yard.example")):
        zone.add(f"{number}.2.0.192.in-addr.arpa", "PTR", f"{name}.")
        zone.add(name, "A", f"192.0.2.{number}")
    domain = await ask(platform, "POST", "/v1/domains", {"name": "shop.example"})
    seen = await ask(platform, "POST", f"/v1/domains/{domain['id']}/check")
    checks = [(one["purpose"], one["name"], one["state"]) for one in seen["checks"]]
    names = {name: state for purpose, name, state in checks if purpose == "address_name"}
    assert names == {"192.0.2.1": "good", "192.0.2.2": "good"}
    assert [name for purpose, name, _ in checks if purpose == "tls"] == [HOST], (
        "the other only sends"
    )


async def test_each_record_says_what_is_wrong_with_it_and_what_to_write(
    platform: Platform, zone: ScriptedDns
) -> None:
    domain = await ask(
        platform, "POST", "/v1/domains", {"name": "shop.example", "return_path": "bounces"}
    )
    publish(zone, domain)
    zone.add("bounces.shop.example", "MX", "5 elsewhere.example.")
    # Eleven names to ask for, where receivers stop at ten; and our server is not among them.
    for number in range(11):
        zone.add(f"s{number}.example", "TXT", '"v=spf1 -all"')
    includes = " ".join(f"include:s{number}.example" for number in range(11))
    zone.add("bounces.shop.example", "TXT", f'"v=spf1 {includes} -all"')
    zone.add("_dmarc.shop.example", "TXT", '"v=DMARC1; p=sometimes"')
    zone.add("1.2.0.192.in-addr.arpa", "PTR", "host-192-0-2-1.provider.example.")
    seen = await ask(platform, "POST", f"/v1/domains/{domain['id']}/check")
    by_purpose = {one["purpose"]: one for one in seen["records"]}
    mx, spf, dmarc = (by_purpose[name] for name in ("return_path", "return_path_spf", "dmarc"))
    assert mx["state"] == "wrong"
    assert "elsewhere.example and not to us" in mx["problem"]
    assert (mx["write"], mx["remove"]) == (f"10 {HOST}", ["5 elsewhere.example"])
    assert spf["state"] == "wrong"
    assert "11 DNS lookups where receivers stop at 10" in spf["problem"]
    assert "ip4:192.0.2.1" in spf["write"]
    assert dmarc["state"] == "wrong"
    assert "sometimes" in dmarc["problem"]
    assert dmarc["write"] == "v=DMARC1; p=none; rua=mailto:postmaster@shop.example"
    pointer = next(one for one in seen["checks"] if one["purpose"] == "address_name")
    assert pointer["state"] == "wrong"
    assert (pointer["name"], pointer["write"]) == ("192.0.2.1", HOST)
    assert (seen["status"], seen["return_path_ready"]) == ("wrong", False)
    assert seen["signs"]  # what is wrong elsewhere does not keep the keys from signing


async def test_a_return_path_is_used_from_its_check_until_its_records_are_gone(
    platform: Platform, zone: ScriptedDns
) -> None:
    domain = await ask(platform, "POST", "/v1/domains", {"name": "shop.example"})
    where = f"/v1/domains/{domain['id']}"
    for wrong in ("shop.example", "a b", "*"):
        reply = await platform.call("PATCH", where, json={"return_path": wrong})
        assert (reply.status, reply.json.get("field")) == (422, "return_path"), reply.body
    changed = await ask(platform, "PATCH", where, {"return_path": "Bounces.shop.example."})
    assert (changed["return_path"], changed["return_path_ready"]) == ("bounces.shop.example", False)
    publish(zone, changed)
    assert (await ask(platform, "POST", f"{where}/check"))["return_path_ready"]
    zone.fault("bounces.shop.example", "MX", Fault.SERVFAIL)
    assert (await ask(platform, "POST", f"{where}/check"))["return_path_ready"]
    zone.fault("bounces.shop.example", "MX", None)
    zone.add("bounces.shop.example", "MX", "5 elsewhere.example.")
    assert not (await ask(platform, "POST", f"{where}/check"))["return_path_ready"]


async def test_without_a_name_of_its_own_an_installation_offers_no_return_path(
    platform: Platform,
) -> None:
    platform.app.own_side = OwnSide()
    body = {"name": "shop.example", "return_path": "bounces"}
    reply = await platform.call("POST", "/v1/domains", json=body)
    assert reply.status == 422
    assert "MAILYARD_HOSTNAME" in reply.json["detail"]
    domain = await ask(platform, "POST", "/v1/domains", {"name": "shop.example"})
    assert [one["purpose"] for one in domain["records"]] == ["dkim", "dkim", "dmarc"]


async def test_the_policy_of_the_organisation_counts_for_a_domain_below(
    platform: Platform, zone: ScriptedDns
) -> None:
    zone.add("_dmarc.shop.example", "TXT", '"v=DMARC1; p=reject; rua=mailto:d@shop.example"')
    domain = await ask(platform, "POST", "/v1/domains", {"name": "a.b.shop.example"})
    seen = await ask(platform, "POST", f"/v1/domains/{domain['id']}/check")
    assert {one["purpose"]: one["state"] for one in seen["records"]}["dmarc"] == "good"


# What mail carries -----------------------------------------------------------------------------


async def test_mail_leaves_under_the_return_path_of_its_domain(database: Database) -> None:
    world = World(database)
    world.return_paths = paths = ReturnPaths(domain="returns.yard.example", keys=[b"k" * 32])
    await world.open()
    domains = Domains(database=database, vault=VAULT, clock=world.clock)
    async with database.transaction() as tx:
        keys = await fresh_keys()
        domain = await domains.create(world.workspace_id, "example.org", keys, tx, "bounces")
        path = Verdict(Purpose.RETURN_PATH, domain.return_path, "MX", State.GOOD)
        await domains.note(world.workspace_id, domain.id, [*keys_stand(domain), path], tx)
    async with world.workers():
        for sender in ("app@example.org", "app@example.net"):
            await world.emails.accept(
                world.workspace_id,
                EmailRequest(sender=sender, to=["ada@example.com"], subject="s", text="t"),
            )
        await world.add_contacts(2)
        await world.campaigns.start(world.workspace_id, await world.campaign())
        async with asyncio.timeout(30):
            while len(world.ledger.mails) < 4:
                await asyncio.sleep(0.02)
    came_from = sorted(mail.reverse_path.partition("@")[2] for mail in world.ledger.mails)
    assert came_from == ["bounces.example.org"] * 3 + ["returns.yard.example"]
    assert all(paths.delivery_of(mail.reverse_path) for mail in world.ledger.mails)
    await world.bus.close()


# TLS of our own mail server --------------------------------------------------------------------


@asynccontextmanager
async def mail_server(
    context: ssl.SSLContext | None, *, greeting: bytes = b"220 hi\r\n"
) -> AsyncIterator[int]:
    """A server that can say hello and, with a context, STARTTLS; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        try:
            while line := await reader.readline():
                if line.startswith(b"EHLO"):
                    offer = b"250-STARTTLS\r\n" if context else b""
                    writer.write(b"250-it.is.me\r\n" + offer + b"250 8BITMIME\r\n")
                elif context is not None:
                    writer.write(b"220 go\r\n")
                    await writer.start_tls(context)
        except (OSError, ssl.SSLError):
            pass  # whoever does not trust us has gone
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_tls_of_a_mail_server_is_tried_as_strangers_would(
    zone: ScriptedDns, tmp_path: Path
) -> None:
    resolver = Resolver([zone.address], SystemClock(), NAMES)
    certificate, key = ensure_certificate(tmp_path, HOST)
    trusting = client_context(verify=True)
    trusting.load_verify_locations(certificate)

    async def probed(port: int, context: ssl.SSLContext | None = None) -> tuple[TlsState, str]:
        found = await probe_tls(HOST, resolver, hello=HOST, port=port, context=context)
        return found.state, found.why

    async with mail_server(server_context(certificate, key)) as port:
        assert await probed(port, trusting) == (TlsState.VERIFIED, "")
        state, why = await probed(port)
        assert (state, "self-signed" in why) == (TlsState.UNVERIFIED, True)
    async with mail_server(None) as port:
        assert await probed(port) == (TlsState.NONE, f"{HOST} does not offer STARTTLS")
    async with mail_server(None, greeting=b"554 go away\r\n") as port:
        assert (await probed(port))[0] is TlsState.AWAY
    async with mail_server(None, greeting=b"x" * 100_000) as port:
        assert (await probed(port))[0] is TlsState.AWAY
    await resolver.close()
