"""Running the tests in several processes (`make test`): where they write, and in which order.

A file's tests stay in one process and in their order, so that what a module shares is made once.
The files that start whole platforms take longest and mostly wait: they begin first, so that none of
them is left alone at the end.
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")
MEMORY_WANTED_BYTES = 6 * 1024**3  # what a run was seen to write, three times over
_PREFIX = "mailyard-tests-"
_WHOLE = ("running_platform", "OwnPlatform", "Visitor")


def choose_folder() -> Path:
    """A new folder for everything that the tests write: in memory where there is room (a database
    made for each test is a thousand files, which cost ten times as much on a disk)."""
    room = _free_bytes()
    parent = MEMORY if room >= MEMORY_WANTED_BYTES else Path(tempfile.gettempdir())
    _sweep(parent)
    folder = parent / f"{_PREFIX}{os.getpid()}"
    folder.mkdir(mode=0o700)
    return folder


def in_order(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Whole platforms first; otherwise as collected."""
    return sorted(items, key=lambda item: not _is_whole(item))


def _is_whole(item: pytest.Item) -> bool:
    module = getattr(item, "module", None)
    return "crash" in item.path.parts or any(hasattr(module, name) for name in _WHOLE)


def _free_bytes() -> int:
    """What may be written to memory: the file system's room, and what the machine can spare."""
    try:
        room = os.statvfs(MEMORY)
        table = Path("/proc/meminfo").read_text("ascii")
    except OSError:
        return 0
    available = next(
        int(line.split()[1]) * 1024 for line in table.splitlines() if line.startswith("MemAvail")
    )
    return min(room.f_bavail * room.f_frsize, available)


def _sweep(parent: Path) -> None:
    """What runs left that were killed."""
    for left in parent.glob(f"{_PREFIX}*"):
        number = left.name.removeprefix(_PREFIX)
        if number.isdecimal() and not Path(f"/proc/{number}").exists():
            shutil.rmtree(left, ignore_errors=True)
