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
from functools import partial
from itertools import groupby
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

pytestmark = pytest.mark.timeout(240)

TAKE_OVER_S = UNSEAT_S + 30.0  # on a busy machine
# What fires is written down where it happens, and a minute's schedule is made one of a moment's.
LEDGER = """
CREATE TABLE fired (
    name text, tick timestamptz, port int, at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION write_down() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fired (name, tick, port) VALUES (OLD.name, OLD.next_at, inet_client_port());
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


class Ledger:
    """What has been fired, and by whom."""

    def __init__(self, server: Server, candidates: list[Candidate]) -> None:
        self._server = server
        self._candidates = candidates

    def rows(self) -> list[tuple[str, Candidate, float]]:
        """(tick, by whom, when), in the order of firing."""
        text = self._server.sql(
            "SELECT name || tick, port, extract(epoch FROM at) FROM fired ORDER BY at"
        )
        lines = [line.split("|") for line in text.splitlines()]
        return [(tick, self._who(int(port)), float(at)) for tick, port, at in lines]

    def last(self) -> Candidate | None:
        """Who fired last."""
        rows = self.rows()
        return rows[-1][1] if rows else None

    def goes_on(self) -> None:
        """Wait for some more ticks."""
        wanted = len(self.rows()) + 8
        wait_until(lambda: len(self.rows()) >= wanted, TAKE_OVER_S)

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
    wait_until(lambda: server.sql("SELECT count(*) FROM queue_schedule") != "0", 60.0)
    server.sql(LEDGER)
    ledger = Ledger(server, candidates)
    ledger.goes_on()
    first = ledger.last()
    (second,) = [one for one in candidates if one is not first]
    assert first is not None

    first.process.send_signal(signal.SIGSTOP)
    stopped = time.time()
    wait_until(lambda: ledger.last() is second, TAKE_OVER_S)
    assert ledger.rows()[-1][2] - stopped > LEASE_S, "not before its lease has run out"
    first.process.send_signal(signal.SIGCONT)
    ledger.goes_on()
    ledger.goes_on()

    second.link.fall_silent()  # whatever it was saying comes to the server later
    wait_until(lambda: ledger.last() is first, TAKE_OVER_S)
    second.link.go_on()
    ledger.goes_on()
    ledger.goes_on()

    first.process.kill()
    wait_until(lambda: ledger.last() is second, TAKE_OVER_S)
    ledger.goes_on()

    rows = ledger.rows()
    assert len({tick for tick, _, _ in rows}) == len(rows), "a tick was fired twice"
    turns = [who for who, _ in groupby(rows, key=lambda row: row[1])]
    assert turns == [first, second, first, second], "one who had been replaced has fired"
    assert server.sql("SELECT epoch FROM leader") == "4"


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
        await database.pool.execute("UPDATE leader SET epoch = 2", timeout=30)
        assert 3.0 < time.monotonic() - started < 20.0
        async with asyncio.timeout(10):  # the driver hears of it a moment later
            while not asleep.is_closed():
                await asyncio.sleep(0.01)
    finally:
        asleep.terminate()


async def test_no_duty_is_begun_once_the_lease_has_run_out(database: Database) -> None:
    done = []

    async def do() -> bool:
        done.append(fence.holds)
        return True

    fence = Fence(database, "scheduler", 1, lease_s=0.05)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await perform([Duty("busy", 0.01, do)], fence)
    assert done and all(done[:-1])
    assert fence.left_s == 0.0
