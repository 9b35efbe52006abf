"""Ports for the services that tests start.

They lie below those that the system lends to whoever connects (32768 and above on Linux), so that a
service that is killed and started again finds its port free, and below those of the stages
(`fleet/local/place.py`). Every process that runs tests has a block of its own for as long as it
lives: a port is taken a moment after it was chosen, and two that choose at the same time must not
choose the same.
"""

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import IO

FIRST, BLOCK, BLOCKS = 5_000, 250, 40
_locks: list[IO[str]] = []  # an open file holds its lock


def free_ports(count: int) -> list[int]:
    """Different ports of loopback that nobody listens on now."""
    block = _block()
    found: list[int] = []
    for _ in range(BLOCK):
        if len(found) == count:
            break
        port = next(block)
        if _is_free(port):
            found.append(port)
    assert len(found) == count, f"{count} ports were asked for, {len(found)} are free"
    return found


@cache
def _block() -> Iterator[int]:
    """The ports of this process, again and again."""
    folder = Path(tempfile.gettempdir()) / f"mailyard-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for number in range(BLOCKS):
        lock = (folder / str(number)).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        _locks.append(lock)
        first = FIRST + number * BLOCK
        return cycle(range(first, first + BLOCK))
    raise AssertionError(f"{BLOCKS} processes run tests at the same time: no block is left")


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
