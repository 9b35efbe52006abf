"""What the benches share: medians, rows with a bar, and services that live as long as a bench.

A row is printed as `name | figure | bar | ratio | pass`. `FULL=1` runs the long forms. A bench ends
with `report(rows)`, whose answer is the exit status: 1 when any row is below its bar.
"""

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from mailyard.proving.own_postgres import own_postgres
from mailyard.storage import cluster
from mailyard.storage.migrate import migrate

FULL = os.environ.get("FULL") == "1"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure beside its bar. `less_is_better`: a time or a size, else a rate or a ratio."""

    name: str
    figure: float
    unit: str
    bar: float
    less_is_better: bool = False

    @property
    def ratio(self) -> float:
        """Above 1 is better than the bar."""
        if self.less_is_better:
            return self.bar / self.figure if self.figure else float("inf")
        return self.figure / self.bar if self.bar else float("inf")

    @property
    def passed(self) -> bool:
        return self.ratio >= 1.0


def seconds(short: float, full: float) -> float:
    """How long to measure: `short` by default, `full` with FULL=1."""
    return full if FULL else short


def median_of(measure: Callable[[], float], times: int = 3) -> float:
    """The median of `times` measurements, each said on stderr as it comes."""
    figures = []
    for _ in range(times):
        figures.append(measure())
        note(f"  {figures[-1]:,.2f}")
    return statistics.median(figures)


def note(text: str) -> None:
    """Progress, apart from the rows."""
    print(text, file=sys.stderr, flush=True)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of `values` lie, nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def report(rows: Sequence[Row]) -> int:
    """Print the rows; the exit status."""
    for row in rows:
        bound = "at most" if row.less_is_better else "at least"
        verdict = "pass" if row.passed else "FAIL"
        print(
            f"{row.name} | {row.figure:,.2f} {row.unit} | {bound} {row.bar:,.2f} {row.unit} | "
            f"{row.ratio:.2f} | {verdict}",
            flush=True,
        )
    return 0 if all(row.passed for row in rows) else 1


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(port: int, timeout_s: float = 20.0) -> None:
    """Until somebody listens on `port`. Raises TimeoutError."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        with socket.socket() as probe:
            probe.settimeout(0.5)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")


@contextmanager
def process(*command: str, cwd: Path | None = None) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that ends with the block."""
    running = subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(10)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


@contextmanager
def redis_server() -> Iterator[int]:
    """Debian's redis-server as it comes, without snapshots; its port."""
    if shutil.which("redis-server") is None:
        raise SystemExit("redis-server is missing: run tests/services/install.sh")
    port = free_port()
    with (
        tempfile.TemporaryDirectory() as folder,
        process(
            "redis-server",
            "--port",
            str(port),
            "--dir",
            folder,
            "--save",
            "",
            "--bind",
            "127.0.0.1",
        ),
    ):
        wait_for_port(port)
        yield port


@contextmanager
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL: MAILYARD_TEST_DATABASE_URL, or an embedded one, fsync on."""
    given = os.environ.get("MAILYARD_TEST_DATABASE_URL")
    if given:
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        with own_postgres(data, connections=100):
            yield cluster.url_of(data, database="postgres", role=cluster.SUPERUSER)


@asynccontextmanager
async def fresh_database(server_url: str) -> AsyncIterator[str]:
    """The address of a migrated database that is gone after the block."""
    name = f"mailyard_bench_{token_hex(6)}"
    server = await asyncpg.connect(server_url)
    try:
        await server.execute(f'CREATE DATABASE "{name}"')
        url = urlunsplit(urlsplit(server_url)._replace(path="/" + name))
        await migrate(url)
        yield url
    finally:
        await server.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        await server.close()
