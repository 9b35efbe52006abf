"""Two real schedulers on one database: whatever becomes of the one that leads, no tick is fired
twice, one fires at a time, and somebody goes on. It is stopped, cut off, and killed.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from balancers import MASTER_KEY
from far_link import FarLink, far_link
from postgres_servers import Server, servers
from running_platform import wait_until

from mailyard.bus.adapters.memory import MemoryBus
from mailyard.core.clock import SystemClock
from mailyard.fleet import sweep
from mailyard.fleet.duty import Duty, perform
from mailyard.fleet.fence import Fence, Fenced
from mailyard.fleet.leader import LEASE_S, UNSEAT_S
from mailyard.queue.engines.postgres import PostgresEngine
from mailyard.queue.schedule import Scheduler
from mailyard.storage.database import Database
from mailyard.storage.unprivileged import die_with_parent

TAKE_OVER_S = UNSEAT_S + 180.0  # on a busy machine
# What fires is written down where it happens, and a minute's schedule is made one of a moment's.
LEDGER = """
CREATE TABLE fired (
    name text, tick timestamptz, port int, at timestamptz DEFAULT clock_timestamp(), epoch bigint);
CREATE FUNCTION write_down() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fired (name, tick, port, epoch)
    SELECT OLD.name, OLD.next_at, inet_client_port(), epoch FROM leader WHERE duty = 'scheduler';
    NEW.next_at := greatest(OLD.next_at, clock_timestamp() - interval '0.2 s') + interval '0.2 s';
    RETURN NEW;
END $$;
UPDATE queue_schedule SET next_at = now();
CREATE TRIGGER fires BEFORE UPDATE ON queue_schedule FOR EACH ROW EXECUTE FUNCTION write_down();
"""


class Candidate:
    """`mailyard scheduler`, with a link of its own to the database."""

    def __init__(self, link: FarLink, folder: Path) -> None:
        self.link = link
        self.log = folder / f"scheduler-{link.port}.log"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mailyard.cli.main", "scheduler"],
            env=os.environ
            | {
                "MAILYARD_DATABASE_URL": f"postgresql://postgres@127.0.0.1:{link.port}/postgres",
                "MAILYARD_DATA": str(folder / f"data-{link.port}"),
                "MAILYARD_MASTER_KEY": MASTER_KEY,  # as machines of one installation have it
            },
            stderr=self.log.open("w"),
            preexec_fn=partial(die_with_parent, signal.SIGKILL, os.getpid()),
        )

    def end(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait(20)


@dataclass(frozen=True, slots=True)
class Firing:
    """Of one tick: when (seconds since 1970), by whom, in whose term."""

    tick: str
    at_s: float
    who: Candidate
    epoch: int


class Ledger:
    """What has been fired, and by whom."""

    def __init__(self, server: Server, candidates: list[Candidate]) -> None:
        self._server = server
        self._candidates = candidates

    def rows(self, only: str = "") -> list[Firing]:
        """In the order of firing."""
        text = self._server.sql(
            "SELECT name || tick, extract(epoch FROM at), port, epoch "
            f"FROM fired ORDER BY at {only}"
        )
        lines = [line.split("|") for line in text.splitlines()]
        return [
            Firing(tick, float(at), self._who(int(port)), int(epoch))
            for tick, at, port, epoch in lines
        ]

    def leader(self) -> Candidate:
        """Who fired last."""
        (last,) = self.rows("DESC LIMIT 1")
        return last.who

    def goes_on(self) -> None:
        """Wait for some more ticks."""
        wanted = self._count() + 8
        wait_until(lambda: self._count() >= wanted, TAKE_OVER_S)

    def another_leads(self, than: Candidate) -> None:
        """Wait for it."""
        wait_until(lambda: self.leader() is not than, TAKE_OVER_S)

    def _count(self) -> int:
        return int(self._server.sql("SELECT count(*) FROM fired"))

    def _who(self, port: int) -> Candidate:
        (who,) = [one for one in self._candidates if port in one.link.out_ports]
        return who


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with servers(tmp_path_factory.mktemp("leaders"), standbys=0) as (server,):
        migrated = subprocess.run(
            [sys.executable, "-m", "mailyard.cli.main", "migrate"],
            env=os.environ | {"MAILYARD_DATABASE_URL": server.url()},
            check=False,
        )
        assert migrated.returncode == 0
        yield server


@pytest.fixture
def candidates(server: Server, tmp_path: Path) -> Iterator[list[Candidate]]:
    with ExitStack() as stack:
        found = []
        for _ in range(2):
            link = stack.enter_context(far_link(("127.0.0.1", server.port)))
            found.append(Candidate(link, tmp_path))
            stack.callback(found[-1].end)
        yield found


def test_no_tick_is_fired_twice_whatever_becomes_of_the_leader(
    server: Server, candidates: list[Candidate]
) -> None:
    wait_until(lambda: server.sql("SELECT count(*) FROM queue_schedule") != "0", TAKE_OVER_S)
    server.sql(LEDGER)
    ledger = Ledger(server, candidates)
    ledger.goes_on()

    stopped = ledger.leader()
    stopped.process.send_signal(signal.SIGSTOP)
    before, renewed_s = len(ledger.rows()), renewed_at_s(server)
    ledger.another_leads(than=stopped)
    other = next(one for one in ledger.rows()[before:] if one.who is not stopped)
    assert other.at_s - renewed_s > LEASE_S, "not before its lease has run out"
    stopped.process.send_signal(signal.SIGCONT)
    ledger.goes_on()
    ledger.goes_on()

    silent = ledger.leader()
    silent.link.fall_silent()  # whatever it was saying comes to the server later
    ledger.another_leads(than=silent)
    silent.link.go_on()
    ledger.goes_on()
    ledger.goes_on()

    killed = ledger.leader()
    killed.process.kill()
    ledger.another_leads(than=killed)
    ledger.goes_on()

    rows = ledger.rows()
    assert len({one.tick for one in rows}) == len(rows), "a tick was fired twice"
    assert len({(one.who, one.epoch) for one in rows}) == len({one.epoch for one in rows})
    assert all(one.epoch <= after.epoch for one, after in pairwise(rows)), (
        "one who had been replaced has fired"
    )
    assert len({one.epoch for one in rows}) >= 4
    assert server.sql("SELECT epoch FROM leader") == str(rows[-1].epoch)


def renewed_at_s(server: Server) -> float:
    """When the leader's lease was renewed last."""
    return float(server.sql("SELECT extract(epoch FROM renewed_at) FROM leader"))


