"""A segment of five conditions over millions of contacts: estimate, exact count, first chunk.

The contacts, their lists and what they did are made by SQL in the server, with the indexes of the
tables built afterwards. The estimate is taken many times and its worst stands; its error is against
the exact count, whose time is the median of three. The first chunk is there when its row and job
are committed, counted from the campaign's start, while the planner runs as in a worker.
"""

import asyncio
import os
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from pathlib import Path
from uuid import UUID

import uvloop
from measure import FULL, Row, note, report
from platform_parts import Parts, product_postgres

from mailyard.campaigns.audience import Audience, Audiences
from mailyard.campaigns.campaign_value import NewCampaign
from mailyard.campaigns.plan import Planner
from mailyard.campaigns.segment import Segments
from mailyard.core import ids
from mailyard.queue.worker import Worker
from mailyard.storage.database import Connection
from mailyard.storage.partitions import ensure_month
from mailyard.storage.queries import Query

ROWS = int(os.environ.get("ROWS", 5_000_000 if FULL else 500_000))
ESTIMATES = 10
COUNTS = 3
FILTER = """
    country in ("DE", "FR", "IT") and plan in ("pro", "team") and not list "churned"
    and opened within 30 days and bought(total > 20) within 90 days
"""
SINCE = datetime(2024, 1, 1, tzinfo=UTC)
FOUND = Query("SELECT count(*) FROM campaign_chunk WHERE workspace_id = $1")

# Ids in the order of time with a random end, as the product makes them (RFC 9562 section 5.7).
CONTACTS = """
    INSERT INTO contact (id, workspace_id, address, name, attributes)
    SELECT (lpad(to_hex($2::bigint + n / 3), 12, '0') || '7' || substr(random, 1, 3) || 'a'
            || substr(random, 4, 15))::uuid,
           $1, 'person' || n || '@example' || n % 997 || '.org', 'Person ' || n,
           jsonb_build_object(
               'country', (ARRAY['DE','FR','IT','ES','US','PL','AT','CH','NL','GB'])[1 + dice % 10],
               'plan', (ARRAY['free','free','pro','team'])[1 + dice / 10 % 4],
               'city', 'Kraków ' || n % 500, 'score', (dice / 40 % 100)::text,
               'signed_up', (date '2020-01-01' + (dice / 4000 % 2000)::integer)::text)
    FROM (SELECT n, md5('a' || n) AS random, floor(random() * 1e9)::bigint AS dice
          FROM generate_series(1, $3::integer) AS n) AS drawn
"""
MEMBERS = """
    INSERT INTO list_member (list_id, contact_id, workspace_id)
    SELECT $2, id, $1 FROM contact WHERE workspace_id = $1 AND random() < 0.1
"""
EVENTS = """
    INSERT INTO contact_event (id, workspace_id, contact_id, kind, properties)
    SELECT (lpad(to_hex(($2::bigint - random() * 86400000 * $3::integer)::bigint), 12, '0')
            || '7' || substr(random, 1, 3) || 'a' || substr(random, 4, 15))::uuid,
           $1, id, $4::text,
           CASE WHEN $4 = 'bought' THEN jsonb_build_object('total', floor(random() * 100)) END
    FROM (SELECT id, md5($4 || id::text) AS random FROM contact
          WHERE workspace_id = $1 AND random() < $5 ORDER BY id) AS chosen
"""


async def fill(parts: Parts, workspace_id: UUID, list_id: UUID) -> None:
    """Contacts, a list with a tenth of them, and what they did in the last months."""
    now = datetime.now(UTC)
    for days in range(0, 130, 28):
        await ensure_month(parts.database, "contact_event", now - timedelta(days=days))
    async with parts.database.connection() as connection:
        run = connection.execute
        await run("INSERT INTO workspace (id, name) VALUES ($1, 'bench')", workspace_id)
        await run(
            "INSERT INTO contact_list (id, workspace_id, name) VALUES ($1, $2, 'churned')",
            list_id,
            workspace_id,
        )
        await bulk(connection, workspace_id)
        await run(MEMBERS, workspace_id, list_id, timeout=3600)
        for kind, days, share in (("opened", 60, 0.9), ("clicked", 60, 0.3), ("bought", 90, 0.6)):
            at = int(now.timestamp() * 1000)
            await run(EVENTS, workspace_id, at, days, kind, share, timeout=3600)
        for table in ("contact", "list_member", "contact_event"):
            await run(f"VACUUM ANALYZE {table}", timeout=3600)


