"""History at size: 2 million delivery rows over 24 months (20 million with FULL=1).

One recipient, one type, one state, one campaign's page and one message's story, each with a
range of 90 days where it takes one. The plans are printed, and a plan that opens a partition
outside its range fails the bench: the cost is proportional to the range, not to all that is kept.
"""

import asyncio
import os
import re
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import uvloop
from measure import FULL, Row, note, percentile, report
from platform_parts import Parts, product_postgres

from mailyard.core import ids
from mailyard.sending.delivery import Deliveries, millisecond_range, recipient_key, unix_ms
from mailyard.sending.states import State
from mailyard.storage.queries import load

ROWS = int(os.environ.get("ROWS", 20_000_000 if FULL else 2_000_000))
MONTHS = 24
PEOPLE = 50_000
CALLS = 200
CAMPAIGN_ROWS = 20_000
RANGE = timedelta(days=90)
TYPES = ["receipt", "reset", "welcome", "invoice", "news", "alert"]
COLUMNS = [
    "id", "workspace_id", "email_id", "campaign_id", "recipient", "recipient_key", "type", "state",
    "attempts", "queued_at", "updated_at",
]  # fmt: skip
_SQL = load("delivery")

# $4 deliveries of the $3 milliseconds from $2 on, in the order of time, to the people whose keys
# are $5. An id is a UUID of version 7 (RFC 9562 section 5.7): twelve digits of time, then random
# ones. Nothing of the table is left out: all its indexes stand.
FILL = """
    INSERT INTO delivery (id, workspace_id, email_id, recipient, recipient_key, type, state,
                          attempts, queued_at, updated_at)
    SELECT (time || '-7' || substr(gen_random_uuid()::text, 16))::uuid, $1,
           (time || '-7' || substr(gen_random_uuid()::text, 16))::uuid,
           'person' || person || '@example.com', ($5::bigint[])[person + 1], type, state, 1, at, at
    FROM (
        SELECT regexp_replace(lpad(to_hex(at_ms), 12, '0'), '(.{8})', '\\1-') AS time,
               to_timestamp(at_ms / 1000.0) AS at,
               floor(random() * cardinality($5::bigint[]))::integer AS person,
               ($6::text[])[1 + floor(random() * cardinality($6::text[]))::integer] AS type,
               CASE WHEN random() < 0.01 THEN 'bounced' ELSE 'accepted' END::delivery_state AS state
        FROM (SELECT $2::bigint + $3::bigint * n / $4::bigint AS at_ms
              FROM generate_series(0, $4::bigint - 1) AS n) AS instants
    ) AS drawn
"""


def months_before(moment: datetime) -> list[datetime]:
    """The first instants of this month and of the MONTHS before it."""
    first = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    found = [first]
    for _ in range(MONTHS):
        found.append((found[-1] - timedelta(days=1)).replace(day=1))
    return found[::-1]


async def fill_month(
    parts: Parts,
    workspace_id: UUID,
    keys: list[int],
    start: datetime,
    end: datetime,
    count: int,
) -> None:
    """`count` deliveries of [start, end), in the order of time, to its partition."""
    async with parts.database.connection() as connection:
        first_ms = unix_ms(start)
        span_ms = unix_ms(end) - first_ms
        await connection.execute(
            FILL, workspace_id, first_ms, span_ms, count, keys, TYPES, timeout=3600
        )
        await connection.execute(f"VACUUM ANALYZE delivery_{start:%Y_%m}", timeout=3600)


