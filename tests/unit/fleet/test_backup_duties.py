"""When the leader takes backups and tries them, by a clock that is moved by hand."""

import asyncio
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mailyard.core.clock import ManualClock
from mailyard.core.errors import Unavailable
from mailyard.fleet.duties import backup as backup_duties
from mailyard.fleet.duties.backup import duties
from mailyard.fleet.duty import Duty
from mailyard.storage.backup.keeper import Backups

HOUR_S = 3_600.0
DAY_S = 86_400.0


class Kept:
    """What the duties ask of the backups; each thing done is noted."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.done: list[str] = []
        self.away = False
        self.last: dict[str, datetime] = {}
        self.log = self

    async def last_good(self) -> dict[str, datetime]:
        return self.last

    async def is_new_here(self) -> bool:
        return False

    async def take(self) -> Any:
        return self._note("base")

    async def try_restore(self) -> Any:
        return self._note("drill")

    def _note(self, kind: str) -> Any:
        if self.away:
            raise Unavailable("the store is away")
        self.done.append(kind)
        self.last[kind] = self.clock.now()
        return SimpleNamespace(id="b1", stored_bytes=1, seconds=2.0, finished_at=self.clock.now())


@pytest.fixture
def kept() -> Kept:
    return Kept(ManualClock())


def duty(kept: Kept, name: str, try_days: float = 7.0) -> Duty | None:
    every = duties(cast(Backups, kept), kept.clock, every_h=24.0, try_days=try_days)
    return next((one for one in every if one.name == name), None)


async def test_a_backup_is_restored_on_trial_every_week(kept: Kept) -> None:
    trial = duty(kept, "backup-trial")
    assert trial is not None
    await trial.do()
    assert kept.done == [], "there is nothing to restore yet"
    await kept.take()
    for day in range(15):
        for _ in range(4):  # the duty looks often
            await trial.do()
        expected = 1 + day // 7
        assert kept.done.count("drill") == expected, f"day {day}"
        kept.clock.advance(DAY_S)


async def test_a_trial_that_fails_is_due_until_one_is_good(kept: Kept) -> None:
    trial = duty(kept, "backup-trial")
    assert trial is not None
    await kept.take()
    kept.away = True
    for _ in range(2):
        with pytest.raises(Unavailable):
            await trial.do()
    kept.away = False
    await trial.do()
    await trial.do()
    assert kept.done == ["base", "drill"]


async def test_without_days_nothing_is_tried_by_itself(kept: Kept) -> None:
    assert duty(kept, "backup-trial", try_days=0.0) is None


async def test_a_base_backup_is_taken_every_day(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_duties, "LOOK_EVERY_S", 0.0)
    base = duty(kept, "backup-base")
    assert base is not None
    for _ in range(3 * 24 + 1):
        async with asyncio.timeout(5):
            await base.do()
        kept.clock.advance(HOUR_S)
    assert kept.done == ["base"] * 4
