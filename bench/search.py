"""Search: one mailbox, a whole workspace, and the index behind ingest.

The workspace, a quarter of it in the mailbox, is filled by SQL with lines whose words follow Zipf's
law; the index is built afterwards. Each kind of search is asked many times with other words; p95 is
over all of them, the page's snippets included, by the clock; beside it stands the p95 of CPU, of
PostgreSQL and of who asks, which other work changes less. The plans of two are printed. Indexing is
measured on mails as they come, by two processes as a platform has, from the jobs that ingest leaves
to the rows.
"""

import asyncio
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import uvloop
from measure import FULL, Row, note, percentile, report
from platform_parts import Parts, on_cpu_s, product_postgres

from mailyard.cache.layered import LayeredCache
from mailyard.core import ids
from mailyard.mailbox.inbox import Inboxes
from mailyard.mailbox.inbox_value import NewInbox
from mailyard.mailbox.search.index import Indexer, jobs_for
from mailyard.mailbox.search.search import BEST, NEWEST, Search
from mailyard.mailbox.search.vectors import Vectors
from mailyard.queue.worker import Worker
from mailyard.receiving.ingest import Arrival

MAILBOX = int(os.environ.get("MAILBOX", 500_000 if FULL else 50_000))
WORKSPACE = int(os.environ.get("WORKSPACE", 2_000_000 if FULL else 200_000))
INDEXED = int(os.environ.get("INDEXED", 30_000 if FULL else 6_000))
TIMES = 20 if FULL else 8
WORDS = 40_000
PER_MAIL = 60
INBOXES = 20
PROCESSES = 2
STEP = 25_000
DAYS = 20

FILL = """
    WITH drawn AS MATERIALIZED (
        SELECT (lpad(to_hex($4::bigint + n * $8::bigint), 12, '0') || '7' || substr(random, 1, 3)
                || 'a' || substr(random, 4, 15))::uuid AS id,
               CASE WHEN random() < $9::float8 THEN $2::uuid
                    ELSE ($3::uuid[])[1 + floor(random() * cardinality($3::uuid[]))::integer]
               END AS inbox_id,
               'subject s' || n % 1000 AS subject, 'person' || n % 5000 AS person,
               (SELECT string_agg(
                    'w' || to_hex(7919 * floor(exp(random() * ln($6::float8)))::integer), ' ')
                FROM generate_series(1, $7::integer + n * 0)) AS text
        FROM (
            SELECT n, md5($4::bigint || '.' || n) AS random
            FROM generate_series(1, $5::integer) AS n
        ) AS one
    ), message AS (
        INSERT INTO message
        SELECT id, $1, 0, person, ARRAY['bench'], ARRAY[inbox_id], '', '', length(text),
               convert_to('Subject: ' || subject || E'\\r\\n\\r\\n' || text, 'UTF8') FROM drawn
    ), line AS (
        INSERT INTO inbox_message (inbox_id, message_id, workspace_id, retention_days,
            message_retention_days, recipient, from_address, from_name, subject, preview,
            header_message_id, size_bytes, attachments)
        SELECT inbox_id, id, $1, 0, 0, 'bench', person, '', subject, left(text, 200), '',
               length(text), 0
        FROM drawn
    ), state AS (
        INSERT INTO line_state (inbox_id, message_id, retention_days, workspace_id, thread_id,
            folder, seen, starred, labels)
        SELECT inbox_id, id, 0, $1, id, 'inbox', get_byte(uuid_send(id), 15) < 200,
               get_byte(uuid_send(id), 14) = 0,
               CASE WHEN get_byte(uuid_send(id), 13) < 5 THEN ARRAY['work'] ELSE '{}' END
        FROM drawn
    )
    INSERT INTO search_line
    SELECT inbox_id, id, 0, $1, length(text), 'simple',
           setweight(to_tsvector('simple', subject), 'A') || to_tsvector('simple', text)
           || array_to_tsvector(ARRAY['c=simple', 'i=' || inbox_id, 'w=' || $1::uuid,
                                      'f=example.org', 'f=' || person,
                                      's=' || split_part(subject, ' ', 2)]),
           ''
    FROM drawn
"""


