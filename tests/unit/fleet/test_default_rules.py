"""Every rule that is packed fires by what happens, at its levels and after its durations, and ends.

What happens is told as processes, queues and the database tell it; the figures are made from it.
"""

from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pytest

from mailyard.fleet.alerts.judge import State, judge_all
from mailyard.fleet.alerts.rule import CRITICAL, WARNING, Rule, read_rules
from mailyard.fleet.duties.watch import complete
from mailyard.fleet.exposition import prometheus_name
from mailyard.fleet.figures import Figures, MailTally, figures, steps
from mailyard.fleet.look import DatabaseLook, Look, ProcessLook, Stats
from mailyard.observe.metrics import FAST_BUCKETS, REGISTRY, SLOW_BUCKETS
from mailyard.queue.job import LANES, Depth

BUDGET, PLACES = 100, 100
SECONDS = 10.0
RULES = {rule.name: rule for rule in read_rules()}
ROLES = ("api", "smtp", "worker", "scheduler")


@dataclass(frozen=True)
class World:
    """What is true between two looks; `totals` of each role since the first."""

    totals: dict[str, dict[str, Any]]
    ready: dict[str, tuple[int, float]]  # by queue: how many wait, and how long the oldest
    connections: int = 10
    lag_s: float | None = 0.1
    disk: float = 0.3
    memory: float = 0.3
    cache: tuple[int, int] = (900, 100)
    gone: tuple[str, ...] = ()


CALM = World(
    totals={
        "api": {"http": {"count": 1000, "errors": 0, "seconds": 1.0,
                         "buckets": [1000] * (len(FAST_BUCKETS) + 1)},
                "more": {"redis.away": 0.0, "redis.memory_share": 0.4, "redis.memory_bytes": 9.0,
                         "replica.left_out 10.0.0.7:5432": 0.0, "region.copy_silent_s eu": 0.0,
                         "blobs.away": 0.0},
                "live": 10},
        "worker": {"jobs": {"email-send": {"completed": 1000, "seconds": 10.0, "batches": 1000,
                                           "slots": 2}},
                   "deliveries": {"email-send accepted": 10_000},
                   "analysis": {"calls": 100, "seconds": 10.0,
                                "buckets": [100] * (len(SLOW_BUCKETS) + 1)},
                   "rates": {"provider prv_x": (10.0, 100.0)}},
    },
    ready={},
)  # fmt: skip


def seen(world: World) -> Figures:
    """The figures of the second of two looks, between which the world was so."""

    def look(at_s: float, totals: dict[str, dict[str, Any]]) -> Look:
        processes = []
        for role in ROLES:
            if role in world.gone:
                continue
            stats = {"memory_share": world.memory, "memory_bytes": 1, "cpu_s": at_s / 10}
            if at_s:
                hits, misses = world.cache
                stats["cache"] = {"x process hit": hits, "x process miss": misses}
            stats["totals"] = totals.get(role, {})
            read = msgspec.convert(stats, Stats)
            processes.append(ProcessLook(role, role, "here", 1, 1000.0, at_s, read))
        depths = {
            lane: Depth(lane, world.ready.get(lane, (0, 0.0))[0], 0, 0, 0,
                        world.ready.get(lane, (0, 0.0))[1])
            for lane in LANES
        }  # fmt: skip
        database = DatabaseLook(world.connections, world.lag_s)
        return Look(at_s, processes, depths, database, world.disk)

    before, now = look(0.0, {}), look(SECONDS, world.totals)
    found = complete(figures(before, now, BUDGET), PLACES)
    mails = MailTally.empty()
    mails.add(steps(before, now), SECONDS)
    return found | mails.figures()


def api(slow_share: float = 0.0, slow_s: float = 0.4, errors: int = 0) -> World:
    """Of a thousand answers so many took at least `slow_s`."""
    slow = int(1000 * slow_share)
    buckets = [1000 - slow if bound <= slow_s else 1000 for bound in FAST_BUCKETS]
    http = {"count": 1000, "errors": errors, "seconds": 1.0, "buckets": [*buckets, 1000]}
    return told("api", http=http)


def told(role: str, **totals: Any) -> World:
    return replace(CALM, totals=CALM.totals | {role: CALM.totals.get(role, {}) | totals})


def waiting(lane: str, count: int, oldest_s: float = 0.0) -> World:
    return replace(CALM, ready={lane: (count, oldest_s)})


def jobs(done: int, failed: int, each_s: float = 0.01) -> World:
    lane = {"completed": done, "retried": failed, "seconds": (done + failed) * each_s,
            "batches": done + failed, "slots": 2}  # fmt: skip
    return told("worker", jobs={"webhooks": lane})


