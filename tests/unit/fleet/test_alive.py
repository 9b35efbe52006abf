"""The file that says that a process turns."""

import asyncio
import os
from pathlib import Path

import pytest

from mailyard.fleet import alive


async def test_the_file_is_young_while_the_loop_turns_and_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alive, "EVERY_S", 0.01)
    file = tmp_path / "alive"
    touching = asyncio.create_task(alive.touch(file))
    async with asyncio.timeout(5):
        while not file.exists():
            await asyncio.sleep(0.01)
        os.utime(file, (0, 0))
        while file.stat().st_mtime == 0:
            await asyncio.sleep(0.01)
    touching.cancel()
    await asyncio.gather(touching, return_exceptions=True)
    assert not file.exists()


async def test_a_file_that_cannot_be_made_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alive, "EVERY_S", 0.01)
    touching = asyncio.create_task(alive.touch(tmp_path / "nowhere" / "alive"))
    await asyncio.sleep(0.05)
    assert not touching.done()
    touching.cancel()
    await asyncio.gather(touching, return_exceptions=True)
