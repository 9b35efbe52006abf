"""What the loss of a region costs: two full stacks, 80 ms each way between them, one is lost.

Each has a PostgreSQL that the other keeps a copy of, through a link that delays every byte. Under
load by SMTP and API the link falls silent and every process of one site is killed; the other takes
the region over by `mailyard region take-over`, starts its processes, and its names lead there. Told
is what was promised and is not there (the loss window), and when mail was taken again. Once as it
is by default, and once with `synchronous_standby_names`, which loses nothing and makes each commit
wait for the far copy.
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from measure import Row, note, report, seconds

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from region_world import EU, US, Outcome, lose_and_take_over, two_regions

DELAY_MS = float(os.environ.get("DELAY_MS", "80"))
MAILS = int(os.environ.get("MAILS", seconds(400, 3_000)))
WINDOW_BAR_MS = 1_000.0  # a busy copy may lag behind the link by more than its delay
BACK_BAR_S = 30.0


def main() -> int:
    usual = asyncio.run(_measure(synchronous=False))
    waiting = asyncio.run(_measure(synchronous=True))
    for word, one in (("as by default", usual), ("synchronous", waiting)):
        note(
            f"  {word}: {one.promises} promises, {one.lost} lost, of the last "
            f"{1000 * one.window_s:.0f} ms; a mail by SMTP took {one.accept_ms:.1f} ms; taken over "
            f"after {one.decided_s:.1f} s, mail taken again after {one.back_s:.1f} s"
        )
    return report(
        [
            Row(
                "loss window, by default",
                1000 * usual.window_s,
                "ms",
                WINDOW_BAR_MS,
                less_is_better=True,
            ),
            Row("promises lost, synchronous", waiting.lost, "", 0, less_is_better=True),
            Row("mail taken again, by default", usual.back_s, "s", BACK_BAR_S, less_is_better=True),
            Row(
                "mail taken again, synchronous",
                waiting.back_s,
                "s",
                BACK_BAR_S,
                less_is_better=True,
            ),
        ]
    )


async def _measure(*, synchronous: bool) -> Outcome:
    with (
        tempfile.TemporaryDirectory() as folder,
        two_regions(Path(folder), DELAY_MS / 1000) as world,
    ):
        try:
            for region in (EU, US):
                await world.start(region, world.primaries[region], region)
            return await lose_and_take_over(world, mails=MAILS, synchronous=synchronous)
        finally:
            for stack in world.stacks.values():
                await stack.platform.stop()


if __name__ == "__main__":
    sys.exit(main())
