"""A whole platform watched by Prometheus and InfluxDB, and what it tells by mail, webhook and chat.

The rules are the packed ones with shorter durations, so that a condition need not last for minutes;
what they say of it (`tests/unit/fleet/test_default_rules.py`) is not shortened.
"""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import monitoring_servers
import pytest
import redis_servers
from monitoring_servers import Influx, Posted, Prometheus, promtool
from redis_servers import Server
from running_platform import Platform, running_platform, wait_until

from mailyard.bus.adapters.memory import MemoryBus
from mailyard.client import Mailyard
from mailyard.core.ids import uuid7
from mailyard.core.limits import MIB
from mailyard.fleet.alerts.board import AlertBoard
from mailyard.fleet.alerts.rule import read_rules
from mailyard.fleet.duties.watch import Watch
from mailyard.queue.engines.postgres import PostgresEngine
from mailyard.queue.job import INBOUND_EMAIL, NewJob
from mailyard.receiving.commit import INGEST
from mailyard.storage import cluster
from mailyard.storage.database import Database, DatabaseAddress

PLACES = 10
MAIL = "operator@inbox.localhost"
SHORT = "\n".join(
    f"[{name}]\n{level}_for_s = 0\nresolve_for_s = 0"
    for name, level in (
        ("live-connections", "warning"),
        ("redis-away", "critical"),
        ("workers-failing", "critical"),
    )
)
PATIENCE_S = 180.0


@dataclass
class World:
    """What runs."""

    platform: Platform
    redis: Server
    influx: Influx
    posted: Posted
    folder: Path

    @property
    def page(self) -> str:
        return str(self.platform.ready["page"])

    @property
    def key(self) -> str:
        return str(self.platform.ready["api_key"])

    def get(self, path: str, *, key: bool = True) -> bytes:
        headers = {"Authorization": f"Bearer {self.key}"} if key else {}
        with urlopen(Request(self.page + path, headers=headers), timeout=30) as answer:
            return bytes(answer.read())

    def told(self, rule: str) -> list[tuple[str, str]]:
        """(event, about) that the webhook was told of `rule`."""
        bodies = [json.loads(body) for body in self.posted.at("/hook")]
        return [(one["event"], one["about"]) for one in bodies if one["rule"] == rule]

    def alerts(self) -> dict[str, Any]:
        items = json.loads(self.get("/monitoring/alerts"))["items"]
        return {one["rule"]: one for one in reversed(items)}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("watched")
    rules = folder / "rules.toml"
    rules.write_text(SHORT)
    with ExitStack() as stack:
        redis = stack.enter_context(redis_servers.single(folder / "redis"))
        influx = stack.enter_context(monitoring_servers.influx(folder / "influx"))
        posted = stack.enter_context(monitoring_servers.receiver())
        platform = stack.enter_context(
            running_platform(
                folder / "data",
                redis_url=f"redis://127.0.0.1:{redis.port}",
                influx_url=influx.write_url,
                live_connections=str(PLACES),
                alerts_file=str(rules),
                alerts_webhook=posted.url("/hook"),
                alerts_slack=posted.url("/chat"),
                alerts_mail=MAIL,
                alerts_networks="127.0.0.0/8",
                worker_processes="1",
            )
        )
        world = World(platform, redis, influx, posted, folder)
        with Mailyard(world.page, world.key) as client:
            client.create_inbox(address=MAIL)
            mine = client.create_inbox().address
            client.send(sender="me@inbox.localhost", to=mine, subject="first", text="Hello")
            client.inbox(mine).wait_for(subject="first", timeout_s=PATIENCE_S)
        yield world


@pytest.fixture(scope="module")
def exported(world: World) -> Path:
    """What `mailyard monitoring export` writes, of the rules in force."""
    into = world.folder / "exported"
    into.mkdir()
    subprocess.run(
        [sys.executable, "-m", "mailyard.cli.main", "monitoring", "export", str(into)],
        check=True,
        env={**os.environ, "MAILYARD_ALERTS_FILE": str(world.folder / "rules.toml")},
    )
    return into


def served(world: World) -> set[str]:
    """Names of the metrics that the platform serves to its operator, by their TYPE lines."""
    text = world.get("/metrics").decode()
    return set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))


