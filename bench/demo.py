"""The demonstration loop: a campaign into inboxes of one's own, received, parsed, stored, checked.

50,000 recipients (200,000 with FULL=1) on a platform that is started for it, as `mailyard demo`
does. The clock runs from the campaign's start until the last inbox was opened and its mail compared
word by word. What each process used is printed per message, so that one sees where the time goes.
"""

import asyncio
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from secrets import token_hex

import uvloop
from measure import FULL, Row, note, report
from platform_parts import cpu_seconds

from mailyard.proving.chaos import victims_of
from mailyard.proving.client import ApiClient
from mailyard.proving.demonstration import SENDING, Demo, Stage, Verdict
from mailyard.proving.over_http import HttpPlatform
from mailyard.proving.own_platform import OwnPlatform

RECIPIENTS = int(os.environ.get("RECIPIENTS", 200_000 if FULL else 50_000))
RUNS = int(os.environ.get("RUNS", 3))
BAR_PER_S = 4_000.0


class Figures:
    """CPU seconds by role since the campaign began."""

    def __init__(self, platform: OwnPlatform) -> None:
        self._platform = platform
        self._before: Counter[str] | None = None

    def report(self, stage: Stage) -> None:
        if stage.name == SENDING and self._before is None:
            self._before = self._used()

    def per_message_us(self, messages: int) -> dict[str, int]:
        used = self._used()
        used.subtract(self._before or Counter())
        return {role: int(seconds * 1e6 / messages) for role, seconds in used.items()}

    def _used(self) -> Counter[str]:
        used: Counter[str] = Counter()
        for role, pids in victims_of(self._platform).items():
            used[role] += sum(map(cpu_seconds, pids))  # type: ignore[assignment]
        used["client"] += time.process_time()  # type: ignore[assignment]
        return used


async def run(folder: Path) -> Verdict:
    """One demonstration on a fresh platform."""
    platform = OwnPlatform(folder)
    async with platform as address:
        client = ApiClient(address.url, address.api_key)
        figures = Figures(platform)
        demo = Demo(
            HttpPlatform(client), run=token_hex(4), recipients=RECIPIENTS, report=figures.report
        )
        verdict = await demo.run()
        await client.close()
        costs = ", ".join(
            f"{role} {cost}" for role, cost in figures.per_message_us(RECIPIENTS).items()
        )
        note(f"  {verdict.per_second:,}/s; microseconds of CPU a message: {costs}")
    await asyncio.to_thread(platform.remove)
    return verdict


def main() -> int:
    verdicts = []
    for _ in range(RUNS):
        verdicts.append(uvloop.run(run(Path(tempfile.mkdtemp(prefix="mailyard-bench-")))))
    wrong = sum(one.lost + one.twice + one.wrong + one.unknown for one in verdicts)
    rates = sorted(one.per_second for one in verdicts)
    return report(
        [
            Row(f"demo loop, {RECIPIENTS:,} inboxes", rates[len(rates) // 2], "msg/s", BAR_PER_S),
            Row("lost, twice, wrong or unknown in it", wrong, "mails", 0.0, less_is_better=True),
        ]
    )


if __name__ == "__main__":
    raise SystemExit(main())
