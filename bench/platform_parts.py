"""Parts of the platform as the benches need them: its PostgreSQL, its services, a bulk worker."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mailyard.access.vault import Vault
from mailyard.bus.adapters.postgres import PostgresBus
from mailyard.bus.live import LiveEvents
from mailyard.campaigns.audience import Audiences
from mailyard.campaigns.campaign import Campaigns
from mailyard.campaigns.chunk import ChunkSender
from mailyard.campaigns.plan import Planner
from mailyard.campaigns.progress import ProgressEvents
from mailyard.campaigns.retry import RetrySender
from mailyard.campaigns.segment import Segments
from mailyard.core.clock import SystemClock
from mailyard.proving.own_postgres import own_postgres
from mailyard.queue.engines.postgres import PostgresEngine
from mailyard.queue.worker import Worker
from mailyard.ratelimit.adapters.memory import MemoryRateLimit
from mailyard.sending.accept import Emails
from mailyard.sending.imprint import Imprints
from mailyard.sending.sign import Signing
from mailyard.sending.template import Templates
from mailyard.sending.track.domain import TrackingNames
from mailyard.sending.track.link import Links
from mailyard.sending.track.token import Tokens
from mailyard.sending.track.tracking import Tracking
from mailyard.sending.transport import Transport
from mailyard.sending.transports.smtp import SmtpTransport
from mailyard.storage.database import Database, DatabaseAddress
from mailyard.storage.migrate import migrate
from mailyard.storage.partitions import ensure_partitions


@dataclass(frozen=True, slots=True)
class Server:
    """A running PostgreSQL with an empty, migrated database."""

    url: str
    pid: int

    def process_ids(self) -> list[int]:
        """The postmaster and its children."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [self.pid, *map(int, children)]


@contextmanager
def product_postgres(folder: Path) -> Iterator[Server]:
    """The embedded PostgreSQL as the product runs it, fsync on, with a migrated database."""
    with own_postgres(folder / "data", connections=60) as server:
        asyncio.run(_prepare(server.url))
        yield Server(server.url, server.pid or 0)


@contextmanager
def role(name: str, url: str, settings: Mapping[str, str]) -> Iterator[int]:
    """One role as the product runs it, on the database at `url`; its process id."""
    command = str(Path(sys.executable).with_name("mailyard"))
    environment = {**os.environ, **settings, "MAILYARD_DATABASE_URL": url}
    running = subprocess.Popen([command, name], env=environment, stdout=subprocess.DEVNULL)
    try:
        yield running.pid
    finally:
        running.terminate()
        running.wait(30)


async def _prepare(url: str) -> None:
    await migrate(url)
    database = Database(DatabaseAddress(url, url, connections=2))
    await database.open()
    try:
        await ensure_partitions(database, datetime.now(UTC))
    finally:
        await database.close()


class Parts:
    """The services that a bench calls, on one database."""

    def __init__(self, url: str, connections: int) -> None:
        self.database = Database(DatabaseAddress(url, url, connections=connections))
        self.bus = PostgresBus(database=self.database)
        self.live = LiveEvents(database=self.database, bus=self.bus)
        self.engine = PostgresEngine(database=self.database, bus=self.bus)
        self.templates = Templates(database=self.database)
        self.vault = Vault(lambda: [b"bench key of 32 bytes, no secret"])
        self.signing = Signing(database=self.database, vault=self.vault)
        self.progress = ProgressEvents(database=self.database, live=self.live)
        self.imprints = Imprints(database=self.database)
        self.tracking = Tracking(
            tokens=Tokens(self.vault.keys_for),
            links=Links(database=self.database),
            names=TrackingNames(database=self.database, default="https://click.example.org"),
            imprints=self.imprints,
        )
        self.emails = Emails(database=self.database, engine=self.engine, templates=self.templates)
        self.campaigns = Campaigns(
            database=self.database,
            engine=self.engine,
            segments=Segments(database=self.database, audiences=Audiences(database=self.database)),
            templates=self.templates,
            progress=self.progress,
            tracking=self.tracking,
            imprints=self.imprints,
        )

    async def open(self) -> None:
        await self.database.open()
        await self.bus.open()

    async def close(self) -> None:
        await self.bus.close()
        await self.database.close()

    def bulk_worker(self, smtp_port: int) -> Worker:
        """A worker of the lane email-bulk that hands over to `smtp_port` of this machine."""
        return self.bulk_worker_over(
            SmtpTransport(name="smtp", host="127.0.0.1", port=smtp_port, hello="bench")
        )

    def bulk_worker_over(self, transport: Transport) -> Worker:
        """A worker of the lane email-bulk that hands over to `transport`."""
        chunks = ChunkSender(
            database=self.database,
            engine=self.engine,
            transport=transport,
            live=self.live,
            templates=self.templates,
            signing=self.signing,
            tracking=self.tracking,
            rate_limit=MemoryRateLimit(clock=SystemClock()),
            hostname="bench.example.org",
        )
        retries = RetrySender(
            database=self.database,
            engine=self.engine,
            transport=transport,
            templates=self.templates,
            signing=self.signing,
            tracking=self.tracking,
            progress=chunks.progress,
            window=chunks.window,
            hostname="bench.example.org",
        )
        planner = Planner(database=self.database, engine=self.engine)
        return Worker(
            engine=self.engine,
            handlers=[chunks.handler(), retries.handler(), planner.handler()],
            name="bench",
        )


def pss_bytes(pid: int) -> int:
    """The proportional set size of a process: what it has alone, and its share of the shared."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (ProcessLookupError, FileNotFoundError):
        return 0  # it has just ended
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


@contextmanager
def peak_bytes(pids: Callable[[], Iterable[int]], every_s: float = 1.0) -> Iterator[list[int]]:
    """The PSS of processes together while the block runs: what it is at first, and at most."""
    found = [0, 0]
    over = threading.Event()

    def watch() -> None:
        found[0] = sum(map(pss_bytes, pids()))
        while not over.wait(every_s):
            found[1] = max(found[1], sum(map(pss_bytes, pids())))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield found
    finally:
        over.set()
        watching.join()


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has used so far."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (ProcessLookupError, FileNotFoundError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def on_cpu_s(pids: Iterable[int]) -> float:
    """How long processes have been on a CPU, to the microsecond; one that has ended: 0."""
    seconds = 0.0
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            seconds += int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    return seconds
