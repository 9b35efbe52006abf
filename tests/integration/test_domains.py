"""Sending domains: keys made here, their records looked at in DNS, and mail signed by them.

The verifier of what was signed is dkimpy; DNS is a server of its own on loopback.
"""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from api_platform import VAULT, Platform, start
from dkim_peers import dkimpy_passes
from dns_server import Fault, ScriptedDns
from domains_seen import keys_stand
from sending_world import World

from mailyard.access.vault import Vault
from mailyard.core.clock import ManualClock, SystemClock
from mailyard.core.errors import Unavailable
from mailyard.core.ids import uuid7
from mailyard.net.dns import DnsLimits, Resolver
from mailyard.sending import sign
from mailyard.sending.domain import RETIRED_KEPT, Domain, Domains, fresh_keys
from mailyard.sending.request import EmailRequest
from mailyard.sending.sign import REMEMBERED_S, Signing
from mailyard.storage.database import Database

NOTHING_REMEMBERED = DnsLimits(
    try_timeout_s=0.3, rounds=1, ttl_floor_s=0.0, ttl_ceiling_s=0.0, negative_ceiling_s=0.0,
    failure_s=0.0,
)  # fmt: skip


@pytest.fixture
async def platform(database: Database) -> AsyncIterator[Platform]:
    platform = await start(database)
    yield platform
    await platform.close()


@pytest.fixture
async def zone(platform: Platform) -> AsyncIterator[ScriptedDns]:
    """A DNS server that the platform asks."""
    async with ScriptedDns() as server:
        platform.app.fresh_dns = Resolver([server.address], SystemClock(), NOTHING_REMEMBERED)
        yield server
        await platform.app.fresh_dns.close()


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    world = World(database)
    await world.open()
    yield world
    await world.bus.close()


async def made(platform: Platform, name: str = "shop.example") -> Any:
    reply = await platform.call("POST", "/v1/domains", json={"name": name})
    assert reply.status == 201, reply.body
    return reply.json


async def checked(platform: Platform, domain: Any) -> Any:
    reply = await platform.call("POST", f"/v1/domains/{domain['id']}/check")
    assert reply.status == 200, reply.body
    return reply.json


def publish(zone: ScriptedDns, domain: Any) -> None:
    """Set the records of every key as the answer gives them."""
    for key in domain["keys"]:
        text = key["record"]
        strings = [text[at : at + 255] for at in range(0, len(text), 255)]
        zone.add(key["record_name"], "TXT", " ".join(f'"{string}"' for string in strings))


def states(domain: Any) -> list[str]:
    return [key["state"] for key in domain["keys"]]


# Keys and records ----------------------------------------------------------------------------


async def test_a_new_domain_has_a_key_of_each_kind_that_signs_nothing_yet(
    platform: Platform,
) -> None:
    domain = await made(platform, "Shop.Example.")
    assert domain["name"] == "shop.example"
    assert [key["algorithm"] for key in domain["keys"]] == ["rsa-sha256", "ed25519-sha256"]
    assert states(domain) == ["waiting", "waiting"]
    assert not domain["signs"]
    for key in domain["keys"]:
        assert key["record_name"] == f"{key['selector']}._domainkey.shop.example"
        assert key["record"].startswith("v=DKIM1; k=")
    assert (await platform.call("GET", f"/v1/domains/{domain['id']}")).json == domain
    assert (await platform.call("GET", "/v1/domains")).json["items"] == [domain]


async def test_keys_sign_once_their_records_are_seen(platform: Platform, zone: ScriptedDns) -> None:
    domain = await made(platform)
    early = await checked(platform, domain)
    assert states(early) == ["waiting", "waiting"]
    assert "there is no TXT record" in early["keys"][0]["finding"]
    publish(zone, domain)
    seen = await checked(platform, domain)
    assert states(seen) == ["signing", "signing"]
    assert [key["finding"] for key in seen["keys"]] == ["", ""]
    assert seen["signs"]