async def bulk(connection: Connection, workspace_id: UUID) -> None:
    """The contacts; their indexes and keys are made again, as they were, behind them."""
    kept = await connection.fetch(
        "SELECT conname AS name, pg_get_constraintdef(oid) AS made FROM pg_constraint"
        " WHERE conrelid = 'contact'::regclass AND contype IN ('p', 'u', 'f')"
    )
    indexes = await connection.fetch(
        "SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS made"
        " FROM pg_index WHERE indrelid = 'contact'::regclass AND indexrelid NOT IN"
        " (SELECT conindid FROM pg_constraint WHERE conrelid = 'contact'::regclass)"
    )
    for one in kept:
        await connection.execute(f"ALTER TABLE contact DROP CONSTRAINT {one['name']}")
    for one in indexes:
        await connection.execute(f"DROP INDEX {one['name']}")
    first_ms = int(SINCE.timestamp() * 1000)
    await connection.execute(CONTACTS, workspace_id, first_ms, ROWS, timeout=3600)
    for one in kept:
        text = f"ALTER TABLE contact ADD CONSTRAINT {one['name']} {one['made']}"
        await connection.execute(text, timeout=3600)
    for one in indexes:
        await connection.execute(one["made"], timeout=3600)


async def count(audiences: Audiences, audience: Audience) -> tuple[int, float, int]:
    """The exact count, the seconds that it took, and in how many steps it told how far it was."""
    began = time.perf_counter()
    contacts, steps, after = 0, 0, None
    while True:
        step = await audiences.count(audience, after)
        contacts, steps, after = contacts + step.contacts, steps + 1, step.upto
        if after is None:
            return contacts, time.perf_counter() - began, steps


async def first_chunk(parts: Parts, workspace_id: UUID, segment_id: UUID) -> float:
    """Seconds from a campaign's start to its first chunk."""
    template_id = ids.uuid7()
    async with parts.database.transaction() as tx:
        await tx.execute(
            "INSERT INTO template (id, workspace_id, name, version) VALUES ($1, $2, 'bench', 1)",
            template_id,
            workspace_id,
        )
        await tx.execute(
            "INSERT INTO template_version"
            " (template_id, version, workspace_id, subject, html, text, variables)"
            " VALUES ($1, 1, $2, 'News', '', '{{ name }} in {{ city }}', '{}')",
            template_id,
            workspace_id,
        )
    made = await parts.campaigns.create(
        workspace_id,
        NewCampaign(
            name="bench",
            segment=ids.type_id(ids.SEGMENT, segment_id),
            template=ids.type_id(ids.TEMPLATE, template_id),
            sender="bench@example.org",
        ),
    )
    planner = Planner(database=parts.database, engine=parts.engine)
    worker = Worker(engine=parts.engine, handlers=[planner.handler()], name="bench")
    running = asyncio.create_task(worker.run())
    began = time.perf_counter()
    await parts.campaigns.start(workspace_id, made.id)
    chunks = 0
    while not chunks:
        await asyncio.sleep(0.005)
        chunks = await parts.database.fetchval(FOUND, workspace_id)
    seconds = time.perf_counter() - began
    worker.drain()
    await running
    return seconds


async def run(url: str) -> int:
    parts = Parts(url, connections=8)
    await parts.open()
    workspace_id, list_id = ids.uuid7(), ids.uuid7()
    note(f"generating {ROWS:,} contacts")
    began = time.perf_counter()
    await fill(parts, workspace_id, list_id)
    note(f"  {time.perf_counter() - began:.0f} s")
    audiences = Audiences(database=parts.database)
    segments = Segments(database=parts.database, audiences=audiences)
    made = await segments.create(workspace_id, "bench", FILTER)
    audience = await segments.audience(workspace_id, made.id)
    await audiences.estimate(audience)
    slowest_s, errors, estimates = 0.0, [], []
    for _ in range(ESTIMATES):
        started = time.perf_counter()
        estimates.append(await audiences.estimate(audience))
        slowest_s = max(slowest_s, time.perf_counter() - started)
    counts = sorted([await count(audiences, audience) for _ in range(COUNTS)], key=itemgetter(1))
    contacts, exact_s, steps = counts[COUNTS // 2]
    errors = [abs(one.contacts - contacts) / max(1, contacts) * 100 for one in estimates]
    one = estimates[-1]
    note(f"  {contacts:,} match; estimated {one.contacts:,} ({one.low:,} to {one.high:,})")
    note(f"  {one.looked:,} looked at for it; counted in {steps} steps")
    chunk_s = await first_chunk(parts, workspace_id, made.id)
    await parts.close()
    name = f"segment over {ROWS:,} contacts, five conditions"
    return report(
        [
            Row(f"{name}: estimate off by", max(errors), "%", 5.0, less_is_better=True),
            Row(f"{name}: estimate", slowest_s * 1000, "ms", 500.0, less_is_better=True),
            Row(f"{name}: exact count", exact_s, "s", 5.0, less_is_better=True),
            Row(f"{name}: first chunk", chunk_s, "s", 2.0, less_is_better=True),
        ]
    )


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="mailyard-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with product_postgres(folder) as server:
            return uvloop.run(run(server.url))


if __name__ == "__main__":
    sys.exit(main())
