"""Keeps one child of every spec alive: restart with backoff, a memory cap, a bounded drain.

It holds nothing that matters. Children are spawned at once, so that they import while PostgreSQL
starts, and begin when `release` says so. One that passes its memory cap gets a successor first and
is drained when that one works. A child that says `failed` before everything was ever ready stops
the start; later it is tried again like any other.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from random import Random

from mailyard.core.backoff import Backoff
from mailyard.core.errors import ConfigurationError
from mailyard.core.limits import MIB
from mailyard.fleet.child import Child, ChildSpec, Phase

RESTART = Backoff(first_s=0.2, cap_s=15.0)
HEALTHY_AFTER_S = 30.0  # a child that lived so long starts its backoff anew
MEMORY_LOOK_S = 2.0
SUCCESSOR_READY_S = 30.0


class Supervisor:
    """Runs `specs` with `environment`. `say` takes (child's name, line)."""

    def __init__(
        self,
        specs: Sequence[ChildSpec],
        *,
        environment: Mapping[str, str],
        drain_s: float,
        say: Callable[[str, str], None],
        restart: Backoff = RESTART,
    ) -> None:
        self._specs = list(specs)
        self._environment = dict(environment)
        self._drain_s = drain_s
        self._say = say
        self._restart = restart
        self._random = Random()
        self._children: dict[str, Child] = {}
        self._living: set[Child] = set()  # those and the ones whose successor has come
        self._keepers: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        self._released = asyncio.Event()
        self._stopping = asyncio.Event()
        self._was_ready = False
        self._caps: dict[str, int] = {}  # bytes by role, where they were changed

    @property
    def children(self) -> Sequence[Child]:
        """The children that work now, one for each spec that has one."""
        return list(self._children.values())

    def reload(
        self,
        environment: Mapping[str, str],
        *,
        drain_s: float,
        caps: Mapping[str, int],
        told: str,
    ) -> None:
        """The settings were read again: children hear of them, those that come later have them.
        `caps`: bytes by role. `told`: the settings as JSON."""
        self._environment = dict(environment)
        self._drain_s = drain_s
        self._caps = dict(caps)
        for child in self._living:
            child.tell_settings(told)

    async def spawn(self) -> None:
        """Start every child. They wait for `release` before they touch the database."""
        for spec in self._specs:
            first = await self._spawn(spec)
            self._keepers.append(asyncio.create_task(self._keep(spec, first), name=spec.name))
        self._keepers.append(asyncio.create_task(self._watch_memory(), name="memory"))

    def release(self) -> None:
        """The database is ready: let the children, and all that come later, begin."""
        self._released.set()
        for child in self._children.values():
            child.go()

    async def until_ready(self) -> None:
        """Until every child works. Raises ConfigurationError when one says that it cannot."""
        while True:
            self._changed.clear()
            children = [self._children.get(spec.name) for spec in self._specs]
            for child in children:
                if child is not None and child.phase is Phase.FAILED:
                    raise ConfigurationError(child.failure)
            if all(child is not None and child.phase is Phase.READY for child in children):
                self._was_ready = True
                return
            await self._changed.wait()

    async def stop(self) -> None:
        """Drain everything at once, for at most `drain_s`, then kill what is left."""
        self._stopping.set()
        for child in self._living:
            child.drain()
        if self._keepers:
            _, late = await asyncio.wait(self._keepers, timeout=self._drain_s)
            if late:
                for child in self._living:
                    if child.running:
                        self._say(child.spec.name, "did not drain in time: killed")
                        child.kill()
                await asyncio.wait(late)
        self._keepers.clear()

    def hurry(self) -> None:
        """Kill what still drains. Nothing accepted is lost by it: that is what leases are for."""
        for child in self._living:
            child.kill()

    async def _spawn(self, spec: ChildSpec) -> Child:
        child = Child(spec, self._say, self._changed.set)
        await child.spawn(self._environment)
        self._children[spec.name] = child
        self._living.add(child)
        if self._released.is_set():
            child.go()
        self._changed.set()
        return child

    async def _keep(self, spec: ChildSpec, child: Child) -> None:
        """One spec's life: wait for its child's end, start the next, until the supervisor stops."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            started = loop.time()
            status = await child.wait()
            self._living.discard(child)
            if self._stopping.is_set():
                return
            if self._children.get(spec.name) is not child:
                child = self._children[spec.name]  # a successor has its place already
                continue
            if child.phase is Phase.FAILED and not self._was_ready:
                return
            failures = 1 if loop.time() - started > HEALTHY_AFTER_S else failures + 1
            delay_s = self._restart.delay_s(failures, self._random)
            self._say(spec.name, f"ended with status {status}, starts again in {delay_s:.1f} s")
            if await self._stopped_within(delay_s):
                return
            child = await self._spawn(spec)

    async def _watch_memory(self) -> None:
        replacing: dict[str, asyncio.Task[None]] = {}
        while not await self._stopped_within(MEMORY_LOOK_S):
            for name, child in list(self._children.items()):
                used = child.memory_bytes() if child.phase is Phase.READY else 0
                under_way = name in replacing and not replacing[name].done()
                cap = self._caps.get(child.spec.role, child.spec.memory_bytes)
                if used > cap and not under_way:
                    self._say(
                        name, f"uses {used // MIB} MB, more than the {cap // MIB} it may: replaced"
                    )
                    replacing[name] = asyncio.create_task(self._replace(child))
        for task in replacing.values():
            task.cancel()

    async def _replace(self, old: Child) -> None:
        """A successor first, then drain the old one; kill it if it does not end."""
        successor = await self._spawn(old.spec)
        await _within(successor.settled, SUCCESSOR_READY_S)
        old.drain()
        if not await _within(old.ended, self._drain_s):
            old.kill()

    async def _stopped_within(self, seconds: float) -> bool:
        return await _within(self._stopping, seconds)


async def _within(event: asyncio.Event, seconds: float) -> bool:
    """Whether `event` came within `seconds`."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True
