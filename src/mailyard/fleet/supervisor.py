"""Keeps one child of every spec alive: restart with backoff, a memory cap, a bounded drain.

It holds nothing that matters. Children are spawned at once, so that they import while PostgreSQL
starts, and begin when `release` says so. One that passes its memory cap gets a successor first and
is drained when that one works. A scheduler may ask for more or fewer of a role. A child that says
`failed` before everything was ever ready stops the start; later it is tried again like any other.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random

from mailyard.core.backoff import Backoff
from mailyard.core.errors import ConfigurationError
from mailyard.core.limits import MIB
from mailyard.fleet.child import Child, ChildSpec, Phase

RESTART = Backoff(first_s=0.2, cap_s=15.0)
HEALTHY_AFTER_S = 30.0  # a child that lived so long starts its backoff anew
MEMORY_LOOK_S = 2.0
SUCCESSOR_READY_S = 30.0
SCALED_MOST = 64  # processes of one role, whoever asks
_TOLD = "scheduler"  # the role that hears how many there are, and may ask for others


def _nothing(_name: str, _environment: Mapping[str, str]) -> Mapping[str, str]:
    return {}


def _nobody(_role: str, _names: Sequence[str]) -> None:
    """Nobody wants to know."""


class Supervisor:
    """Runs `specs` with `environment`. `say` takes (child's name, line).

    `own` says what the child of a name is told instead of what the environment tells all.
    `counted` hears the names of a role's children when there are others than before: of new ones
    when they work, of others before they drain.
    """

    def __init__(
        self,
        specs: Sequence[ChildSpec],
        *,
        environment: Mapping[str, str],
        drain_s: float,
        say: Callable[[str, str], None],
        restart: Backoff = RESTART,
        own: Callable[[str, Mapping[str, str]], Mapping[str, str]] = _nothing,
        counted: Callable[[str, Sequence[str]], None] = _nobody,
    ) -> None:
        self._specs = list(specs)
        self._own = own
        self._counted = counted
        self._environment = dict(environment)
        self._drain_s = drain_s
        self._say = say
        self._restart = restart
        self._random = Random()
        self._children: dict[str, Child] = {}
        self._living: set[Child] = set()  # those and the ones whose successor has come
        self._keepers: list[asyncio.Task[None]] = []
        self._leaving: set[str] = set()  # names whose child ends and gets no other
        self._scaling: set[asyncio.Task[None]] = set()
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
        told: Mapping[str, str],
    ) -> None:
        """The settings were read again: children hear of them, those that come later have them.
        `caps`: bytes by role. `told`: the settings as variables."""
        self._environment = dict(environment)
        self._drain_s = drain_s
        self._caps = dict(caps)
        for child in self._living:
            own = self._own(child.spec.name, told)
            child.tell_settings(json.dumps({**told, **own}))

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
            self._tell(child)

    def count(self, role: str) -> int:
        """How many processes of `role` there are to be."""
        return len(self.names(role))

    def names(self, role: str) -> list[str]:
        """The children of `role` that there are to be."""
        return [spec.name for spec in self._specs if spec.role == role]

    async def scale(self, role: str, count: int) -> None:
        """More of `role`, or fewer: the newest drain first. A role that nobody began stays away."""
        specs = [spec for spec in self._specs if spec.role == role]
        count = min(max(count, 1), SCALED_MOST)
        if not specs or role == _TOLD or count == len(specs) or self._stopping.is_set():
            return
        self._say("mailyard", f"{role}: {len(specs)} processes become {count}")
        if count < len(specs):
            for spec in specs[count:]:
                self._specs.remove(spec)
                self._leaving.add(spec.name)
        taken = {spec.name for spec in self._specs} | self._leaving
        free = (name for number in range(1, 1_000) if (name := f"{role}-{number}") not in taken)
        new = [replace(specs[0], name=next(free)) for _ in range(count - len(specs))]
        self._specs += new
        for child in self._children.values():
            self._tell(child)
        leaving = [child for child in self._living if child.spec.name in self._leaving]
        coming = [await self._spawn(spec) for spec in new]
        for spec, child in zip(new, coming, strict=True):
            self._keepers.append(asyncio.create_task(self._keep(spec, child), name=spec.name))
        await asyncio.gather(*(_within(child.settled, SUCCESSOR_READY_S) for child in coming))
        self._counted(role, self.names(role))
        await asyncio.gather(*(self._let_go(child) for child in leaving))

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
        for child in [one for one in self._living if one.running]:
            await self._end(child)  # it came meanwhile, and nobody keeps it

    def hurry(self) -> None:
        """Kill what still drains. Nothing accepted is lost by it: that is what leases are for."""
        for child in self._living:
            child.kill()

    async def _spawn(self, spec: ChildSpec) -> Child:
        child = Child(spec, self._say, self._changed.set, self._asked)
        await child.spawn({**self._environment, **self._own(spec.name, self._environment)})
        self._children[spec.name] = child
        self._living.add(child)
        if self._stopping.is_set():
            child.drain()  # the others have been told
        elif self._released.is_set():
            child.go()
            self._tell(child)
        self._changed.set()
        return child

    async def _end(self, child: Child) -> None:
        child.drain()
        try:
            await asyncio.wait_for(child.wait(), self._drain_s)
        except TimeoutError:
            child.kill()
            await child.wait()

    def _tell(self, child: Child) -> None:
        if child.spec.role == _TOLD:
            for role in dict.fromkeys(spec.role for spec in self._specs):
                child.tell(role, self.count(role))

    def _asked(self, role: str, count: int) -> None:
        """A child asks for other numbers."""
        task = asyncio.create_task(self.scale(role, count), name=f"scale {role}")
        self._scaling.add(task)
        task.add_done_callback(self._scaling.discard)

    async def _let_go(self, child: Child) -> None:
        child.drain()
        if not await _within(child.ended, self._drain_s):
            self._say(child.spec.name, "did not drain in time: killed")
            child.kill()

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
            if spec.name in self._leaving and self._children.get(spec.name) is child:
                del self._children[spec.name]
                self._leaving.discard(spec.name)
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
            if spec.name in self._leaving:
                continue  # it was let go meanwhile
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
        await self._let_go(old)

    async def _stopped_within(self, seconds: float) -> bool:
        return await _within(self._stopping, seconds)


async def _within(event: asyncio.Event, seconds: float) -> bool:
    """Whether `event` came within `seconds`."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True
