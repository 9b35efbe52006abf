"""A campaign at full speed, beside what the machine's SMTP can do at most.

200,000 recipients (1,000,000 with FULL=1): 4 KB of HTML and text with four merge fields and
List-Unsubscribe, intent committed before the bytes, every delivery row recorded and indexed, from
`start` to finished, to Postfix's smtp-sink. The limit is smtp-source to smtp-sink on reused
connections with a message of the same size, in the same run. PostgreSQL is the embedded one with
fsync on; two worker processes with ten connections each.
"""

import asyncio
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import UUID

import uvloop
from measure import FULL, Row, free_port, median_of, note, process, report, wait_for_port
from platform_parts import Parts, cpu_seconds, peak_bytes, product_postgres

from mailyard.campaigns.campaign_value import NewCampaign
from mailyard.campaigns.states import State
from mailyard.cli.roles import GC_THRESHOLDS
from mailyard.core import ids

RECIPIENTS = int(os.environ.get("RECIPIENTS", 1_000_000 if FULL else 200_000))
RUNS = int(os.environ.get("RUNS", 1 if FULL else 3))
WORKERS = 2
SESSIONS = 20  # as many connections as both workers have together
MESSAGE_BYTES = 5_000

STAGES = {
    "render.py:render": "render",
    "straight.py:write": "render",
    "mould.py:compose": "compose",
    "mail.py:delivery_id": "delivery id",
    "mail.py:write": "write, the rest",
    "hand_off.py:_write_one": "write, the rest",
    "hand_off.py:_commit": "commit",
    "hand_off.py:_submit": "submit",
    "smtp.py:submit": "submit",
    "smtp.py:data_received": "SMTP answers and next mails",
    "smtp.py:_act": "SMTP write",
    "hand_off.py:_done": "results",
    "chunk.py:_load": "load",
}
_PARAGRAPH = (
    "<p>Dear {{ name }}, the spring collection has come to our shop in {{ city }}. As a member of "
    "the {{ plan }} plan you may look at it two days before everybody else does, and what you "
    "order until Sunday is sent without any charge.</p>\n"
)
HTML = (
    "<html><body><h1>Hello {{ name }}</h1>\n"
    + _PARAGRAPH * 2
    + "<p>Plain words that are the same for everybody fill the rest of the page.</p>\n" * 35
    + "<p>Your number is {{ number }}.</p></body></html>\n"
)
TEXT = (
    "Dear {{ name }} in {{ city }},\n\n" + "The same news, in plain words.\n" * 20 + "{{ plan }}\n"
)
SUBJECT = "Spring in {{ city }} for {{ name }}"


def sink(port: int) -> "AbstractContextManager[subprocess.Popen[bytes]]":
    """Postfix's smtp-sink, which takes everything; as root it wants another user's name."""
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    return process("smtp-sink", *user, "-c", f"127.0.0.1:{port}", "1000")


def limit_per_s(count: int) -> float:
    """Messages a second of smtp-source to smtp-sink on reused connections."""
    port = free_port()
    with sink(port):
        wait_for_port(port)
        started = time.perf_counter()
        subprocess.run(
            [
                "smtp-source", "-d", "-s", str(SESSIONS), "-l", str(MESSAGE_BYTES),
                "-m", str(count), "-f", "a@example.org", "-t", "b@example.com",
                f"127.0.0.1:{port}",
            ],
            check=True,
        )  # fmt: skip
        return count / (time.perf_counter() - started)


def work(url: str, port: int, ready: "multiprocessing.synchronize.Event") -> None:
    """One worker process, until it is terminated."""

    async def run() -> None:
        parts = Parts(url, connections=8)
        await parts.open()
        worker = parts.bulk_worker(port)
        gc.collect()  # as the role does when it is ready
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        ready.set()
        await worker.run()

    if os.environ.get("PROFILE"):
        profiled(run)
    else:
        uvloop.run(run())