async def test_each_key_is_judged_by_itself(platform: Platform, zone: ScriptedDns) -> None:
    domain = await made(platform)
    publish(zone, domain)
    rsa, ed = domain["keys"]
    zone.add(rsa["record_name"], "TXT", f'"{ed["record"]}"')
    seen = await checked(platform, domain)
    assert states(seen) == ["waiting", "signing"]
    assert "another key" in seen["keys"][0]["finding"]


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ('"v=DKIM1; k=rsa; p="', "revoked"),
        ('"v=DKIM1; k=rsa; p=AAAA"', "another key"),
        ('"v=DKIM2; p=x"', "v=DKIM1"),
        ('"something else"', "no DKIM key"),
    ],
)
async def test_what_is_wrong_with_a_record_is_said(
    platform: Platform, zone: ScriptedDns, record: str, says: str
) -> None:
    domain = await made(platform)
    publish(zone, domain)
    zone.add(domain["keys"][0]["record_name"], "TXT", record)
    seen = await checked(platform, domain)
    assert says in seen["keys"][0]["finding"]
    assert "with the record given here" in seen["keys"][0]["finding"]
    assert states(seen) == ["waiting", "signing"]


async def test_a_second_record_beside_the_right_one_is_one_too_many(
    platform: Platform, zone: ScriptedDns
) -> None:
    domain = await made(platform)
    publish(zone, domain)
    ed = domain["keys"][1]
    zone.add(ed["record_name"], "TXT", f'"{ed["record"]}"', '"v=DKIM1; p="')
    seen = await checked(platform, domain)
    assert "there are 2 DKIM keys" in seen["keys"][1]["finding"]


@pytest.mark.parametrize("fault", [Fault.TIMEOUT, Fault.SERVFAIL, Fault.REFUSED])
async def test_dns_that_cannot_say_changes_nothing(
    platform: Platform, zone: ScriptedDns, fault: Fault
) -> None:
    domain = await made(platform)
    publish(zone, domain)
    assert states(await checked(platform, domain)) == ["signing", "signing"]
    for key in domain["keys"]:
        zone.fault(key["record_name"], "TXT", fault)
    seen = await checked(platform, domain)
    assert states(seen) == ["signing", "signing"]
    assert "look again later" in seen["keys"][0]["finding"]


async def test_a_rotation_signs_with_the_old_keys_until_the_new_ones_are_seen(
    platform: Platform, zone: ScriptedDns
) -> None:
    domain = await made(platform)
    publish(zone, domain)
    await checked(platform, domain)
    rotated = (await platform.call("POST", f"/v1/domains/{domain['id']}/rotate")).json
    assert states(rotated) == ["signing", "signing", "waiting", "waiting"]
    assert len({key["selector"] for key in rotated["keys"]}) == 4
    assert states(await checked(platform, domain)) == ["signing", "signing", "waiting", "waiting"]
    again = await platform.call("POST", f"/v1/domains/{domain['id']}/rotate")
    assert again.status == 409
    publish(zone, rotated)
    seen = await checked(platform, domain)
    assert states(seen) == ["retired", "retired", "signing", "signing"]
    async with platform.app.database.connection() as connection:
        kept = await connection.fetchval(
            "SELECT count(*) FROM dkim_key WHERE state = 'retired' AND sealed_key IS NOT NULL"
        )
    assert kept == 0  # the private halves of retired keys are gone


async def test_retired_keys_go_when_nothing_that_they_signed_is_on_its_way(
    world: World,
) -> None:
    clock = world.clock
    domains = Domains(database=world.database, vault=VAULT, clock=clock)
    domain = await signing(world, domains)
    await rotate(world, domains, domain)
    clock.advance(RETIRED_KEPT.total_seconds() + 1)
    async with world.database.transaction() as tx:
        after = await domains.rotate(world.workspace_id, domain.id, await fresh_keys(), tx)
    assert [key.state for key in after.keys] == ["signing", "signing", "waiting", "waiting"]


@pytest.mark.parametrize(
    "name", ["", " ", "localhost", "a@b.example", "exa mple.org", "-x.example", "x..example",
             "[192.0.2.1]", "a" * 64 + ".example", "a\r\n.example"],
)  # fmt: skip
async def test_what_is_no_domain_is_refused(platform: Platform, name: str) -> None:
    reply = await platform.call("POST", "/v1/domains", json={"name": name})
    assert reply.status == 422, reply.body
    assert reply.json["field"] == "name"


