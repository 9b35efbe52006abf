"""Partitions: made ahead, in line where promised, dropped when all in them has expired."""

import asyncio
import os
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from mailyard.core.ids import lowest_at, time_of, uuid7
from mailyard.storage.database import Database
from mailyard.storage.partitions import (
    RETENTION_DAYS,
    Keep,
    drop_expired,
    ensure_partitions,
    expires_at,
    wanted,
)

INSERT_MESSAGE = """
    INSERT INTO message (id, workspace_id, retention_days, reverse_path, recipients, inbox_ids,
                         helo, peer, size_bytes, raw)
    VALUES ($1, $1, $2, 'a@example.org', '{b@inbox.localhost}', ARRAY[$1]::uuid[], 'h',
            '127.0.0.1', $3, $4)
"""
INSERT_DELIVERY = """
    INSERT INTO delivery (id, workspace_id, recipient, recipient_key, type, state, queued_at)
    VALUES ($1, $1, 'a@example.org', 1, 'news', 'accepted', $2)
"""
INSERT_CAMPAIGN = """
    INSERT INTO campaign (id, workspace_id, name, type, template_id, template_version, list_id,
                          sender, state, first_started_at)
    VALUES ($1, $1, 'Spring', 'campaign', $1, 1, $1, 'a@example.org', 'paused', $2)
"""
INSERT_AUDIT = """
    INSERT INTO audit_log (id, workspace_id, actor_kind, actor, action, subject)
    VALUES ($1, $1, 'user', 'ada', 'inbox.create', 'ibx_1')
"""


async def insert_message(database: Database, moment: datetime, days: int, raw: bytes) -> None:
    identifier = uuid7(int(moment.timestamp() * 1000))
    await database.pool.execute(INSERT_MESSAGE, identifier, days, len(raw), raw)


async def tables(database: Database) -> set[str]:
    return {
        row["relname"]
        for row in await database.pool.fetch("SELECT relname FROM pg_class WHERE relkind = 'r'")
    }


def test_what_is_wanted_covers_the_instant_and_two_periods_ahead() -> None:
    names = {partition.name for partition in wanted(datetime(2026, 12, 31, 23, 59, tzinfo=UTC))}
    assert {"delivery_2026_12", "delivery_2027_01", "delivery_2027_02"} <= names
    assert {"message_d7_2026_12_31", "message_d7_2027_01_01", "message_d7_2027_01_02"} <= names
    assert {"message_kept_2026_12", "message_d400_2027_02", "live_event_2027_01_02"} <= names
    assert "address_h15" in names and "address_h16" not in names


