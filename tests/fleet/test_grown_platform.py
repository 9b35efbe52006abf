"""The whole platform on a primary, a replica and PgBouncer, as its users see it."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import aiohttp
import pytest
from postgres_servers import Server, pgbouncer, servers
from running_platform import Platform, running_platform, wait_until

from mailyard.access.authenticate import SESSION_COOKIE

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Platform, list[Server]]]:
    """Two API processes behind one port, a PgBouncer, a primary, a replica."""
    folder = tmp_path_factory.mktemp("grown")
    with ExitStack() as stack:
        pair = stack.enter_context(servers(folder / "servers", standbys=1))
        primary, replica = pair
        pooled = stack.enter_context(pgbouncer(primary, folder / "pooler", connections=12))
        platform = stack.enter_context(
            running_platform(
                folder / "data",
                database_url=f"{pooled}/postgres",
                database_direct_url=primary.url(),
                database_pooler="true",
                database_replicas=replica.url(),
                api_processes="2",
            )
        )
        yield platform, pair


@pytest.fixture
async def client(stage: tuple[Platform, list[Server]]) -> AsyncIterator[aiohttp.ClientSession]:
    """Connects anew for each request, so that any API process may answer it."""
    async with aiohttp.ClientSession(
        f"http://127.0.0.1:{stage[0].port}",
        connector=aiohttp.TCPConnector(force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        yield session


async def test_the_demonstration_passes_on_it_and_lists_come_from_the_replica(
    stage: tuple[Platform, list[Server]], client: aiohttp.ClientSession
) -> None:
    platform, (_, replica) = stage
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mailyard.cli.main", "demo", "--recipients", "300", "--json"),
        env=os.environ
        | {
            "MAILYARD_URL": f"http://127.0.0.1:{platform.port}",
            "MAILYARD_API_KEY": platform.ready["api_key"],
        },
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    verdict = json.loads(out.strip().splitlines()[-1])
    assert (process.returncode, verdict["received"], verdict["lost"]) == (0, 300, 0)
    headers = {"authorization": f"Bearer {platform.ready['api_key']}"}
    before = int(replica.sql("SELECT tup_returned FROM pg_stat_database WHERE datname='postgres'"))
    for _ in range(20):
        async with client.get("/v1/deliveries", headers=headers) as answer:
            assert answer.status == 200 and len((await answer.json())["items"]) > 0
    wait_until(
        lambda: (
            int(replica.sql("SELECT tup_returned FROM pg_stat_database WHERE datname='postgres'"))
            > before + 500
        )
    )


async def test_its_operators_see_the_replica_and_the_room_for_connections(
    stage: tuple[Platform, list[Server]], client: aiohttp.ClientSession
) -> None:
    platform, (_, replica) = stage
    headers = {"authorization": f"Bearer {platform.ready['api_key']}"}
    async with asyncio.timeout(180):
        while True:  # one that is late for a moment is left out
            async with client.get("/v1/installation/database", headers=headers) as answer:
                found = await answer.json()
            if all(one["usable"] for one in found["replicas"]):
                break
            await asyncio.sleep(0.1)
    assert [one["name"] for one in found["replicas"]] == [replica.place]
    assert found["processes_most"] == found["budget"] // found["connections_each"]
    async with client.get("/v1/installation/backups", headers=headers) as answer:
        assert await answer.json() == {"configured": False, "items": []}


async def test_a_key_sees_what_it_has_written_on_any_process_however_late_the_replica(
    stage: tuple[Platform, list[Server]], client: aiohttp.ClientSession
) -> None:
    platform, (_, replica) = stage
    headers = {"authorization": f"Bearer {platform.ready['api_key']}"}
    replica.sql("SELECT pg_wal_replay_pause()")
    try:
        for number in range(20):
            name = f"list {number}"
            async with client.post("/v1/lists", json={"name": name}, headers=headers) as answer:
                made = await answer.json()
                assert answer.status == 201, made
                assert re.fullmatch(r"[0-9A-F]+/[0-9A-F]+", answer.headers["mailyard-position"])
            assert name in await names(client, headers)
            async with client.get(f"/v1/lists/{made['id']}", headers=headers) as answer:
                assert answer.status == 200, await answer.text()
    finally:
        replica.sql("SELECT pg_wal_replay_resume()")


async def test_a_place_that_is_handed_on_is_honoured_for_another_key(
    stage: tuple[Platform, list[Server]], client: aiohttp.ClientSession
) -> None:
    platform, (_, replica) = stage
    headers = {"authorization": f"Bearer {platform.ready['api_key']}"}
    body = {"name": "reader", "scopes": ["contacts:read"]}
    async with client.post("/v1/keys", json=body, headers=headers) as answer:
        made = await answer.json()
        assert answer.status == 201, made
    reader = {"authorization": f"Bearer {made['secret']}"}
    replica.sql("SELECT pg_wal_replay_pause()")
    try:
        body = {"name": "handed on"}
        async with client.post("/v1/lists", json=body, headers=headers) as answer:
            made, position = await answer.json(), answer.headers["mailyard-position"]
        assert "handed on" in await names(client, reader | {"mailyard-position": position})
        # What is looked for by its id is found, with or without: a miss is asked of the primary.
        async with client.get(f"/v1/lists/{made['id']}", headers=reader) as answer:
            assert answer.status == 200, await answer.text()
    finally:
        replica.sql("SELECT pg_wal_replay_resume()")


async def test_a_person_sees_what_he_has_just_changed(
    stage: tuple[Platform, list[Server]], client: aiohttp.ClientSession
) -> None:
    platform, (_, replica) = stage
    link = platform.ready["sign_in"].partition("/sign-in/")[2]
    async with client.post(f"/sign-in/{link}", allow_redirects=False) as answer:
        cookie = answer.cookies[SESSION_COOKIE].value
    headers = {"cookie": f"{SESSION_COOKIE}={cookie}"}
    async with client.get("/topics", headers=headers) as answer:
        csrf = re.findall(r'name="csrf" value="([^"]+)"', await answer.text())[0]
    replica.sql("SELECT pg_wal_replay_pause()")
    try:
        for number in range(10):
            form = {"csrf": csrf, "name": f"News {number}", "description": "", "on_request": ""}
            async with client.post(
                "/topics", data=form, headers=headers, allow_redirects=False
            ) as answer:
                assert answer.status == 303, await answer.text()
            async with client.get("/topics", headers=headers) as answer:
                assert f"News {number}" in await answer.text()
    finally:
        replica.sql("SELECT pg_wal_replay_resume()")


async def names(client: aiohttp.ClientSession, headers: dict[str, str]) -> set[str]:
    async with client.get("/v1/lists", headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        return {item["name"] for item in (await answer.json())["items"]}


async def test_mail_is_accepted_and_found_across_a_failover(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The primary dies under `POST /v1/emails`; what got its 202 is there on the promoted one."""
    folder = tmp_path_factory.mktemp("failover")
    with servers(folder / "servers", standbys=1) as (old, new):
        old.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
        old.sql("SELECT pg_reload_conf()")
        both = f"postgresql://postgres@{old.place},{new.place}/postgres"
        with running_platform(
            folder / "data", database_url=both, database_replicas=f"{old.url()} {new.url()}"
        ) as platform:
            accepted = await accept_through(platform, old, new)
            headers = {"authorization": f"Bearer {platform.ready['api_key']}"}
            async with aiohttp.ClientSession(f"http://127.0.0.1:{platform.port}") as session:
                for email_id in accepted:
                    async with session.get(f"/v1/emails/{email_id}", headers=headers) as answer:
                        assert answer.status == 200, (email_id, await answer.text())
                await all_sent(session, headers, accepted)
            assert platform.stop() == 0