def word(rank: int) -> str:
    """A word by how common it is: the first is in nearly every mail."""
    return f"w{rank * 7919:x}"


def queries(random: Random) -> list[tuple[str, str]]:
    """One of each kind, with words of its own."""
    late = (datetime.now(UTC) + timedelta(days=DAYS - 1)).date()
    common = word(random.randint(1, 5))
    usual = [word(random.randint(30, 300)) for _ in range(3)]
    seldom = [word(random.randint(2_000, 20_000)) for _ in range(2)]
    return [
        ("a common word", common),
        ("a usual word", usual[0]),
        ("a rare word", seldom[0]),
        ("nothing", "nowhere"),
        ("two words", f"{usual[0]} {usual[1]}"),
        ("one of three", f"{usual[0]} or {usual[1]} or {seldom[0]}"),
        ("a beginning", f"{seldom[0][:4]}*"),
        ("a phrase", f'"{common} {usual[0]}"'),
        ("a phrase of nobody", f'"{usual[0]} {usual[1]} {usual[2]}"'),
        ("one without another", f"{usual[0]} -{common}"),
        ("all without one", f"-{common}"),
        ("a sender", f"from:person{random.randint(0, 4_999)}"),
        ("a sender's word", f"from:person{random.randint(0, 4_999)} {common}"),
        ("a subject", f"subject:s{random.randint(0, 999)}"),
        ("unread", f"is:unread {usual[2]}"),
        ("all unread", "is:unread"),
        ("starred", f"is:starred {usual[2]}"),
        ("all starred", "is:starred"),
        ("labelled", f"label:work {common}"),
        ("of no such label", f"label:nothing {common}"),
        ("large ones of a day", f"larger:300 after:{late} {usual[1]}"),
        ("very large ones", "larger:1M"),
    ]


async def fill(parts: Parts, inboxes: Inboxes, workspace_id: UUID) -> UUID:
    """A workspace of WORKSPACE mails of DAYS days, as they come, of which the mailbox gets some
    MAILBOX and others the rest; the mailbox."""
    async with parts.database.connection() as connection:
        await connection.execute(
            "INSERT INTO workspace (id, name) VALUES ($1, 'bench')", workspace_id
        )
        await connection.execute("INSERT INTO search_language VALUES ($1, 'simple')", workspace_id)
    made = await inboxes.create(workspace_id, [NewInbox(f"box{n}") for n in range(INBOXES)])
    since = int(datetime.now(UTC).timestamp() * 1000)  # the inboxes are as old as their mail
    between_ms = DAYS * 86_400_000 // WORKSPACE
    async with parts.database.connection() as connection:
        built = await connection.fetchval("SELECT pg_get_indexdef('search_line_by_all'::regclass)")
        await connection.execute("DROP INDEX search_line_by_all")

    async def every_second_step(first: int) -> None:
        async with parts.database.connection() as connection:
            for done in range(first * STEP, WORKSPACE, 2 * STEP):
                await connection.execute(
                    FILL,
                    workspace_id,
                    made[0].id,
                    [inbox.id for inbox in made[1:]],
                    since + done * between_ms,
                    min(STEP, WORKSPACE - done),
                    float(WORDS),
                    PER_MAIL,
                    between_ms,
                    MAILBOX / WORKSPACE,
                    timeout=3600,
                )
                note(f"  {done + STEP:,} of {WORKSPACE:,}")

    await asyncio.gather(every_second_step(0), every_second_step(1))
    async with parts.database.connection() as connection:
        await connection.execute("SET maintenance_work_mem = '512MB'")
        await connection.execute("SET max_parallel_maintenance_workers = 2")
        await connection.execute(built.replace(" ON ONLY ", " ON "), timeout=3600)
        for table in ("search_line", "line_state", "inbox_message", "message"):
            await connection.execute(f"VACUUM ANALYZE {table}", timeout=3600)
        await connection.execute("RESET ALL")
    return made[0].id


