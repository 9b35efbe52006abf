"""`POST /v1/emails`, durable: requests a second, and p99 at 1,000 requests a second.

Runs `mailyard api`, one process, on the embedded PostgreSQL as it is, with fsync on, and a load
generator in another process that speaks raw HTTP/1.1 over asyncio. Beside the figures stands the
machine's limit: the same server answering without a database. Nobody works off what is accepted, so
the last runs at 1,000 a second are those behind a large backlog. `SECONDS` and `RUNS` shorten it.
"""

import asyncio
import gc
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import uvloop
from measure import Row, free_port, note, report, seconds, wait_for_port
from platform_parts import Server, cpu_seconds, product_postgres

from mailyard.access.bootstrap import bootstrap
from mailyard.app import Application
from mailyard.settings import Settings

BAR_PER_S = 4_000
BAR_P99_MS = 25.0
PACED_PER_S = 1_000
CONNECTIONS = 64
SECONDS = float(os.environ.get("SECONDS", seconds(12.0, 20.0)))
RUNS = int(os.environ.get("RUNS", 3))
BODY = json.dumps(
    {
        "from": "Shop <shop@example.org>",
        "to": ["ada.lovelace@example.org"],
        "subject": "Your order has left our house",
        "html": "<p>Thank you, Ada.</p>" + "<p>lorem ipsum dolor sit amet</p>" * 60,
        "text": "Thank you, Ada.\n" + "lorem ipsum dolor sit amet\n" * 60,
    }
).encode()


@dataclass(frozen=True, slots=True)
class Load:
    """What one run saw: answers of 2xx, others, seconds, latencies in milliseconds.

    `answers` counts those before the measured time too; `cpu_s` is the generator's.
    """

    done: int
    refused: int
    seconds: float
    latencies_ms: Sequence[float]
    answers: int
    cpu_s: float

    @property
    def per_s(self) -> float:
        return self.done / self.seconds

    def percentile(self, share: float) -> float:
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class _Caller(asyncio.Protocol):
    """One keep-alive connection that sends the same request and counts answers."""

    def __init__(self, request: bytes, load: "_Generator") -> None:
        self._request = request
        self._load = load
        self._pending = b""
        self._sent_at = 0.0
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class

    def send(self, due_at: float) -> None:
        """Send one request; its time counts from when it was due (no coordinated omission)."""
        self._sent_at, self.busy = due_at, True
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._pending += data
        end = self._pending.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._pending[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self._pending) < end + 4 + length:
            return
        good = head[9:10] == b"2"
        self._pending = b""
        self.busy = False
        self._load.answered(self, good, perf_counter() - self._sent_at)


