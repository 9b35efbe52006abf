"""API keys: shown once, stored hashed, revoked everywhere when the call returns."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator

import pytest
from api_platform import Platform, start

from mailyard.access.key import ApiKeys
from mailyard.cache.kind import KEY
from mailyard.cache.layered import LayeredCache
from mailyard.core import ids
from mailyard.core.clock import ManualClock
from mailyard.core.errors import NotFound
from mailyard.storage.database import Database


@pytest.fixture
async def platform(database: Database) -> AsyncIterator[Platform]:
    platform = await start(database)
    yield platform
    await platform.close()


async def test_a_key_is_shown_once_and_stored_as_a_hash(platform: Platform) -> None:
    made = await platform.call("POST", "/v1/keys", json={"name": "ci", "scopes": ["inboxes:read"]})
    secret = made.json["secret"]
    assert secret.startswith(f"my_{made.json['prefix']}_")
    listed = await platform.call("GET", "/v1/keys")
    assert "secret" not in listed.json["items"][0]
    assert secret.encode() not in listed.body
    async with platform.app.database.connection() as connection:
        rows = await connection.fetch("SELECT api_key::text AS row FROM api_key")
        audit = await connection.fetch("SELECT audit_log::text AS row FROM audit_log")
    assert not [row for row in (*rows, *audit) if secret[14:] in row["row"]]


async def test_a_key_of_another_secret_is_not_let_in_by_its_prefix(platform: Platform) -> None:
    changed = platform.key[:-1] + ("0" if platform.key[-1] != "0" else "1")
    assert await platform.app.keys.authenticate(platform.key) is not None
    assert await platform.app.keys.authenticate(changed) is None
    assert await platform.app.keys.authenticate(platform.key + "0") is None


async def test_who_has_revoked_a_key_finds_it_refused_in_every_process(
    platform: Platform, database: Database
) -> None:
    cache = LayeredCache(database=database)
    elsewhere = ApiKeys(database=database, audit=platform.app.audit, cache=cache)
    secret = await platform.key_with("inboxes:read")
    assert (await platform.call("GET", "/v1/inboxes", key=secret)).status == 200
    holder = await elsewhere.authenticate(secret)
    assert holder is not None
    key_id = ids.type_id(ids.API_KEY, holder.key_id)
    assert (await platform.call("POST", f"/v1/keys/{key_id}/revoke")).status == 200
    assert (await platform.call("GET", "/v1/inboxes", key=secret)).status == 401
    assert await elsewhere.authenticate(secret) is None


async def test_a_known_key_costs_no_round_trip_and_many_at_once_share_one(
    platform: Platform, database: Database
) -> None:
    clock = ManualClock()
    cache = LayeredCache(database=database, clock=clock)
    keys = ApiKeys(database=database, audit=platform.app.audit, cache=cache)
    reads = 0
    read = keys._read

    async def counted(prefix: str) -> object:
        nonlocal reads
        reads += 1
        return await read(prefix)

    keys._read = counted  # type: ignore[method-assign,assignment]
    holders = await asyncio.gather(*(keys.authenticate(platform.key) for _ in range(20)))
    assert all(holders)
    assert reads == 1
    await keys.authenticate(platform.key)
    assert reads == 1
    assert KEY.life_s is not None
    clock.advance(KEY.life_s)
    await keys.authenticate(platform.key)
    assert reads == 2


async def test_revoking_twice_is_no_error_and_another_workspaces_key_is_not_found(
    platform: Platform,
) -> None:
    made = await platform.app.keys.create(
        platform.workspace_id, "x", ["admin"], actor=platform.actor
    )
    for _ in range(2):
        key = await platform.app.keys.revoke(
            platform.workspace_id, made.key.id, actor=platform.actor
        )
        assert key.revoked_at is not None
    other_id, _ = await platform.other_workspace()
    with pytest.raises(NotFound):
        await platform.app.keys.revoke(other_id, made.key.id, actor=platform.actor)


async def test_the_command_line_makes_lists_and_revokes(
    platform: Platform, database_url: str
) -> None:
    async def run(*arguments: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mailyard.cli.main", "key", *arguments),
            env={"MAILYARD_DATABASE_URL": database_url, "PATH": "/usr/bin", "HOME": "/tmp"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode()

    code, text = await run("create", "--name", "ci", "--scope", "inboxes:read", "--json")
    assert code == 0, text
    made = json.loads(text)
    assert (await platform.call("GET", "/v1/inboxes", key=made["secret"])).status == 200
    assert (await platform.call("GET", "/v1/contacts", key=made["secret"])).status == 403
    code, text = await run("list", "--json")
    assert made["id"] in [key["id"] for key in json.loads(text)["items"]]
    code, text = await run("revoke", made["id"])
    assert (code, "is revoked" in text) == (0, True)
    code, text = await run("create", "--scope", "moon:write")
    assert code == 1
    code, text = await run("link", "--json")
    token = json.loads(text)["link"].rpartition("/")[2]
    assert await platform.app.sessions.redeem_link(token) is not None
    assert await platform.app.sessions.redeem_link(token) is None
    code, text = await run("link", "nobody@elsewhere.example")
    assert code == 1
    entries = await platform.app.audit.list(platform.workspace_id, action="key")
    assert [(entry.actor_kind, entry.action) for entry in entries[:2]] == [
        ("command", "key.revoke"),
        ("command", "key.create"),
    ]
