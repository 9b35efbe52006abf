"""Lists read on a replica: by how much the primary's processor time falls.

A primary and a standby on this machine, one `mailyard api`; pages of 50 contacts and of 50
deliveries at a fixed pace, first with the primary alone, then with the replica. Counted is the
processor time of the primary's processes (its WAL sender included) for each request, which other
load on the machine does not change as it changes wall time.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from emails import Api, cpu_seconds, first_start, load
from measure import Row, free_port, note, report, seconds, wait_for_port

from mailyard.storage import cluster
from mailyard.storage.database import Database, DatabaseAddress
from mailyard.storage.migrate import migrate
from mailyard.storage.partitions import ensure_partitions

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from postgres_servers import Server, servers

ROWS = 20_000
PER_S = float(os.environ.get("PER_S", "250"))
SECONDS = float(os.environ.get("SECONDS", seconds(6.0, 20.0)))
PATHS = ("/v1/contacts?limit=50", "/v1/deliveries?limit=50")
BAR_PERCENT = 60.0

_SEED = f"""
INSERT INTO contact (id, workspace_id, address, name)
SELECT uuidv7(), w.id, 'person' || n || '@example.test', 'Person ' || n
FROM workspace w, generate_series(1, {ROWS}) n;
INSERT INTO delivery (id, workspace_id, recipient, recipient_key, type, state)
SELECT uuidv7(), w.id, 'person' || n || '@example.test', n, 'news', 'accepted'
FROM workspace w, generate_series(1, {ROWS}) n;
"""


def main() -> int:
    with (
        tempfile.TemporaryDirectory() as folder,
        servers(Path(folder) / "servers", standbys=1) as (primary, replica),
    ):
        key = asyncio.run(prepare(primary.url()))
        primary.sql(_SEED)
        primary.sql("VACUUM ANALYZE")
        alone = measure(primary, replica, key, {})
        beside = measure(primary, replica, key, {"MAILYARD_DATABASE_REPLICAS": replica.url()})
    fall = 100.0 * (1.0 - beside / alone)
    note(f"  the primary alone {alone:.0f} us a request, with a replica {beside:.0f} us")
    return report([Row("primary's CPU falls by, lists read on a replica", fall, "%", BAR_PERCENT)])


async def prepare(url: str) -> str:
    """A migrated database with its first workspace; the API key."""
    await migrate(url)
    database = Database(DatabaseAddress(url, url, connections=2))
    await database.open()
    try:
        await ensure_partitions(database, datetime.now(UTC))
    finally:
        await database.close()
    return await first_start(url)


def measure(primary: Server, replica: Server, key: str, settings: dict[str, str]) -> float:
    """Microseconds of the primary's processor time for each request."""
    used_s, answers = 0.0, 0
    with api(primary.url(), key, settings) as running:
        for path in PATHS:
            before = cpu_of(primary), cpu_of(replica)
            run = load(running.port, key, path, b"", SECONDS, PER_S)
            assert not run.refused, f"{run.refused} of {path} were refused"
            spent = cpu_of(primary) - before[0], cpu_of(replica) - before[1]
            used_s, answers = used_s + spent[0], answers + run.answers
            note(
                f"  {path}: primary {1e6 * spent[0] / run.answers:.0f} us, replica "
                f"{1e6 * spent[1] / run.answers:.0f} us, p99 {run.percentile(0.99):.1f} ms"
            )
    return 1e6 * used_s / answers


def cpu_of(server: Server) -> float:
    """Seconds of all processes of a server that live now."""
    return sum(map(cpu_seconds, cluster.processes_on(server.folder)))


@contextmanager
def api(url: str, key: str, settings: dict[str, str]) -> Iterator[Api]:
    """One `mailyard api` on the database."""
    port = free_port()
    environment = {
        **os.environ,
        "MAILYARD_DATABASE_URL": url,
        "MAILYARD_PORT": str(port),
        "MAILYARD_RATE_PER_S": "100000",
        "MAILYARD_RATE_BURST": "100000",
        **settings,
    }
    command = [sys.executable, "-m", "mailyard.cli.main", "api"]
    running = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        yield Api(port, key, running.pid)
    finally:
        running.terminate()
        running.wait(30)


if __name__ == "__main__":
    sys.exit(main())
