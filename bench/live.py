"""10,000 live connections on one API process, while mail comes in: 4,000 event streams, 4,000
WebSockets and 2,000 waits.

The roles are real: `api`, `smtp`, `worker`, each one process, on the embedded PostgreSQL. Streams
and sockets belong to 80 workspaces; each wait is for an inbox of its own. Mail comes by SMTP; the
time is taken from the last byte of its `250` to the event in every client's hands. The memory is
what the API process grew by (PSS) when all were open, for each of them: streams and waits first,
then WebSockets. `STREAMS`, `SOCKETS` and `WAITS` say how many.
"""

import asyncio
import contextlib
import gc
import json
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import uvloop
from measure import Row, free_port, note, percentile, report, wait_for_port
from platform_parts import product_postgres, pss_bytes, role

from mailyard.access.audit import Actor, Audit
from mailyard.access.key import ApiKeys
from mailyard.access.scope import EVENTS_READ, INBOXES_READ
from mailyard.access.workspace import Workspaces
from mailyard.core.ids import INBOX, type_id
from mailyard.mailbox.inbox import Inboxes
from mailyard.mailbox.inbox_value import NewInbox
from mailyard.storage.database import Database, DatabaseAddress

SECONDS = float(os.environ.get("SECONDS", 20))
STREAMS = int(os.environ.get("STREAMS", 4_000))
SOCKETS = int(os.environ.get("SOCKETS", 4_000))
WAITS = int(os.environ.get("WAITS", 2_000))
WORKSPACES = 80
MAILS_PER_S = 20
DOMAIN = "inbox.localhost"
_OPENING = 100  # connections that are being opened at once


@dataclass(slots=True)
class Tenant:
    """A new workspace with a key, and (id, address) to wait in."""

    key: str
    inboxes: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Seen:
    """When each message was answered with 250, and when each client heard of it."""

    answered: dict[str, float] = field(default_factory=dict)
    heard: list[tuple[str, float]] = field(default_factory=list)
    waited: int = 0
    opened: int = 0

    def latencies_ms(self) -> list[float]:
        return [(at - self.answered[name]) * 1000 for name, at in self.heard]


