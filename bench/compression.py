"""What compressed answers save, and what that costs: a page and a list of the API.

The page is the list of inboxes, the list 50 deliveries, each as the running platform answers them.
Told is the share of the bytes that is left and the processor time of one answer, for each coding.
"""

import json
import sys
import time
import zlib
from collections.abc import Callable
from functools import partial
from random import Random
from statistics import median

from measure import Row, note, report

from mailyard.web.coding import BROTLI, GZIP, ZSTD, pack
from mailyard.web.ui.asset import ASSETS

LEFT_BAR = 0.40  # of a list; less is better
COST_BAR_US = 1_000.0
TIMES = 200


def main() -> int:
    bodies = {"a list of 50 deliveries": _list(), "the pages' script and style": _assets()}
    rows = []
    for name, body in bodies.items():
        for coding in (ZSTD, BROTLI, GZIP):
            packed = pack(coding, body, once=False)
            cost_us = _cost_us(partial(pack, coding, body, once=False))
            note(f"  {name} in {coding}: {len(body):,} to {len(packed):,} bytes, {cost_us:,.0f} us")
            if coding == ZSTD:
                rows += [
                    Row(f"{name}: left", len(packed) / len(body), "", LEFT_BAR, True),
                    Row(f"{name}: CPU", cost_us, "us", COST_BAR_US, True),
                ]
    once = len(pack(BROTLI, _assets(), once=True))
    note(f"  packed once, in br: {once:,} bytes; by gzip of every day {len(_gzip(_assets())):,}")
    return report(rows)


def _list() -> bytes:
    random = Random(7)
    words = ["accepted", "bounced", "deferred", "delivered"]
    items = [
        {
            "id": f"dlv_{random.randrange(1 << 120):026x}",
            "email_id": f"eml_{random.randrange(1 << 120):026x}",
            "recipient": f"person{random.randrange(10**6)}@customer{random.randrange(900)}.example",
            "type": random.choice(("receipt", "news", "password")),
            "state": random.choice(words),
            "attempts": random.randrange(1, 4),
            "reply": "250 2.0.0 OK queued as " + f"{random.randrange(1 << 40):010x}",
            "created_at": f"2026-11-24T02:{random.randrange(60):02d}:{random.randrange(60):02d}Z",
        }
        for _ in range(50)
    ]
    return json.dumps({"items": items}).encode()


def _assets() -> bytes:
    return b"".join(bytes(ASSETS.answer(name, {}).content) for name in ("app.css", "app.js"))


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return packer.compress(body) + packer.flush()


def _cost_us(work: Callable[[], object]) -> float:
    times = []
    for _ in range(TIMES):
        started = time.process_time_ns()
        work()
        times.append((time.process_time_ns() - started) / 1000)
    return median(times)


if __name__ == "__main__":
    sys.exit(main())
