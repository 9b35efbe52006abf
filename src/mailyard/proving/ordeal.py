"""Demonstrations, one after another, while one process of each kind is killed in turn."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mailyard.proving.demonstration import Verdict
from mailyard.proving.turns import Turn, Turns


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the demonstrations found, and who was killed meanwhile."""

    verdicts: Sequence[Verdict]
    turns: Sequence[Turn]

    @property
    def clean(self) -> bool:
        """Whether every demonstration was."""
        return all(verdict.clean for verdict in self.verdicts)

    def as_json(self) -> dict[str, Any]:
        """Sums over the demonstrations, and each kill."""
        words = ("recipients", "sent", "received", "lost", "twice", "wrong", "unknown")
        return {
            "clean": self.clean,
            "demonstrations": len(self.verdicts),
            **{word: sum(getattr(one, word) for one in self.verdicts) for word in words},
            "seconds": round(sum(one.seconds for one in self.verdicts), 1),
            "killed": [{"kind": turn.kind, "back_s": turn.back_s} for turn in self.turns],
        }


async def run_ordeal(
    turns: Turns,
    demonstrate: Callable[[], Awaitable[Verdict]],
    *,
    log: Callable[[Verdict], None],
) -> Outcome:
    """Demonstrate until everybody had his turn. Raises what either of them raises."""
    verdicts: list[Verdict] = []
    killing = asyncio.create_task(turns.run())
    try:
        while not killing.done():
            verdicts.append(await demonstrate())
            log(verdicts[-1])
        await killing
    finally:
        killing.cancel()
        await asyncio.gather(killing, return_exceptions=True)
    return Outcome(verdicts, turns.turns)
