"""Two PostgreSQL clusters behind one platform: a workspace moves while it is used, and movers are
killed. What was acknowledged is there afterwards, once."""

import asyncio
import json
import os
import signal
import ssl
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from random import Random
from time import monotonic
from typing import Any

import aiohttp
import pytest
from postgres_servers import Server, servers
from running_platform import Platform, running_platform

pytestmark = pytest.mark.timeout(300)

MAIL = "From: peer@example.net\r\nTo: {to}\r\nSubject: {subject}\r\n\r\n{subject}\r\n"


@dataclass
class Stage:
    platform: Platform
    home: Server
    east: Server

    @property
    def settings(self) -> dict[str, str]:
        """What a command of this installation is started with."""
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith("MAILYARD_")},
            "MAILYARD_DATA": str(self.platform.data),
            "MAILYARD_DATABASE_URL": self.home.url(),
            "MAILYARD_SHARDS": f"east={self.east.url()}",
        }

    async def begin(self, *words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mailyard.cli.main", *words),
            env=self.settings,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *words: str) -> Any:
        """A command to its end; what it says as JSON."""
        process = await self.begin(*words, "--json")
        out, err = await process.communicate()
        assert process.returncode == 0, (words, out, err)
        return json.loads(out)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("shards")
    with ExitStack() as stack:
        (home,) = stack.enter_context(servers(folder / "home", standbys=0))
        (east,) = stack.enter_context(servers(folder / "east", standbys=0))
        platform = stack.enter_context(
            running_platform(
                folder / "data",
                database_url=home.url(),
                shards=f"east={east.url()}",
                database_connections="6",
                drain_s="5",
            )
        )
        yield Stage(platform, home, east)