async def test_a_domain_stands_once_in_a_workspace_and_may_stand_in_others(
    platform: Platform, world: World
) -> None:
    await made(platform, "shop.example")
    again = await platform.call("POST", "/v1/domains", json={"name": "SHOP.example"})
    assert again.status == 409
    domains = Domains(database=world.database, vault=VAULT)
    async with world.database.transaction() as tx:
        other = await domains.create(world.workspace_id, "shop.example", await fresh_keys(), tx)
    assert other.name == "shop.example"


async def test_an_international_domain_has_its_ascii_form(platform: Platform) -> None:
    assert (await made(platform, "Bücher.example"))["name"] == "xn--bcher-kva.example"


async def test_a_removed_domain_is_gone_with_its_keys(platform: Platform) -> None:
    domain = await made(platform)
    gone = await platform.call("DELETE", f"/v1/domains/{domain['id']}")
    assert gone.status == 204
    assert (await platform.call("GET", f"/v1/domains/{domain['id']}")).status == 404
    async with platform.app.database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM dkim_key") == 0


async def test_no_private_key_lies_open_in_the_database(platform: Platform) -> None:
    await made(platform)
    async with platform.app.database.connection() as connection:
        sealed = await connection.fetch("SELECT id, sealed_key FROM dkim_key")
    for row in sealed:
        assert b"PRIVATE" not in row["sealed_key"]
        assert VAULT.open(row["sealed_key"], row["id"].bytes).startswith(b"-----BEGIN PRIVATE")


# Signing -------------------------------------------------------------------------------------


async def signing(world: World, domains: Domains, name: str = "example.org") -> Domain:
    """A domain whose keys sign."""
    async with world.database.transaction() as tx:
        domain = await domains.create(world.workspace_id, name, await fresh_keys(), tx)
        return await domains.note(world.workspace_id, domain.id, keys_stand(domain), tx)


async def rotate(world: World, domains: Domains, domain: Domain) -> Domain:
    """New keys in place of those that sign."""
    async with world.database.transaction() as tx:
        after = await domains.rotate(world.workspace_id, domain.id, await fresh_keys(), tx)
        return await domains.note(world.workspace_id, domain.id, keys_stand(after), tx)


async def sent(world: World, mails: int) -> list[bytes]:
    """The contents of the mails, once so many have left."""
    async with asyncio.timeout(30):
        while len(world.ledger.mails) < mails:
            await asyncio.sleep(0.02)
    return [mail.content for mail in world.ledger.mails]


def verified(content: bytes, domain: Domain) -> list[bool]:
    """Whether each of the mail's signatures is good for another's eyes."""
    return dkimpy_passes(content, {key.record_name: key.record.encode() for key in domain.keys})


async def test_transactional_mail_is_signed_twice_and_verifies(world: World) -> None:
    domains = Domains(database=world.database, vault=VAULT, clock=world.clock)
    domain = await signing(world, domains)
    await world.emails.accept(
        world.workspace_id,
        EmailRequest(
            sender="App <app@example.org>", to=["ada@example.com"], subject="Grüße", text="Ä\n\n\n"
        ),
    )
    async with world.workers():
        (content,) = await sent(world, 1)
    assert verified(content, domain) == [True, True]


async def test_every_mail_of_a_campaign_is_signed_with_its_unsubscribe_headers(
    world: World,
) -> None:
    domains = Domains(database=world.database, vault=VAULT, clock=world.clock)
    domain = await signing(world, domains)
    await world.add_contacts(20)
    campaign_id = await world.campaign()
    await world.campaigns.start(world.workspace_id, campaign_id)
    async with world.workers():
        contents = await sent(world, 20)
    for content in contents:
        assert verified(content, domain) == [True, True]
        head = content.partition(b"\r\n\r\n")[0].lower()
        listed = head.partition(b"h=")[2].partition(b";")[0]
        assert b"list-unsubscribe:" in listed
        assert b"list-unsubscribe-post" in listed


