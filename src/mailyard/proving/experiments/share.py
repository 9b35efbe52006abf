"""Holds processes to a share of a core each, so that many fit on a machine of two.

A process that has used more than its share is stopped (SIGSTOP) until time has made up for it, as
`cpulimit` does and as the CPU quota of a container does in the kernel. One that starts meanwhile
runs free for as long as the others needed to begin: who waits for it waits for the machine, not for
us.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable

_EVERY_S = 0.004
_LOOK_S = 0.25
_CREDIT_S = 0.02  # of processor time that an idle process saves up


class CpuShare:
    """While the block runs, the processes of `pids()` get `share` of a core each.

    Those that are there have begun and done nothing yet: what they have used is what it takes to
    begin. A thread of its own, because whoever makes load here keeps the event loop busy.
    """

    def __init__(self, share: float, pids: Callable[[], Iterable[int]]) -> None:
        self._share = share
        self._pids = pids
        self._left: dict[int, float] = {}  # processor seconds that it may use now
        self._used: dict[int, float] = {}
        self._stopped: set[int] = set()
        self._free_s: float | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cpu-share")

    def __enter__(self) -> "CpuShare":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        looked, before = 0.0, time.monotonic()
        try:
            while not self._over.wait(_EVERY_S):
                now = time.monotonic()
                if now - looked >= _LOOK_S:
                    looked = now
                    self._meet(self._pids())
                for pid in list(self._left):
                    self._hold(pid, now - before)
                before = now
        finally:
            for pid in list(self._stopped):
                self._send(pid, signal.SIGCONT)

    def _meet(self, pids: Iterable[int]) -> None:
        there = set(pids)
        for pid in there - self._left.keys():
            used = _processor_s(pid)
            if used is not None:
                self._used[pid], self._left[pid] = used, max(0.0, (self._free_s or used) - used)
        if self._free_s is None:
            self._free_s = max(self._used.values(), default=0.0)
        for pid in self._left.keys() - there:
            self._forget(pid)

    def _hold(self, pid: int, passed_s: float) -> None:
        used = _processor_s(pid)
        if used is None:
            self._forget(pid)
            return
        left = self._left[pid]
        more = min(self._share * passed_s, max(0.0, _CREDIT_S - left))
        self._left[pid] = left = left + more - (used - self._used[pid])
        self._used[pid] = used
        if left < 0 and pid not in self._stopped:
            self._stopped.add(pid)
            self._send(pid, signal.SIGSTOP)
        elif left >= 0 and pid in self._stopped:
            self._stopped.discard(pid)
            self._send(pid, signal.SIGCONT)

    def _send(self, pid: int, what: signal.Signals) -> None:
        try:
            os.kill(pid, what)
        except ProcessLookupError:
            self._forget(pid)

    def _forget(self, pid: int) -> None:
        self._left.pop(pid, None)
        self._used.pop(pid, None)
        self._stopped.discard(pid)


def _processor_s(pid: int) -> float | None:
    """Processor time that a process has used, all its threads; None when it is gone.

    The number of its clock is made of its id, as clock_getcpuclockid(3) makes it.
    """
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return None
