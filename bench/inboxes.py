"""Inboxes made by the thousand, and mail to a domain with millions of them.

Inboxes are made as the API's batch route makes them, 1,000 a call and transaction, over real
PostgreSQL. Then the domain is filled by SQL, and what an address costs at RCPT is measured before
and after with the product's own query: 500 addresses at once, drawn at random from all inboxes. By
the clock, and in CPU time of PostgreSQL and of who asks, which other work changes less.

    FULL=1: ten million inboxes, some three minutes; else a million.
"""

import json
import os
import tempfile
import time
from pathlib import Path
from random import Random
from statistics import median
from uuid import UUID

import uvloop
from measure import FULL, Row, note, report
from platform_parts import Parts, on_cpu_s, product_postgres

from mailyard.core import ids
from mailyard.mailbox.inbox import Inboxes
from mailyard.mailbox.inbox_value import NewInbox
from mailyard.storage.queries import load

INBOXES = int(os.environ.get("INBOXES", 10_000_000 if FULL else 1_000_000))
BATCHES = 30
A_BATCH = 1_000
QUERIES_OF_EACH = 60
ADDRESSES = 500  # a query, as the listener asks at most
FEW = 1_000
MADE_PER_S = 5_000
MORE_US = 20.0  # a tenth of what a message costs from MAIL to 250

RECEIVING = load("receiving")
FILL = """
    WITH made AS (
        SELECT n, (lpad(to_hex($2::bigint + n / 10000), 12, '0') || '7' || substr(random, 1, 3)
                   || 'a' || substr(random, 4, 15))::uuid AS id
        FROM (SELECT n, md5('i' || n) AS random FROM generate_series($3::integer, $4::integer) AS n)
             AS drawn
    ), addressed AS (
        INSERT INTO address (address, workspace_id, inbox_id, retention_days, expires_at)
        SELECT 'box' || n || '@inbox.test', $1, id, 7, now() + interval '6 days' FROM made
    )
    INSERT INTO inbox (id, workspace_id, retention_days, address, expires_at)
    SELECT id, $1, 7, 'box' || n || '@inbox.test', now() + interval '6 days' FROM made
"""


async def main(url: str) -> int:
    parts = Parts(url, connections=4)
    await parts.open()
    try:
        return await measure(parts)
    finally:
        await parts.close()


async def measure(parts: Parts) -> int:
    database = parts.database
    workspace = ids.uuid7()
    await database.pool.execute("INSERT INTO workspace VALUES ($1, 'Bench')", workspace)
    inboxes = Inboxes(database=database, domains=["inbox.test"])
    made_per_s = await make(inboxes, workspace)
    await fill(parts, workspace, 1, FEW)
    few_us, few_cpu_us = await look_up(parts, FEW)
    await fill(parts, workspace, FEW + 1, INBOXES)
    await database.pool.execute("VACUUM ANALYZE address")
    many_us, many_cpu_us = await look_up(parts, INBOXES)
    own, others = await pages(parts, INBOXES)
    note(f"pages that an address touches among {INBOXES:,}: {own:.1f} in PostgreSQL's cache, "
         f"{others:.1f} from the kernel's")  # fmt: skip
    note(
        f"an address at RCPT: {few_us:.1f} us ({few_cpu_us:.1f} of CPU) among {FEW:,}, "
        f"{many_us:.1f} us ({many_cpu_us:.1f} of CPU) among {INBOXES:,}"
    )
    return report(
        [
            Row("inboxes made, 1,000 a call", made_per_s, "/s", MADE_PER_S),
            Row(
                f"an address among {INBOXES:,} inboxes more than among {FEW:,}",
                many_us - few_us,
                "us",
                MORE_US,
                less_is_better=True,
            ),
            Row("... in CPU time", many_cpu_us - few_cpu_us, "us", MORE_US, less_is_better=True),
        ]
    )


async def make(inboxes: Inboxes, workspace: UUID) -> float:
    wanted = [NewInbox(ttl_s=3_600.0) for _ in range(A_BATCH)]
    await inboxes.create(workspace, wanted)
    started = time.perf_counter()
    for _ in range(BATCHES):
        await inboxes.create(workspace, wanted)
    return BATCHES * A_BATCH / (time.perf_counter() - started)


async def fill(parts: Parts, workspace: UUID, first: int, last: int) -> None:
    now_ms = int(time.time() * 1000) - 10_000
    for low in range(first, last + 1, 250_000):
        high = min(low + 249_999, last)
        await parts.database.pool.execute(FILL, workspace, now_ms, low, high, timeout=600)


async def look_up(parts: Parts, inboxes: int) -> tuple[float, float]:
    """Microseconds an address, the median of many queries of the listener's; and of CPU."""
    random, times = Random(7), []
    async with parts.database.connection() as connection:
        backend = await connection.fetchval("SELECT pg_backend_pid()")
        cpu_s = -on_cpu_s([backend]) - time.thread_time()
        for _ in range(QUERIES_OF_EACH):
            asked = [f"box{random.randint(1, inboxes)}@inbox.test" for _ in range(ADDRESSES)]
            started = time.perf_counter()
            rows = await parts.database.fetch(RECEIVING.find_routes, asked, tx=connection)
            times.append((time.perf_counter() - started) / ADDRESSES * 1e6)
            assert len(rows) == ADDRESSES
    cpu_s += on_cpu_s([backend]) + time.thread_time()
    return median(times), cpu_s / (QUERIES_OF_EACH * ADDRESSES) * 1e6


async def pages(parts: Parts, inboxes: int) -> tuple[float, float]:
    """Pages an address touches: those that PostgreSQL has, and those that it reads."""
    random = Random(11)
    async with parts.database.connection() as connection:
        asked = [f"box{random.randint(1, inboxes)}@inbox.test" for _ in range(ADDRESSES)]
        explain = f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {RECEIVING.find_routes}"
        [plan] = json.loads(await connection.fetchval(explain, asked))
    top = plan["Plan"]
    return top["Shared Hit Blocks"] / ADDRESSES, top["Shared Read Blocks"] / ADDRESSES


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="mailyard-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with product_postgres(folder) as server:
            raise SystemExit(uvloop.run(main(server.url)))