async def test_mail_from_another_domain_leaves_unsigned(world: World) -> None:
    domains = Domains(database=world.database, vault=VAULT, clock=world.clock)
    await signing(world, domains, "elsewhere.example")
    await world.emails.accept(
        world.workspace_id,
        EmailRequest(sender="app@example.org", to=["ada@example.com"], subject="s", text="t"),
    )
    async with world.workers():
        (content,) = await sent(world, 1)
    assert b"DKIM-Signature" not in content


async def test_another_workspaces_keys_sign_nothing_for_us(
    world: World, database: Database
) -> None:
    domains = Domains(database=database, vault=VAULT, clock=world.clock)
    await signing(world, domains)
    other = World(database)
    await other.open()
    signers = Signing(database=database, vault=VAULT, clock=world.clock)
    assert len(await signers.signers(world.workspace_id, "example.org")) == 2
    assert await signers.signers(other.workspace_id, "example.org") == ()
    await other.bus.close()


async def test_what_is_forgotten_for_want_of_room_is_looked_up_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign, "_DOMAINS_REMEMBERED", 1)
    domains = Domains(database=world.database, vault=VAULT)
    names = [f"shop{number}.example" for number in range(4)]
    for name in names:
        await signing(world, domains, name)
    signers = Signing(database=world.database, vault=VAULT)
    for known in range(1, len(names) + 1):
        found = await signers.signers_of([(world.workspace_id, name) for name in names[:known]])
        assert [len(one) for one in found.values()] == [2] * known


async def test_a_rotation_is_heard_of_within_seconds(world: World) -> None:
    clock = ManualClock()
    domains = Domains(database=world.database, vault=VAULT)
    signers = Signing(database=world.database, vault=VAULT, clock=clock)
    domain = await signing(world, domains)
    first = await signers.signers(world.workspace_id, "example.org")
    await rotate(world, domains, domain)
    assert await signers.signers(world.workspace_id, "example.org") == first
    clock.advance(REMEMBERED_S + 0.1)
    second = await signers.signers(world.workspace_id, "example.org")
    assert {one.key_name for one in second}.isdisjoint({one.key_name for one in first})


async def test_mail_that_should_be_signed_waits_for_its_key(world: World) -> None:
    domains = Domains(database=world.database, vault=VAULT)
    domain = await signing(world, domains)
    lost = Signing(database=world.database, vault=Vault(lambda: [b"x" * 32]))
    with pytest.raises(Unavailable, match="MAILYARD_MASTER_KEY"):
        await lost.signers(world.workspace_id, "example.org")
    asked = asyncio.Event()

    async def ask(*arguments: Any) -> Any:
        asked.set()
        return await lost.signers_of(*arguments)

    await world.emails.accept(
        world.workspace_id,
        EmailRequest(sender="app@example.org", to=["ada@example.com"], subject="s", text="t"),
    )
    async with world.workers() as (worker,):
        found, worker.deliverer.signing = worker.deliverer.signing, SimpleNamespace(signers_of=ask)
        await asyncio.wait_for(asked.wait(), 20)
        await asyncio.sleep(0.2)
        assert world.ledger.mails == []
        worker.deliverer.signing = found
        world.clock.advance(3600)  # past the pause before the next attempt
        (content,) = await sent(world, 1)
    assert verified(content, domain) == [True, True]


async def test_a_changed_master_key_leaves_nothing_under_the_old_one(world: World) -> None:
    old, new = b"o" * 32, b"n" * 32
    before = Domains(database=world.database, vault=Vault(lambda: [old]))
    for number in range(3):
        await signing(world, before, f"shop{number}.example")
    both = Domains(database=world.database, vault=Vault(lambda: [new, old]))
    assert await both.seal_anew(limit=4) == 4
    assert await both.seal_anew(limit=4) == 2
    assert await both.seal_anew(limit=4) == 0
    only_new = Signing(database=world.database, vault=Vault(lambda: [new]))
    assert len(await only_new.signers(world.workspace_id, "shop2.example")) == 2


async def test_who_keeps_no_secret_needs_no_master_key(database: Database) -> None:
    def none() -> list[bytes]:
        raise AssertionError("nobody has asked for a secret")

    assert await Domains(database=database, vault=Vault(none)).seal_anew() == 0
    signers = Signing(database=database, vault=Vault(none))
    assert await signers.signers(uuid7(), "example.org") == ()
