"""Mailboxes: mail ingested a second with its thread and its event, and lists at 500 a second.

Ingest: what was accepted becomes lines: parsed, judged from remembered DNS answers, threaded, told;
the index is deferred, its jobs are written. By PROCESSES workers as the platform has them, on the
embedded PostgreSQL with fsync on. A third of the mails answer others, in inboxes that have mail.

Lists: `mailyard api`, one process, over what was ingested: 50 messages of an inbox, of a folder,
and 50 threads. The last two ask the database each time.
"""

import asyncio
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.synchronize import Event
from pathlib import Path
from uuid import UUID

import msgspec
from emails import Api, load, mailyard_api
from measure import Row, note, report, seconds
from platform_parts import Parts, Server, product_postgres

from mailyard.app import Application
from mailyard.core import ids
from mailyard.mailbox.inbox import Inboxes
from mailyard.mailbox.inbox_value import Inbox, NewInbox
from mailyard.queue.job import INBOUND_EMAIL, NewJob
from mailyard.queue.worker import Worker
from mailyard.receiving.commit import COLUMNS, INGEST
from mailyard.settings import Settings

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from dns_server import ScriptedDns

MESSAGES = int(os.environ.get("MESSAGES", seconds(24_000, 120_000)))
INBOXES = 200
PER_JOB = 30  # what a group of the listener holds under load
PROCESSES = 2
BAR_PER_S = 4_000
LISTS_PER_S = 500
BAR_P99_MS = 30.0
SECONDS = float(os.environ.get("SECONDS", seconds(8.0, 20.0)))
BODY = b"Your code is 4711. It is good for ten minutes.\r\n" * 20


def mail(number: int, answers: int | None) -> bytes:
    named = b"References: <%d@good.org>\r\n" % answers if answers is not None else b""
    return (
        b"Received: from out.good.org ([192.0.2.1])\r\n\tby mx.inbox.test with ESMTPS id %d;\r\n"
        b"From: Shop <no-reply@good.org>\r\nTo: you@inbox.test\r\nSubject: %bYour code %d\r\n"
        b"Date: Mon, 23 Nov 2026 12:00:00 +0000\r\nMessage-ID: <%d@good.org>\r\n%b"
        b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n%b"
    ) % (number, b"Re: " if named else b"", number, number, named, BODY)


async def accept(parts: Parts, workspace_id: UUID, inboxes: Sequence[Inbox], count: int) -> None:
    """Messages and their jobs as the listener leaves them."""
    rows = []
    for number in range(count):
        inbox = inboxes[number % len(inboxes)]
        answers = number - 3 * len(inboxes) if number % 3 == 0 and number >= 3 * INBOXES else None
        raw = mail(number, answers)
        rows.append(
            {
                "id": ids.uuid7(),
                "workspace_id": workspace_id,
                "retention_days": inbox.retention_days,
                "reverse_path": "no-reply@good.org",
                "recipients": [inbox.address],
                "inbox_ids": [inbox.id],
                "helo": "out.good.org",
                "peer": "192.0.2.1",
                "size_bytes": len(raw),
                "raw": raw,
            }
        )
    async with parts.database.transaction() as tx:
        await tx.copy_records_to_table(
            "message",
            records=[tuple(row.get(name) for name in COLUMNS) for row in rows],
            columns=COLUMNS,
        )
    named = [(row["id"], row["retention_days"], row["size_bytes"]) for row in rows]
    jobs = [
        NewJob(INBOUND_EMAIL, INGEST, msgspec.json.encode(named[at : at + PER_JOB]), workspace_id)
        for at in range(0, count, PER_JOB)
    ]
    await parts.engine.enqueue(jobs)


def work(url: str, dns: str, begin: Event) -> None:
    """A worker process that ingests, from a word on."""

    async def run() -> None:
        application = Application(replace(Settings(), database_url=url, dns_servers=dns))
        await application.open()
        worker = Worker(
            engine=application.engine, handlers=[application.ingest.handler()], name="bench"
        )
        begin.wait()
        await worker.run()

    asyncio.run(run())


