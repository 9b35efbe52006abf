"""Clicks on tracked links, durable before they are answered, beside a bare handler.

`mailyard api`, one process, on the embedded PostgreSQL with fsync on. wrk follows the links of
20,000 deliveries over keep-alive connections. The bare handler is the same server with an
application that answers the same redirect and does nothing else, in the same run, one after the
other. Afterwards one worker does what the clicks mean: all that were answered have to be there.
"""

import asyncio
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import uvloop
from measure import Row, free_port, note, report, seconds, wait_for_port
from platform_parts import Parts, cpu_seconds, product_postgres

from mailyard.access.master_key import new_master_key, parse_master_keys
from mailyard.access.vault import Vault
from mailyard.app import Application
from mailyard.core import ids
from mailyard.queue.worker import Worker
from mailyard.sending.track.judge import shipped_rules
from mailyard.sending.track.link import Links, StoredLink, link_id
from mailyard.sending.track.record import Recorder
from mailyard.sending.track.token import CLICK, Tokens
from mailyard.settings import Settings
from mailyard.web.serve import HttpServer

SECONDS = float(os.environ.get("SECONDS", seconds(8.0, 30.0)))
PAIRS = int(os.environ.get("PAIRS", 3))
DELIVERIES = 20_000
CONNECTIONS = 512  # browsers that wait at the same time: a commit is shared by who waits for it
BAR_SHARE = 0.5
BAR_PER_S = 10_000
URL = "https://shop.example.org/spring?from=mail"
_AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
_SCRIPT = """
local paths = {}
for line in io.lines(os.getenv("PATHS")) do paths[#paths + 1] = line end
local at = math.random(#paths)
request = function()
  at = at % #paths + 1
  return wrk.format("GET", paths[at])
end
"""


