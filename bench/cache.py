"""Hit rates of the cache under the load of a day in small: what programs and people ask of it.

The roles are real: two `api` on one port, `smtp` and `worker`, on the embedded PostgreSQL.
Everything is asked over HTTP, by clients that keep a connection: test suites that make an inbox,
write to it, wait and read; programs that look into their inboxes several times a second, because
they know no better way; agents in browsers who turn the pages of a mailbox to which mail comes;
applications that send by template. The figures are those that `/stats` tells at the end, of all
processes, and of each kind those of the layer that is asked first.
"""

import asyncio
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import uvloop
from measure import FULL, Row, free_port, note, report, wait_for_port
from platform_parts import product_postgres, role

from mailyard.access.audit import Actor, Audit
from mailyard.access.authenticate import SESSION_COOKIE
from mailyard.access.key import ApiKeys
from mailyard.access.session import Sessions
from mailyard.access.user import Users
from mailyard.access.workspace import Workspaces
from mailyard.storage.database import Database, DatabaseAddress

SECONDS = float(os.environ.get("SECONDS", 120.0 if FULL else 25.0))
GOALS = {"inbox": 0.95, "list": 0.80, "user": 0.90, "key": 0.90, "static": 0.99}
SUITES, POLLERS, AGENTS, SENDERS = 4, 12, 6, 4
SHARED_INBOXES = 12  # of the programs and the agents: they live on
MAILS_PER_S = 2.0  # into those
DOMAIN = "inbox.localhost"
_WARMING_S = 12.0  # what is looked for the first time is in no cache, and is not counted
_BEATS_S = 6.0  # after which every process has told its figures once more
MAIL = "From: Shop <a@bench.test>\r\nSubject: Your code\r\n\r\nYour code is 471147.\r\n."


class World:
    """A workspace with a key and the sessions of its agents, and where it is served."""

    def __init__(self, http: int, smtp: int, key: str, sessions: list[str]) -> None:
        self.url = f"http://127.0.0.1:{http}"
        self.smtp = smtp
        self.key = key
        self.sessions = sessions
        self.inboxes: list[dict[str, Any]] = []
        self.asked = 0

    def client(self, cookie: str = "") -> aiohttp.ClientSession:
        headers = {"authorization": f"Bearer {self.key}"}
        if cookie:
            headers = {"cookie": f"{SESSION_COOKIE}={cookie}"}
        return aiohttp.ClientSession(self.url, headers=headers)

    async def ask(
        self, client: aiohttp.ClientSession, path: str, body: object = None
    ) -> dict[str, Any]:
        """One request; what it answers when that is JSON. A refusal ends the bench."""
        self.asked += 1
        asked = client.get(path) if body is None else client.post(path, json=body)
        async with asked as answer:
            if answer.status >= 400:
                raise RuntimeError(f"{path}: {answer.status} {await answer.text()}")
            if answer.content_type != "application/json":
                await answer.read()
                return {}
            found: dict[str, Any] = await answer.json()
            return found


async def prepare(url: str, http: int, smtp: int) -> World:
    database = Database(DatabaseAddress(url, url, connections=2))
    await database.open()
    audit = Audit(database=database)
    workspace = await Workspaces(database=database, audit=audit).create(
        "bench", actor_kind="system", actor_name="bench"
    )
    actor = Actor("system", "bench", workspace.id)
    key = await ApiKeys(database=database, audit=audit).create(
        workspace.id, "bench", ["admin"], actor=actor
    )
    users, sessions = (
        Users(database=database, audit=audit),
        Sessions(database=database, audit=audit),
    )
    tokens = []
    for number in range(AGENTS):
        person = await users.add(workspace.id, f"a{number}@bench.test", "owner", actor=actor)
        tokens.append((await sessions.start(person.id, workspace.id, "a browser")).token)
    await database.close()
    return World(http, smtp, key.secret, tokens)


