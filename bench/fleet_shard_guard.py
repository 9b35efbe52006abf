"""What the guard of a workspace's tables costs where there are shards: CPU of PostgreSQL a row.

The same mails are written by the same COPY into the same table with and without its guard, by
turns; the CPU is that of the server process. Without MAILYARD_SHARDS there is no guard.
"""

import asyncio
import os
import statistics
import tempfile
from pathlib import Path

import asyncpg
from measure import FULL, Row, report
from platform_parts import product_postgres

from mailyard.core.ids import uuid7
from mailyard.fleet.shards.fences import make_guards
from mailyard.fleet.shards.tables import read_tables
from mailyard.receiving.commit import COLUMNS
from mailyard.storage.database import Database, DatabaseAddress

ROWS = 20_000
ROUNDS = 15 if FULL else 5
BAR_US = 6.0
_TICKS = os.sysconf("SC_CLK_TCK")
_RAW = b"From: a@example.org\r\nSubject: x\r\n\r\n" + b"x" * 1_500


def cpu_s(pid: int) -> float:
    """CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


async def write(connection: "asyncpg.Connection[asyncpg.Record]", pid: int) -> float:
    """Microseconds of the server's CPU a row."""
    workspace, inbox = uuid7(), uuid7()
    rows = [
        (uuid7(), workspace, 1, "", ["a@b"], [inbox], "", "", len(_RAW), None, _RAW)
        for _ in range(ROWS)
    ]
    before = cpu_s(pid)
    await connection.copy_records_to_table("message", records=rows, columns=COLUMNS)
    return (cpu_s(pid) - before) / ROWS * 1e6


async def measure(url: str) -> float:
    database = Database(DatabaseAddress(url, url, connections=2))
    await database.open()
    connection = await asyncpg.connect(url)
    pid = connection.get_server_pid()
    tables = [table for table in await read_tables(database) if table.name == "message"]
    plain, guarded = [], []
    for _ in range(ROUNDS):
        await connection.execute('DROP TRIGGER IF EXISTS "A_shard_guard" ON message')
        plain.append(await write(connection, pid))
        await make_guards(database, tables)
        guarded.append(await write(connection, pid))
    await connection.close()
    await database.close()
    print(f"without {statistics.median(plain):.1f}, with {statistics.median(guarded):.1f} us a row")
    return statistics.median(guarded) - statistics.median(plain)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder, product_postgres(Path(folder)) as server:
        cost = asyncio.run(measure(server.url))
    return report([Row("guard of a row", cost, "us", BAR_US, less_is_better=True)])


if __name__ == "__main__":
    raise SystemExit(main())
