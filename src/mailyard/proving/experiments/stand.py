"""Where an experiment happens: a platform of its own that scales itself, looked at from outside.

What it looks at is what the machine says (which processes run) and what the queue's engine says
(how much waits), never what the platform says of itself, but for the autoscaler's own rows.
"""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path

from mailyard.bus.adapters.memory import MemoryBus
from mailyard.core.errors import MailyardError
from mailyard.proving.chaos import victims_of
from mailyard.proving.client import ApiClient
from mailyard.proving.experiments.ledger import Ledger, Verdict
from mailyard.proving.experiments.series import Decided, Series
from mailyard.proving.experiments.share import CpuShare
from mailyard.proving.own_platform import Address, OwnPlatform
from mailyard.queue.engines.postgres import PostgresEngine
from mailyard.queue.job import EMAIL_SEND, INBOUND_EMAIL, LANES, Depth
from mailyard.storage.cluster import url_of
from mailyard.storage.database import Database, DatabaseAddress

LOOK_S = 0.5
INBOXES = 100
QUIET_S = 1.0  # nothing waits and nothing is worked on for so long: all is done
_START_S = 180.0
_SETTLED_S = 240.0
_SETTLE_LOOK_S = 0.2
_MAIL = (INBOUND_EMAIL, EMAIL_SEND)
_QUIET = {
    "MAILYARD_AUTOSCALE": "local",
    "MAILYARD_CHECK_SENDERS": "false",  # the machine's DNS is not what is measured
    "MAILYARD_RATE_PER_S": "0",
    "MAILYARD_SMTP_CONNECTIONS_PER_ADDRESS": "1000",
    "MAILYARD_SEMANTIC_SEARCH": "false",
}


@dataclass
class Stand:
    """A running platform, its inboxes, and what was seen of it. Times count from `began`."""

    platform: OwnPlatform
    address: Address
    client: ApiClient
    ledger: Ledger
    series: Series
    database: Database
    engine: PostgresEngine
    began: float
    began_at: float  # the same instant by the clock of the wall
    let_go: Callable[[], None]  # of the processes that are held to a share of a core
    more: Callable[[], Mapping[str, float]] = dict
    _depths: dict[str, Depth] = field(default_factory=dict)

    @property
    def now_s(self) -> float:
        return time.monotonic() - self.began

    def count(self, role: str) -> int:
        """How many processes of a role run on this machine, those that drain included."""
        return len(victims_of(self.platform).get(role, []))

    def depth(self, lane: str) -> Depth | None:
        """Of a lane, at the last look."""
        return self._depths.get(lane)

    async def look(self) -> None:
        """Until cancelled: one row of the series every LOOK_S."""
        while True:
            with contextlib.suppress(MailyardError):
                found = await self.engine.depth(LANES)
                self._depths = {one.queue: one for one in found}
                values: dict[str, float] = {
                    "workers": self.count("worker"),
                    "apis": self.count("api"),
                    "jobs": sum(one.ready + one.leased for one in found if one.queue in _MAIL),
                }
                self.series.add(self.now_s, {**values, **self.more()})
            await asyncio.sleep(LOOK_S)

    async def decisions(self) -> list[Decided]:
        """What the autoscaler wrote down since the beginning, the oldest first."""
        found = []
        for row in (await self.client.get("/v1/scaling/decisions"))["items"]:
            at = datetime.fromisoformat(row["at"]).timestamp() - self.began_at
            found.append(
                Decided(
                    round(at, 1),
                    row["group"],
                    row["kind"],
                    row["was"],
                    row["became"],
                    row["reason"],
                )
            )
        return sorted((one for one in found if one.at_s >= 0), key=lambda one: one.at_s)

    async def settle(self) -> None:
        """Until no mail waits and none is worked on, or for as long as patience lasts."""
        quiet = 0
        until = time.monotonic() + _SETTLED_S
        while quiet * _SETTLE_LOOK_S < QUIET_S and time.monotonic() < until:
            depths = await self.engine.depth(_MAIL)
            busy = sum(one.ready + one.leased + one.scheduled for one in depths)
            quiet = 0 if busy else quiet + 1
            await asyncio.sleep(_SETTLE_LOOK_S)

    async def until(self, holds: Callable[[], bool], within_s: float) -> bool:
        """Whether `holds` came true in time."""
        until = time.monotonic() + within_s
        while not holds():
            if time.monotonic() > until:
                return False
            await asyncio.sleep(0.2)
        return True

    async def told(self, kind: str, since_s: float, within_s: float) -> bool:
        """Whether the autoscaler wrote down a decision of this kind in time."""
        until = time.monotonic() + within_s
        while not any(one.kind == kind and one.at_s >= since_s for one in await self.decisions()):
            if time.monotonic() > until:
                return False
            await asyncio.sleep(LOOK_S)
        return True

    async def judge(self) -> Verdict:
        """Everything settles, with the whole machine: is what was promised there, once?"""
        self.let_go()
        await self.settle()
        return await self.ledger.judge(self.client)


@contextlib.asynccontextmanager
async def stand(
    folder: Path,
    *,
    policy: str,
    settings: Mapping[str, str],
    shares: Mapping[str, float],
    say: Callable[[str], None],
) -> AsyncIterator[Stand]:
    """A platform in `folder` under the scaling `policy` (TOML). `shares`: of a core, by role."""
    policy_file = folder / "autoscale.toml"
    policy_file.write_text(policy, "utf-8")
    platform = OwnPlatform(
        folder,
        {**_QUIET, "MAILYARD_AUTOSCALE_FILE": str(policy_file), **settings},
        start_s=_START_S,
    )
    say("starting a platform of its own")
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, platform.remove)
        stack.push_async_callback(lambda: asyncio.shield(platform.stop()))
        address = await platform.start()
        client = ApiClient(address.url, address.api_key)
        stack.push_async_callback(client.close)
        url = url_of(folder / "data")
        database = Database(DatabaseAddress(url, url, connections=2))
        await database.open()
        stack.push_async_callback(database.close)
        held = stack.enter_context(contextlib.ExitStack())
        for role, share in shares.items():
            held.enter_context(CpuShare(share, partial(_pids, platform, role)))
        engine = PostgresEngine(database=database, bus=MemoryBus())
        ledger = await Ledger.open(client, INBOXES)
        here = Stand(
            platform, address, client, ledger, Series(), database, engine, time.monotonic(),
            time.time(), held.close,
        )  # fmt: skip
        looking = asyncio.create_task(here.look())
        try:
            yield here
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)


def _pids(platform: OwnPlatform, role: str) -> list[int]:
    return victims_of(platform).get(role, [])


def python_path(folder: Path) -> str:
    """PYTHONPATH with `folder` before what it is now, for processes that are to load from it."""
    inherited = os.environ.get("PYTHONPATH")
    own = str(Path(sys.modules["mailyard"].__file__ or "").parents[1])
    return os.pathsep.join([str(folder), inherited or own])