def test_bounds_of_one_table_meet_without_gap_or_overlap() -> None:
    monthly = [part for part in wanted(datetime(2026, 11, 5, tzinfo=UTC)) if part.parent == "email"]
    assert [part.bounds[1] for part in monthly[:-1]] == [part.bounds[0] for part in monthly[1:]]
    assert monthly[0].bounds[0] == str(lowest_at(datetime(2026, 11, 1, tzinfo=UTC)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("message_d1_2026_11_20", datetime(2026, 11, 22, tzinfo=UTC)),
        ("message_d30_2026_12_31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("inbox_d400_2026_12", datetime(2027, 1, 1, tzinfo=UTC) + timedelta(days=400)),
        ("live_event_2026_11_20", datetime(2026, 11, 24, tzinfo=UTC)),
        ("message_kept_2026_11", None),
        ("delivery_2020_01", None),
        ("message_d1", None),
        ("suppression", None),
        ("message_d1_2026_11", None),
    ],
)
def test_a_partition_leaves_when_its_youngest_row_has_expired(
    name: str, expected: datetime | None
) -> None:
    assert expires_at(name) == expected


async def test_a_start_with_none_ahead_repairs_itself(database: Database) -> None:
    later = datetime.now(UTC) + timedelta(days=120)
    with pytest.raises(asyncpg.CheckViolationError):
        await insert_message(database, later, 7, b"x")
    assert await ensure_partitions(database, later) > 0
    for days in RETENTION_DAYS:
        await insert_message(database, later, days, b"x")
    assert await ensure_partitions(database, later) == 0


async def test_many_processes_make_the_same_partitions_together(database: Database) -> None:
    later = datetime.now(UTC) + timedelta(days=200)
    made = await asyncio.gather(*(ensure_partitions(database, later) for _ in range(6)))
    assert sum(made) == len([part for part in wanted(later) if part.kind == "range"])


async def test_mail_of_up_to_8_kb_stays_in_line(database: Database) -> None:
    now = datetime.now(UTC)
    for days in RETENTION_DAYS:
        for size in (100, 4_000, 7_800):
            await insert_message(database, now, days, os.urandom(size))
        await insert_message(database, now, days, b"a" * 7_800)
    sizes = await database.pool.fetch(
        """
        SELECT sum(pg_relation_size(part.reltoastrelid))::bigint AS beside,
               sum(pg_relation_size(part.oid))::bigint AS in_line
        FROM pg_class part WHERE relname ~ '^message_(d|kept)' AND relkind = 'r'
        """
    )
    assert sizes[0]["beside"] == 0
    stored = await database.pool.fetchval(
        "SELECT min(pg_column_size(raw)) FROM message WHERE size_bytes = 7800"
    )
    assert stored >= 7_800  # neither compressed nor moved
    await insert_message(database, now, 7, os.urandom(20_000))
    beside = await database.pool.fetchval(
        """
        SELECT sum(pg_relation_size(reltoastrelid))::bigint
        FROM pg_class WHERE relname ~ '^message_d7_'
        """
    )
    assert beside > 0


async def test_expired_partitions_are_dropped_and_living_ones_stay(database: Database) -> None:
    now = datetime.now(UTC)
    past = now - timedelta(days=40)
    await ensure_partitions(database, past)
    for days in RETENTION_DAYS:
        await insert_message(database, past, days, b"old")
        await insert_message(database, now, days, b"new")
    dropped = await drop_expired(database, now)
    rows = await database.pool.fetch("SELECT retention_days, raw FROM message ORDER BY 1, 2")
    assert [(row[0], row[1]) for row in rows] == [
        (0, b"new"),
        (0, b"old"),
        (1, b"new"),
        (7, b"new"),
        (30, b"new"),
        (400, b"new"),
        (400, b"old"),
    ]
    assert not set(dropped) & await tables(database)
    assert f"message_d7_{past:%Y_%m_%d}" in dropped
    assert await drop_expired(database, now) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("delivery_2026_11", datetime(2027, 12, 1, tzinfo=UTC)),
        ("delivery_event_2026_12", datetime(2028, 1, 1, tzinfo=UTC)),
        ("email_2026_01", datetime(2027, 2, 1, tzinfo=UTC)),
        ("audit_log_2026_11", datetime(2027, 6, 1, tzinfo=UTC)),
        ("message_kept_2026_11", None),
        ("message_d1_2026_11_20", datetime(2026, 11, 22, tzinfo=UTC)),
    ],
)
def test_history_leaves_after_the_months_that_it_is_kept(
    name: str, expected: datetime | None
) -> None:
    assert expires_at(name, Keep(history_months=12, audit_months=6)) == expected


async def history(database: Database, *months: datetime) -> None:
    """A delivery and a line of the audit log in each of `months`."""
    for month in months:
        await ensure_partitions(database, month)
        identifier = uuid7(int(month.timestamp() * 1000))
        await database.pool.execute(INSERT_DELIVERY, identifier, month)
        await database.pool.execute(INSERT_AUDIT, identifier)


async def months_of(database: Database, table: str) -> list[str]:
    rows = await database.pool.fetch(f"SELECT id FROM {table} ORDER BY id")
    return [f"{time_of(row['id']):%Y-%m}" for row in rows]


