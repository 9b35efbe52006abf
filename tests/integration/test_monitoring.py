"""The watch: figures out of real rows, alerts raised once and told, decisions written down."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from api_platform import Platform, start

from mailyard.cache.adapters.memory import MemoryCache
from mailyard.cache.kind import Kind
from mailyard.cache.layered import LayeredCache
from mailyard.core.errors import Conflict, Unavailable
from mailyard.core.ids import uuid7
from mailyard.fleet.alerts.board import AlertBoard
from mailyard.fleet.alerts.notify import Notice, Notifier
from mailyard.fleet.alerts.rule import Rule
from mailyard.fleet.autoscale.book import DecisionBook
from mailyard.fleet.autoscale.policy import Policy, read_policies
from mailyard.fleet.autoscale.scaler import Autoscaler, settled
from mailyard.fleet.duties.watch import Watch
from mailyard.fleet.figures import Figures
from mailyard.fleet.look import Look, take_look
from mailyard.queue.job import LANES, Depth
from mailyard.storage.database import Database

SLOW = Rule("api-p95", "api.p95_s", "{value} s", warning=0.5, critical=2.0, warning_for_s=0,
            critical_for_s=0, resolve_for_s=0)  # fmt: skip
BOUNDS = 14


class Lines:
    """A queue's engine that says what it is told to."""

    def __init__(self) -> None:
        self.ready: dict[str, int] = {}
        self.away = False

    async def depth(self, queues: Any) -> list[Depth]:
        if self.away:
            raise Unavailable("away")
        return [Depth(name, self.ready.get(name, 0), 0, 0, 0, 0.0) for name in queues]


class Hands:
    """An actuator that obeys."""

    name = "hands"

    def __init__(self, **counts: int) -> None:
        self.counts = counts

    async def instances(self, policy: Policy) -> int | None:
        return self.counts.get(policy.group)

    async def set(self, policy: Policy, count: int) -> None:
        self.counts[policy.group] = count


async def beat(database: Database, role: str, process_id: Any, at_s: float, **stats: Any) -> None:
    """A process's row as its beat would have written it `at_s` seconds from now."""
    await database.pool.execute(
        """INSERT INTO process (id, role, host, pid, stats, seen_at)
           VALUES ($1, $2, 'here', 7, $3::jsonb, now() + make_interval(secs => $4))
           ON CONFLICT (id) DO UPDATE SET stats = excluded.stats, seen_at = excluded.seen_at""",
        process_id,
        role,
        msgspec.json.encode(stats).decode(),
        at_s,
    )


def http(count: int, slow: int) -> Mapping[str, Any]:
    """So many fast answers, and so many between 1 and 2.5 s."""
    fast = [count] * (BOUNDS - 3)
    return {"http": {"count": count + slow, "errors": slow, "seconds": 1.0,
                     "buckets": [*fast, *[count + slow] * 3]}}  # fmt: skip


async def test_figures_are_counted_between_two_beats_of_each_process(database: Database) -> None:
    one, two, lines = uuid7(), uuid7(), Lines()
    await beat(database, "api", one, -20, cpu_s=5.0, totals=http(1_000_000, 0))
    await beat(database, "api", two, -20, cpu_s=1.0, totals=http(50, 0))
    before = await take_look(database, lines, None)
    await beat(database, "api", one, -10, cpu_s=11.0, totals=http(1_000_080, 20))
    await beat(database, "api", two, 0, cpu_s=3.0, totals=http(150, 0))
    seen: list[Figures] = []

    async def keep(_look: Look, figures: Figures) -> None:
        seen.append(figures)

    watch = Watch(
        database=database,
        engine=lines,
        data=Path("/"),
        budget=100,
        live_places=10,
        board=None,
        scaler=None,
        sinks=[keep],
    )
    watch._looks.append(before)  # as of the round before
    await watch.round()

    (found,) = seen
    assert found["api.requests_per_s"][""] == pytest.approx(100 / 10 + 100 / 20, rel=0.01)
    assert found["api.error_share"][""] == pytest.approx(20 / 200)
    p95 = found["api.p95_s"][""]
    assert p95 is not None and 1.0 < p95 <= 2.5
    assert found["process.cpu"]["api"] == pytest.approx((0.6 + 0.1) / 2, rel=0.01)
    assert found["process.count"] == {"api": 2.0, "smtp": 0.0, "worker": 0.0, "scheduler": 0.0}
    assert set(found["queue.depth"]) == set(LANES)
    used = found["disk.used"][""]
    assert used is not None and 0 < used < 1


