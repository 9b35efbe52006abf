"""What is derived from received mail shares its life: known from the catalogue, moved, deleted."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from mail_platform import about, mail_platform

from mailyard.core.ids import uuid7
from mailyard.mailbox.inbox_value import NewInbox
from mailyard.storage import derived, partitions
from mailyard.storage.database import Database
from mailyard.storage.derived import DERIVED, Derived, Of

MAIL = {"inbox", "inbox_message", "message"}

# Tables with an inbox's or a message's id in a column, that are derived from neither, and why.
OTHERS = {
    "address": "freed when its inbox ends or is deleted; a purge deletes it",
    "dmarc_report": "kept for 400 days whatever becomes of its mail; a purge deletes it",
    "tls_report": "kept for 400 days whatever becomes of its mail; a purge deletes it",
    "delivery_event": "its message_id is what a provider called a mail that we sent",
}

COLUMNS = """
    SELECT class.relname::text AS name, array_agg(attname::text) AS columns,
           pg_get_partkeydef(class.oid) AS parted,
           (SELECT pg_get_indexdef(indexrelid) FROM pg_index
             WHERE indrelid = class.oid AND indisprimary) AS key
    FROM pg_class class JOIN pg_attribute ON attrelid = class.oid AND attnum > 0
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
    GROUP BY class.oid
"""


async def test_every_table_about_an_inbox_or_a_message_is_on_the_list(database: Database) -> None:
    about_mail = {}
    for row in await database.pool.fetch(COLUMNS):
        if set(row["columns"]) & {"inbox_id", "inbox_ids", "message_id", "message_ids"}:
            about_mail[row["name"]] = row
    listed = {one.table: one for one in DERIVED}
    assert about_mail.keys() - MAIL - OTHERS.keys() - listed.keys() == set()
    assert [one.table for one in DERIVED] == sorted(listed)
    for name, one in listed.items():
        row = about_mail[name]
        assert {"workspace_id", "retention_days", one.key} <= set(row["columns"]), name
        assert one.of is Of.MESSAGE or "inbox_id" in row["columns"], name
        assert one.lines is (one.of is Of.INBOX and "message_id" in row["columns"]), name
        assert row["parted"] == "LIST (retention_days)", name
        assert "retention_days" in row["key"], f"{name} has no primary key with its class"


PROBES = (
    Derived("probe_inbox", Of.INBOX),
    Derived("probe_line", Of.LINE),
    Derived("probe_message", Of.MESSAGE),
)


@pytest.fixture
async def probes(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three tables of what could be derived, with partitions for every class."""
    monkeypatch.setattr(derived, "DERIVED", PROBES)
    for one in PROBES:
        await database.pool.execute(
            f"""
            CREATE TABLE {one.table} (
                workspace_id uuid NOT NULL, inbox_id uuid, message_id uuid,
                retention_days smallint NOT NULL, PRIMARY KEY ({one.key}, retention_days)
            ) PARTITION BY LIST (retention_days)
            """
        )
        for days in partitions.RETENTION_DAYS:
            await database.pool.execute(
                f"CREATE TABLE {one.table}_{days} PARTITION OF {one.table} FOR VALUES IN ({days})"
            )


async def write(database: Database, workspace: UUID, inbox: UUID, message: UUID, days: int) -> None:
    for one in PROBES:
        await database.pool.execute(
            f"INSERT INTO {one.table} VALUES ($1, $2, $3, $4)", workspace, inbox, message, days
        )


async def classes(database: Database) -> dict[str, list[int]]:
    return {
        one.table: [
            row[0]
            for row in await database.pool.fetch(
                f"SELECT retention_days FROM {one.table} ORDER BY message_id"
            )
        ]
        for one in PROBES
    }


@pytest.mark.usefixtures("probes")
async def test_what_is_derived_moves_with_its_inbox_and_with_its_message(
    database: Database,
) -> None:
    workspace = uuid7()
    async with mail_platform(database) as mail:
        short, other = await mail.inboxes.create(
            workspace, [NewInbox("short", ttl_s=3600), NewInbox("other", ttl_s=3600)]
        )
        first = await mail.deliver(short.address, content=about("one"))
        second = await mail.deliver(other.address, content=about("two"))
        await write(database, workspace, short.id, first, 1)
        await write(database, workspace, other.id, second, 1)
        await mail.inboxes.extend(workspace, short.id, 20 * 86_400.0)
    moved = [30, 1]
    assert await classes(database) == {one.table: moved for one in PROBES}


@pytest.mark.usefixtures("probes")
async def test_what_is_derived_of_a_message_moves_when_ingest_moves_the_message(
    database: Database,
) -> None:
    workspace = uuid7()
    async with mail_platform(database) as mail:
        [short] = await mail.inboxes.create(workspace, [NewInbox("short", ttl_s=3600)])
        message = await mail.send(short.address, content=about("one"))
        await write(database, workspace, short.id, message, 1)  # still in class 1
        await mail.inboxes.extend(workspace, short.id, 20 * 86_400.0)
        await mail.run(await mail.lease())
    assert await classes(database) == {one.table: [30] for one in PROBES}


def test_a_new_table_gets_partitions_for_the_mail_that_lies_there_already(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What ensure_partitions adds for a table of a new version, from the names that stand."""
    monkeypatch.setattr(partitions, "DERIVED", (Derived("verdict", Of.MESSAGE),))
    monkeypatch.setattr(
        partitions,
        "_BY_PARENT",
        partitions._BY_PARENT
        | {
            partitions.class_name("verdict", days): partitions._Ranged(
                partitions.class_name("verdict", days), days in (1, 7, 30), keep_days=days or None
            )
            for days in partitions.RETENTION_DAYS
        },
    )
    past = datetime.now(UTC) - timedelta(days=20)
    names = [f"message_d30_{past:%Y_%m_%d}", f"message_kept_{past:%Y_%m}", "inbox_d7_2026_11_01"]
    beside = list(partitions._beside([*names, "message_d30", "suppression"]))
    assert [(one.parent, one.name) for one in beside] == [
        ("verdict_d30", f"verdict_d30_{past:%Y_%m_%d}"),
        ("verdict_kept", f"verdict_kept_{past:%Y_%m}"),
    ]