def test_metrics_are_as_prometheus_wants_them(world: World) -> None:
    for key in (True, False):
        promtool("check", "metrics", given=world.get("/metrics", key=key))
    wanted = {
        "mailyard_api_p95_seconds",
        "mailyard_queue_depth",
        "mailyard_queue_processing_seconds",
        "mailyard_database_query_mean_seconds",
        "mailyard_database_connections_ratio",
        "mailyard_redis_memory_ratio",
        "mailyard_redis_evictions_per_second",
        "mailyard_smtp_accepted_per_second",
        "mailyard_send_bounced_per_second",
        "mailyard_destination_answers",
        "mailyard_business_active_inboxes",
        "mailyard_process_memory_ratio",
        "mailyard_analysis_calls",
        "mailyard_live_connections_all",
    }
    # Redis tells of itself every 15 s.
    wait_until(
        lambda: wanted <= {name.removesuffix("_total") for name in served(world)}, PATIENCE_S
    )


def test_the_rules_that_are_exported_pass_promtool(exported: Path) -> None:
    said = promtool("check", "rules", str(exported / "mailyard.rules.yml"))
    expected = sum(
        (rule.warning is not None) + (rule.critical is not None) for rule in read_rules(SHORT)
    )
    assert f"{expected} rules found" in said


def test_every_expression_of_the_dashboard_is_of_metrics_that_are_served(
    world: World, exported: Path
) -> None:
    board = json.loads((exported / "mailyard.dashboard.json").read_text())
    assert board["schemaVersion"] >= 39 and board["uid"] == "mailyard"
    ids = [panel["id"] for panel in board["panels"]]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
    assert len(set(ids)) == len(ids) and len(set(places)) == len(places)
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert all(panel["targets"] for panel in board["panels"])
    rules = json.loads((exported / "mailyard.rules.yml").read_text())
    expressions += [rule["expr"] for rule in rules["groups"][0]["rules"]]
    recorded = world.folder / "expressions.yml"
    groups = [{"record": f"tried:{nth}", "expr": one} for nth, one in enumerate(expressions)]
    recorded.write_text(json.dumps({"groups": [{"name": "tried", "rules": groups}]}))
    promtool("check", "rules", str(recorded))
    named = {name for one in expressions for name in re.findall(r"mailyard_\w+", one)}
    names = served(world)
    names |= {f"{name}_{part}" for name in names for part in ("bucket", "count", "sum", "total")}
    assert named - names <= RARE
    assert len(named) >= 30


# Served as soon as there is something of the kind: a model that was asked, a limit that was used.
RARE = {
    "mailyard_analysis_calls_per_second",
    "mailyard_analysis_failed_ratio",
    "mailyard_analysis_p50_seconds",
    "mailyard_analysis_p95_seconds",
    "mailyard_analysis_tokens_per_second",
    "mailyard_provider_limit_ratio",
    "mailyard_send_bounce_ratio",
    "mailyard_send_complaint_ratio",
    "mailyard_send_delivered_ratio",
    "mailyard_database_lag_seconds",
    "mailyard_cache_hit_ratio",
    "mailyard_redis_hit_ratio",
    "mailyard_queue_failed_ratio",
    "mailyard_replica_left_out",
    "mailyard_region_copy_silent_seconds",
    "mailyard_blobs_away",
}


@contextmanager
def streams(world: World, count: int) -> Iterator[None]:
    """So many open event streams."""
    host, port = "127.0.0.1", world.platform.port
    request = (
        f"GET /v1/events HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {world.key}\r\n\r\n"
    ).encode()
    with ExitStack() as stack:
        for _ in range(count):
            one = stack.enter_context(socket.create_connection((host, port), timeout=10))
            one.sendall(request)
            assert b"200" in one.recv(200)
        yield


@pytest.fixture
def scraper(world: World, exported: Path) -> Iterator[Prometheus]:
    target = f"127.0.0.1:{world.platform.port}"
    rules = exported / "mailyard.rules.yml"
    with monitoring_servers.prometheus(
        world.folder / "prometheus", target, world.key, rules
    ) as server:
        yield server


def test_an_alert_is_raised_here_and_in_prometheus_told_in_every_way_and_resolved(
    world: World, scraper: Prometheus
) -> None:
    world.posted.refuse += [503]  # whoever is told first: it is tried again
    with streams(world, PLACES):
        wait_until(lambda: world.told("live-connections"), PATIENCE_S)
        fired = ("MailyardLiveConnections", "warning")
        wait_until(lambda: fired in scraper.firing(), PATIENCE_S)
        wait_until(lambda: scraper.value("mailyard_live_ratio") == 1.0, PATIENCE_S)
    wait_until(lambda: len(world.told("live-connections")) >= 2, PATIENCE_S)
    wait_until(lambda: fired not in scraper.firing(), PATIENCE_S)
    begun, over = world.told("live-connections")
    assert begun == ("warning", "100 % of the places for live connections are taken.")
    assert over[0] == "resolved"

    def chat() -> list[str]:
        texts = [json.loads(body)["text"] for body in world.posted.at("/chat")]
        return [text for text in texts if "live-connections" in text]

    wait_until(lambda: len(chat()) >= 2, PATIENCE_S)
    assert ":warning:" in chat()[0] and ":white_check_mark:" in chat()[1]
    with Mailyard(world.page, world.key) as client:
        inbox = client.inbox(MAIL)
        for event in ("warning", "resolved"):
            subject = f"[{event}] live-connections"
            assert inbox.wait_for(subject=subject, timeout_s=PATIENCE_S).subject == subject
    alert = world.alerts()["live-connections"]
    assert alert["ended_at"] and {one["channel"] for one in alert["notices"]} == {
        "mail",
        "webhook",
        "slack",
    }
    assert all(one["sent_at"] for one in alert["notices"])


