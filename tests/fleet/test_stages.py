"""Each stage as one command brings it up here: the demonstration passes while one process of each
kind is killed in turn, mail stays from stage to stage, nothing is left behind.
"""

import asyncio
import http.client
import json
import os
import shutil
import signal
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from balancers import NGINX, STREAM_MODULE
from kafka_cluster import folder_of_jars
from postgres_servers import PGBOUNCER
from running_platform import children_of, free_ports, lives, wait_until
from s3_server import is_installed

from mailyard.cli.client import progress_console
from mailyard.fleet.local.place import Place
from mailyard.fleet.local.services.balancer import WAYS, Balancer, Front
from mailyard.proving.client import ApiClient
from mailyard.proving.demonstration import Demo, Verdict
from mailyard.proving.ordeal import run_ordeal
from mailyard.proving.over_http import HttpPlatform
from mailyard.proving.own_platform import Address, OwnPlatform
from mailyard.proving.turns import Turns

RECIPIENTS = 200
START_S = 180.0
ROLES = {"api", "smtp", "worker", "scheduler"}
SECOND = ROLES | {"postgres", "replica", "pgbouncer", "redis", "nginx", "nginx worker"}
THIRD = SECOND | {"sentinel", "kafka", "s3"}
HERE = NGINX.exists() and STREAM_MODULE.exists() and PGBOUNCER.exists()

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not (HERE and shutil.which("redis-server")) and os.environ.get("CI") != "true",
        reason="a service is missing: tests/services/install_fleet.sh",
    ),
]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """One broker is enough: while it is away Kafka is."""
    file = tmp_path / "stages.toml"
    file.write_text("[fleet]\ncounts = {redis_servers = 2, sentinels = 3, kafka_brokers = 1}\n")
    return file


@pytest.fixture
async def platforms(tmp_path: Path, small: Path) -> AsyncIterator[dict[int, OwnPlatform]]:
    """A platform at each stage, not started yet, on one and the same data."""
    folder = tmp_path / "own"
    folder.mkdir()
    folder.chmod(0o711)
    made = {
        stage: OwnPlatform(
            folder,
            {
                "MAILYARD_STAGE": str(stage),
                "MAILYARD_STAGE_FILE": str(small),
                "MAILYARD_DRAIN_S": "5",
            },
            start_s=START_S,
        )
        for stage in (1, 2, 3)
    }
    yield made
    for one in made.values():
        await one.kill()
    made[1].remove()


async def demonstrate(address: Address, run: str, recipients: int = RECIPIENTS) -> Verdict:
    client = ApiClient(address.url, address.api_key)
    try:
        demo = Demo(
            HttpPlatform(client), run=run, recipients=recipients, report=lambda _stage: None
        )
        return await demo.run()
    finally:
        await client.close()


async def mails(address: Address) -> int:
    client = ApiClient(address.url, address.api_key)
    try:
        return int((await client.get("/v1/messages/count", label="demo"))["messages"])
    finally:
        await client.close()


def test_the_second_stage_passes_the_demonstration_while_each_kind_is_killed() -> None:
    """As its users run it."""
    folder_of_jars()
    environment = {name: text for name, text in os.environ.items() if "MAILYARD_" not in name}
    done = asyncio.run(_demo(environment, "--stage", "2"))
    assert done["clean"] and done["lost"] == done["twice"] == done["wrong"] == 0, done
    assert done["received"] + done["unknown"] >= done["recipients"] >= RECIPIENTS
    assert {one["kind"] for one in done["killed"]} == SECOND


async def _demo(environment: dict[str, str], *words: str) -> dict[str, object]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mailyard.cli.main", "demo", "--kills", "--json"),
        *("--recipients", str(RECIPIENTS), *words),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out
    return dict(json.loads(out.strip().splitlines()[-1]))


async def test_the_third_stage_passes_it_and_mail_stays_from_stage_to_stage(
    platforms: dict[int, OwnPlatform], tmp_path: Path
) -> None:
    folder_of_jars()
    assert is_installed()
    address = await platforms[1].start()
    assert (await demonstrate(address, "one", 20)).clean
    await platforms[1].stop()

    key = address.api_key
    platforms[3]._api_key = key
    address = await platforms[3].start()
    assert await mails(address) == 20, "what the first stage has received is there"
    numbers = iter(range(100))
    turns = Turns(platforms[3], log=progress_console().print)
    outcome = await run_ordeal(
        turns, lambda: demonstrate(address, f"run{next(numbers)}"), log=lambda _verdict: None
    )
    assert outcome.clean, outcome
    assert {turn.kind for turn in outcome.turns} == THIRD
    back_s = {turn.kind: turn.back_s for turn in outcome.turns}
    assert back_s["redis"] >= 5.0, "the Sentinels were to replace it first"
    assert primary_of(tmp_path / "own/data/stage") != "redis-1"
    before = await mails(address)

    # Killed, it takes everything along; what it has promised is there at the stage before.
    supervisor = platforms[3].pid
    children = children_of(supervisor)
    assert len(children) > 15
    os.kill(supervisor, signal.SIGKILL)
    await asyncio.to_thread(wait_until, lambda: not any(map(lives, children)))
    await platforms[3].kill()
    platforms[2]._api_key = key
    address = await platforms[2].start()
    assert await mails(address) == before
    assert (await demonstrate(address, "two", 20)).clean
    children = children_of(platforms[2].pid)
    await platforms[2].stop()
    assert not any(map(lives, children))


def primary_of(stage: Path) -> str:
    """Whom the first Sentinel has in its configuration, which it writes itself."""
    ports = {
        int(port): name for name, port in json.loads((stage / "ports.json").read_text()).items()
    }
    lines = (stage / "sentinel-1/sentinel.conf").read_text().splitlines()
    (port,) = [int(line.split()[4]) for line in lines if line.startswith("sentinel monitor")]
    return ports[port]


@contextmanager
def somebody(port: int, name: str) -> Iterator[None]:
    """An API process in miniature, which says who it is."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(name)))
            self.end_headers()
            self.wfile.write(name.encode())

        def log_message(self, *_words: object) -> None:
            """Silence."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_the_balancer_follows_who_is_there(tmp_path: Path) -> None:
    """As the autoscaler makes more and fewer of a role."""
    tmp_path.chmod(0o755)
    place = Place(tmp_path / "data")
    port, smtp = free_ports(2)
    balancer = Balancer(place, lambda _name, _line: None)
    balancer.stand_before(Front("127.0.0.1", port, "127.0.0.1", smtp), {"api": ["api-1"]})

    def who(requests: int = 12) -> Counter[str]:
        found: Counter[str] = Counter()
        for _ in range(requests):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/")
            found[connection.getresponse().read().decode()] += 1
            connection.close()
        return found

    with (
        somebody(balancer.port_of("api-1", WAYS[0]), "api-1"),
        somebody(balancer.port_of("api-2", WAYS[0]), "api-2"),
    ):
        await balancer.start()
        try:
            assert set(await asyncio.to_thread(who)) == {"api-1"}
            balancer.serve("api", ["api-1", "api-2"])
            await asyncio.to_thread(wait_until, lambda: set(who()) == {"api-1", "api-2"})
            balancer.serve("api", ["api-2"])
            await asyncio.to_thread(wait_until, lambda: set(who()) == {"api-2"})
        finally:
            await balancer.stop()
            place.release()