async def write_to(world: World, address: str) -> None:
    """One mail by SMTP."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.smtp)
    await reader.readline()
    for line in ("EHLO bench", "MAIL FROM:<a@bench.test>", f"RCPT TO:<{address}>", "DATA", MAIL):
        writer.write(line.encode() + b"\r\n")
        while (reply := (await reader.readline()).decode())[3:4] == "-":
            pass
        if reply[0] not in "23":
            raise RuntimeError(f"{line[:30]}: {reply}")
    writer.close()


async def suite(world: World, _number: int) -> None:
    """A test: an inbox, a mail, its code; then the next test."""
    async with world.client() as client:
        while True:
            inbox = await world.ask(client, "/v1/inboxes", {"ttl_s": 600})
            path = f"/v1/inboxes/{inbox['id']}"
            waiting = asyncio.create_task(world.ask(client, f"{path}/wait?timeout_s=30"))
            await write_to(world, inbox["address"])
            await waiting
            await world.ask(client, path)
            page = await world.ask(client, f"{path}/messages")
            await world.ask(client, f"/v1/messages/{page['items'][0]['id']}")
            await asyncio.sleep(0.5)


async def poller(world: World, number: int) -> None:
    """A program that looks for new mail five times a second."""
    inbox = world.inboxes[number % len(world.inboxes)]
    async with world.client() as client:
        while True:
            await world.ask(client, f"/v1/inboxes/{inbox['id']}")
            await world.ask(client, f"/v1/inboxes/{inbox['id']}/messages?limit=20")
            await asyncio.sleep(0.2)


async def agent(world: World, number: int) -> None:
    """Somebody in a browser: the overview, an inbox, a mail, back, who else is here."""
    random = Random(number)
    async with world.client(world.sessions[number]) as browser:
        while True:
            inbox = random.choice(world.inboxes)["id"]
            page = await world.ask(browser, f"/v1/inboxes/{inbox}/messages")
            for path in ("/", f"/inboxes/{inbox}", "/access", f"/inboxes/{inbox}"):
                await world.ask(browser, path)
                await asyncio.sleep(0.3)
            if page["items"]:
                await world.ask(browser, f"/inboxes/{inbox}/messages/{page['items'][0]['id']}")


async def sender(world: World, _number: int) -> None:
    """An application that sends by template, to who reads elsewhere."""
    async with world.client() as client:
        customer = await world.ask(client, "/v1/inboxes", {"ttl_s": 86_400})
        for count in itertools.count():
            mail = {
                "from": "Shop <shop@bench.test>",
                "to": [customer["address"]],
                "template": f"order-{count % 3}",
                "data": {"name": "Ada"},
            }
            await world.ask(client, "/v1/emails", mail)
            await asyncio.sleep(0.05)


async def arrivals(world: World, _number: int) -> None:
    """Mail to the inboxes that live on."""
    random = Random(7)
    while True:
        await write_to(world, random.choice(world.inboxes)["address"])
        await asyncio.sleep(random.expovariate(MAILS_PER_S))


async def load(world: World) -> dict[str, tuple[int, int]]:
    """(hits, misses) of each kind and layer, as the processes told them after the load."""
    async with world.client() as client:
        for _ in range(SHARED_INBOXES):
            world.inboxes.append(await world.ask(client, "/v1/inboxes", {"ttl_s": 86_400}))
        for number in range(3):
            template = {
                "name": f"order-{number}",
                "subject": "Your order, {{ name }}",
                "text": "Hello {{ name }}.",
            }
            await world.ask(client, "/v1/templates", template)
        kinds: tuple[tuple[Callable[[World, int], Awaitable[None]], int], ...] = (
            (suite, SUITES),
            (poller, POLLERS),
            (agent, AGENTS),
            (sender, SENDERS),
            (arrivals, 1),
        )
        tasks = [asyncio.ensure_future(one(world, n)) for one, count in kinds for n in range(count)]
        await asyncio.wait(tasks, timeout=_WARMING_S, return_when="FIRST_COMPLETED")
        before = await figures(world, client)
        began, world.asked = time.perf_counter(), 0
        done, _ = await asyncio.wait(tasks, timeout=SECONDS, return_when="FIRST_COMPLETED")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()
        note(f"  {world.asked / (time.perf_counter() - began):,.0f} requests/s")
        await asyncio.sleep(_BEATS_S)
        after = await figures(world, client)
    return {
        name: (hits - before.get(name, (0, 0))[0], misses - before.get(name, (0, 0))[1])
        for name, (hits, misses) in after.items()
    }


async def figures(world: World, client: aiohttp.ClientSession) -> dict[str, tuple[int, int]]:
    stats = await world.ask(client, "/stats")
    return {f"{one['kind']} {one['layer']}": (one["hits"], one["misses"]) for one in stats["cache"]}


def main() -> int:
    http, smtp = free_port(), free_port()
    ports = {
        "MAILYARD_PORT": str(http),
        "MAILYARD_SMTP_PORT": str(smtp),
        "MAILYARD_INBOX_DOMAIN": DOMAIN,
    }
    with tempfile.TemporaryDirectory(prefix="mailyard-bench-") as folder, ExitStack() as stack:
        server = stack.enter_context(product_postgres(Path(folder)))
        world = asyncio.run(prepare(server.url, http, smtp))
        for name in ("api", "api", "smtp", "worker"):
            stack.enter_context(role(name, server.url, ports))
        wait_for_port(http, 60.0)
        wait_for_port(smtp, 60.0)
        looks = uvloop.run(load(world))
    for name, (hits, misses) in sorted(looks.items()):
        note(f"  {name}: {hits:,} of {hits + misses:,}")
    rows = []
    for kind, goal in GOALS.items():
        hits, misses = looks.get(f"{kind} process", (0, 0))
        rate = 100 * hits / max(1, hits + misses)
        rows.append(Row(f"cache, hits of {kind}", rate, "%", 100 * goal))
    return report(rows)


if __name__ == "__main__":
    sys.exit(main())