async def test_a_leader_whose_term_is_over_can_fire_nothing(database: Database) -> None:
    """Also when it has noticed nothing: the epoch is looked at where the tick is taken."""
    insert = "INSERT INTO leader (duty, epoch, holder) VALUES ('scheduler', 7, gen_random_uuid())"
    await database.pool.execute(insert)
    fence = Fence(database, "scheduler", 7, lease_s=3600.0)
    scheduler = Scheduler(
        database=database,
        engine=PostgresEngine(database=database, bus=MemoryBus()),
        clock=SystemClock(),
        schedules=[sweep.schedule()],
        hold=fence.hold,
    )
    assert await scheduler.fire() == 0
    due = "UPDATE queue_schedule SET next_at = now() - interval '1 s'"
    await database.pool.execute(due)
    assert await scheduler.fire() == 1
    await database.pool.execute(due)
    await database.pool.execute("UPDATE leader SET epoch = 8")
    with pytest.raises(Fenced, match="epoch 7 of scheduler is over"):
        await scheduler.fire()
    late = "SELECT count(*) FROM queue_schedule WHERE next_at < now()"
    assert await database.pool.fetchval(late) == 1, "the tick is still the new leader's"


async def test_a_leader_that_sleeps_inside_a_tick_is_ended_and_not_waited_for(
    database: Database,
) -> None:
    insert = "INSERT INTO leader (duty, epoch, holder) VALUES ('scheduler', 1, gen_random_uuid())"
    await database.pool.execute(insert)
    asleep = await database.direct()
    try:
        transaction = asleep.transaction()
        await transaction.start()
        await Fence(database, "scheduler", 1, lease_s=10.0).hold(asleep)  # type: ignore[arg-type]
        started = time.monotonic()
        await database.pool.execute("UPDATE leader SET epoch = 2", timeout=60)
        assert time.monotonic() - started > 3.0, "it was waited for: it might have gone on"
        async with asyncio.timeout(60):  # the driver hears of it a moment later
            while not asleep.is_closed():
                await asyncio.sleep(0.01)
    finally:
        asleep.terminate()


async def test_no_duty_is_begun_once_the_lease_has_run_out(database: Database) -> None:
    done = []

    async def do() -> bool:
        done.append(fence.holds)
        return True

    fence = Fence(database, "scheduler", 1, lease_s=1.0)
    working = asyncio.create_task(perform([Duty("busy", 0.01, do)], fence))
    while fence.holds:
        await asyncio.sleep(0.01)
    begun = len(done)
    await asyncio.sleep(0.3)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    assert begun > 0 and len(done) <= begun + 1, "but one that was about to begin just then"