PAST = [datetime(2024, month, 15, tzinfo=UTC) for month in (1, 2, 3)]
MARCH_2025 = datetime(2025, 3, 20, tzinfo=UTC)


async def test_history_is_kept_for_ever_unless_the_settings_say_otherwise(
    database: Database,
) -> None:
    await history(database, *PAST)
    await drop_expired(database, MARCH_2025)
    assert await months_of(database, "delivery") == ["2024-01", "2024-02", "2024-03"]
    await drop_expired(database, MARCH_2025, Keep(history_months=12))
    assert await months_of(database, "delivery") == ["2024-03"]
    assert await months_of(database, "audit_log") == ["2024-01", "2024-02", "2024-03"]
    await drop_expired(database, MARCH_2025, Keep(audit_months=13))
    assert await months_of(database, "audit_log") == ["2024-02", "2024-03"]


async def test_history_stays_from_the_oldest_work_on(database: Database) -> None:
    await history(database, *PAST)
    keep = Keep(history_months=1)
    await database.pool.execute(
        "UPDATE delivery SET state = 'deferred' WHERE queued_at = $1", PAST[1]
    )
    await drop_expired(database, MARCH_2025, keep)
    assert await months_of(database, "delivery") == ["2024-02", "2024-03"]
    await database.pool.execute("UPDATE delivery SET state = 'accepted'")
    await paused_campaign(database, PAST[2])
    await drop_expired(database, MARCH_2025, keep)
    assert await months_of(database, "delivery") == ["2024-03"]
    await database.pool.execute("UPDATE campaign SET state = 'finished'")
    await drop_expired(database, MARCH_2025, keep)
    assert await months_of(database, "delivery") == []


async def test_a_mail_accepted_as_its_month_ended_keeps_that_month(database: Database) -> None:
    ended, written = datetime(2024, 2, 1, tzinfo=UTC), datetime(2024, 2, 1, 0, 0, 1, tzinfo=UTC)
    await ensure_partitions(database, PAST[0])
    identifier = uuid7(int(ended.timestamp() * 1000) - 1)
    await database.pool.execute(INSERT_DELIVERY, identifier, written)
    await database.pool.execute("UPDATE delivery SET state = 'queued'")
    await drop_expired(database, MARCH_2025, Keep(history_months=1))
    assert await months_of(database, "delivery") == ["2024-01"]


async def paused_campaign(database: Database, started_at: datetime) -> None:
    identifier = uuid7()
    await database.pool.execute("INSERT INTO workspace VALUES ($1, 'Shop')", identifier)
    await database.pool.execute(INSERT_CAMPAIGN, identifier, started_at)


async def test_a_partition_detached_before_a_crash_is_dropped_by_the_next_round(
    database: Database,
) -> None:
    past = datetime.now(UTC) - timedelta(days=40)
    await ensure_partitions(database, past)
    name = f"message_d1_{past:%Y_%m_%d}"
    await database.pool.execute(f"ALTER TABLE message_d1 DETACH PARTITION {name}")
    await drop_expired(database, datetime.now(UTC))
    assert name not in await tables(database)


async def test_a_reader_in_the_way_delays_the_drop_and_stops_nobody(database: Database) -> None:
    past = datetime.now(UTC) - timedelta(days=40)
    await ensure_partitions(database, past)
    name = f"live_event_{past:%Y_%m_%d}"
    reader = await database.direct()
    transaction = reader.transaction()
    await transaction.start()
    await reader.fetch("SELECT * FROM live_event")
    dropping = asyncio.create_task(drop_expired(database, datetime.now(UTC)))
    await asyncio.sleep(0.3)
    await database.pool.execute(
        "INSERT INTO live_event (workspace_id, kind, items) VALUES ($1, 'queue.depth', '[]')",
        uuid7(),
    )
    await dropping
    assert name in await tables(database)
    await transaction.rollback()
    await reader.close()
    await drop_expired(database, datetime.now(UTC))
    assert name not in await tables(database)
