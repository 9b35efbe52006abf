"""Two builds on one database under load: replaced process by process, forward and back again.

Nothing that was answered with 250 or 202 is lost, nothing comes twice, nothing is refused for good,
and what only the newer build can do waits for it.
"""

import asyncio
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from crash_ledger import ApiSender, CampaignRunner, SmtpClient, World, build_world
from crash_verdict import audit
from postgres_servers import Server, servers
from running_platform import free_ports
from two_builds import Process, migrate, next_build, this_build

from mailyard.access.bootstrap import bootstrap
from mailyard.app import Application
from mailyard.proving.own_platform import Address
from mailyard.settings import load_settings

pytestmark = pytest.mark.timeout(900)
PATIENCE_S = 240.0

ROLES = ("scheduler", "worker", "smtp", "api")
BUILDS = "SELECT string_agg(DISTINCT coalesce(build, 'this'), ' ' ORDER BY coalesce(build, 'this'))"


class Fleet:
    """One process of each role; `roll` replaces them by those of another build."""

    def __init__(self, environment: Mapping[str, str], folder: Path, stack: ExitStack) -> None:
        self._environment = environment
        self._folder = folder
        self._stack = stack
        self._running: dict[str, Process] = {}
        self._number = 0

    def start(self, build: Path, role: str) -> Process:
        self._number += 1
        log = self._folder / f"{self._number:02d}-{role}.log"
        process = Process(build, role, self._environment, log)
        self._stack.callback(process.end)
        return process

    async def roll(self, build: Path) -> None:
        """A new one first, then the old one goes: as a surge of one."""
        for role in ROLES:
            new = self.start(build, role)
            await asyncio.to_thread(new.until_ready)
            old = self._running.get(role)
            self._running[role] = new
            if old is not None:
                await asyncio.sleep(0.5)  # both at work
                await asyncio.to_thread(old.drain)


def settings_of(server: Server, folder: Path) -> dict[str, str]:
    port, smtp_port = free_ports(2)
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("MAILYARD_")
    }
    return inherited | {
        "MAILYARD_DATABASE_URL": server.url(),
        "MAILYARD_DATA": str(folder / "data"),
        "MAILYARD_PORT": str(port),
        "MAILYARD_SMTP_PORT": str(smtp_port),
        "MAILYARD_SUBMISSION_PORT": "0",
        "MAILYARD_SUBMISSIONS_PORT": "0",
    }


async def first_key(environment: Mapping[str, str]) -> str:
    application = Application(load_settings(environment))
    await application.open()
    first = await bootstrap(
        database=application.database,
        workspaces=application.workspaces,
        users=application.users,
        keys=application.keys,
        sessions=application.sessions,
    )
    await application.close()
    assert first is not None
    return first.api_key


async def some_more(world: World, count: int = 15) -> None:
    """Wait until so many more promises were given by each way."""
    ledger = world.ledger
    wanted = len(ledger.by_smtp) + count, len(ledger.by_api) + count
    async with asyncio.timeout(PATIENCE_S):
        while len(ledger.by_smtp) < wanted[0] or len(ledger.by_api) < wanted[1]:
            await asyncio.sleep(0.05)


async def test_a_rolling_upgrade_and_its_way_back_lose_nothing(tmp_path: Path) -> None:
    old, new = this_build(), next_build(tmp_path / "next")
    with ExitStack() as stack:
        (server,) = stack.enter_context(servers(tmp_path / "servers", standbys=0))
        environment = settings_of(server, tmp_path)
        migrate(old, environment)
        key = await first_key(environment)
        fleet = Fleet(environment, tmp_path, stack)
        await fleet.roll(old)
        url = f"http://127.0.0.1:{environment['MAILYARD_PORT']}"
        address = Address(url, key, "127.0.0.1", int(environment["MAILYARD_SMTP_PORT"]))
        world = await build_world(address, tmp_path, inboxes=100)
        clients = [
            *(asyncio.create_task(SmtpClient(world, f"smtp{n}", 0.05).run()) for n in range(2)),
            *(asyncio.create_task(ApiSender(world, f"api{n}", 0.05).run()) for n in range(2)),
        ]
        campaigns = CampaignRunner(world)
        clients.append(asyncio.create_task(campaigns.run()))
        await some_more(world)
        told = await asyncio.to_thread(migrate, new, environment)  # while the old ones serve
        assert told.startswith("applied ") and told.strip().endswith("_next")
        await some_more(world)
        await fleet.roll(new)
        await some_more(world)
        assert await asyncio.to_thread(migrate, old, environment) == "nothing to do\n"
        await fleet.roll(old)
        await some_more(world)
        world.stopping.set()
        await asyncio.gather(*clients)
        findings = await audit(environment, world, settle_s=PATIENCE_S)
        assert world.ledger.refused == []
        assert (findings.lost, findings.twice, findings.unknown) == ([], [], 0)
        assert findings.on_its_way == 0
        assert campaigns.finished > 0
        tries_twice = sum(promise.unanswered for promise in world.ledger.by_smtp.values())
        print(
            f"{findings.checked} promises kept, {campaigns.finished} whole campaigns among them; "
            f"{tries_twice} mails were asked for twice"
        )
        assert server.sql(f"{BUILDS} FROM email") == "next this"
        assert server.sql(f"{BUILDS} FROM inbox_message") == "next this"
        await jobs_of_the_newer_build_wait_for_it(server, fleet, new)


async def jobs_of_the_newer_build_wait_for_it(server: Server, fleet: Fleet, new: Path) -> None:
    """Those that the old worker has met are not buried, though they may be tried only once."""
    dead = "SELECT count(*) FROM job_dead WHERE kind = 'tidy'"
    left = "SELECT count(*) FROM job WHERE kind = 'tidy'"
    assert server.sql(dead) == "0"
    assert int(server.sql("SELECT count(*) FROM tidied")) > 0
    server.sql("UPDATE job_scheduled SET run_at = now()")
    worker = fleet.start(new, "worker")
    await asyncio.to_thread(worker.until_ready)
    async with asyncio.timeout(PATIENCE_S):
        while int(server.sql(left)):
            await asyncio.sleep(0.2)
    assert server.sql(dead) == "0"
    worker.drain()
