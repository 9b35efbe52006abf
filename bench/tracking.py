"""A campaign with opens, clicks and List-Unsubscribe of ours, beside the same without.

The mail is that of bench/campaign.py with six links in it. Both go to Postfix's smtp-sink from two
worker processes, on the embedded PostgreSQL with fsync on, one after the other in the same run;
without, the links stay as they are and List-Unsubscribe is an address of somebody else's.
"""

import multiprocessing
import os
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import uvloop
from campaign import HTML, WORKERS, one_campaign, sink, work
from measure import FULL, Row, free_port, note, report, wait_for_port
from platform_parts import cpu_seconds, product_postgres

from mailyard.campaigns.campaign_value import Following

RECIPIENTS = int(os.environ.get("RECIPIENTS", 400_000 if FULL else 60_000))
PAIRS = int(os.environ.get("PAIRS", 3))
LINKS = 6

_LINK = '<p><a href="https://shop.example.org/spring/{}?from=mail&amp;place={}">Look</a></p>\n'
WITH_LINKS = HTML.replace(
    "<p>Your number",
    "".join(_LINK.format(number, number) for number in range(LINKS)) + "<p>Your number",
)
FOLLOWED = {"track": Following(opens=True, clicks=True), "list_unsubscribe": ""}


def main() -> int:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mailyard-bench-")))
        folder.chmod(0o755)
        server = stack.enter_context(product_postgres(folder))
        port = free_port()
        stack.enter_context(sink(port))
        wait_for_port(port)
        context = multiprocessing.get_context("spawn")
        workers: list[int] = []
        for _ in range(WORKERS):
            ready = context.Event()
            worker = context.Process(target=work, args=(server.url, port, ready), daemon=True)
            worker.start()
            stack.callback(worker.terminate)
            ready.wait(30)
            workers.append(worker.pid or 0)

        def rate(name: str, **more: object) -> float:
            before = sum(map(cpu_seconds, workers))
            figure = uvloop.run(one_campaign(server.url, RECIPIENTS, WITH_LINKS, **more))
            used = sum(map(cpu_seconds, workers)) - before
            note(
                f"  {name}: {figure:,.0f}/s, {used / RECIPIENTS * 1e6:.1f} us of workers' CPU each"
            )
            return figure

        rate("warm up")
        plain, followed = [], []
        for _ in range(PAIRS):
            plain.append(rate("without"))
            followed.append(rate("followed", **FOLLOWED))
    shares = [one / other for one, other in zip(followed, plain, strict=True)]
    name = f"campaign followed ({LINKS} links, pixel, List-Unsubscribe): share of the same without"
    return report([Row(name, statistics.median(shares), "", 0.85)])


if __name__ == "__main__":
    sys.exit(main())