async def test_an_alert_is_one_row_whoever_judges_and_is_told_until_it_is_over(
    database: Database,
) -> None:
    told: list[tuple[str, str]] = []
    failures = [Unavailable("the chat is away")]

    async def webhook(notice: Notice) -> None:
        told.append((notice.event, notice.about))

    async def slack(_notice: Notice) -> None:
        if failures:
            raise failures.pop()
        told.append(("slack", ""))

    boards = [
        AlertBoard(database=database, rules=[SLOW], channels=["webhook", "slack"]) for _ in range(2)
    ]
    notifier = Notifier(database=database, channels={"webhook": webhook, "slack": slack})
    for number, value in enumerate((0.6, 0.7, 3.0, 0.1, 0.1)):
        for board in boards:
            await board.judge({"api.p95_s": {"": value}}, 1_000.0 + number)
    while await notifier.tell():
        pass

    (alert,) = await boards[0].list()
    assert (alert.rule, alert.worst, alert.ended_at is not None) == ("api-p95", "critical", True)
    events = [event for event, _ in told if event != "slack"]
    assert events == ["warning", "critical", "resolved"]
    assert told[0][1] == "0.6 s"
    waiting = [one for one in alert.told if one.sent_at is None]
    assert [(one.channel, one.tries, one.error) for one in waiting] == [
        ("slack", 1, "the chat is away")
    ]
    await database.pool.execute("UPDATE alert_notice SET due_at = now()")
    await notifier.tell()
    assert [one for one in (await boards[0].list())[0].told if one.sent_at is None] == []


async def test_a_new_leader_goes_on_with_the_alerts_of_the_one_before(database: Database) -> None:
    gone = Rule("gone", "gone.now", "x", critical=1.0, critical_for_s=0)
    before = AlertBoard(database=database, rules=[SLOW, gone])
    await before.judge({"api.p95_s": {"": 3.0}, "gone.now": {"": 2.0}}, 1_000.0)

    after = AlertBoard(database=database, rules=[SLOW])
    await after.judge({"api.p95_s": {"": 3.0}}, 1_010.0)
    still = await after.list(only_open=True)
    await after.judge({"api.p95_s": {"": 0.1}}, 1_020.0)

    assert [alert.rule for alert in still] == ["api-p95"]
    assert await after.list(only_open=True) == []
    assert len(await after.list()) == 2


async def test_why_three_became_five_is_written_down(database: Database) -> None:
    policies = [replace(one, least=1, most=8) for one in read_policies() if one.role == "worker"]
    worker, lines, hands = uuid7(), Lines(), Hands(worker=3)
    book = DecisionBook(database=database)
    scaler = Autoscaler(policies=policies, actuator=hands, book=book, budget=100, each=10)

    def jobs(done: int) -> dict[str, Any]:
        one = {"slots": 2.0, "batches": done, "seconds": done * 0.5, "completed": done}
        return {"jobs": {"inbound-email": one}}

    async def look(at_s: float, done: int, ready: int) -> Look:
        await beat(database, "worker", worker, at_s - 20, cpu_s=0.0, memory_share=0.2,
                   totals=jobs(done))  # fmt: skip
        lines.ready["inbound-email"] = ready
        taken = await take_look(database, lines, None)
        return replace(taken, at_s=taken.at_s + at_s)

    before = await look(0, 100, 0)
    for at_s, ready in ((5.0, 0), (10.0, 100), (20.0, 300), (25.0, 350)):
        now = await look(at_s, 100 + int(at_s) * 12, ready)
        await scaler.act(before, now, {"process.memory_share": {"worker": 0.2}})

    (decided,) = await book.list()
    assert (decided.kind, decided.was, decided.became) == ("up", 3, hands.counts["worker"])
    assert decided.became > 5 and decided.actuator == "hands"
    assert "the work needs" in decided.reason
    lane = decided.inputs["lanes"][0]
    assert (lane["name"], lane["service_s"]) == ("inbound-email", 0.5)
    assert decided.inputs["panic_for_s"] >= 15


async def test_where_another_decides_the_page_says_who(database: Database) -> None:
    class Others(Hands):
        async def set(self, policy: Policy, count: int) -> None:
            raise Conflict("the replicas of yard-worker are another's")

    policies = [replace(one, least=1, most=8) for one in read_policies() if one.role == "worker"]
    book = DecisionBook(database=database)
    scaler = Autoscaler(
        policies=policies, actuator=Others(worker=12), book=book, budget=100, each=10
    )
    for at_s in (0.0, 5.0, 10.0):
        taken = await take_look(database, Lines(), None)
        await scaler.act(None, replace(taken, at_s=at_s), {"process.memory_share": {"worker": 0.2}})

    (decided,) = await book.list()  # said once
    assert (decided.kind, decided.was, decided.became) == ("blocked", 12, 12)
    assert decided.reason.endswith("but the replicas of yard-worker are another's")


def test_bounds_are_settled_from_the_settings() -> None:
    policies = [Policy("a", "api"), Policy("w", "worker", least=3, most=6)]

    first, second = settled(policies, {"api": 2, "worker": 2}, most_by_itself=4, room=10)

    assert (first.least, first.most) == (2, 4)
    assert (second.least, second.most) == (3, 6)


