"""Providers and routes as they are kept and as the workers follow them, over the API and below."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from api_platform import Platform, Reply, start
from provider_world import Ways
from sending_world import World, told, until_told
from smtp_wire import NotingHandler, listening

from mailyard.core.clock import SystemClock
from mailyard.core.ids import PROVIDER, parse_type_id
from mailyard.proving.own_platform import free_port
from mailyard.sending.provider import NewProvider, ProviderChange
from mailyard.sending.provider_health import ProviderWatch
from mailyard.sending.request import EmailRequest
from mailyard.sending.route.breaker import BreakerOptions
from mailyard.sending.routing import StoredLeg
from mailyard.sending.states import State
from mailyard.storage.database import Database

SMTP = {"host": "smtp.example.org", "username": "app"}
SECRET = "a very secret word"


@pytest.fixture
async def platform(database: Database) -> AsyncIterator[Platform]:
    platform = await start(database)
    yield platform
    await platform.close()


async def add(platform: Platform, name: str, key: str = "", **more: object) -> Reply:
    body = {"name": name, "kind": "smtp", "settings": SMTP, "secrets": {"password": SECRET}, **more}
    return await platform.call("POST", "/v1/providers", json=body, key=key)


async def test_a_secret_goes_in_and_never_comes_out(platform: Platform) -> None:
    made = await add(platform, "office")
    assert made.status == 201, made.body
    path = f"/v1/providers/{made.json['id']}"
    changed = await platform.call("PATCH", path, json={"settings": SMTP | {"port": 465}})
    assert changed.json["settings"]["port"] == 465 and changed.json["secrets"] == ["password"]
    replies = [made, changed, await platform.call("GET", path)]
    replies += [
        await platform.call("GET", "/v1/providers"),
        await platform.call("GET", "/v1/audit"),
    ]
    assert all(reply.status < 300 and SECRET.encode() not in reply.body for reply in replies)
    opened = await platform.app.providers.open(
        platform.workspace_id, parse_type_id(PROVIDER, made.json["id"])
    )
    assert opened.secrets == {"password": SECRET}
    rows = await platform.app.database.fetch("SELECT sealed_secrets FROM provider")
    assert SECRET.encode() not in rows[0]["sealed_secrets"]


_WRONG: tuple[tuple[dict[str, Any], str], ...] = (
    ({"kind": "pigeon"}, "kind"),
    ({"name": "relay"}, "name"),
    ({"name": "With Space"}, "name"),
    ({"settings": {"host": "x", "colour": 1}}, "settings"),
    ({"settings": {"host": "x", "port": "25"}}, "settings.port"),
    ({"settings": {"host": "x"}, "secrets": {"password": "p"}}, "settings.username"),
    ({"settings": SMTP | {"tls": "none"}}, "settings.tls"),
    ({"settings": SMTP | {"verify": False}}, "settings.verify"),
    ({"secrets": {"pin": "1"}}, "secrets"),
    ({"secrets": {"password": "a\nb"}}, "secrets.password"),
    ({"kind": "postmark", "settings": {}, "secrets": {}}, "secrets.server_token"),
)


async def test_what_is_wrong_is_named(platform: Platform) -> None:
    for wrong, field in _WRONG:
        body = {"name": "office", "kind": "smtp", "settings": SMTP,
                "secrets": {"password": SECRET}}  # fmt: skip
        reply = await platform.call("POST", "/v1/providers", json=body | wrong)
        assert reply.status == 422 and f'"{field}"'.encode() in reply.body, (wrong, reply.body)
    assert (await platform.call("GET", "/v1/providers")).json["items"] == []


async def test_names_routes_and_removal_hold_together(platform: Platform) -> None:
    made = await add(platform, "office")
    path = f"/v1/providers/{made.json['id']}"
    assert (await add(platform, "office")).status == 409
    route = {"name": "all", "legs": [{"provider": "office"}, {"provider": "relay", "order": 1}]}
    unknown = {"name": "all", "legs": [{"provider": "nobody"}]}
    refused = await platform.call("PUT", "/v1/routes", json={"routes": [unknown]})
    assert refused.status == 422 and b"routes[0].legs[0].provider" in refused.body
    some = route | {"when": {"tags": ["code"]}}
    refused = await platform.call("PUT", "/v1/routes", json={"routes": [some]})
    assert refused.status == 422, "the last one takes what is left"
    put = await platform.call("PUT", "/v1/routes", json={"routes": [some, route | {"name": "b"}]})
    assert put.status == 200 and put.json["in_force"] == "own", put.body
    assert (await platform.call("GET", "/v1/routes")).json["items"] == put.json["items"]
    assert (await platform.call("DELETE", path)).status == 409
    assert (await platform.call("PUT", "/v1/routes", json={"routes": []})).status == 200
    assert (await platform.call("DELETE", path)).status == 204
    again = await add(platform, "office")
    assert again.status == 409 and b"history" in again.body


async def test_the_operator_shares_and_nobody_else_sees_what_is_behind_it(
    platform: Platform,
) -> None:
    _, other = await platform.other_workspace()
    assert (await add(platform, "mine", key=other, shared=True)).status == 403
    shared = await add(platform, "ours", shared=True)
    assert shared.status == 201
    (seen,) = (await platform.call("GET", "/v1/providers", key=other)).json["items"]
    assert (seen["name"], seen["own"], seen["settings"]) == ("ours", False, {})
    change = await platform.call(
        "PATCH", f"/v1/providers/{seen['id']}", json={"enabled": False}, key=other
    )
    assert change.status == 409
    assert (await add(platform, "ours", key=other)).status == 409
    everybody = {"name": "all", "legs": [{"provider": "ours"}]}
    assert (
        await platform.call("PUT", "/v1/routes", json={"routes": [everybody], "shared": True})
    ).status == 200
    theirs = await platform.call("GET", "/v1/routes", key=other)
    assert theirs.json == {"items": [], "in_force": "shared"}
    own = await platform.call("PUT", "/v1/routes", json={"routes": [everybody]}, key=other)
    assert own.status == 200
    gone = await platform.call("DELETE", f"/v1/providers/{seen['id']}")
    assert gone.status == 409


# Below the API: what workers do with what is stored.


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    world = World(database, SystemClock())
    await world.open()
    yield world
    await world.bus.close()


async def send(world: World, *to: str) -> None:
    await world.emails.accept(
        world.workspace_id,
        EmailRequest(sender="a@example.org", to=list(to), subject="x", text="y", type="code"),
    )


async def test_a_single_mail_is_passed_on_with_its_way_written_down_before(world: World) -> None:
    """The dead one is named, refuses, and the other is named: the story says both."""
    handler = NotingHandler()
    ways = Ways(world)
    async with listening(handler) as listener:
        await ways.add_sink("dead", free_port())
        await ways.add_sink("well", listener.port)
        await ways.route(StoredLeg("dead", order=0), StoredLeg("well", order=1))
        async with ways.worker():
            await send(world, "ada@example.com", "bob@example.com")
            await until_told(world, lambda found: all(one.state is State.ACCEPTED for one in found))
    assert len(handler.stored) in (1, 2), "the recipients of one mail may go together"
    for _, story in await told(world):
        assert [(event.state, event.transport) for event in story] == [
            (State.QUEUED, ""),
            (State.DEFERRED, "dead"),
            (State.HANDED_OFF, "well"),
            (State.ACCEPTED, "well"),
        ]


async def test_what_may_have_been_taken_stays_with_who_may_have_it(world: World) -> None:
    """A worker died after it had named provider one. The route says two by now; one has it."""
    one, two = NotingHandler(), NotingHandler()
    ways = Ways(world)
    async with listening(one) as first, listening(two) as second:
        await ways.add_sink("one", first.port)
        await ways.add_sink("two", second.port)
        await ways.route(StoredLeg("two"))
        await send(world, "ada@example.com")
        (job,) = await world.engine.lease(["email-send"], 10, 0.0, "dead worker")
        await world.database.execute(
            "UPDATE delivery SET state = 'handed_off', fence = $1, attempts = 1, transport = 'one'",
            job.token,
        )
        await world.engine.retry([job], 0.0, "its worker died")
        async with ways.worker():
            await until_told(world, lambda found: found[0].state is State.ACCEPTED)
    assert (len(one.stored), len(two.stored)) == (1, 0)
    ((delivery, story),) = await told(world)
    assert delivery.transport == "one"
    assert (State.UNKNOWN, "one") in [(event.state, event.transport) for event in story]


async def test_workers_follow_changes_and_tell_each_other_of_outages(world: World) -> None:
    handler = NotingHandler()
    options = BreakerOptions(in_a_row=1, least=1)
    ways, others = Ways(world, options=options), Ways(world, options=options)
    watch = ProviderWatch(database=world.database)
    async with listening(handler) as listener:
        dead = await ways.add_sink("dead", free_port())
        await ways.add_sink("well", listener.port)
        await others.upkeep.open()
        async with ways.worker():
            await send(world, "ada@example.com")
            await until_told(world, lambda found: found[0].transport == "ledger")
            await ways.route(StoredLeg("dead", order=0), StoredLeg("well", order=1))
            async with asyncio.timeout(5):  # the bus says it
                while ways.outbound.choose(world.workspace_id, "", "", "x@y.example", ()) != "dead":
                    await asyncio.sleep(0.01)
            await send(world, "bob@example.com")
            await until_told(world, lambda found: all(one.state is State.ACCEPTED for one in found))
            async with asyncio.timeout(5):
                while others.outbound.choose(world.workspace_id, "", "", "x@y.example", ()) != (
                    "well"
                ):
                    await asyncio.sleep(0.01)
            health = (await watch.health(world.workspace_id, [dead]))[dead.id]
            assert (health.position, health.later) == ("open", 1) and "connect" in health.why
            stranger = (await watch.health(world.list_id, [dead]))[dead.id]
            assert (stranger.position, stranger.why, stranger.later) == ("open", "", 0)
            assert [event.position for event in await watch.events(world.workspace_id, dead)][
                -1
            ] == "open"
            async with world.database.transaction() as tx:
                await ways.book.change(
                    world.workspace_id, dead.id, ProviderChange(enabled=False), tx
                )
            ways.book.changed()
        await others.outbound.close(1.0)
        await others.upkeep.close()
        await others.http.close()


async def test_signatures_spare_what_a_provider_on_the_routes_writes_anew(world: World) -> None:
    ways = Ways(world)
    ses = {"region": "eu-west-1", "access_key_id": "A"}
    await ways.add(NewProvider("ses", "ses", ses, {"secret_access_key": "k"}))
    await ways.upkeep.look()
    assert not ways.outbound.rewrites(world.workspace_id), "no route names it"
    await ways.route(StoredLeg("relay"), StoredLeg("ses", order=1))
    await ways.upkeep.look()
    assert ways.outbound.rewrites(world.workspace_id)
    assert not ways.outbound.rewrites(world.list_id)
    await ways.http.close()