async def make_tenants(url: str) -> list[Tenant]:
    database = Database(DatabaseAddress(url, url, connections=2))
    await database.open()
    audit = Audit(database=database)
    workspaces = Workspaces(database=database, audit=audit)
    keys = ApiKeys(database=database, audit=audit)
    inboxes = Inboxes(database=database, domains=(DOMAIN,))
    tenants = []
    for number in range(WORKSPACES):
        workspace = await workspaces.create(
            f"bench {number}", actor_kind="system", actor_name="bench"
        )
        key = await keys.create(
            workspace.id,
            "bench",
            [EVENTS_READ, INBOXES_READ],
            actor=Actor("system", "bench", workspace.id),
        )
        made = await inboxes.create(
            workspace.id, [NewInbox(ttl_s=86_400) for _ in range(WAITS // WORKSPACES)]
        )
        waited = [(type_id(INBOX, one.id), one.address) for one in made]
        tenants.append(Tenant(key.secret, waited))
    await database.close()
    return tenants


async def open_request(port: int, path: str, key: str) -> asyncio.StreamReader:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
    )
    reader.writer = writer  # type: ignore[attr-defined]
    return reader


async def listen(port: int, key: str, seen: Seen, opened: asyncio.Semaphore) -> None:
    """One stream, until it is cancelled."""
    async with opened:
        reader = await open_request(port, "/v1/events?kinds=message.received", key)
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise RuntimeError(f"a stream was refused: {head!r}")
        await reader.readuntil(b"\n\n")  # the first place: from here on it hears everything
        seen.opened += 1
    while line := await reader.readline():
        if line.startswith(b"data: {"):
            at = time.perf_counter()
            seen.heard.append((json.loads(line[6:])["message_id"], at))
    raise RuntimeError("a stream was cut")


async def listen_by_socket(port: int, key: str, seen: Seen, opened: asyncio.Semaphore) -> None:
    """One WebSocket, until it is cancelled."""
    async with opened:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
        writer.write(
            b"GET /v1/events?kinds=message.received HTTP/1.1\r\nHost: bench\r\n"
            b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b"Sec-WebSocket-Protocol: mailyard.v1, bearer.%b\r\n\r\n" % key.encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise RuntimeError(f"a WebSocket was refused: {head!r}")
        _, size = await reader.readexactly(2)
        await reader.readexactly(size)
        seen.opened += 1
    while True:
        _, size = await reader.readexactly(2)  # RFC 6455 section 5.2: a server masks nothing
        if size == 126:
            size = int.from_bytes(await reader.readexactly(2), "big")
        message = await reader.readexactly(size)
        if b'"message_id"' in message:
            at = time.perf_counter()
            seen.heard.append((json.loads(message)["data"]["message_id"], at))


async def wait(port: int, key: str, inbox: str, seen: Seen, opened: asyncio.Semaphore) -> None:
    """One wait that ends with mail or in time."""
    async with opened:
        reader = await open_request(port, f"/v1/inboxes/{inbox}/wait?timeout_s=120", key)
    head = await reader.readuntil(b"\r\n\r\n")
    seen.waited += b" 200 " in head.split(b"\r\n")[0]


async def send(port: int, addresses: list[str], seen: Seen) -> None:
    """A mail to each address over one session, MAILS_PER_S."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def ask(line: str) -> str:
        writer.write(line.encode() + b"\r\n")
        while (reply := (await reader.readline()).decode())[3:4] == "-":
            pass
        return reply

    await reader.readline()
    await ask("EHLO bench")
    body = "From: a@bench.test\r\nSubject: ping\r\n\r\n" + "x" * 70 + "\r\n."
    started = time.perf_counter()
    for number, address in enumerate(addresses):
        await asyncio.sleep(max(0.0, started + number / MAILS_PER_S - time.perf_counter()))
        await ask("MAIL FROM:<a@bench.test>")
        await ask(f"RCPT TO:<{address}>")
        await ask("DATA")
        reply = await ask(body)
        if not reply.startswith("250"):
            raise RuntimeError(f"refused: {reply}")
        seen.answered[reply.split()[-1]] = time.perf_counter()
    writer.close()


def failures(tasks: Sequence[asyncio.Task[None]]) -> list[BaseException]:
    """What ended connections that were to stay."""
    ended = [task.exception() for task in tasks if task.done()]
    return [error for error in ended if error is not None]


async def until_open(seen: Seen, count: int, tasks: Sequence[asyncio.Task[None]]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(60.0):
            while seen.opened < count and not failures(tasks):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    if seen.opened < count:
        raise SystemExit(f"{seen.opened} of {count} are open: {failures(tasks)[:1]!r}")
    await asyncio.sleep(3.0)  # the waits too


async def measure(
    http: int, smtp: int, api_pid: int, tenants: list[Tenant]
) -> tuple[Seen, float, float]:
    """What was seen, and the bytes that the API process grew by for each stream or wait, and for
    each WebSocket."""
    gc.disable()  # the listeners' own pauses are not the server's
    seen = Seen()
    opened = asyncio.Semaphore(_OPENING)
    # A few connections before, so that what is allocated once is not counted.
    first = [asyncio.create_task(listen(http, tenant.key, Seen(), opened)) for tenant in tenants]
    await asyncio.sleep(2.0)
    before = pss_bytes(api_pid)
    tasks = []
    for number in range(STREAMS):
        key = tenants[number % WORKSPACES].key
        tasks.append(asyncio.create_task(listen(http, key, seen, opened)))
    for tenant in tenants:
        for inbox, _ in tenant.inboxes:
            tasks.append(asyncio.create_task(wait(http, tenant.key, inbox, seen, opened)))
    await until_open(seen, STREAMS, tasks)
    after = pss_bytes(api_pid)
    each = (after - before) / (STREAMS + WAITS)
    for number in range(SOCKETS):
        key = tenants[number % WORKSPACES].key
        tasks.append(asyncio.create_task(listen_by_socket(http, key, seen, opened)))
    await until_open(seen, STREAMS + SOCKETS, tasks)
    note(f"  {STREAMS} streams, {WAITS} waits and {SOCKETS} WebSockets are open")
    socket = (pss_bytes(api_pid) - after) / max(1, SOCKETS)
    count = min(int(SECONDS * MAILS_PER_S), WAITS)
    addresses = [tenants[n % WORKSPACES].inboxes[n // WORKSPACES][1] for n in range(count)]
    wanted = count * (STREAMS + SOCKETS) // WORKSPACES
    await send(smtp, addresses, seen)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(10.0):
            while len(seen.heard) < wanted or seen.waited < count:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    if failed := failures(tasks):
        raise SystemExit(f"{len(failed)} connections failed: {failed[0]!r}")
    if len(seen.heard) != wanted or seen.waited != count:
        raise SystemExit(
            f"{count} mails: {len(seen.heard)} events heard, {seen.waited} waits ended"
        )
    for task in [*first, *tasks]:
        task.cancel()
    await asyncio.gather(*first, *tasks, return_exceptions=True)
    return seen, each, socket


def main() -> int:
    http, smtp = free_port(), free_port()
    ports = {"MAILYARD_PORT": str(http), "MAILYARD_SMTP_PORT": str(smtp)}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        server = stack.enter_context(product_postgres(Path(folder)))
        tenants = asyncio.run(make_tenants(server.url))
        ports["MAILYARD_INBOX_DOMAIN"] = DOMAIN
        ports["MAILYARD_LIVE_CONNECTIONS"] = str(STREAMS + SOCKETS + WAITS + WORKSPACES)
        api_pid = stack.enter_context(role("api", server.url, ports))
        stack.enter_context(role("smtp", server.url, ports))
        stack.enter_context(role("worker", server.url, ports))
        wait_for_port(http)
        wait_for_port(smtp)
        seen, each_bytes, socket_bytes = uvloop.run(measure(http, smtp, api_pid, tenants))
    latencies = seen.latencies_ms()
    note(f"  {len(latencies)} pushes, median {percentile(latencies, 0.5):.0f} ms")
    return report(
        [
            Row("live push, p99", percentile(latencies, 0.99), "ms", 250.0, True),
            Row("live stream or wait, memory", each_bytes / 1024, "KB", 60.0, True),
            Row("live WebSocket, memory", socket_bytes / 1024, "KB", 60.0, True),
        ]
    )


if __name__ == "__main__":
    raise SystemExit(main())