@pytest.fixture
async def platform(database: Database) -> AsyncIterator[Platform]:
    platform = await start(database)
    yield platform
    await platform.close()


async def test_the_operator_reads_figures_alerts_and_decisions(platform: Platform) -> None:
    await beat(platform.app.database, "api", uuid7(), 0, cpu_s=1.0, totals=http(100, 0))
    await platform.app.alert_board.judge({"disk.used": {"": 0.95}}, 1_000.0)
    await platform.app.alert_board.judge({"disk.used": {"": 0.95}}, 1_100.0)

    figures = (await platform.call("GET", "/monitoring/metrics")).json["figures"]
    (alert,) = (await platform.call("GET", "/monitoring/alerts?only_open=true")).json["items"]
    metrics = (await platform.call("GET", "/metrics", key=None)).body.decode()

    assert figures["process.count"]["api"] == 1.0
    assert figures["business.mails_today"] == {"received": 0, "sent": 0}
    assert figures["business.sign_ups_today"] == {"": 0.0}
    assert (alert["rule"], alert["level"], alert["about"]) == (
        "disk",
        "critical",
        "95 % of the disk is used.",
    )
    assert 'mailyard_processes{role="api"} 1' in metrics
    assert "mailyard_api_p95_seconds" in metrics
    assert "mailyard_destination" not in metrics
    assert "mailyard_destination" in (await platform.call("GET", "/metrics")).body.decode()
    assert (await platform.call("GET", "/v1/scaling/decisions")).json == {"items": []}


async def test_the_stream_tells_figures_until_its_listener_goes(platform: Platform) -> None:
    told: list[dict[str, Any]] = []
    gone = asyncio.Event()

    async def send(message: dict[str, Any]) -> None:
        told.append(message)
        if len(told) == 2:
            gone.set()

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/monitoring/stream",
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {platform.key}".encode())],
        "client": ("127.0.0.1", 1),
    }
    await asyncio.wait_for(platform.asgi(scope, receive, send), 10)
    refused: list[dict[str, Any]] = []

    async def refuse(message: dict[str, Any]) -> None:
        refused.append(message)

    await platform.asgi({**scope, "headers": []}, receive, refuse)

    assert told[0]["status"] == 200
    assert told[1]["body"].startswith(b'event: figures\ndata: {"figures":{')
    assert refused[0]["status"] == 401


async def test_the_operator_empties_caches_and_resets_limits(platform: Platform) -> None:
    app, kind = platform.app, Kind("test", strict=True)
    made: list[int] = []

    async def make() -> int:
        made.append(1)
        return len(made)

    shared = MemoryCache()
    app.cache = LayeredCache(database=app.database, bus=app.bus, shared=shared)
    other = LayeredCache(database=app.database, bus=app.bus)
    for cache in (app.cache, other):
        await cache.get_or_make(kind, platform.workspace_id, "k", make)
    await shared.put(platform.workspace_id, {"any": b"x"}, 600)
    spent = ["api", "sign-in", "account:reset"]
    for limit in spent:
        await app.limits.take(f"{limit}:ada@example.org", 1, 0.001, 1)
    assert await app.limit_policies.take("general", "ada@example.org", count=10_000) == 0.0

    cleared = await platform.call("POST", "/monitoring/operations/clear-cache")
    path = "/monitoring/operations/reset-user-limits/"
    reset = await platform.call("POST", path + "Ada@Example.org")
    nobody = await platform.call("POST", path + "ada")

    assert (cleared.status, reset.status, nobody.status) == (200, 200, 404)
    assert cleared.json == {"cleared": True, "shared": True}
    assert await shared.get(platform.workspace_id, ["any"]) == {}
    assert reset.json["user"] == "ada@example.org"
    assert {"api", "sign-in", "account", "general", "gmail"} <= set(reset.json["limits"])
    for cache in (app.cache, other):
        await cache.get_or_make(kind, platform.workspace_id, "k", make)
    assert len(made) == 4
    for limit in spent:
        assert await app.limits.take(f"{limit}:ada@example.org", 1, 0.001, 1) == 0.0
    assert await app.limit_policies.take("general", "ada@example.org", count=1) == 0.0
    actions = {entry.action for entry in await app.audit.list(platform.workspace_id)}
    assert {"cache.clear", "limits.reset"} <= actions


async def test_another_workspace_sees_nothing_of_the_installation(platform: Platform) -> None:
    _, key = await platform.other_workspace()
    for method, route in (
        ("GET", "/monitoring/metrics"),
        ("GET", "/monitoring/alerts"),
        ("GET", "/v1/scaling/decisions"),
        ("POST", "/monitoring/operations/clear-cache"),
        ("POST", "/monitoring/operations/reset-user-limits/a@b.example"),
        ("GET", "/monitoring/stream"),
        ("GET", "/metrics"),
    ):
        assert (await platform.call(method, route, key=key)).status == 403, route