async def _bare(scope: Any, receive: Any, send: Any) -> None:
    del scope, receive
    headers = [
        (b"location", URL.encode()),
        (b"content-length", b"0"),
        (b"cache-control", b"no-store, max-age=0"),
    ]
    await send({"type": "http.response.start", "status": 302, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def serve_bare(port: int) -> None:
    """The bare handler's process."""

    async def run() -> None:
        server = HttpServer(_bare, host="127.0.0.1", port=port)
        await server.start()
        await server.serve()

    uvloop.run(run())


async def seed(url: str, master_key: str) -> tuple[UUID, list[str]]:
    """A workspace with deliveries of a campaign and a link; the paths of its links."""
    application = Application(replace(Settings(), database_url=url))
    await application.open()
    workspace_id, campaign_id = ids.uuid7(), ids.uuid7()
    tokens = Tokens(Vault(lambda: parse_master_keys(master_key)).keys_for)
    link = StoredLink(link_id(workspace_id, campaign_id, URL), URL)
    made = tokens.maker([(CLICK, link.id)])
    deliveries = [ids.uuid7() for _ in range(DELIVERIES)]
    async with application.database.connection() as connection:
        await connection.execute("INSERT INTO workspace VALUES ($1, 'Bench')", workspace_id)
        await connection.execute(
            "INSERT INTO delivery (id, workspace_id, campaign_id, contact_id, recipient,"
            " recipient_key, type, state, handed_off_at)"
            " SELECT id, $1, $2, id, 'person@example.com', 1, 'campaign', 'accepted',"
            " now() - interval '1 hour' FROM unnest($3::uuid[]) AS made (id)",
            workspace_id,
            campaign_id,
            deliveries,
        )
    await Links(database=application.database).store(workspace_id, campaign_id, [link])
    await application.close()
    return workspace_id, [f"/c/{made.make(one.bytes)[0]}" for one in deliveries]


@contextmanager
def mailyard_api(url: str, master_key: str, folder: Path) -> Iterator[tuple[int, int]]:
    """The role `api`: its port and process id."""
    port = free_port()
    environment = {
        **os.environ,
        "MAILYARD_DATABASE_URL": url,
        "MAILYARD_PORT": str(port),
        "MAILYARD_MASTER_KEY": master_key,
        "MAILYARD_DATA": str(folder / "api"),
    }
    command = [sys.executable, "-m", "mailyard.cli.main", "api"]
    running = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        yield port, running.pid
    finally:
        running.terminate()
        running.wait(30)


def follow(port: int, folder: Path) -> tuple[float, int]:
    """Answers a second, and how many there were. Raises SystemExit for any that was no redirect."""
    done = subprocess.run(
        [
            "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS:g}s", "-s", str(folder / "follow.lua"),
            "-H", f"User-Agent: {_AGENT}", f"http://127.0.0.1:{port}",
        ],
        env={**os.environ, "PATHS": str(folder / "paths")},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise SystemExit(done.stdout)
    answered = re.search(r"(\d+) requests in", done.stdout)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert answered is not None and rate is not None, done.stdout
    return float(rate[1]), int(answered[1])


async def work_off(url: str, workspace_id: UUID, answered: int) -> float:
    """Have a worker do the jobs; clicks a second. Raises SystemExit when an answered one is not
    there."""
    parts = Parts(url, connections=4)
    await parts.open()
    recorder = Recorder(
        database=parts.database, engine=parts.engine, live=parts.live, rules=shipped_rules()
    )
    worker = Worker(engine=parts.engine, handlers=[recorder.handler()], name="bench")
    started = time.perf_counter()
    running = asyncio.create_task(worker.run())
    async with parts.database.connection() as connection:
        for _ in range(6_000):
            if not await connection.fetchval("SELECT EXISTS (SELECT FROM job)"):
                break
            await asyncio.sleep(0.05)
        took_s = time.perf_counter() - started
        count = await connection.fetchval("SELECT count(*) FROM tracking_event")
        totals = await connection.fetchval(
            "SELECT sum(amount) FROM counter_delta WHERE workspace_id = $1 AND subject = $1"
            " AND name IN ('track.clicks', 'track.machine_clicks')",
            workspace_id,
        )
    worker.drain()
    await running
    await parts.close()
    if count < answered or totals != count:
        raise SystemExit(f"{answered} clicks answered, {count} kept, {totals} counted")
    return float(count) / took_s


def main() -> int:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mailyard-bench-")))
        folder.chmod(0o755)
        server = stack.enter_context(product_postgres(folder))
        master_key = new_master_key()
        workspace_id, paths = asyncio.run(seed(server.url, master_key))
        (folder / "paths").write_text("\n".join(paths))
        (folder / "follow.lua").write_text(_SCRIPT)
        bare_port = free_port()
        context = multiprocessing.get_context("spawn")
        bare = context.Process(target=serve_bare, args=(bare_port,), daemon=True)
        bare.start()
        stack.callback(bare.terminate)
        wait_for_port(bare_port)
        with mailyard_api(server.url, master_key, folder) as (port, pid):
            follow(port, folder) if PAIRS > 1 else None
            rates, shares, answered = [], [], 0
            for _ in range(PAIRS):
                idle_s = cpu_seconds(bare.pid or 0)
                limit, count = follow(bare_port, folder)
                bare_us = (cpu_seconds(bare.pid or 0) - idle_s) / count * 1e6
                groups = {"api": lambda: [pid], "PostgreSQL": server.process_ids}
                before = {name: sum(map(cpu_seconds, pids())) for name, pids in groups.items()}
                rate, count = follow(port, folder)
                used = {
                    name: (sum(map(cpu_seconds, pids())) - before[name]) / count * 1e6
                    for name, pids in groups.items()
                }
                each = ", ".join(f"{name} {us:.0f}" for name, us in used.items())
                note(
                    f"  bare {limit:,.0f}/s, clicks {rate:,.0f}/s; microseconds of CPU each: "
                    f"bare {bare_us:.0f}, {each}"
                )
                rates.append(rate)
                shares.append(rate / limit)
                answered += count
        applied = uvloop.run(work_off(server.url, workspace_id, answered))
    return report(
        [
            Row(
                "clicks in, durable: share of a bare handler",
                statistics.median(shares),
                "",
                BAR_SHARE,
            ),
            Row("clicks in, durable, one process", statistics.median(rates), "/s", BAR_PER_S),
            Row("clicks judged, written and counted, one worker", applied, "/s", BAR_PER_S),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
