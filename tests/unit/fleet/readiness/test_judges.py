"""Each item of the checklist in each of its states, from what was seen."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from mailyard.access.neighbours import CopyState
from mailyard.access.region import Region, Regions
from mailyard.fleet.checkup.finding import Finding, Grade
from mailyard.fleet.checkup.regions import judge_copy
from mailyard.fleet.readiness import (
    limits,
    needs,
    processes,
    proven,
    regions,
    shards,
    stores,
    watched,
)
from mailyard.fleet.readiness.item import Item, Standing

NOW = datetime(2026, 3, 1, tzinfo=UTC)
MET, THIN, MISSING = Standing.MET, Standing.THIN, Standing.MISSING
TEST = proven.LoadTestSeen(NOW - timedelta(days=2), "1.0", 50_000, 4_000, clean=True)


def judged(item: Item, check: str, standing: Standing, said: str) -> None:
    assert item.check == check
    assert (item.standing, said in item.found) == (standing, True), item
    assert bool(item.fix) is (standing is not MET)


@pytest.mark.parametrize(
    ("last", "standing", "said"),
    [
        (TEST, MET, "50,000 recipients at 4,000/s, 48 h ago, version 1.0"),
        (None, MISSING, "none was recorded"),
        (replace(TEST, clean=False), MISSING, "lost, doubled or changed"),
        (replace(TEST, recipients=9_999), THIN, "too small"),
        (replace(TEST, at=NOW - timedelta(days=91)), THIN, "long ago"),
        (replace(TEST, version="0.9"), THIN, "another version than 1.0"),
    ],
)
def test_load_test(last: proven.LoadTestSeen | None, standing: Standing, said: str) -> None:
    judged(proven.judge_load_test(last, "1.0", NOW), needs.LOAD_TEST, standing, said)


@pytest.mark.parametrize(
    ("base_h", "drill_h", "backup", "drill"),
    [
        (2, 48, (MET, "2 h ago"), (MET, "48 h ago")),
        (25, 24 * 32, (MISSING, "25 h ago"), (THIN, "32 days ago")),
        (None, None, (MISSING, "never finished"), (MISSING, "ever restored")),
    ],
)
def test_backup_and_drill(
    base_h: int | None,
    drill_h: int | None,
    backup: tuple[Standing, str],
    drill: tuple[Standing, str],
) -> None:
    hours = {"base": base_h, "drill": drill_h}
    last = {name: NOW - timedelta(hours=h) for name, h in hours.items() if h is not None}
    first, second = proven.judge_backup("file:///b", last, NOW)
    judged(first, needs.BACKUP, backup[0], backup[1].replace("never", "none was ever"))
    judged(second, needs.DRILL, *drill)


def test_backup_that_is_not_set_or_not_known() -> None:
    for store, last, said in (("", {}, "there is none"), ("file:///b", None, "not known")):
        first, second = proven.judge_backup(store, last, NOW)
        judged(first, needs.BACKUP, MISSING, said)
        assert second.standing is MISSING


@pytest.mark.parametrize(
    ("seen", "standing", "said"),
    [
        (watched.Scrape("http://a", 200, 200, series=True), MET, "http://a/metrics"),
        (watched.Scrape("http://a", 503, 200, series=True), THIN, "/health/ready answers 503"),
        (watched.Scrape("http://a", 200, 404), MISSING, "/metrics answers 404"),
        (watched.Scrape("http://a", 200, 200), MISSING, "without figures of ours"),
        (
            watched.Scrape("http://a", None, None, why="refused"),
            MISSING,
            "does not answer: refused",
        ),
    ],
)
def test_monitoring(seen: watched.Scrape, standing: Standing, said: str) -> None:
    judged(watched.judge_monitoring(seen), needs.MONITORING, standing, said)


@pytest.mark.parametrize(
    ("seen", "standing", "said"),
    [
        (watched.AlertsSeen(True, ["mail", "slack"]), MET, "told by mail, slack"),
        (watched.AlertsSeen(True, ["mail"], critical=["lag"]), THIN, "critical now: lag"),
        (
            watched.AlertsSeen(True, ["mail"], undelivered=[("mail", "550 no")]),
            THIN,
            "by mail did not arrive: 550 no",
        ),
        (watched.AlertsSeen(True, []), MISSING, "nobody is told"),
        (watched.AlertsSeen(False, ["mail"]), MISSING, "MAILYARD_ALERTS is false"),
        (None, MISSING, "not known"),
    ],
)
def test_alerts(seen: watched.AlertsSeen | None, standing: Standing, said: str) -> None:
    judged(watched.judge_alerts(seen), needs.ALERTS, standing, said)


SCALES = processes.ScalingSeen("kubernetes", 2, {}, most=12, room=40)


@pytest.mark.parametrize(
    ("seen", "standing", "said"),
    [
        (SCALES, MET, "kubernetes, up to 12 processes"),
        (replace(SCALES, mode="local"), MET, "local, up to 12"),
        (replace(SCALES, mode="outside", schedulers=0), MET, "HPA, KEDA"),
        (replace(SCALES, mode="off"), MISSING, "off"),
        (replace(SCALES, schedulers=0), MISSING, "no scheduler lives"),
        (replace(SCALES, trouble={"api": "answers 403"}), MISSING, "api cannot be scaled"),
        (replace(SCALES, mode="dry-run"), THIN, "nobody acts"),
        (replace(SCALES, most=41), THIN, "room for 40"),
    ],
)
def test_autoscaling(seen: processes.ScalingSeen, standing: Standing, said: str) -> None:
    judged(processes.judge_autoscaling(seen), needs.AUTOSCALING, standing, said)


PAIRS = {role: ["a", "b"] for role in processes.ROLES}


@pytest.mark.parametrize(
    ("hosts", "standing", "said"),
    [
        (PAIRS, MET, "2 api, 2 smtp, 2 worker, 2 scheduler, on 2 machines"),
        ({role: ["a", "a"] for role in PAIRS}, THIN, "all on a"),
        (PAIRS | {"smtp": ["a"]}, MISSING, "there is 1 smtp"),
        ({}, MISSING, "0 api, 0 smtp"),
        (None, MISSING, "not known"),
    ],
)
def test_two_of_each(hosts: dict[str, list[str]] | None, standing: Standing, said: str) -> None:
    judged(processes.judge_spare(hosts), needs.SPARE, standing, said)


def finding(check: str, grade: Grade = Grade.GOOD, found: str = "so") -> Finding:
    return Finding(check, grade, found, "" if grade is Grade.GOOD else "do this")


@pytest.mark.parametrize(
    ("findings", "standing", "said"),
    [
        ([finding("connections", found="48 of 100")], MET, "48 of 100"),
        ([], MET, "the server was not asked"),
        ([finding("connections", Grade.BAD, "needs 120")], MISSING, "needs 120"),
    ],
)
def test_budget(findings: list[Finding], standing: Standing, said: str) -> None:
    judged(stores.judge_budget(findings, "by the settings"), needs.BUDGET, standing, said)


async def test_pooling_that_is_off_or_leads_past_itself() -> None:
    off = await stores.judge_pooling(False, "postgresql://a/x", "postgresql://a/x")
    judged(off, needs.POOLING, MISSING, "connections of its own")
    same = await stores.judge_pooling(True, "postgresql://a/x", "postgresql://a/x")
    judged(same, needs.POOLING, MISSING, "the same")
    away = await stores.judge_pooling(True, "postgresql://x@127.0.0.1:1/x", "postgresql://b/x")
    judged(away, needs.POOLING, MISSING, "does not answer")


GOOD, WARN, BAD = Grade.GOOD, Grade.WARN, Grade.BAD


@pytest.mark.parametrize(
    ("findings", "many_hosts", "standing", "said"),
    [
        ([finding("replica a", found="0.1 MB behind")], False, MET, "replica a 0.1 MB behind"),
        ([finding("replica a"), finding("replica b", WARN, "away")], False, THIN, "b away"),
        ([finding("replica a", WARN, "away")], False, MISSING, "a away"),
        ([], True, MET, "names several servers"),
        ([], False, MISSING, "stands alone"),
    ],
)
def test_standby(findings: list[Finding], many_hosts: bool, standing: Standing, said: str) -> None:
    item = stores.judge_replica(findings, many_hosts=many_hosts)
    judged(item, needs.REPLICA, standing, said)


@pytest.mark.parametrize(
    ("findings", "used", "single", "standing", "said"),
    [
        ([finding("redis failover", found="3 Sentinels")], True, False, MET, "3 Sentinels"),
        ([finding("redis failover", WARN, "2 answer")], True, False, THIN, "2 answer"),
        ([finding("redis failover", BAD, "no replica")], True, False, MISSING, "no replica"),
        ([finding("redis failover", WARN)], True, True, MISSING, "one server"),
        ([finding("redis", BAD, "refused")], True, False, MISSING, "refused"),
        ([], False, False, MISSING, "there is none"),
    ],
)
def test_redis(
    findings: list[Finding], used: bool, single: bool, standing: Standing, said: str
) -> None:
    item = stores.judge_redis(findings, used=used, single=single)
    judged(item, needs.REDIS, standing, said)


@pytest.mark.parametrize(
    ("findings", "used", "standing", "said"),
    [
        ([finding("Kafka", found="3 brokers"), finding("Kafka topics")], True, MET, "3 brokers"),
        ([finding("Kafka", WARN, "1 brokers"), finding("Kafka topics")], True, THIN, "1 brokers"),
        ([finding("Kafka"), finding("Kafka topics", BAD, "lacks x")], True, MISSING, "lacks x"),
        ([], False, MISSING, "in PostgreSQL"),
    ],
)
def test_kafka(findings: list[Finding], used: bool, standing: Standing, said: str) -> None:
    judged(stores.judge_kafka(findings, used=used), needs.KAFKA, standing, said)


@pytest.mark.parametrize(
    ("findings", "url", "standing", "said"),
    [
        ([finding("blob store")], "s3://mail/x", MET, "takes, gives back"),
        ([finding("blob store")], "file:///srv", THIN, "a folder"),
        ([finding("blob store", BAD, "refused")], "s3://mail/x", MISSING, "refused"),
        ([], "", MISSING, "rows"),
    ],
)
def test_blobs(findings: list[Finding], url: str, standing: Standing, said: str) -> None:
    judged(stores.judge_blobs(findings, url), needs.BLOBS, standing, said)


def test_master_key() -> None:
    judged(stores.judge_master_key("x"), needs.MASTER_KEY, MET, "set")
    judged(stores.judge_master_key(""), needs.MASTER_KEY, MISSING, "each data folder")


LIMITED = limits.LimitSettings(rate_per_s=100, user_limit="general", sign_up=True, plans=True)


@pytest.mark.parametrize(
    ("said", "standing", "found"),
    [
        (LIMITED, MET, "100 requests a second a key, general for a person"),
        (replace(LIMITED, user_limit=""), THIN, "none for people"),
        (replace(LIMITED, plans=False), MISSING, "anybody may sign up"),
        (replace(LIMITED, plans=False, sign_up=False), MET, "100 requests"),
        (replace(LIMITED, rate_per_s=0), MISSING, "as often as they like"),
    ],
)
def test_limits(said: limits.LimitSettings, standing: Standing, found: str) -> None:
    judged(limits.judge_limits(said), needs.LIMITS, standing, found)


@pytest.mark.parametrize(
    ("http", "smtp", "standing", "said"),
    [
        ("10.0.0.0/8", "10.0.0.0/8", MET, "believed of 10.0.0.0/8"),
        ("10.0.0.0/8", "", THIN, "the SMTP server takes who connects"),
        ("", "10.0.0.0/8", MISSING, "takes its balancer for the client"),
    ],
)
def test_client_addresses(http: str, smtp: str, standing: Standing, said: str) -> None:
    judged(limits.judge_clients(http, smtp), needs.CLIENTS, standing, said)


US = Region("us", "https://us.example", standby="postgresql://copy/us")
KNOWN = Regions("eu", {"eu": Region("eu", "https://eu.example"), "us": US})
ALONE = Regions("eu", {"eu": Region("eu", "https://eu.example")})
NO_COPY = Regions("eu", {**(KNOWN.all or {}), "us": replace(US, standby="")})
FOLLOWS = CopyState("us", "streams")


@pytest.mark.parametrize(
    ("known", "copy", "standing", "said"),
    [
        (KNOWN, FOLLOWS, MET, "eu; copy of region us streams"),
        (KNOWN, replace(FOLLOWS, word="silent"), THIN, "does not hear its primary"),
        (KNOWN, replace(FOLLOWS, unreplayed_bytes=1 << 30), THIN, "1024 MB that it has not"),
        (KNOWN, CopyState("us", "away", why="has not answered in 3 s"), MISSING, "not answered"),
        (KNOWN, replace(FOLLOWS, word="promoted"), MISSING, "follows nobody"),
        (KNOWN, None, MISSING, "were not asked"),
        (NO_COPY, None, MISSING, "a lost region stays lost"),
        (ALONE, None, MISSING, "no other region is known"),
        ("x is not TOML", None, MISSING, "not TOML"),
    ],
)
def test_regions(
    known: Regions | str, copy: CopyState | None, standing: Standing, said: str
) -> None:
    findings = [] if copy is None else [judge_copy(copy)]
    judged(regions.judge_regions(findings, known), needs.REGIONS, standing, said)


GOOD = Finding("database of east", Grade.GOOD, "PostgreSQL 17")
LATE = Finding("backup of east", Grade.WARN, "never restored", "mailyard backup try")
GONE = Finding("database of east", Grade.BAD, "does not answer", "start it")
BOTH = {"worker": 1, "scheduler": 2}


@pytest.mark.parametrize(
    ("seen", "standing", "said"),
    [
        ([], MET, "one database cluster"),
        ([shards.ShardSeen("east", [GOOD], BOTH)], MET, "home and east"),
        ([shards.ShardSeen("east", [GOOD, LATE], BOTH)], THIN, "backup of east: never restored"),
        ([shards.ShardSeen("east", [GONE])], MISSING, "does not answer"),
        ([shards.ShardSeen("east", [GOOD], {"scheduler": 2})], MISSING, "east has no worker"),
        ([shards.ShardSeen("east", [GOOD], {"worker": 1, "scheduler": 1})], THIN, "one scheduler"),
    ],
)
def test_shards(seen: list[shards.ShardSeen], standing: Standing, said: str) -> None:
    judged(shards.judge_shards(seen), needs.SHARDS, standing, said)