def test_redis_that_goes_away_is_told_of_and_its_return_too(world: World) -> None:
    world.redis.kill()
    wait_until(lambda: world.told("redis-away"), PATIENCE_S)
    world.redis.start()
    wait_until(lambda: len(world.told("redis-away")) >= 2, PATIENCE_S)
    assert [event for event, _ in world.told("redis-away")] == ["critical", "resolved"]


async def test_jobs_that_fail_are_told_of(world: World) -> None:
    url = cluster.url_of(world.platform.data)
    database = Database(DatabaseAddress(url=url, direct_url=url, connections=2))
    await database.open()
    engine = PostgresEngine(database=database, bus=MemoryBus())
    await engine.enqueue(
        [
            NewJob(INBOUND_EMAIL, INGEST, b"this is not what it takes", uuid7(), max_attempts=3)
            for _ in range(100)
        ]
    )
    engine.announce([INBOUND_EMAIL])
    async with asyncio.timeout(PATIENCE_S):
        while not world.told("workers-failing"):
            await asyncio.sleep(0.2)
    await database.close()
    event, about = world.told("workers-failing")[0]
    assert event == "critical" and "of the jobs fail" in about


def test_influxdb_has_the_figures(world: World) -> None:
    wait_until(lambda: world.influx.ask("SHOW MEASUREMENTS"), PATIENCE_S)
    measurements = {row[0] for row in world.influx.ask("SHOW MEASUREMENTS")[0]["values"]}
    assert {
        "mailyard_api",
        "mailyard_queue",
        "mailyard_database",
        "mailyard_process",
        "mailyard_send",
        "mailyard_smtp",
        "mailyard_redis",
        "mailyard_disk",
    } <= measurements

    def last(query: str) -> float | None:
        found = world.influx.ask(query)
        return float(found[0]["values"][0][1]) if found else None

    count = "SELECT last(\"count\") FROM mailyard_process WHERE subject = '{}'"
    wait_until(lambda: last(count.format("api")) == 1.0, PATIENCE_S)
    wait_until(lambda: last(count.format("worker")) == 1.0, PATIENCE_S)

    def as_it_is() -> bool:
        """Others write to the disk meanwhile."""
        now = json.loads(world.get("/monitoring/metrics"))["figures"]["disk.used"][""]
        return last("SELECT last(used) FROM mailyard_disk") == pytest.approx(now, abs=0.02)

    wait_until(as_it_is, PATIENCE_S)
    depths = world.influx.ask('SELECT last(depth) FROM mailyard_queue GROUP BY "subject"')
    assert {one["tags"]["subject"] for one in depths} >= {"email-send", "inbound-email"}


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """A file system of its own in memory, which can be filled."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "mailyard-test", str(folder)]
    subprocess.run(words, check=True, timeout=30)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True, timeout=30)


async def test_a_disk_that_fills_is_told_of_at_both_levels_and_when_there_is_room_again(
    database: Database, tmp_path: Path
) -> None:
    [rule] = [one for one in read_rules() if one.name == "disk"]
    rule = replace(rule, warning_for_s=0.0, critical_for_s=0.0, resolve_for_s=0.0)
    board = AlertBoard(database=database, rules=[rule])
    events = []
    with small_disk(tmp_path / "disk", 10 * MIB) as disk:
        watch = Watch(
            database=database,
            engine=PostgresEngine(database=database, bus=MemoryBus()),
            data=disk,
            budget=100,
            live_places=10,
            board=board,
            scaler=None,
        )
        for share in (0.5, 0.75, 0.95, 0.1):
            (disk / "mail").write_bytes(bytes(int(share * 10 * MIB)))
            await watch.round()
            found = await board.list()
            events.append([(one.level, one.worst, one.ended_at is None) for one in found])
    assert events == [
        [],
        [("warning", "warning", True)],
        [("critical", "critical", True)],
        [("critical", "critical", False)],
    ]
