"""The table of processes: each enters itself, beats every few seconds and strikes itself out."""

import asyncio
import os
import resource
import socket
import time
from pathlib import Path
from uuid import UUID

import msgspec
import structlog

from mailyard.bus.presence import Here, Presence
from mailyard.core.errors import Unavailable
from mailyard.observe.metrics import cache_lookups, live_connections
from mailyard.observe.totals import totals

BEAT_S = 5.0
REAP_AFTER_S = 30.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_LOG = structlog.get_logger(__name__)


class ProcessRegistry:
    """This process's row. `run` beats until cancelled. Above `memory_bytes` it is replaced."""

    def __init__(self, *, presence: Presence, role: str, id: UUID, memory_bytes: int) -> None:
        self.id = id
        self.role = role
        self._presence = presence
        self._memory_bytes = memory_bytes
        self._host = socket.gethostname()
        self._cpu_s = _cpu_s()
        self._looked_at = time.monotonic()

    async def run(self) -> None:
        """Enter and beat for ever; a database that is away is waited out."""
        while True:
            try:
                await self._presence.beat(self._here())
            except Unavailable as error:
                _LOG.warning("process_beat_missed", error=str(error))
            await asyncio.sleep(BEAT_S)

    async def leave(self) -> None:
        """Strike the row out; if that fails, the scheduler does it after REAP_AFTER_S."""
        try:
            await self._presence.leave(self.id)
        except Unavailable as error:
            _LOG.warning("process_row_left", error=str(error))

    def _here(self) -> Here:
        return Here(
            id=self.id,
            role=self.role,
            host=self._host,
            pid=os.getpid(),
            live=live_connections(),
            stats=self._stats(),
        )

    def _stats(self) -> str:
        """Memory, the share of one core since the last look, the cache, and all that was counted,
        as JSON."""
        now, cpu_s = time.monotonic(), _cpu_s()
        passed_s = max(now - self._looked_at, 1e-3)
        share = (cpu_s - self._cpu_s) / passed_s
        self._looked_at, self._cpu_s = now, cpu_s
        stats = {
            "memory_bytes": memory_bytes(),
            "cpu_percent": round(100.0 * share, 1),
            "cpu_s": round(cpu_s, 3),
            "cpu_wait_s": round(_cpu_wait_s(), 3),
            "memory_share": round(memory_bytes() / self._memory_bytes, 4),
            "cache": cache_lookups(),
            "totals": totals(),
        }
        return msgspec.json.encode(stats).decode()


def memory_bytes(pid: int | str = "self") -> int:
    """Resident memory of a process. Raises OSError when there is none."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES


def _cpu_wait_s() -> float:
    """How long this process's threads have stood ready without a core (second field of schedstat,
    Documentation/scheduler/sched-stats.rst, in ns); 0 where the kernel does not count it."""
    waited_ns = 0
    for thread in Path("/proc/self/task").glob("*/schedstat"):
        try:
            waited_ns += int(thread.read_text().split()[1])
        except (OSError, IndexError):
            continue  # it has just ended, or nothing is told of it
    return waited_ns / 1e9


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