async def ingested(parts: Parts) -> int:
    async with parts.database.connection() as connection:
        return int(await connection.fetchval("SELECT count(*) FROM inbox_message"))


async def until(parts: Parts, count: int) -> None:
    while True:
        if await ingested(parts) >= count:
            return
        await asyncio.sleep(0.2)


async def ingest(server: Server) -> tuple[Row, str]:
    """Ingest MESSAGES; an inbox with its share of them."""
    parts = Parts(server.url, 4)
    await parts.open()
    inboxes = Inboxes(database=parts.database, domains=["inbox.test"])
    async with parts.database.connection() as connection:
        workspace_id = await connection.fetchval("SELECT id FROM workspace LIMIT 1")
    made = await inboxes.create(workspace_id, [NewInbox(ttl_s=86_400.0) for _ in range(INBOXES)])
    async with ScriptedDns() as dns:
        dns.add("good.org", "TXT", '"v=spf1 ip4:192.0.2.0/24 -all"')
        dns.add("_dmarc.good.org", "TXT", '"v=DMARC1; p=reject"')
        server_at = f"{dns.address.address}:{dns.address.port}"
        context = multiprocessing.get_context("spawn")
        await accept(parts, workspace_id, made, MESSAGES)
        begin = context.Event()
        workers = [
            context.Process(target=work, args=(server.url, server_at, begin), daemon=True)
            for _ in range(PROCESSES)
        ]
        for worker in workers:
            worker.start()
        await asyncio.sleep(4.0)  # until they are there
        started = time.perf_counter()
        begin.set()
        await until(parts, MESSAGES)
        spent_s = time.perf_counter() - started
        for worker in workers:
            worker.terminate()
            worker.join()
    async with parts.database.connection() as connection:
        events = await connection.fetchval("SELECT count(*) FROM mailbox_event")
        threads = await connection.fetchval("SELECT count(DISTINCT thread_id) FROM line_state")
        timed = await connection.fetchval("SELECT count(*) FROM line_state")
        await connection.execute("VACUUM ANALYZE")  # what autovacuum does a minute later
    await parts.close()
    note(f"  {timed:,} lines, {events:,} events, {threads:,} threads; {spent_s:.1f} s")
    name = f"ingest: parsed, judged, threaded, told; {PROCESSES} processes"
    return Row(name, MESSAGES / spent_s, "messages/s", BAR_PER_S), ids.type_id(
        ids.INBOX, made[0].id
    )


def main() -> int:
    with (
        tempfile.TemporaryDirectory(prefix="mailyard-bench-") as name,
        product_postgres(Path(name)) as server,
        mailyard_api(server.url) as api,
    ):
        row, inbox = asyncio.run(ingest(server))
        rows = [row]
        for what, path in (
            ("list of 50 messages", f"/v1/inboxes/{inbox}/messages?limit=50"),
            ("folder of 50 messages", f"/v1/inboxes/{inbox}/messages?limit=50&folder=inbox"),
            ("list of 50 threads", f"/v1/inboxes/{inbox}/threads?limit=50"),
        ):
            rows.append(_paced(what, api, path))
    return report(rows)


def _paced(what: str, api: Api, path: str) -> Row:
    run = load(api.port, api.key, path, b"", SECONDS, LISTS_PER_S)
    assert not run.refused, f"{run.refused} of {path} were refused"
    p99_ms = run.percentile(0.99)
    note(f"  {what}: p50 {run.percentile(0.5):.1f} ms, p99 {p99_ms:.1f} ms")
    return Row(f"{what}, p99 at {LISTS_PER_S}/s", p99_ms, "ms", BAR_P99_MS, less_is_better=True)


if __name__ == "__main__":
    sys.exit(main())
