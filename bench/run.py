"""Every bench, one after the other; the exit status is 1 when any figure is below its bar.

    python bench/run.py [NAME …]     FULL=1 for the long forms

A bench is a file of its own that prints its rows; nothing else runs meanwhile.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
BENCHES = (
    "accept",
    "inboxes",
    "campaign",
    "signed_campaign",
    "demo",
    "emails",
    "jobs",
    "history",
    "start",
    "live",
    "mailbox",
    "import",
    "segments",
    "search",
    "search_by_meaning",
    "cache",
    "compression",
    "mime",
    "parse",
    "senders",
    "tracking",
    "tracking_events",
    "ses",
    "failover",
    "bounces",
    "shaping",
)
TIMEOUT_S = 3600.0


def main(chosen: list[str], benches: Sequence[str] = BENCHES) -> int:
    unknown = set(chosen) - set(benches)
    if unknown:
        print(f"no bench {', '.join(sorted(unknown))}; there are: {', '.join(benches)}")
        return 2
    began = time.monotonic()
    below: list[str] = []
    for name in chosen or benches:
        print(f"\n## {name}", flush=True)
        started = time.monotonic()
        done = subprocess.run([sys.executable, FOLDER / f"{name}.py"], timeout=TIMEOUT_S)
        print(f"({time.monotonic() - started:.0f} s)", flush=True)
        if done.returncode:
            below.append(name)
    minutes = (time.monotonic() - began) / 60
    verdict = f"below the bar: {', '.join(below)}" if below else "every figure at its bar"
    print(f"\n{verdict}; {minutes:.1f} minutes", flush=True)
    return 1 if below else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
