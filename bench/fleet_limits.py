"""Decisions of a limit that a fleet shares in Redis: how many a process makes, and how exact they
are when eight processes go by one limit.

A decision is a taking of its own by a caller of its own, as requests and sites make them; what is
pipelined is what the adapter sends together. Beside it stands redis-benchmark's rate of plain SETs
with the same depth, which is what the server gives without any decision.
"""

import asyncio
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import monotonic, process_time, time

from measure import Row, median_of, report, seconds

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import redis_servers

from mailyard.ratelimit.adapters.redis import RedisRateLimit
from mailyard.storage.redis.address import parse_address
from mailyard.storage.redis.link import RedisLink

CALLERS = 1_000  # that ask at the same time
KEYS = 200
PER_S = 20_000.0
PROCESSES = 8
ASKERS = 16  # of one process, so that together they ask for more than there is
LIMIT_PER_S = 1_000.0
LIMIT_BURST = 1_000.0  # a second of it: what a process that stands still for a moment makes good
BARS = {"decisions": 20_000.0, "error": 1.0}


async def decide(url: str, lasting_s: float) -> tuple[float, float, int]:
    """(decisions a second, microseconds of this process's CPU each, decisions) of one process."""
    link = RedisLink(parse_address(url), call_s=5.0)
    await link.open()
    limit = RedisRateLimit(link=link)
    made = 0
    end = monotonic() + lasting_s

    async def ask(number: int) -> None:
        nonlocal made
        while monotonic() < end:
            await limit.take(f"key{number % KEYS}", 1, PER_S, PER_S)
            made += 1

    began, cpu_s = monotonic(), process_time()
    await asyncio.gather(*(ask(number) for number in range(CALLERS)))
    lasted_s, cpu_s = monotonic() - began, process_time() - cpu_s
    await link.close()
    return made / lasted_s, cpu_s / made * 1e6, made


def decisions(url: str, servers: Sequence[redis_servers.Server]) -> float:
    """The median rate of some runs; what a decision takes of both sides' CPU is said beside it."""

    def once() -> float:
        before = sum(cpu_of(server) for server in servers)
        rate, cpu_us, made = asyncio.run(decide(url, seconds(2.5, 10.0)))
        served_us = (sum(cpu_of(server) for server in servers) - before) / made * 1e6
        print(f"  CPU a decision: {cpu_us:.1f} us here, {served_us:.1f} us there", file=sys.stderr)
        return rate

    return median_of(once)


def cpu_of(server: redis_servers.Server) -> float:
    """Seconds of CPU that it has used."""
    info = server.ask("INFO", "cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


async def take_all(url: str, lasting_s: float) -> tuple[int, float, float]:
    """How much of one limit this process gets, and from when until when it asked. It says when it
    is ready, and is told when to begin."""
    link = RedisLink(parse_address(url), call_s=5.0)
    await link.open()
    limit = RedisRateLimit(link=link)
    await limit.take("warm", 1, 1.0, 1)
    print("ready", flush=True)
    begin_at = float(sys.stdin.readline())
    end_at = begin_at + lasting_s
    taken, began = 0, 0.0

    async def ask() -> None:
        nonlocal taken
        while (now := time()) < end_at:
            wait_s = await limit.take("shared", 1, LIMIT_PER_S, LIMIT_BURST)
            taken += wait_s == 0.0
            if wait_s:
                await asyncio.sleep(min(wait_s, max(0.0, end_at - now)))

    await asyncio.sleep(begin_at - time())
    began = time()
    await asyncio.gather(*(ask() for _ in range(ASKERS)))
    ended = time()
    await link.close()
    return taken, began, ended


def error_percent(url: str, lasting_s: float) -> float:
    """By how much eight processes together miss what the limit allows in that time, in percent."""
    children = [
        subprocess.Popen(
            [sys.executable, __file__, "take", url, str(lasting_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    for child in children:
        assert child.stdout is not None and child.stdin is not None
        while child.stdout.readline().strip() != "ready":
            pass
    begin_at = time() + 0.5
    answers = []
    for child in children:
        assert child.stdin is not None
        child.stdin.write(f"{begin_at}\n")
        child.stdin.flush()
    for child in children:
        answers.append(json.loads(child.communicate()[0].splitlines()[-1]))
    taken = sum(answer[0] for answer in answers)
    span_s = max(answer[2] for answer in answers) - min(answer[1] for answer in answers)
    allowed = LIMIT_BURST + LIMIT_PER_S * span_s
    print(f"  taken {taken} of {allowed:.0f} in {span_s:.2f} s", file=sys.stderr)
    return abs(taken - allowed) / allowed * 100.0


def plain_sets(port: int) -> float:
    """SETs a second as redis-benchmark makes them, 250 in a pipeline."""
    done = subprocess.run(
        ["redis-benchmark", "-p", str(port), "-t", "set", "-n", "400000", "-P", "250", "-q"],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(re.findall(r"SET: ([0-9.]+) requests per second", done.stdout)[-1])


def main(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["take"]:
        url, lasting_s = arguments[1:]
        print(json.dumps(asyncio.run(take_all(url, float(lasting_s)))))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        with redis_servers.single(Path(folder) / "single") as server:
            url = f"redis://127.0.0.1:{server.port}"
            print(f"redis-benchmark SET: {plain_sets(server.port):.0f}/s", file=sys.stderr)
            rate = decisions(url, [server])
            rows.append(Row("limit decisions of one process", rate, "/s", BARS["decisions"]))
            error = error_percent(url, seconds(8.0, 30.0))
            rows.append(
                Row("limit error of 8 processes", error, "%", BARS["error"], less_is_better=True)
            )
        with redis_servers.cluster(Path(folder) / "cluster") as cluster:
            rate = decisions(cluster.url, cluster.servers)
            rows.append(
                Row("limit decisions of one process, cluster", rate, "/s", BARS["decisions"])
            )
    return report(rows)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
