"""A lane that needs the processor: what a second worker process brings where a core idles.

The lane is `analysis` with the rules alone: what long digests of 200 KB mean, read from the store,
worked out, written and told, one job a mail. The platform runs as the product does; its own worker
serves other lanes, and one or two workers of this lane stand beside it. Rounds with one and with
two take turns: a machine is not the same from minute to minute.

The ratio that the processor allows is printed beside: PostgreSQL's part and the scheduler's run on
the same two cores as the workers.

    python bench/fleet_scale.py        MAILS=500 ROUNDS=2
"""

import asyncio
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter

from measure import Row, note, report
from platform_parts import cpu_seconds, role

from mailyard.analysis.job import jobs_of
from mailyard.analysis.task import ASPECTS, Ask
from mailyard.core import ids
from mailyard.proving.chaos import POSTGRES, victims_of
from mailyard.proving.experiments.pace import Pace, drive
from mailyard.proving.experiments.smtp_load import SmtpLoad
from mailyard.proving.experiments.stand import Stand, stand
from mailyard.queue.job import ANALYSIS, INBOUND_EMAIL
from mailyard.storage.cluster import url_of
from mailyard.storage.queries import load

BAR = 1.8
MAILS = int(os.environ.get("MAILS", "500"))
ROUNDS = int(os.environ.get("ROUNDS", "2"))
PARAGRAPHS = 800
_NOBODY = "[api]\nremove = true\n[worker]\nremove = true\n"
_MONITORING = load("monitoring")


@contextmanager
def workers(here: Stand, folder: Path, count: int) -> Iterator[list[int]]:
    """Workers of the lane; their process ids."""
    url = url_of(folder / "data")
    settings = {**here.platform.environment, "MAILYARD_WORKER_LANES": ANALYSIS}
    with ExitStack() as stack:
        yield [stack.enter_context(role("worker", url, settings)) for _ in range(count)]


async def there(here: Stand, pids: Sequence[int]) -> None:
    """Until all of them have given a sign of life."""
    async with asyncio.timeout(60):
        while True:
            rows = await here.database.fetch(_MONITORING.living)
            if set(pids) <= {row["pid"] for row in rows}:
                return
            await asyncio.sleep(0.1)


async def emptied(here: Stand) -> None:
    """Until the line is empty."""
    async with asyncio.timeout(300):
        while True:
            (depth,) = await here.engine.depth([ANALYSIS])
            if depth.ready == depth.leased == depth.scheduled == 0:
                return
            await asyncio.sleep(0.1)  # seldom: it runs on the same cores


async def messages_of(here: Stand) -> list[str]:
    """All messages that have come in, by id."""
    found: list[str] = []
    for inbox_id, _ in here.ledger.inboxes:
        page = await here.client.get(f"/v1/inboxes/{inbox_id}/messages", limit=500)
        found += [one["id"] for one in page["items"]]
    return found


async def one_round(here: Stand, folder: Path, count: int, messages: list[str], ask: Ask) -> float:
    """Mails a second that `count` workers analyse."""
    workspace_id = await here.database.fetchval(load("access").first_workspace)
    named = [ids.parse_type_id(ids.MESSAGE, one) for one in messages]
    with workers(here, folder, count) as pids:
        await there(here, pids)
        await asyncio.sleep(1.0)
        postgres = victims_of(here.platform)[POSTGRES]
        before = sum(map(cpu_seconds, pids)), sum(map(cpu_seconds, postgres))
        jobs = [job for one in named for job in jobs_of(workspace_id, [one], ask, 0)]
        started = perf_counter()
        await here.engine.enqueue(jobs)
        await emptied(here)
        passed = perf_counter() - started
        postgres = victims_of(here.platform)[POSTGRES]
        after = sum(map(cpu_seconds, pids)), sum(map(cpu_seconds, postgres))
    own, others = (1e3 * (b - a) / len(named) for a, b in zip(before, after, strict=True))
    rate = len(named) / passed
    note(
        f"  {count}: {rate:,.1f}/s; a mail takes {own:.2f} ms of the workers, {others:.2f} of "
        f"PostgreSQL; two cores allow {2 * own / (own + others):.2f} times one"
    )
    return rate


async def measure(folder: Path) -> list[Row]:
    settings = {"MAILYARD_WORKER_PROCESSES": "1", "MAILYARD_WORKER_LANES": INBOUND_EMAIL}
    async with stand(folder, policy=_NOBODY, settings=settings, shares={}, say=note) as here:
        load_ = SmtpLoad(here.address, here.ledger, PARAGRAPHS)
        await drive(Pace(lambda _: 100.0, MAILS / 100.0), load_.run)
        await here.settle()
        messages = await messages_of(here)
        asks = [Ask((*ASPECTS[: number + 1],), "") for number in range(len(ASPECTS))]
        ratios = []
        for number in range(ROUNDS):
            one = await one_round(here, folder, 1, messages, asks[2 * number % len(asks)])
            two = await one_round(here, folder, 2, messages, asks[(2 * number + 1) % len(asks)])
            ratios.append(two / one)
    name = "second worker process on a lane that needs the processor"
    return [Row(name, statistics.median(ratios), "times", BAR)]


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="mailyard-bench-") as own:
        folder = Path(own) / "platform"
        folder.mkdir()
        return report(asyncio.run(measure(folder)))


if __name__ == "__main__":
    sys.exit(main())
