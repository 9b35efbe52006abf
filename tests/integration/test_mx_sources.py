"""Source addresses: pools with weights, warm-up ceilings over all workers, overflow, pauses."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import pytest
from mx_world import World, mx_world

from mailyard.core.clock import ManualClock
from mailyard.core.errors import ConfigurationError
from mailyard.net.http import HttpClient
from mailyard.ratelimit.adapters.memory import MemoryRateLimit
from mailyard.ratelimit.adapters.postgres import PostgresRateLimit
from mailyard.sending.delivery_sweep import sweep_of
from mailyard.sending.source_file import read_sources
from mailyard.sending.source_pool import SourcePool
from mailyard.sending.transport import Outcome
from mailyard.sending.transports.kinds import Opened, Workshop, checked, make
from mailyard.storage.database import Database

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
FILE = """
[plan.gentle]
default = [3, 6]
google = [2, 4]

[pool.default]
[[pool.default.address]]
ipv4 = "127.2.0.1"
hello = "new.example"
weight = 1000
plan = "gentle"
started = 2026-11-23
[[pool.default.address]]
ipv4 = "127.2.0.2"
hello = "old.example"

[pool.alone]
overflow = true
[[pool.alone.address]]
ipv4 = "127.2.0.1"
plan = "gentle"
started = 2026-11-23
"""


def pool(database: Database, clock: ManualClock, name: str = "default") -> SourcePool:
    lists = read_sources("sources.toml", FILE, "me.example")
    return SourcePool(sources=lists[name], database=database, clock=clock, random=Random(1))


def worker(world: World, database: Database, clock: ManualClock, name: str = "default") -> None:
    rate = PostgresRateLimit(database=database, clock=clock)
    world.transport(sources=pool(database, clock, name), rate=rate, clock=clock)


async def test_a_new_address_sends_its_ceiling_and_the_older_one_the_rest(
    database: Database,
) -> None:
    clock = ManualClock(NOON)
    async with mx_world() as world:
        peer = await world.peer("a.example")
        for _ in range(2):
            worker(world, database, clock)
        for n in range(20):
            world.send(f"{n}@a.example", through=n % 2)
        await world.settled()
        assert {one.outcome for one in world.answers.values()} == {Outcome.ACCEPTED}
        # One connection a source and worker at most; each says the name of its address.
        assert set(zip(peer.sources, peer.helloes, strict=True)) == {
            ("127.2.0.1", "new.example"),
            ("127.2.0.2", "old.example"),
        }
        for transport in world.transports:
            await transport._sources.flush()
        standings = await pool(database, clock).standings()
        sent = {one.name: one.mails for one in standings}
        assert 1 <= sent["127.2.0.1"] <= 3
        assert sum(sent.values()) == 20
        assert standings[0].ceilings == {"default": 3, "google": 2}


async def test_what_no_address_may_send_another_provider_may_have_at_once(
    database: Database,
) -> None:
    clock = ManualClock(NOON)
    async with mx_world() as world:
        await world.peer("a.example")
        worker(world, database, clock, "alone")
        for n in range(8):
            await world.sent(f"{n}@a.example")
        refused = [one for one in world.answers.values() if one.outcome is Outcome.LATER]
        assert 5 <= len(refused) <= 7
        for one in refused:
            assert (one.route_fault, one.tried) == (True, False)
            assert one.retry_at is not None and one.retry_at > NOON
            assert "127.2.0.1 has reached its ceiling of day 1" in one.reply


async def test_an_address_that_is_answered_badly_rests_for_a_day_for_all_workers(
    database: Database,
) -> None:
    clock = ManualClock(NOON)
    first, second = pool(database, clock), pool(database, clock)
    source = first.pick("default")
    assert getattr(source, "name", "") == "127.2.0.1"
    for n in range(60):
        bad = "550 5.7.1 blocked" if n % 2 else ""
        first.answered(source, "default", bad)  # type: ignore[arg-type]
    await first.flush()
    await first.standings()
    [new, old] = await second.standings()
    assert new.paused_until is not None and old.paused_until is None
    assert new.why.startswith("30 of 60 answers today were bad, the newest: 550 5.7.1 blocked")
    picked = {getattr(second.pick("default"), "name", "") for _ in range(50)}
    assert picked == {"127.2.0.2"}
    clock.advance(timedelta(days=2).total_seconds())
    [new, _] = await second.standings()
    assert new.day == 1, "the days that it lost are added to its plan"
    assert getattr(second.pick("default"), "name", "") == "127.2.0.1"


async def test_what_is_old_is_forgotten_and_what_holds_stays(database: Database) -> None:
    clock = ManualClock(datetime.now(UTC))
    day = clock.now().date()
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO tls_result VALUES ($1, 'a', 'sts', 'h', 'success', 1),"
            " ($2, 'a', 'sts', 'h', 'success', 1)",
            day - timedelta(days=36),
            day,
        )
        await connection.execute(
            "INSERT INTO source_count VALUES ($1, 'a', 'default', 1, 1, 0),"
            " ($2, 'a', 'default', 1, 1, 0)",
            day - timedelta(days=121),
            day - timedelta(days=119),
        )
        await connection.execute(
            "INSERT INTO sts_policy (domain, record_id, mode, max_age_s, mx, fetched_at,"
            " changed_at) VALUES ('old', '1', 'enforce', 60, '{}', $1, now()),"
            " ('held', '1', 'enforce', 864000, '{}', $1, now())",
            clock.now() - timedelta(days=1),
        )
        await connection.execute(
            "INSERT INTO shaping_site (key, source, place, receiver, paused_until, updated_at)"
            " VALUES ('old', '', '', '', NULL, $1), ('held', '', '', '', now() + interval '1 h',"
            " $1)",
            clock.now() - timedelta(days=31),
        )
        await sweep_of(database, clock)()
        counted = [
            await connection.fetchval(f"SELECT count(*) FROM {table}")
            for table in ("tls_result", "source_count", "sts_policy", "shaping_site")
        ]
        assert counted == [1, 1, 1, 1]
        assert await connection.fetchval("SELECT key FROM shaping_site") == "held"


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ('ipv4 = "127.2.0.2"', 'ipv4 = "mars"', 14, "allowed is an IPv4 address"),
        ('plan = "gentle"', 'plan = "gentel"', 11, "allowed is one of steady, gentle"),
        ("weight = 1000", "wieght = 1000", 10, "did you mean 'weight'?"),
        ("google = [2, 4]", 'google = [2, "4"]', 4, "a list of whole numbers, one a day"),
        ("started = 2026-11-23\n[[", "[[", 7, "both a plan and its first day, or neither"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_line(
    old: str, new: str, line: int, said: str
) -> None:
    text = FILE.replace(old, new, 1)
    with pytest.raises(ConfigurationError) as refused:
        read_sources("sources.toml", text, "me.example")
    assert refused.value.message.startswith(f"sources.toml, line {line}: ")
    assert said in refused.value.message


@pytest.mark.parametrize(
    ("pool", "shared", "may"),
    [("default", False, True), ("big", False, False), ("big", True, True)],
)
def test_only_the_operators_providers_choose_a_pool(
    tmp_path: Path, pool: str, shared: bool, may: bool
) -> None:
    asked: list[tuple[str, str]] = []

    def own(name: str, pool: str) -> Any:
        asked.append((name, pool))

    clock = ManualClock(NOON)
    workshop = Workshop(
        hello="me.example",
        http=HttpClient(),
        rate=MemoryRateLimit(clock=clock),
        clock=clock,
        random=Random(1),
        data=tmp_path,
        own=own,
    )
    settings = checked("mx", {"pool": pool}, {})
    opened = Opened(uuid4(), uuid4(), shared, "ours", "mx", settings, {})
    if may:
        make(opened, workshop)
        assert asked == [("ours", pool)]
    else:
        with pytest.raises(ConfigurationError, match="shared providers"):
            make(opened, workshop)
