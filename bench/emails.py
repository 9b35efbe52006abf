"""Accepting mail to send, the part below HTTP: durable when `accept` returns.

Callers in one process share commits. First as fast as it goes with 200 callers, then at a steady
1,000 a second for the times. `POST /v1/emails` adds HTTP to this.
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

import uvloop
from measure import Row, note, percentile, report, seconds
from platform_parts import Parts, product_postgres

from mailyard.core import ids
from mailyard.sending.request import EmailRequest

CALLERS = 200
STEADY_PER_S = 1_000
TEXT = "Your order has been sent.\n" * 20


def request(number: int) -> EmailRequest:
    return EmailRequest(
        sender="Shop <shop@example.org>",
        to=[f"person{number}@example.com"],
        subject="Your order",
        text=TEXT,
        html=f"<p>{TEXT}</p>",
    )


async def flood(parts: Parts, workspace_id: object, for_s: float) -> float:
    """Emails a second with CALLERS that each wait for their answer."""
    until = time.perf_counter() + for_s
    done = 0

    async def call(first: int) -> None:
        nonlocal done
        while time.perf_counter() < until:
            await parts.emails.accept(workspace_id, request(first + done))  # type: ignore[arg-type]
            done += 1

    started = time.perf_counter()
    await asyncio.gather(*(call(number * 1_000_000) for number in range(CALLERS)))
    return done / (time.perf_counter() - started)


async def steady(parts: Parts, workspace_id: object, for_s: float) -> list[float]:
    """Seconds of each call at STEADY_PER_S, begun on time whatever the others do."""
    times: list[float] = []

    async def call(number: int) -> None:
        started = time.perf_counter()
        await parts.emails.accept(workspace_id, request(number))  # type: ignore[arg-type]
        times.append(time.perf_counter() - started)

    started = time.perf_counter()
    tasks = []
    for number in range(int(for_s * STEADY_PER_S)):
        ahead = started + number / STEADY_PER_S - time.perf_counter()
        if ahead > 0:
            await asyncio.sleep(ahead)
        tasks.append(asyncio.create_task(call(number)))
    await asyncio.gather(*tasks)
    return times


async def run(url: str) -> int:
    parts = Parts(url, connections=6)
    await parts.open()
    workspace_id = ids.uuid7()
    async with parts.database.connection() as connection:
        await connection.execute("INSERT INTO workspace VALUES ($1, 'Bench')", workspace_id)
    await flood(parts, workspace_id, 1.0)
    rate = await flood(parts, workspace_id, seconds(8.0, 20.0))
    times = await steady(parts, workspace_id, seconds(8.0, 20.0))
    await parts.close()
    p50, p99 = percentile(times, 0.5) * 1000, percentile(times, 0.99) * 1000
    note(f"accepted {rate:,.0f}/s; at {STEADY_PER_S}/s p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    return report(
        [
            Row("emails accepted, durable, below HTTP", rate, "/s", 4_000),
            Row("emails: p99 at 1,000/s", p99, "ms", 25, less_is_better=True),
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