def mail(taken: int, bounced: int, complained: int = 0) -> World:
    deliveries = {"email-send accepted": taken, "email-send bounced": bounced}
    return told("worker", deliveries=deliveries, returned={"complaint": complained})


def models(calls: int, failures: int) -> World:
    buckets = [calls] * (len(SLOW_BUCKETS) + 1)
    analysis = {"calls": calls, "failures": failures, "seconds": 1.0, "buckets": buckets}
    return told("worker", analysis=analysis)


def used(**totals: Any) -> World:
    return told("worker", **totals)


def more(**figures: float) -> World:
    both = {"redis.away": 0.0, "redis.memory_share": 0.4}
    return told("api", more=both | {name.replace("__", "."): v for name, v in figures.items()})


def one_of(**figures: float) -> World:
    """What has a subject: `figure__name=1.0` of the replica or region that CALM has."""
    subjects = {"replica": "10.0.0.7:5432", "region": "eu"}
    return told("api", more=CALM.totals["api"]["more"] | {
        f"{name.replace('__', '.')} {subjects[name.partition('__')[0]]}": value
        for name, value in figures.items()
    })  # fmt: skip


# Rule: what is still good, what is a warning, what is critical; for which of the subjects.
CASES: dict[str, tuple[str, World, World | None, World | None]] = {
    "api-p95": ("", api(0.04, 1.0), api(0.2, 0.6), api(0.2, 2.6)),
    "api-errors": ("", api(errors=10), api(errors=11), api(errors=51)),
    "queue-depth": ("webhooks", waiting("webhooks", 500), waiting("webhooks", 501),
                    waiting("webhooks", 5001)),
    "bulk-depth": ("email-bulk", waiting("email-bulk", 50_000), waiting("email-bulk", 50_001),
                   waiting("email-bulk", 100_001)),
    "interactive-depth": ("email-send", waiting("email-send", 1000),
                          waiting("email-send", 1001), None),
    "processing-time": ("webhooks", jobs(10, 0, 30.0), jobs(10, 0, 30.1), None),
    "workers-failing": ("", jobs(95, 5), jobs(94, 6), jobs(74, 26)),
    "workers-away": ("worker", CALM, None, replace(CALM, gone=("worker",))),
    "database-connections": ("", replace(CALM, connections=80), replace(CALM, connections=81),
                             replace(CALM, connections=96)),
    "replication-lag": ("", replace(CALM, lag_s=5.0), replace(CALM, lag_s=5.1),
                        replace(CALM, lag_s=30.1)),
    "replica-left-out": ("10.0.0.7:5432", CALM, one_of(replica__left_out=1.0), None),
    "region-copy": ("eu", one_of(region__copy_silent_s=30.0), one_of(region__copy_silent_s=30.1),
                    one_of(region__copy_silent_s=300.1)),
    "blobs-away": ("", CALM, None, more(blobs__away=1.0)),
    "disk": ("", replace(CALM, disk=0.7), replace(CALM, disk=0.71), replace(CALM, disk=0.91)),
    "bounces": ("", mail(970, 30), mail(969, 31), mail(899, 101)),
    "delivery": ("", mail(990, 10), mail(989, 11), mail(949, 51)),
    "complaints": ("", mail(10_000, 0, 10), mail(10_000, 0, 11), mail(10_000, 0, 51)),
    "send-latency": ("", waiting("email-send", 1, 9.9), waiting("email-send", 1, 10.1),
                     waiting("email-send", 1, 60.1)),
    "live-connections": ("", told("api", live=90), told("api", live=91), None),
    "cache-hits": ("", replace(CALM, cache=(700, 300)), replace(CALM, cache=(699, 301)), None),
    "memory": ("worker", replace(CALM, memory=0.85), replace(CALM, memory=0.86), None),
    "redis-memory": ("", more(redis__memory_share=0.8), more(redis__memory_share=0.81),
                     more(redis__memory_share=0.96)),
    "redis-away": ("", CALM, None, more(redis__away=1.0)),
    "provider-limits": ("provider prv_x", used(rates={"provider prv_x": (900.0, 100.0)}),
                        used(rates={"provider prv_x": (901.0, 100.0)}), None),
    "analysis-failing": ("", models(100, 10), models(100, 11), models(100, 51)),
}  # fmt: skip


def used_of(name: str, share: float) -> World:
    return told("worker", rates={}, fullest={name: share})


def events(rule: Rule, subject: str, story: list[tuple[float, Figures]]) -> list[tuple[float, str]]:
    """(when, event) for `subject`, the story being (seconds, the figures from then on)."""
    states: dict[str, State] = {}
    found = []
    rest = list(story)
    current: Figures = {}
    for second in range(int(story[-1][0]) + 1):
        while rest and rest[0][0] <= second:
            current = rest.pop(0)[1]
        changes, states = judge_all(rule, states, current.get(rule.metric, {}), float(second))
        found += [(float(second), change.event) for one, change in changes if one == subject]
    return found