@pytest.fixture
async def http(stage: Stage) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(
        f"http://127.0.0.1:{stage.platform.port}", cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        yield session


@dataclass
class Tenant:
    """A workspace that is used all the while, and the ledger of what was acknowledged."""

    id: str
    key: str
    address: str
    inbox: str
    port: int
    http: aiohttp.ClientSession
    received: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    listed: list[str] = field(default_factory=list)
    answers: dict[int, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    async def write_in(self, stop: asyncio.Event, name: str) -> None:
        """A peer: repeats what was not taken, as peers do."""
        number = 0
        while not stop.is_set():
            subject = f"{name}-{number:05d}"
            code = await self._smtp(subject)
            self.answers[code] = self.answers.get(code, 0) + 1
            if code == 250:
                self.received.append(subject)
                number += 1
            elif code >= 500:
                self.failures.append(f"{subject}: {code}")
            await asyncio.sleep(0.05)

    async def _smtp(self, subject: str) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for line in ("", "EHLO peer", "MAIL FROM:<a@example.net>", f"RCPT TO:<{self.address}>"):
                if line:
                    writer.write(f"{line}\r\n".encode())
                code = await _reply(reader)
                if code >= 400:
                    return code
            writer.write(b"DATA\r\n")
            await _reply(reader)
            mail = MAIL.format(to=self.address, subject=subject)
            writer.write(mail.encode() + b".\r\n")
            return await _reply(reader)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def call(self, method: str, path: str, **more: Any) -> tuple[int, Any]:
        headers = {**self.headers, **more.pop("headers", {})}
        async with self.http.request(method, path, headers=headers, **more) as answer:
            self.answers[answer.status] = self.answers.get(answer.status, 0) + 1
            if answer.status == 503:
                assert int(answer.headers["retry-after"]) > 0
            return answer.status, await answer.json()

    async def write_out(self, stop: asyncio.Event) -> None:
        """An application: sends, each mail under a key of its own, until it is taken."""
        number = 0
        while not stop.is_set():
            subject = f"out-{number:05d}"
            status, said = await self.call(
                "POST",
                "/v1/emails",
                json={
                    "from": "me@inbox.localhost",
                    "to": [self.address],
                    "subject": subject,
                    "text": subject,
                },
                headers={"idempotency-key": subject},
            )
            if status == 202:
                self.sent.append(subject)
                number += 1
            elif status != 503:
                self.failures.append(f"{subject}: {status} {said}")
            await asyncio.sleep(0.2)

    async def make_lists(self, stop: asyncio.Event) -> None:
        """Changes and reads."""
        number = 0
        while not stop.is_set():
            name = f"list {number:05d}"
            status, said = await self.call("POST", "/v1/lists", json={"name": name})
            if status in (201, 409):  # 409: it was made, and the answer lost
                self.listed.append(name)
                number += 1
            elif status != 503:
                self.failures.append(f"{name}: {status} {said}")
            status, said = await self.call("GET", f"/v1/inboxes/{self.inbox}/messages")
            if status not in (200, 503):
                self.failures.append(f"read: {status} {said}")
            await asyncio.sleep(0.03)

    async def subjects(self) -> list[str]:
        """Of all the mail in the inbox."""
        found, before = [], ""
        while True:
            query = {"limit": "200", **({"before": before} if before else {})}
            status, page = await self.call(
                "GET", f"/v1/inboxes/{self.inbox}/messages", params=query
            )
            assert status == 200, page
            found += [item["subject"] for item in page["items"]]
            before = page.get("next_before") or ""
            if not before:
                return sorted(found)

    async def lists(self) -> int:
        found, after = 0, ""
        while True:
            query = {"limit": "200", **({"after": after} if after else {})}
            _, page = await self.call("GET", "/v1/lists", params=query)
            found += len(page["items"])
            after = page.get("next_after") or page.get("next") or ""
            if not after:
                return found


async def _reply(reader: asyncio.StreamReader) -> int:
    while True:
        line = await reader.readline()
        if line[3:4] != b"-":
            return int(line[:3] or 421)


@pytest.fixture
async def tenant(stage: Stage, http: aiohttp.ClientSession) -> Tenant:
    return await new_tenant(stage, http, "you")


async def new_tenant(stage: Stage, http: aiohttp.ClientSession, name: str) -> Tenant:
    operator = {"authorization": f"Bearer {stage.platform.ready['api_key']}"}
    async with http.post("/v1/workspaces", json={"name": name}, headers=operator) as answer:
        made = await answer.json()
        assert answer.status == 201, made
    address = f"{name}@inbox.localhost"
    headers = {"authorization": f"Bearer {made['secret']}"}
    async with http.post("/v1/inboxes", json={"address": address}, headers=headers) as answer:
        inbox = await answer.json()
        assert answer.status == 201, inbox
    port = stage.platform.smtp_port
    return Tenant(made["id"], made["secret"], address, inbox["id"], port, http)


async def test_a_workspace_moves_under_load_while_its_movers_are_killed(
    stage: Stage, tenant: Tenant
) -> None:
    random = Random(7)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for work in (
            tenant.write_in(stop, "a"),
            tenant.write_in(stop, "b"),
            tenant.write_out(stop),
            tenant.make_lists(stop),
        ):
            group.create_task(work)
        try:
            await asyncio.sleep(1.0)
            kills = await move_with_kills(stage, tenant.id, "east", random)
            await asyncio.sleep(1.0)
            kills += await move_with_kills(stage, tenant.id, "home", random)
            await asyncio.sleep(1.0)
            done = await stage.run("shard", "move", tenant.id, "east")
            await asyncio.sleep(1.0)
        finally:
            stop.set()
    print(
        f"{kills} movers killed; {len(tenant.received)} mails in, {len(tenant.sent)} out, "
        f"{len(tenant.listed)} lists; answers {tenant.answers}; frozen {done['frozen_s']} s"
    )
    assert tenant.failures == []
    wanted = sorted([*tenant.received, *tenant.sent])
    until = monotonic() + 90
    while len(found := await tenant.subjects()) < len(wanted) and monotonic() < until:
        await asyncio.sleep(1.0)
    assert (sorted({*wanted} - {*found})[:20], len(found)) == ([], len(wanted))
    assert found == wanted
    assert await tenant.lists() == len(tenant.listed)
    assert kills >= 2
    assert tenant.answers.get(503, 0) > 0 and tenant.answers.get(451, 0) > 0
    count = (
        f"SELECT count(*) FROM message WHERE workspace_id <> '{'0' * 8}-0000-0000-0000-{'0' * 12}'"
    )
    assert stage.home.sql(count) == "0" and int(stage.east.sql(count)) >= len(wanted)


async def move_with_kills(stage: Stage, workspace: str, to: str, random: Random) -> int:
    """`mailyard shard move` again and again, killed at random instants, then let be; the kills."""
    kills = 0
    for _ in range(3):
        process = await stage.begin("shard", "move", workspace, to)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 1.0 + random.random() * 4.0)
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            await process.wait()
            kills += 1
        elif process.returncode == 0:
            return kills
    process = await stage.begin("shard", "move", workspace, to)
    out, err = await process.communicate()
    assert process.returncode == 0 or b"already" in err, (out, err)
    return kills


async def test_every_way_in_leads_to_the_cluster_of_the_workspace(
    stage: Stage, http: aiohttp.ClientSession
) -> None:
    tenant = await new_tenant(stage, http, "ways")
    operator = {"authorization": f"Bearer {stage.platform.ready['api_key']}"}
    assert await tenant._smtp("at home") == 250
    moved = await stage.run("shard", "move", tenant.id, "east", "--check-bytes")
    assert moved["frozen_s"] < 20
    assert await tenant._smtp("in the east") == 250
    assert await submitted(stage, tenant) == 250
    async with asyncio.timeout(20):
        while await tenant.subjects() != ["at home", "in the east", "submitted"]:
            await asyncio.sleep(0.1)
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


async def test_a_cluster_that_is_away_takes_only_its_own_workspaces_with_it(
    stage: Stage, http: aiohttp.ClientSession
) -> None:
    here = await new_tenant(stage, http, "here")
    there = await new_tenant(stage, http, "there")
    await stage.run("shard", "move", there.id, "east")
    assert await here._smtp("before") == 250
    assert await there._smtp("before") == 250
    stage.east.freeze(signal.SIGSTOP)
    try:
        assert (await here.call("GET", "/v1/lists"))[0] == 200
        assert await here._smtp("meanwhile") == 250
        operator = {"authorization": f"Bearer {stage.platform.ready['api_key']}"}
        async with http.get("/v1/installation/workspaces", headers=operator) as answer:
            found = await answer.json()
        assert found["away"] == {"east": "no answer within 2 s"}
        assert here.id in {one["id"] for one in found["items"]}
    finally:
        stage.east.freeze(signal.SIGCONT)
    assert (await there.call("GET", "/v1/lists"))[0] == 200
    assert await there._smtp("afterwards") == 250


async def submitted(stage: Stage, tenant: Tenant) -> int:
    """A mail by an application over SMTP, signed in with the workspace's key; the last answer."""
    port = stage.platform.ready["submission"]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await _reply(reader)
    writer.write(b"EHLO app\r\n")
    await _reply(reader)
    writer.write(b"STARTTLS\r\n")
    await _reply(reader)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    await writer.start_tls(context)
    secret = b64encode(f"\0app\0{tenant.key}".encode()).decode()
    mail = MAIL.format(to=tenant.address, subject="submitted").encode() + b".\r\n"
    code = 0
    for line in (
        b"EHLO app\r\n",
        f"AUTH PLAIN {secret}\r\n".encode(),
        b"MAIL FROM:<me@inbox.localhost>\r\n",
        f"RCPT TO:<{tenant.address}>\r\n".encode(),
        b"DATA\r\n",
        mail,
    ):
        writer.write(line)
        code = await _reply(reader)
        assert code < 400, (line, code)
    writer.close()
    return code