class _Generator:
    """Keeps all connections busy, or starts requests at a fixed pace."""

    def __init__(self, warm_s: float, seconds: float, per_s: float | None) -> None:
        self._count_from = perf_counter() + warm_s
        self._until = self._count_from + seconds
        self._per_s = per_s
        # The longest idle goes next: the server ends connections that say nothing for seconds.
        self._idle: deque[_Caller] = deque()
        self._waiting: deque[float] = deque()
        self.done = self.refused = self.answers = 0
        self.latencies_ms: list[float] = []

    def answered(self, caller: _Caller, good: bool, seconds: float) -> None:
        now = perf_counter()
        self.answers += 1
        if self._count_from <= now < self._until:
            self.done += good
            self.refused += not good
            self.latencies_ms.append(seconds * 1000)
        if now >= self._until:
            return
        if self._per_s is None:
            caller.send(now)
        elif self._waiting:
            caller.send(self._waiting.popleft())
        else:
            self._idle.append(caller)

    async def run(self, host: str, port: int, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        callers = []
        for _ in range(CONNECTIONS):
            _, caller = await loop.create_connection(lambda: _Caller(request, self), host, port)
            callers.append(caller)
        if self._per_s is None:
            for caller in callers:
                caller.send(perf_counter())
            await asyncio.sleep(self._until - perf_counter() + 0.5)
            return
        self._idle.extend(callers)
        due = perf_counter()
        while due < self._until:
            due += 1 / self._per_s
            pause = due - perf_counter()
            if pause > 0:
                await asyncio.sleep(pause)
            if self._idle:
                self._idle.popleft().send(due)
            else:
                self._waiting.append(due)
        await asyncio.sleep(0.5)


def generate(
    port: int, path: str, key: str, body: bytes, seconds: float, per_s: float | None, answer: Any
) -> None:
    """The load generator's process."""
    gc.disable()
    method = "POST" if body else "GET"
    head = (
        f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    generator = _Generator(2.0, seconds, per_s)
    started_s = time.process_time()
    uvloop.run(generator.run("127.0.0.1", port, head.encode() + body))
    cpu_s = time.process_time() - started_s
    latencies_ms = generator.latencies_ms
    run = (generator.done, generator.refused, seconds, latencies_ms, generator.answers, cpu_s)
    answer.send(run)


async def first_start(url: str) -> str:
    """Set the database up; the first API key."""
    application = Application(replace(Settings(), database_url=url))
    await application.open()
    first = await bootstrap(
        database=application.database,
        workspaces=application.workspaces,
        users=application.users,
        keys=application.keys,
        sessions=application.sessions,
    )
    await application.close()
    assert first is not None, "the database was used before"
    return first.api_key


@dataclass(frozen=True, slots=True)
class Api:
    """The running `mailyard api`."""

    port: int
    key: str
    pid: int


@contextmanager
def mailyard_api(url: str) -> Iterator[Api]:
    """The role `api`, one process, as its command starts it."""
    key, port = asyncio.run(first_start(url)), free_port()
    environment = {
        **os.environ,
        "MAILYARD_DATABASE_URL": url,
        "MAILYARD_PORT": str(port),
        # One key sends everything here; the limit counts, and is out of its reach.
        "MAILYARD_RATE_PER_S": "100000",
        "MAILYARD_RATE_BURST": "100000",
    }
    command = str(Path(sys.executable).with_name("mailyard"))
    running = subprocess.Popen([command, "api"], env=environment, stdout=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        yield Api(port, key, running.pid)
    finally:
        running.terminate()
        running.wait(30)


def load(port: int, key: str, path: str, body: bytes, seconds: float, per_s: float | None) -> Load:
    """Run the generator in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=generate, args=(port, path, key, body, seconds, per_s, theirs))
    process.start()
    theirs.close()  # a generator that dies ends the wait below
    answer = Load(*ours.recv())
    process.join()
    return answer


def costs(server: Server, api: Api) -> dict[str, float]:
    """CPU seconds used so far."""
    return {
        "API": cpu_seconds(api.pid),
        "PostgreSQL": sum(map(cpu_seconds, server.process_ids())),
    }


def send(server: Server, api: Api, per_s: float | None) -> Load:
    """One run, said on stderr with what each request cost."""
    before = costs(server, api)
    run = load(api.port, api.key, "/v1/emails", BODY, SECONDS, per_s)
    used = {name: after - before[name] for name, after in costs(server, api).items()}
    used["generator"] = run.cpu_s
    each = ", ".join(f"{name} {1e6 * s / run.answers:.0f}" for name, s in used.items())
    pace = f"at {per_s:,.0f}/s" if per_s else f"{run.per_s:,.0f}/s"
    note(
        f"  {pace}: p50 {run.percentile(0.5):.1f} ms, p99 {run.percentile(0.99):.1f} ms; "
        f"microseconds of CPU a request: {each}"
    )
    return run


def measure(server: Server) -> list[Row]:
    """First the paced runs, then those at full speed, then paced ones behind all of that."""
    with mailyard_api(server.url) as api:
        paced = [send(server, api, PACED_PER_S) for _ in range(RUNS)]
        runs = [send(server, api, None) for _ in range(RUNS)]
        backlog = sum(run.answers for run in (*paced, *runs))
        note(f"  {backlog:,} jobs wait:")
        behind = [send(server, api, PACED_PER_S) for _ in range(RUNS)]
        limit = load(api.port, api.key, "/health/live", b"", 5.0, None)
    note(f"  GET /health/live of the same process: {limit.per_s:,.0f}/s")
    refused = sum(run.refused for run in (*runs, *paced, *behind))
    return [
        Row("POST /v1/emails, durable", statistics.median(r.per_s for r in runs), "/s", BAR_PER_S),
        _p99("POST /v1/emails, p99 at 1,000/s", paced),
        _p99("POST /v1/emails, p99 at 1,000/s behind a backlog", behind),
        Row("POST /v1/emails, refused", float(refused), "", 0.0, less_is_better=True),
    ]


def _p99(name: str, runs: Sequence[Load]) -> Row:
    p99_ms = statistics.median(run.percentile(0.99) for run in runs)
    return Row(name, p99_ms, "ms", BAR_P99_MS, less_is_better=True)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="mailyard-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with product_postgres(folder) as server:
            return report(measure(server))


if __name__ == "__main__":
    sys.exit(main())