def test_every_packed_rule_has_its_case() -> None:
    assert set(CASES) == set(RULES)


@pytest.mark.parametrize("name", sorted(CASES))
def test_it_is_silent_at_the_level_and_told_beyond_it_in_its_time(name: str) -> None:
    rule, (subject, good, warning, critical) = RULES[name], CASES[name]
    assert rule.metric in seen(CALM) or name == "provider-limits"
    long_s = 2 * max(rule.warning_for_s, rule.critical_for_s) + rule.resolve_for_s + 10
    assert events(rule, subject, [(0.0, seen(good)), (long_s, seen(good))]) == []
    for level, bad, after_s in (
        (WARNING, warning, rule.warning_for_s),
        (CRITICAL, critical, rule.critical_for_s),
    ):
        if bad is None:
            continue
        story = [(0.0, seen(good)), (5.0, seen(bad)), (5.0 + long_s, seen(good)),
                 (5.0 + 2 * long_s, seen(good))]  # fmt: skip
        told_of = events(rule, subject, story)
        over = (5.0 + long_s + rule.resolve_for_s, "resolved")
        assert (5.0 + after_s, level) in told_of, told_of
        assert told_of[-1] == over and len([one for one in told_of if one[1] == "resolved"]) == 1
        assert all(event == WARNING for _, event in told_of[:-2]), told_of
        # A moment of it is nothing.
        if after_s > 1:
            short = [(0.0, seen(good)), (5.0, seen(bad)), (4.0 + after_s, seen(good)),
                     (long_s, seen(good))]  # fmt: skip
            assert (5.0 + after_s, level) not in events(rule, subject, short)


@pytest.mark.parametrize(
    ("name", "warning", "critical"),
    [
        ("api-p95", 0.5, 2.0),
        ("api-errors", 0.01, 0.05),
        ("queue-depth", 500, 5_000),
        ("bulk-depth", 50_000, 100_000),
        ("database-connections", 0.80, 0.95),
        ("replication-lag", 5, 30),
        ("redis-memory", 0.80, 0.95),
        ("disk", 0.70, 0.90),
        ("bounces", 0.03, 0.10),
        ("delivery", 0.99, 0.95),
        ("complaints", 0.001, 0.005),
        ("send-latency", 10, 60),
        ("live-connections", 0.90, None),
        ("cache-hits", 0.70, None),
        ("memory", 0.85, None),
        ("interactive-depth", 1_000, None),
        ("processing-time", 30, None),
        ("provider-limits", 0.9, None),
        ("redis-away", None, 0.5),
        ("region-copy", 30, 300),
    ],
)
def test_the_levels_are_those_that_are_promised(
    name: str, warning: float | None, critical: float | None
) -> None:
    assert (RULES[name].warning, RULES[name].critical) == (warning, critical)


def test_a_bucket_that_is_nearly_empty_and_a_refusal_count_as_near_the_limit() -> None:
    for share, near in ((0.5, False), (0.95, True), (1.0, True)):
        found = seen(used_of("policy gmail", share))["provider.limit_share"]
        assert found == {"policy gmail": share}
        assert (RULES["provider-limits"].level_of(share) == WARNING) is near


def test_no_figure_has_the_name_of_a_metric_of_the_process() -> None:
    taken = {family.name for family in REGISTRY.collect()}
    taken |= {f"{name}_total" for name in taken}
    assert not {prometheus_name(name) for name in seen(CALM)} & taken


def test_mail_models_and_redis_are_told_of() -> None:
    world = told(
        "worker",
        deliveries={"email-send accepted": 100, "email-bulk accepted": 100,
                    "email-send deferred": 50, "email-send bounced": 10},
        analysis={"calls": 20, "failures": 5, "seconds": 40.0, "tokens": 5000,
                  "buckets": [10] * 5 + [20] * (len(SLOW_BUCKETS) - 4)},
    )  # fmt: skip
    found = {name: values.get("") for name, values in seen(world).items()}
    assert found["send.accepted_per_s"] == pytest.approx(20.0)
    assert found["send.deferred_per_s"] == pytest.approx(5.0)
    assert found["send.bounced_per_s"] == pytest.approx(1.0)
    assert found["analysis.calls_per_s"] == pytest.approx(2.0)
    assert found["analysis.tokens_per_s"] == pytest.approx(500.0)
    assert found["analysis.failed_share"] == pytest.approx(0.25)
    assert found["analysis.p95_s"] == pytest.approx(2.35, abs=0.2)