async def generate(parts: Parts, workspace_id: UUID, now: datetime) -> list[tuple[str, int]]:
    """Partitions and rows of all months, two months at a time; the people."""
    addresses = [f"person{number}@example.com" for number in range(PEOPLE)]
    people = [(address, recipient_key(address)) for address in addresses]
    starts = months_before(now)
    async with parts.database.connection() as connection:
        for start, end in pairwise(starts):
            for parent in ("delivery", "delivery_event"):
                await connection.execute(
                    f"CREATE TABLE IF NOT EXISTS {parent}_{start:%Y_%m} PARTITION OF {parent}"
                    f" FOR VALUES FROM ('{ids.lowest_at(start)}') TO ('{ids.lowest_at(end)}')"
                )
    keys = [key for _, key in people]
    months = list(zip(starts, [*starts[1:], now], strict=True))
    writers = asyncio.Semaphore(os.cpu_count() or 1)

    async def fill(start: datetime, end: datetime) -> None:
        async with writers:
            await fill_month(parts, workspace_id, keys, start, end, ROWS // len(months))

    await asyncio.gather(*(fill(start, end) for start, end in months))
    note("  written; analysing")
    async with parts.database.connection() as connection:
        await connection.execute("ANALYZE delivery", timeout=3600)
    return people


async def add_campaign(parts: Parts, workspace_id: UUID, started_at: datetime) -> UUID:
    """A campaign of CAMPAIGN_ROWS recipients, all in one millisecond of ids."""
    campaign_id = ids.uuid7()
    records = [
        (
            ids.deterministic_uuid7(
                unix_ms(started_at), campaign_id.bytes, str(number).encode(), number // 1000
            ),
            workspace_id, None, campaign_id, f"member{number}@example.org", number, "campaign",
            "accepted", 1, started_at, started_at,
        )
        for number in range(CAMPAIGN_ROWS)
    ]  # fmt: skip
    async with parts.database.connection() as connection:
        await connection.copy_records_to_table("delivery", columns=COLUMNS, records=records)
    return campaign_id


async def p95_ms(call: Callable[[int], Awaitable[object]]) -> float:
    times = []
    for number in range(CALLS):
        started = time.perf_counter()
        await call(number)
        times.append(time.perf_counter() - started)
    return percentile(times, 0.95) * 1000


async def partitions_opened(parts: Parts, title: str, query: str, *arguments: object) -> set[str]:
    """Print the plan as it was executed; the partitions that it touched."""
    async with parts.database.connection() as connection:
        lines = await connection.fetch(
            f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF) {query}",
            *arguments,
        )
    text = "\n".join(line[0] for line in lines)
    note(f"-- {title}\n{text}")
    executed = [line for line in text.splitlines() if "never executed" not in line]
    return set(re.findall(r" on (delivery_\d{4}_\d{2})", "\n".join(executed)))


async def run(url: str) -> int:
    parts = Parts(url, connections=4)
    await parts.open()
    deliveries = Deliveries(database=parts.database)
    workspace_id, now = ids.uuid7(), datetime.now(UTC)
    note(f"generating {ROWS:,} rows over {MONTHS} months")
    people = await generate(parts, workspace_id, now)
    started_at = now - timedelta(days=20)
    campaign_id = await add_campaign(parts, workspace_id, started_at)
    since = now - RANGE
    known = (await deliveries.page(workspace_id, since=since, limit=CALLS)).items

    def kind(number: int) -> str:
        return TYPES[number % len(TYPES)]

    calls: dict[str, Callable[[int], Awaitable[object]]] = {
        "one recipient": lambda n: deliveries.page(
            workspace_id, recipient=people[n * 7 % PEOPLE][0], since=since
        ),
        "by type": lambda n: deliveries.page(workspace_id, type=kind(n), since=since),
        "by state": lambda _: deliveries.page(workspace_id, state=State.BOUNCED, since=since),
        "one message's story": lambda n: deliveries.get(workspace_id, known[n % len(known)].id),
        "a campaign's page": lambda _: deliveries.page_of_campaign(
            workspace_id, campaign_id, started_at
        ),
    }
    rows = []
    for name, call in calls.items():
        p95 = await p95_ms(call)
        rows.append(Row(f"history, {name}: p95", p95, "ms", 20, less_is_better=True))

    low, high = ids.lowest_at(since), ids.lowest_at(now)
    in_range = {f"delivery_{m:%Y_%m}" for m in months_before(now) if m + timedelta(days=31) > since}
    address, key = people[0]
    first, last = millisecond_range(unix_ms(started_at))
    plans: list[tuple[str, str, tuple[object, ...]]] = [
        ("recipient", _SQL.list_by_recipient,
         (workspace_id, low, high, key, address, 100, None, None)),
        ("type", _SQL.list_by_type, (workspace_id, low, high, "news", 100)),
        ("state", _SQL.list_by_state, (workspace_id, low, high, "bounced", 100)),
        ("campaign", _SQL.list_by_campaign, (workspace_id, first, last, campaign_id, 100)),
        ("story", _SQL.get_delivery, (workspace_id, known[0].id)),
    ]  # fmt: skip
    outside = 0
    for title, query, arguments in plans:
        opened = await partitions_opened(parts, title, query, *arguments)
        outside += len(opened - in_range)
    rows.append(
        Row("history: partitions opened outside the range", outside, "", 0.5, less_is_better=True)
    )
    await parts.close()
    return report(rows)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="mailyard-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with product_postgres(folder) as server:
            return uvloop.run(run(server.url))


if __name__ == "__main__":
    sys.exit(main())
