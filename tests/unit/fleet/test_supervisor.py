"""The supervisor over small scripts: readiness, restarts, failures, memory, drain."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mailyard.core.backoff import Backoff
from mailyard.core.errors import ConfigurationError
from mailyard.fleet.child import ChildSpec
from mailyard.fleet.supervisor import Supervisor

# A role in miniature: waits for `go`, says `ready`, then does what argv says.
ROLE = """
import asyncio, os, signal, sys, time
from mailyard.fleet.control import Control

async def live(deed, descriptor):
    control = Control(descriptor)
    control.listen()
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await control.go()
    if deed == "refuse":
        control.failed("the port is taken")
        return
    print("called", os.environ["MY_NAME"], flush=True)
    print("begun", flush=True)
    control.ready()
    if deed == "crash":
        os._exit(3)
    if deed == "stubborn":
        stopping.wait = asyncio.Event().wait
    await stopping.wait()
    print("drained", flush=True)

asyncio.run(live(sys.argv[1], int(sys.argv[3])))
"""
AT_ONCE = Backoff(first_s=0.01, cap_s=0.02)


class World:
    """A supervisor over one role, and what it said."""

    def __init__(self, *deeds: str, memory_bytes: int = 1 << 40, drain_s: float = 10.0) -> None:
        self.lines: list[tuple[str, str]] = []
        self.counts: list[list[str]] = []
        specs = [
            ChildSpec(f"{deed}-{i}", deed, (sys.executable, "-c", ROLE, deed), memory_bytes)
            for i, deed in enumerate(deeds, 1)
        ]
        self.supervisor = Supervisor(
            specs,
            environment=os.environ,
            drain_s=drain_s,
            say=lambda name, line: self.lines.append((name, line)),
            restart=AT_ONCE,
            own=lambda name, _environment: {"MY_NAME": name},
            counted=lambda _role, names: self.counts.append(list(names)),
        )

    def said(self, line: str) -> int:
        return sum(line in text for _, text in self.lines)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.01)

    async def start(self) -> None:
        await self.supervisor.spawn()
        self.supervisor.release()
        await self.supervisor.until_ready()


async def test_children_wait_for_the_word_and_drain_at_the_end() -> None:
    world = World("serve", "serve")
    await world.supervisor.spawn()
    await asyncio.sleep(0.3)
    assert world.said("begun") == 0
    world.supervisor.release()
    await world.supervisor.until_ready()
    await world.until(lambda: world.said("begun") == 2)
    await world.supervisor.stop()
    assert world.said("drained") == 2
    assert {name for name, _ in world.lines} == {"serve-1", "serve-2"}


async def test_a_child_that_crashes_is_started_again_and_again() -> None:
    world = World("crash")
    await world.supervisor.spawn()
    world.supervisor.release()
    await world.until(lambda: world.said("begun") >= 3)
    assert world.said("ended with status 3, starts again in 0.0 s") >= 2
    await world.supervisor.stop()


async def test_a_killed_child_is_replaced_and_told_to_begin() -> None:
    world = World("serve")
    await world.start()
    (child,) = world.supervisor.children
    os.kill(child.pid, signal.SIGKILL)
    await world.until(lambda: world.said("begun") == 2)
    await world.supervisor.stop()
    assert world.said("drained") == 1


async def test_a_child_that_says_it_cannot_stops_the_start() -> None:
    world = World("serve", "refuse")
    with pytest.raises(ConfigurationError, match="the port is taken"):
        await world.start()
    await world.supervisor.stop()
    assert not [child for child in world.supervisor.children if child.running]


async def test_what_does_not_drain_in_time_is_killed() -> None:
    world = World("stubborn", "serve", drain_s=0.5)
    await world.start()
    await world.supervisor.stop()
    assert world.said("did not drain in time: killed") == 1
    assert world.said("drained") == 1


async def test_a_drain_can_be_cut_short() -> None:
    world = World("stubborn", drain_s=60)
    await world.start()
    stopping = asyncio.create_task(world.supervisor.stop())
    await asyncio.sleep(0.1)
    assert not stopping.done()
    world.supervisor.hurry()
    await asyncio.wait_for(stopping, 30)


async def test_a_child_past_its_memory_is_drained_after_its_successor_works() -> None:
    world = World("serve", memory_bytes=1 << 20)
    await world.start()
    (first,) = world.supervisor.children
    await world.until(lambda: world.said("it may: replaced") >= 1 and first.ended.is_set())
    texts = [text for _, text in world.lines]
    assert texts.index("begun", texts.index("begun") + 1) < texts.index("drained")
    await world.supervisor.stop()


async def test_a_stop_during_the_start_leaves_nothing() -> None:
    world = World("serve", "serve", "serve")
    await world.supervisor.spawn()
    pids = [child.pid for child in world.supervisor.children]
    await world.supervisor.stop()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize("turns", [0, 1, 5])
async def test_a_successor_that_comes_while_all_stop_ends_with_them(turns: int) -> None:
    world = World("serve")
    await world.start()
    (child,) = world.supervisor.children
    replacing = asyncio.create_task(world.supervisor._replace(child))
    for _ in range(turns):
        await asyncio.sleep(0)
    await world.supervisor.stop()
    replacing.cancel()
    await asyncio.gather(replacing, return_exceptions=True)
    await world.until(lambda: not any(one.running for one in world.supervisor._living))


async def test_a_role_grows_and_shrinks_while_it_runs() -> None:
    world = World("work")
    supervisor = world.supervisor
    await supervisor.spawn()
    supervisor.release()
    await supervisor.until_ready()
    first = supervisor.children[0].pid

    await supervisor.scale("work", 3)
    await supervisor.until_ready()
    three = {child.spec.name for child in supervisor.children}
    await supervisor.scale("work", 1)
    left = [child.pid for child in supervisor.children]
    await supervisor.scale("work", 2)
    await supervisor.until_ready()

    assert (len(three), left) == (3, [first])  # the newest drained, the oldest stays
    assert sum(line == "drained" for _, line in world.lines) == 2
    assert not any("starts again" in line for _, line in world.lines)
    assert supervisor.count("work") == len(supervisor.children) == 2
    await supervisor.scale("fax", 2)  # nobody began one
    await supervisor.scale("work", 0)
    assert supervisor.count("work") == 1
    await supervisor.stop()


async def test_a_scheduler_asks_and_hears_how_many_there_are() -> None:
    asks = ROLE.replace(
        "    control.ready()\n",
        "    control.ready()\n"
        "    while control.have('work') != 1: await asyncio.sleep(0.01)\n"
        "    control.scale('work', 2)\n"
        "    while control.have('work') != 2: await asyncio.sleep(0.01)\n"
        "    print('heard', flush=True)\n",
    )
    world = World("work")
    command = (sys.executable, "-c", asks, "scheduler")
    world.supervisor._specs.append(ChildSpec("scheduler-1", "scheduler", command, 1 << 40))
    await world.supervisor.spawn()
    world.supervisor.release()

    async with asyncio.timeout(20):
        while ("scheduler-1", "heard") not in world.lines:
            await asyncio.sleep(0.01)
    await world.supervisor.until_ready()

    assert world.supervisor.count("work") == 2
    await world.supervisor.stop()


async def test_each_child_is_told_its_own_and_who_counts_them_hears_of_new_ones_that_work() -> None:
    world = World("serve")
    await world.start()
    await world.supervisor.scale("serve", 2)
    assert world.counts == [["serve-1", "serve-2"]]
    assert world.said("called serve-1") == world.said("called serve-2") == 1
    await world.supervisor.scale("serve", 1)
    assert world.counts[1:] == [["serve-1"]]
    await world.supervisor.stop()
    assert world.said("drained") == 2