def profiled(run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Where a worker's CPU goes: samples of its stack after PROFILE seconds."""
    own: Counter[str] = Counter()
    stages: Counter[str] = Counter()

    def sample(_: int, frame: FrameType | None) -> None:
        stack = []
        while frame is not None:
            code = frame.f_code
            stack.append(f"{Path(code.co_filename).name}:{code.co_name}")
            frame = frame.f_back
        own[stack[0]] += 1
        stages[next((STAGES[name] for name in stack if name in STAGES), "other")] += 1

    async def limited() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(float(os.environ["PROFILE"])):
                await run()

    signal.signal(signal.SIGPROF, sample)
    signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
    uvloop.run(limited())
    signal.setitimer(signal.ITIMER_PROF, 0, 0)
    total = sum(own.values())
    for title, counts in (("stage", stages), ("function", own)):
        note(f"  {title} | share of the worker's CPU")
        for name, count in counts.most_common(25):
            note(f"  {name} | {count / total:.1%}")


Prepare = Callable[[Parts, UUID], Awaitable[None]]


def _person(number: int) -> str:
    return f"person{number}@example.com"


async def seed(
    parts: Parts,
    count: int,
    html: str = HTML,
    address_of: Callable[[int], str] = _person,
    prepare: Prepare | None = None,
    **more: Any,
) -> UUID:
    """A workspace, a list of `count` contacts, a template; the id of a campaign that is started.

    `more`: fields of NewCampaign in the place of the usual ones. `prepare` comes before the start.
    """
    workspace_id, campaign_id = await draft(parts, count, html, address_of, **more)
    if prepare is not None:
        await prepare(parts, workspace_id)
    await parts.campaigns.start(workspace_id, campaign_id)
    return campaign_id


async def draft(
    parts: Parts,
    count: int,
    html: str = HTML,
    address_of: Callable[[int], str] = _person,
    **more: Any,
) -> tuple[UUID, UUID]:
    """As `seed`, and the campaign is not started; the workspace's id and the campaign's."""
    workspace_id, list_id, template_id = ids.uuid7(), ids.uuid7(), ids.uuid7()
    async with parts.database.connection() as connection:
        await connection.execute("INSERT INTO workspace VALUES ($1, 'Bench')", workspace_id)
        await connection.execute(
            "INSERT INTO contact_list VALUES ($1, $2, 'All')", list_id, workspace_id
        )
        await connection.execute(
            "INSERT INTO template VALUES ($1, $2, 'Spring', 1)", template_id, workspace_id
        )
        await connection.execute(
            "INSERT INTO template_version VALUES ($1, 1, $2, $3, $4, $5, '{}')",
            template_id, workspace_id, SUBJECT, html, TEXT,
        )  # fmt: skip
        identifiers = [ids.uuid7() for _ in range(count)]
        await connection.copy_records_to_table(
            "contact",
            columns=["id", "workspace_id", "address", "name", "attributes"],
            records=(
                (
                    identifier, workspace_id, address_of(number), f"Person {number}",
                    f'{{"city": "Turin", "plan": "gold", "number": {number}}}',
                )
                for number, identifier in enumerate(identifiers)
            ),
        )  # fmt: skip
        await connection.copy_records_to_table(
            "list_member",
            columns=["list_id", "contact_id", "workspace_id"],
            records=((list_id, identifier, workspace_id) for identifier in identifiers),
        )
        await connection.execute("VACUUM ANALYZE contact, list_member")
    made = await parts.campaigns.create(
        workspace_id,
        NewCampaign(
            **{
                "name": "Spring",
                "list": ids.type_id(ids.LIST, list_id),
                "template": ids.type_id(ids.TEMPLATE, template_id),
                "sender": "Shop <shop@example.org>",
                "list_unsubscribe": "https://example.org/unsubscribe/{delivery}",
                **more,
            }
        ),
    )
    return workspace_id, made.id


async def send(parts: Parts, count: int, html: str = HTML, **more: Any) -> float:
    """Seed, start, and wait for the end; recipients a second. Raises when a row is missing."""
    campaign_id = await seed(parts, count, html, **more)
    started = time.perf_counter()
    async with parts.database.connection() as connection:
        while True:
            await asyncio.sleep(0.1)
            state = await connection.fetchval(
                "SELECT state FROM campaign WHERE id = $1", campaign_id
            )
            if state == State.FINISHED:
                break
        seconds = time.perf_counter() - started
        accepted = await connection.fetchval(
            "SELECT count(*) FROM delivery WHERE campaign_id = $1 AND state = 'accepted'",
            campaign_id,
        )
    if accepted != count:
        raise SystemExit(f"{count} recipients, {accepted} accepted")
    return count / seconds


async def one_campaign(url: str, count: int = RECIPIENTS, html: str = HTML, **more: Any) -> float:
    """One run, on connections of its own."""
    parts = Parts(url, connections=4)
    await parts.open()
    try:
        return await send(parts, count, html, **more)
    finally:
        await parts.close()


def main() -> int:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mailyard-bench-")))
        folder.chmod(0o755)
        server = stack.enter_context(product_postgres(folder))
        port = free_port()
        taker = stack.enter_context(sink(port))
        wait_for_port(port)
        context = multiprocessing.get_context("spawn")
        workers = []
        for _ in range(WORKERS):
            ready = context.Event()
            worker = context.Process(target=work, args=(server.url, port, ready), daemon=True)
            worker.start()
            stack.callback(worker.terminate)
            ready.wait(30)
            workers.append(worker.pid)
        note("smtp-source -> smtp-sink, messages a second")
        limit = median_of(lambda: limit_per_s(min(RECIPIENTS, 200_000)), RUNS)
        note("campaign, recipients a second")
        groups = {
            "workers": lambda: workers,
            "postgres": server.process_ids,
            "smtp-sink": lambda: [taker.pid],
        }

        def one() -> float:
            before = {name: sum(map(cpu_seconds, pids())) for name, pids in groups.items()}
            rate = uvloop.run(one_campaign(server.url))
            for name, pids in groups.items():
                used = sum(map(cpu_seconds, pids())) - before[name]
                note(f"  {name}: {used / RECIPIENTS * 1e6:.1f} us of CPU a recipient")
            return rate

        with peak_bytes(lambda: [*workers, *server.process_ids()]) as memory:
            rate = median_of(one, RUNS)
    at_first, at_most = (size / 1e6 for size in memory)
    note(f"limit {limit:,.0f}/s, campaign {rate:,.0f}/s")
    return report(
        [
            Row("campaign: share of smtp-source -> smtp-sink", rate / limit, "", 0.55),
            Row("campaign: recipients a second", rate, "/s", 0.55 * limit),
            Row("campaign: workers and PostgreSQL (PSS)", at_most, "MB", 500, True),
            Row("campaign: memory added (PSS)", at_most - at_first, "MB", 150, True),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