async def accept_through(platform: Platform, old: Server, new: Server) -> list[str]:
    accepted: list[str] = []
    failed_over = asyncio.Event()

    async def send(session: aiohttp.ClientSession, worker: int) -> None:
        headers = {"authorization": f"Bearer {platform.ready['api_key']}"}
        number = 0
        while not failed_over.is_set() or number % 20:
            number += 1
            body = {
                "from": "me@inbox.localhost",
                "to": [f"r{worker}@inbox.localhost"],
                "subject": f"Mail {worker} {number}",
                "text": "Hello",
            }
            key = {"idempotency-key": f"{worker}-{number}"}
            while True:  # a 503 is repeated under its key: that is what the key is for
                async with session.post("/v1/emails", json=body, headers=headers | key) as answer:
                    if answer.status == 202:
                        accepted.append((await answer.json())["id"])
                        break
                    assert answer.status == 503, await answer.text()

    async with aiohttp.ClientSession(f"http://127.0.0.1:{platform.port}") as session:
        work = [asyncio.create_task(send(session, worker)) for worker in range(4)]
        while len(accepted) < 100:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(old.kill)
        await asyncio.to_thread(new.promote)
        before = len(accepted)
        while len(accepted) < before + 100:
            await asyncio.sleep(0.01)
        failed_over.set()
        await asyncio.gather(*work)
    return accepted


async def all_sent(
    session: aiohttp.ClientSession, headers: dict[str, str], accepted: list[str]
) -> None:
    """Workers have taken up their work on the new primary: every mail has left."""
    left = set(accepted)
    async with asyncio.timeout(180):
        while left:
            for email_id in sorted(left):
                path = f"/v1/deliveries?email_id={email_id}"
                async with session.get(path, headers=headers) as answer:
                    states = {item["state"] for item in (await answer.json())["items"]}
                if states and not states & {"queued", "deferred"}:
                    left.discard(email_id)
            await asyncio.sleep(0.1)
