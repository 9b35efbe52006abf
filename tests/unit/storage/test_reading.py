"""Which queries may be a replica's, and the scope in which they are."""

from importlib.resources import files

import pytest

from mailyard.storage.hosts import for_writes, hosts_of, place_of
from mailyard.storage.queries import load, name_of, timed_as
from mailyard.storage.reading import (
    Reading,
    at_head,
    format_position,
    is_seen_later,
    may_lag,
    only_reads,
    parse_position,
    present,
    reading,
)


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ("SELECT updated_at FROM message", True),
        ("-- for update\nWITH x AS (SELECT 1) SELECT * FROM x", True),
        ("WITH gone AS (DELETE FROM job RETURNING id) SELECT * FROM gone", False),
        ("SELECT id FROM job FOR UPDATE SKIP LOCKED", False),
        ("SELECT id FROM job FOR NO KEY UPDATE", False),
        ("SELECT pg_try_advisory_lock(1)", False),
        ("SELECT nextval('x')", False),
        ("INSERT INTO job VALUES (1)", False),
    ],
)
def test_what_only_reads(text: str, reads: bool) -> None:
    assert only_reads(text) is reads


def test_lists_may_lag_and_what_decides_may_not() -> None:
    lag = {name_of(query) for area in _areas() for query in load(area) if may_lag(query)}
    assert {"message.list", "delivery.get", "campaign.list"} & lag, sorted(lag)
    areas = {name.partition(".")[0] for name in lag}
    assert not areas & {"access", "cache", "idempotency", "live", "queue", "ratelimit", "replica"}


def _areas() -> list[str]:
    folder = files("mailyard.storage").joinpath("sql")
    return [file.name.removesuffix(".sql") for file in folder.iterdir() if ".sql" in file.name]


def test_a_change_that_is_read_elsewhere_is_told_from_the_rest() -> None:
    assert is_seen_later(timed_as("UPDATE message SET x = 1 -- 1", "message.try"))
    assert not is_seen_later(timed_as("UPDATE cache_entry SET x = 1 -- 2", "cache.try"))
    assert not may_lag("SELECT 1 -- a query without a name")


def test_a_value_for_others_is_read_as_new_as_the_primary() -> None:
    with at_head():
        assert present() is None, "without a scope the primary is asked anyway"
    with reading(Reading(b"key")) as outer:
        with at_head():
            inner = present()
            assert inner is not None and inner.head and inner.caller is None
            inner.mark(used=True)
        assert present() is outer and outer.used and not outer.wrote
    assert present() is None


def test_a_position_is_read_as_it_is_written() -> None:
    assert parse_position("16/B374D848") == 0x16B374D848
    assert format_position(0x16B374D848) == "16/B374D848"
    assert format_position(0) == "0/0"
    for wrong in ("", "16", "16/", "x/1", "123456789/1", "1/1/1", "-1/1"):
        assert parse_position(wrong) is None


def test_each_host_of_an_address_stands_by_itself() -> None:
    url = "postgresql://u:p@one:1,[::1]:2,three/db?target_session_attrs=read-write&ssl=on"
    assert hosts_of(url) == [
        "postgresql://u:p@one:1/db?ssl=on",
        "postgresql://u:p@[::1]:2/db?ssl=on",
        "postgresql://u:p@three/db?ssl=on",
    ]
    assert [place_of(host) for host in hosts_of(url)] == ["one:1", "[::1]:2", "three"]
    assert place_of("postgresql://u@/db?host=/run/it") == "/run/it"


def test_of_several_hosts_the_one_that_writes_is_wanted() -> None:
    assert for_writes("postgresql://a/x") == "postgresql://a/x"
    assert for_writes("postgresql://a,b/x") == "postgresql://a,b/x?target_session_attrs=read-write"
    said = "postgresql://a,b/x?target_session_attrs=primary"
    assert for_writes(said) == said
