"""Two PostgreSQL clusters behind one platform: a workspace moves, and every way in follows it."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from shard_stage import Stage, new_tenant, submitted, two_clusters


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with two_clusters(tmp_path_factory.mktemp("shards")) as stage:
        yield stage


@pytest.fixture
async def http(stage: Stage) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(
        f"http://127.0.0.1:{stage.platform.port}", cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        yield session


async def test_every_way_in_leads_to_the_cluster_of_the_workspace(
    stage: Stage, http: aiohttp.ClientSession
) -> None:
    tenant = await new_tenant(stage, http, "ways")
    operator = {"authorization": f"Bearer {stage.platform.ready['api_key']}"}
    assert await tenant.mail("at home") == 250
    await stage.run("shard", "move", tenant.id, "east", "--check-bytes")
    assert await tenant.mail("in the east") == 250
    assert await submitted(stage, tenant) == 250
    async with asyncio.timeout(120):
        while await tenant.subjects() != ["at home", "in the east", "submitted"]:
            await asyncio.sleep(0.1)
    # The address is taken for workspaces of every cluster, and free again nowhere else.
    async with http.post(
        "/v1/inboxes", json={"address": tenant.address}, headers=operator
    ) as answer:
        assert answer.status == 409
    # A key made there is found; what it may not do is not done in the other cluster either.
    status, made = await tenant.call("POST", "/v1/keys", json={"name": "k", "scopes": ["admin"]})
    assert status == 201, made
    tenant.key = made["secret"]
    assert (await tenant.call("GET", "/v1/keys"))[0] == 200
    assert (await tenant.call("GET", "/v1/queues"))[0] == 403
    async with http.get("/v1/workspaces", headers=operator) as answer:
        assert answer.status == 200
    async with http.get("/v1/keys", headers={"authorization": "Bearer my_" + "0" * 59}) as answer:
        assert answer.status == 401
    prefix = tenant.key[3:13]
    whose = f"SELECT count(*) FROM shard_name WHERE kind = 'key' AND name = '{prefix}'"
    assert stage.home.sql(whose) == "1"  # one question there leads to it
    # Somebody who is asked in there signs in there.
    status, link = await tenant.call(
        "POST", "/v1/members", json={"email": "eve@example.org", "role": "owner"}
    )
    assert status == 201, link
    found = await stage.run("shard", "workspaces")
    assert {one["id"]: one["shard"] for one in found["items"]}[tenant.id] == "east"
    assert found["away"] == {}
    async with http.get("/v1/installation/shards", headers=operator) as answer:
        seen = await answer.json()
    assert [(one["name"], one["away"]) for one in seen["items"]] == [("home", ""), ("east", "")]
    assert [one["state"] for one in seen["moves"] if one["workspace"] == tenant.id] == ["done"]
    assert (await tenant.call("GET", "/v1/installation/shards"))[0] == 403
    found = await stage.run("shard", "names")
    assert found["twice"] == [] and {one["claimed"] for one in found["shards"]} == {0}


async def test_the_doctor_looks_at_each_cluster(stage: Stage) -> None:
    process = await stage.begin("doctor", "--for", "1", "--json")
    out, _ = await process.communicate()
    found = {one["check"]: one for one in json.loads(out)["findings"]}
    for check in ("database", "connections", "schema"):
        assert found[check]["grade"] == found[f"{check} of east"]["grade"] == "good", found
    assert found["moves"]["found"] == "no workspace is on its way"
    assert "backup of east" in found
    # The servers of this test do not wait for their disks, and the checklist does not pass that.
    assert found["shards"]["found"].startswith("durability of east"), found["shards"]


async def test_each_cluster_has_backups_of_its_own_in_one_store(
    stage: Stage, tmp_path: Path
) -> None:
    where = {"backup": tmp_path.as_uri(), "backup_passphrase": "of a test, long enough"}
    taken = {
        shard: await stage.run("backup", "take", shard=shard, **where) for shard in ("", "east")
    }
    assert (tmp_path / "base").is_dir() and (tmp_path / "shard-east" / "base").is_dir()
    for shard, base in taken.items():
        found = await stage.run("backup", "list", shard=shard, **where)
        assert [one["id"] for one in found["items"]] == [base["id"]]
    tried = await stage.run("backup", "try", shard="east", **where)
    assert tried["base"] == taken["east"]["id"]
