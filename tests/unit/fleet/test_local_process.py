"""A service's process over small programs: started again, its children ended with it, drained."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from mailyard.core.errors import ConfigurationError
from mailyard.fleet.local.process import ServiceProcess

# A master with a worker, as nginx is: who is killed leaves a worker behind that holds its pipe.
MASTER = """
import os, sys, time
if os.fork() == 0:
    open(sys.argv[1] + "/worker", "w").write(str(os.getpid()))
    time.sleep(600)
print("begun", flush=True)
open(sys.argv[1] + "/begun", "a").write("x")
time.sleep(600)
"""


class World:
    """One process over `program`, and what it said."""

    def __init__(self, folder: Path, program: str) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self.process = ServiceProcess(
            "master",
            folder,
            command=self._command(program),
            ready=self._begun,
            say=lambda _name, line: self.lines.append(line),
            ready_s=20.0,
        )

    def _command(self, program: str) -> Callable[[], Awaitable[Sequence[str | Path]]]:
        async def command() -> Sequence[str | Path]:
            return (sys.executable, "-c", program, self.folder)

        return command

    async def _begun(self) -> bool:
        return (self.folder / "worker").exists() and (self.folder / "begun").exists()

    def worker(self) -> int:
        return int((self.folder / "worker").read_text() or 0)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.01)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_a_killed_master_takes_its_workers_along_and_comes_back(tmp_path: Path) -> None:
    world = World(tmp_path, MASTER)
    await world.process.start()
    first, worker = world.process.pid, world.worker()
    assert first is not None and lives(worker)
    os.kill(first, signal.SIGKILL)
    await world.until(lambda: len((tmp_path / "begun").read_text()) == 2)
    await world.until(lambda: not lives(worker))
    assert world.process.pid not in (None, first)
    assert any("ended with status -9, starts again" in line for line in world.lines)
    last = world.process.pid
    await world.process.stop()
    assert last is not None
    await world.until(lambda: not lives(last))
    await world.until(lambda: not lives(world.worker()))


async def test_what_a_run_before_has_left_is_ended_first(tmp_path: Path) -> None:
    """Both the process and what sees to it were killed: its worker is still there."""
    before = World(tmp_path, MASTER)
    await before.process.start()
    assert before.process._keeper is not None and before.process.pid is not None
    before.process._keeper.cancel()
    os.kill(before.process.pid, signal.SIGKILL)
    worker = before.worker()
    assert lives(worker)
    after = World(tmp_path, MASTER)
    await after.process.start()
    await after.until(lambda: not lives(worker))
    await asyncio.gather(after.process.stop(), before.process.stop())


async def test_one_that_does_not_start_says_its_last_words(tmp_path: Path) -> None:
    world = World(tmp_path, "import sys; sys.exit('the port is taken')")
    with pytest.raises(ConfigurationError, match="master did not start: the port is taken"):
        await world.process.start()


async def test_one_that_does_not_listen_to_the_end_is_killed(tmp_path: Path) -> None:
    world = World(
        tmp_path, "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + MASTER
    )
    world.process._patience_s = 0.3
    await world.process.start()
    pid = world.process.pid
    await world.process.stop()
    assert pid is not None and not lives(pid)
    await world.until(lambda: not lives(world.worker()))