class Timed:
    """Times of searches in ms: by the clock, and of CPU."""

    def __init__(self, backends: Sequence[int]) -> None:
        self._backends = backends
        self.clock: list[float] = []
        self.cpu: list[float] = []

    async def run(self, search: Coroutine[Any, Any, object]) -> None:
        cpu_s, began = -self._cpu_s(), time.perf_counter()
        await search
        self.clock.append(1_000 * (time.perf_counter() - began))
        self.cpu.append(1_000 * (cpu_s + self._cpu_s()))

    def _cpu_s(self) -> float:
        return on_cpu_s(self._backends) + time.thread_time()


async def measure(
    parts: Parts, search: Search, workspace_id: UUID, inbox_id: UUID | None, bar_ms: float
) -> list[Row]:
    """p95 over all kinds, newest first, and the best of the newest."""
    where = f"mailbox of {MAILBOX:,}" if inbox_id else f"workspace of {WORKSPACE:,}"
    random = Random(7)
    times: dict[str, Timed] = {}
    backends: list[int] = []
    for round_ in range(TIMES + 1):
        for kind, text in queries(random):
            found = search.find(workspace_id, text, inbox_id=inbox_id, sort=NEWEST, limit=50)
            if round_:
                await times.setdefault(kind, Timed(backends)).run(found)
            else:
                await found
        backends = backends or await backends_of(parts)
    for kind, own in times.items():
        note(
            f"  {where}: {kind:22} median {percentile(own.clock, 0.5):7.1f} ms"
            f"  worst {max(own.clock):7.1f} ms  ({max(own.cpu):.1f} of CPU)"
        )
    best = Timed(backends)
    for _ in range(TIMES):
        text = word(random.randint(30, 300))
        await best.run(search.find(workspace_id, text, inbox_id=inbox_id, sort=BEST, limit=50))
    all_times = [one for own in times.values() for one in own.clock]
    all_cpu = [one for own in times.values() for one in own.cpu]
    note(
        f"  {where}: p95 of CPU {percentile(all_cpu, 0.95):.1f} ms newest first, "
        f"{percentile(best.cpu, 0.95):.1f} ms best first"
    )
    return [
        Row(f"search in a {where}, p95", percentile(all_times, 0.95), "ms", bar_ms, True),
        Row(
            f"best of the newest 10,000 in a {where}, p95",
            percentile(best.clock, 0.95),
            "ms",
            bar_ms,
            True,
        ),
    ]


async def backends_of(parts: Parts) -> list[int]:
    """The process ids of PostgreSQL that work for this bench."""
    async with parts.database.connection() as connection:
        rows = await connection.fetch(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        )
    return [row["pid"] for row in rows]


def mail(random: Random, dictionary: list[str]) -> bytes:
    """A mail as people write: 1.5 to 2 kB."""
    message = EmailMessage()
    message["From"] = (
        f"Person {random.randint(1, 999)} <person{random.randint(1, 999)}@example.org>"
    )
    message["To"] = "Team <team@example.net>"
    message["Subject"] = " ".join(random.choices(dictionary, k=6))
    message.set_content(
        "\n".join(" ".join(random.choices(dictionary, k=12)) for _ in range(16))
        + "\nthe and this is for you with our best\n"
    )
    return message.as_bytes()


