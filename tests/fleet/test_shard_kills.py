"""Movers that are killed with SIGKILL while mail comes in and goes out: nothing is lost or doubled.

Peers send by SMTP, applications by POST /v1/emails, and keep a ledger of every 250 and 202. A mover
is killed at a random instant of each step of the move, several times; whoever is called next goes
on. In the end the workspace is back where it began, by way of the other cluster, and each promise
lies in its inbox once.
"""

import asyncio
from collections import Counter
from pathlib import Path
from random import Random
from secrets import randbits
from time import monotonic

import aiohttp
import pytest
from crash_ledger import ApiSender, SmtpClient, build_world
from crash_verdict import audit
from shard_stage import Stage, Tenant, new_tenant, two_clusters

from mailyard.core.ids import WORKSPACE, parse_type_id
from mailyard.proving.own_platform import Address

pytestmark = pytest.mark.timeout(600)

# The state of the move at which a mover is killed, and within how many seconds after that. Frozen
# for 2.5 s nothing happens yet; the arrival comes after that.
THERE = (
    ("", 1.5),
    ("copying", 1.5),
    ("copying", 3.0),
    ("frozen", 2.0),
    ("frozen", 5.0),
    ("frozen", 5.0),
    ("switched", 1.0),
    ("switched", 4.0),
)
BACK = (("copying", 2.0), ("frozen", 4.0), ("frozen", 6.0), ("switched", 4.0))
STATE = "SELECT state FROM shard_move ORDER BY id DESC LIMIT 1"
LEFT = (
    "message",
    "inbox_message",
    "delivery",
    "email",
    "inbox",
    "address",
    "shard_change",
    "shard_held_job",
    "shard_came_job",
)


# The one before was killed behind its last commit, or a scheduler has gone on with its move.
ALREADY = b"the workspace is in"


class Killing:
    """Movers of one workspace, and how they end."""

    def __init__(self, stage: Stage, tenant: Tenant, random: Random) -> None:
        self._stage = stage
        self._tenant = tenant
        self._random = random
        self.killed: Counter[str] = Counter()  # by what the move was then

    def state(self) -> str:
        return self._stage.home.sql(STATE)

    async def kill(self, to: str, at: str, within_s: float) -> bool:
        """A mover that is killed `within_s` after the move was `at`; whether it had not ended."""
        mover = await self._stage.begin("shard", "move", self._tenant.id, to)
        ended = asyncio.create_task(mover.communicate())
        while not ended.done() and at and self.state() != at:
            await asyncio.sleep(0.02)
        await asyncio.wait([ended], timeout=self._random.uniform(0.0, within_s))
        if ended.done():
            out, err = await ended
            told = (b"another process moves", ALREADY)
            assert mover.returncode == 0 or any(one in err for one in told), (out, err)
            return self.state() != "done"
        mover.kill()
        await ended
        self.killed[self.state()] += 1
        return True

    async def move(self, to: str, kills: tuple[tuple[str, float], ...]) -> None:
        """Movers after movers; the last is let live."""
        order = ["", "copying", "frozen", "switched"]
        for at, within_s in kills:
            now = self.state()
            if now in order and order.index(now) > order.index(at):
                at = now  # the one before came further than that
            if not await self.kill(to, at, within_s):
                return
        until = monotonic() + 60
        while True:
            mover = await self._stage.begin("shard", "move", self._tenant.id, to)
            out, err = await mover.communicate()
            if mover.returncode == 0 or ALREADY in err:
                return
            # The server may not have seen yet that the one before is dead.
            assert b"another process moves" in err and monotonic() < until, (out, err)
            await asyncio.sleep(0.2)


async def test_movers_killed_under_load_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    seed = randbits(32)
    print(f"seed {seed}")
    with two_clusters(tmp_path) as stage:
        url = f"http://127.0.0.1:{stage.platform.port}"
        async with aiohttp.ClientSession(url) as http:
            tenant = await new_tenant(stage, http, "ledger")
        address = Address(url, tenant.key, "127.0.0.1", stage.platform.smtp_port)
        world = await build_world(address, tmp_path, inboxes=30)
        clients = [
            *(asyncio.create_task(SmtpClient(world, f"smtp{n}", 0.02).run()) for n in range(3)),
            *(asyncio.create_task(ApiSender(world, f"api{n}", 0.02).run()) for n in range(3)),
        ]
        # Tokens of home are far ahead, as of a cluster that has worked for long: what was deferred
        # there must be taken up in the other one all the same.
        stage.home.sql("SELECT setval('job_token', 50000000)")
        killing = Killing(stage, tenant, Random(seed))
        await asyncio.sleep(1.0)
        await killing.move("east", THERE)
        await asyncio.sleep(1.0)
        await killing.move("home", BACK)
        await asyncio.sleep(1.0)
        world.stopping.set()
        await asyncio.gather(*clients)
        findings = await audit(stage.settings, world, settle_s=60.0)
        ledger = world.ledger
        print(
            f"{len(ledger.by_smtp)} times 250, {len(ledger.by_api)} times 202, "
            f"killed {dict(killing.killed)}, settled after {findings.settled_s:.1f} s"
        )
        assert ledger.refused == []
        assert (findings.lost, findings.twice, findings.unknown) == ([], [], 0)
        assert findings.on_its_way == 0
        assert len(ledger.by_smtp) > 50 and len(ledger.by_api) > 50
        assert killing.killed.total() >= 8 and killing.killed["frozen"] >= 2
        workspace = parse_type_id(WORKSPACE, tenant.id)
        for table in LEFT:
            found = f"SELECT count(*) FROM {table} WHERE workspace_id = '{workspace}'"
            assert stage.east.sql(found) == "0", table
