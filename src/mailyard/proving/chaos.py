"""The fault injector: random blows against a running platform, seeded and logged.

A blow is a SIGKILL, or a SIGSTOP held for longer than a lease. Blows overlap, and hit every role:
api, smtp, worker, scheduler, PostgreSQL (its postmaster or one backend) and the supervisor itself.
A killed supervisor is started again, as an init system would; everything else has to come back by
itself.
"""

import asyncio
import os
import re
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from random import Random
from time import monotonic

from mailyard.core.errors import MailyardError, Unavailable
from mailyard.proving.own_platform import OwnPlatform

ROLES = ("worker", "smtp", "api", "scheduler")
POSTGRES = "postgres"
SUPERVISOR = "supervisor"
NGINX = "nginx"
_RESTARTS = 5
_NOBODY_THERE_S = 0.3


class Signal(StrEnum):
    KILL = "kill"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Blow:
    """One blow. `at_s` counts from the first; a stop is held for `hold_s`."""

    at_s: float
    signal: Signal
    role: str
    pid: int
    hold_s: float = 0.0

    def __str__(self) -> str:
        held = f" for {self.hold_s:.0f} s" if self.signal is Signal.STOP else ""
        return f"{self.at_s:8.2f} {self.signal} {self.role} {self.pid}{held}"


@dataclass(frozen=True, slots=True)
class Storm:
    """How hard it blows: `blows` of them, `gap_s` apart on average; weights by role."""

    blows: int
    gap_s: float
    hold_s: float
    stop_share: float = 0.1
    weights: tuple[tuple[str, float], ...] = (
        ("worker", 5.0),
        ("smtp", 4.0),
        ("api", 3.0),
        ("scheduler", 1.0),
        (POSTGRES, 2.0),
        (SUPERVISOR, 0.7),
    )


class Chaos:
    """Strikes `platform` as `storm` says; the same `seed` makes the same choices."""

    def __init__(
        self, platform: OwnPlatform, *, storm: Storm, seed: int, log: Callable[[str], None]
    ) -> None:
        self._platform = platform
        self._storm = storm
        self._random = Random(seed)
        self._log = log
        self._started = monotonic()
        self._holding: set[asyncio.Task[None]] = set()
        self._restarting: asyncio.Task[None] | None = None
        self.blows: list[Blow] = []

    async def run(self) -> None:
        """All blows, and until the last stop is let go and the supervisor is back."""
        self._started = monotonic()
        while len(self.blows) < self._storm.blows:
            await asyncio.sleep(self._random.expovariate(1.0 / self._storm.gap_s))
            if not await self._strike():
                await asyncio.sleep(_NOBODY_THERE_S)
        await asyncio.gather(*self._holding)
        if self._restarting is not None:
            await self._restarting

    def count(self) -> Counter[tuple[str, str]]:
        """Blows by (role, signal)."""
        return Counter((blow.role, blow.signal.value) for blow in self.blows)

    async def _strike(self) -> bool:
        """One blow at somebody; False when nobody of the chosen role is there just now."""
        roles = [role for role, _ in self._storm.weights]
        (role,) = self._random.choices(roles, [weight for _, weight in self._storm.weights])
        if self._restarting is not None and not self._restarting.done():
            return False
        victims = victims_of(self._platform).get(role, [])
        if not victims:
            return False
        pid = self._random.choice(victims)
        stops = role in ROLES and self._random.random() < self._storm.stop_share
        how = Signal.STOP if stops else Signal.KILL
        hold_s = self._storm.hold_s if stops else 0.0
        if not _send(pid, signal.SIGSTOP if stops else signal.SIGKILL):
            return False
        blow = Blow(monotonic() - self._started, how, role, pid, hold_s)
        self.blows.append(blow)
        self._log(str(blow))
        if stops:
            task = asyncio.create_task(self._let_go(pid, hold_s))
            self._holding.add(task)
        if role == SUPERVISOR:
            self._restarting = asyncio.create_task(self._restart())
        return True

    async def _let_go(self, pid: int, hold_s: float) -> None:
        await asyncio.sleep(hold_s)
        _send(pid, signal.SIGCONT)

    async def _restart(self) -> None:
        """Start the supervisor again in the same folder, as an init system does."""
        await self._platform.kill()
        for attempt in range(1, _RESTARTS + 1):
            try:
                await self._platform.start()
                return
            except MailyardError as error:
                self._log(f"the start failed ({attempt}): {error.message}")
                await asyncio.sleep(1.0)
        raise Unavailable("the platform could not be started again after its supervisor was killed")


def victims_of(platform: OwnPlatform) -> dict[str, list[int]]:
    """The platform's processes by role, as they are now; those of a stage's services by the names
    of these, without a number (`redis`, `kafka`, `replica`; `nginx worker`)."""
    try:
        supervisor = platform.pid
    except Unavailable:
        return {}
    children = _children()
    found: dict[str, list[int]] = {SUPERVISOR: [supervisor]}
    for pid in children.get(supervisor, ()):
        words = _command_line(pid)
        service = _service_of(pid, platform)
        for role in ROLES:
            if "mailyard.cli.roles" in words and role in words:
                found.setdefault(role, []).append(pid)
        if service:
            found.setdefault(service, []).append(pid)
            if service == NGINX:
                found.setdefault(f"{NGINX} worker", []).extend(children.get(pid, ()))
        elif words and Path(words[0]).name == POSTGRES:
            found.setdefault(POSTGRES, []).extend([pid, *children.get(pid, ())])
    return found


def _service_of(pid: int, platform: OwnPlatform) -> str:
    """The service of a stage that a process belongs to, by the folder it works in; or nothing."""
    stage = (platform.folder / "data" / "stage").resolve()
    try:
        folder = Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return ""
    if stage not in folder.parents:
        return ""
    return re.sub(r"-\d+$", "", folder.relative_to(stage).parts[0])


def _children() -> dict[int, list[int]]:
    """Parent to children, of every process there is."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_bytes()
        except OSError:
            continue
        parent = int(status[status.rindex(b")") + 2 :].split()[1])
        children.setdefault(parent, []).append(int(folder.name))
    return children


def _command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []


def kill(pid: int) -> bool:
    """SIGKILL; whether there was somebody."""
    return _send(pid, signal.SIGKILL)


def _send(pid: int, what: signal.Signals) -> bool:
    try:
        os.kill(pid, what)
    except ProcessLookupError:
        return False
    return True