async def index_rate(parts: Parts, inboxes: Inboxes, url: str) -> Row:
    """Mails a second from the jobs of ingest to rows of the index."""
    workspace_id = ids.uuid7()
    random = Random(11)
    dictionary = [
        "".join(random.choices("abcdefghiklmnoprstuvwxyz", k=random.randint(3, 9)))
        for _ in range(20_000)
    ]
    async with parts.database.connection() as connection:
        await connection.execute("INSERT INTO workspace (id, name) VALUES ($1, 'b')", workspace_id)
        inbox = (await inboxes.create(workspace_id, [NewInbox("indexed")]))[0]
        mails = [(ids.uuid7(), mail(random, dictionary)) for _ in range(INDEXED)]
        await connection.executemany(
            "INSERT INTO message"
            " VALUES ($1, $2, 0, '', ARRAY['x'], ARRAY[$3::uuid], '', '', $4, $5)",
            [(one, workspace_id, inbox.id, len(raw), raw) for one, raw in mails],
        )
        await connection.execute(
            "INSERT INTO inbox_message (inbox_id, message_id, workspace_id, retention_days,"
            " message_retention_days, recipient, from_address, from_name, subject, preview,"
            " header_message_id, size_bytes, attachments)"
            " SELECT $2, id, $1, 0, 0, 'x', '', '', '', '', '', size_bytes, 0 FROM message"
            " WHERE workspace_id = $1",
            workspace_id,
            inbox.id,
        )
    jobs = []
    for start in range(0, len(mails), 200):  # as ingest leaves them: a job a transaction
        arrivals = [
            Arrival(inbox.id, one, workspace_id, 0, 0, "", None, len(raw))  # type: ignore[arg-type]
            for one, raw in mails[start : start + 200]
        ]
        jobs += jobs_for(arrivals)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=work, args=(url,), daemon=True) for _ in range(PROCESSES)]
    for worker in workers:
        worker.start()
    await asyncio.sleep(3.0)  # until they are there
    await parts.engine.enqueue(jobs)
    began = time.perf_counter()
    async with parts.database.connection() as connection:
        while True:
            done = await connection.fetchval(
                "SELECT count(*) FROM search_line WHERE workspace_id = $1", workspace_id
            )
            if done >= INDEXED:
                break
            await asyncio.sleep(0.05)
    seconds = time.perf_counter() - began
    for worker in workers:
        worker.terminate()
        worker.join()
    size = sum(len(raw) for _, raw in mails) / len(mails)
    note(f"  {INDEXED:,} mails of {size:,.0f} bytes in {seconds:.1f} s")
    return Row(f"indexed behind ingest, {PROCESSES} processes", INDEXED / seconds, "mails/s", 1_500)


def work(url: str) -> None:
    """A worker's process with the index lane alone."""

    async def run() -> None:
        parts = Parts(url, 6)
        await parts.database.open()
        await parts.bus.open()
        vectors = Vectors(database=parts.database, embedder=None)
        indexer = Indexer(database=parts.database, engine=parts.engine, vectors=vectors)
        await Worker(engine=parts.engine, handlers=[indexer.handler()], name="bench").run()

    uvloop.run(run())


async def run(url: str) -> list[Row]:
    parts = Parts(url, 8)
    await parts.database.open()
    await parts.bus.open()
    try:
        cache = LayeredCache(database=parts.database, bus=parts.bus)
        inboxes = Inboxes(database=parts.database, domains=("bench.test",), cache=cache)
        vectors = Vectors(database=parts.database, embedder=None)
        indexer = Indexer(database=parts.database, engine=parts.engine, vectors=vectors)
        search = Search(database=parts.database, inboxes=inboxes, indexer=indexer, vectors=vectors)
        rows = [await index_rate(parts, inboxes, url)]
        workspace_id = ids.uuid7()
        inbox_id = await fill(parts, inboxes, workspace_id)
        rows += await measure(parts, search, workspace_id, inbox_id, 100.0)
        rows += await measure(parts, search, workspace_id, None, 300.0)
        for text in (word(100), f"{word(40)} {word(3_000)}"):
            note(
                f"\nthe plan of {text}, in the workspace:\n" + await search.plan(workspace_id, text)
            )
        return rows
    finally:
        await parts.bus.close()
        await parts.database.close()


def main() -> int:
    with (
        tempfile.TemporaryDirectory(prefix="mailyard-bench-") as folder,
        product_postgres(Path(folder)) as server,
    ):
        return report(uvloop.run(run(server.url)))


if __name__ == "__main__":
    sys.exit(main())
