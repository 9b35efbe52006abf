"""Existing history: `mailyard import history` beside PostgreSQL's own COPY of the same rows.

A table of sent mail over 24 months (id, user, type, recipient, state, three times) is imported by
the command, which reads, checks and turns every row; the clock runs from its start to its end.
Beside it, in the same run and on the same server, COPY loads the rows that came out of it, ready as
they are and as text, into the same empty table with all its indexes and partitions. Then the
command is called with a fifth of the table, cut otherwise, which must change nothing.
"""

import asyncio
import csv
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import asyncpg
import msgspec
from measure import FULL, Row, note, report
from platform_parts import product_postgres

from mailyard.core.ids import uuid7
from mailyard.sending.history.rows import DELIVERY_COLUMNS

ROWS = int(os.environ.get("ROWS", 5_000_000 if FULL else 1_000_000))
AGAIN_ROWS = ROWS // 5
MONTHS = 24
BAR_ROWS_PER_S = 50_000.0
# The promise is the rate. What COPY of finished rows gives shows how fast the machine is: below
# this share of it the command itself has become slower.
BAR_RATIO = 0.4
BAR_AGAIN_ROWS_PER_S = 20_000.0
NAMES = ["id", "user_id", "type", "recipient", "status", "created_at", "sent_at", "updated_at"]


def write_table(file: Path) -> None:
    """The other system's table, in the order of its ids."""
    draw = random.Random(7)
    end = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    step = timedelta(days=30 * MONTHS) / ROWS
    with file.open("w", newline="") as opened:
        write = csv.writer(opened)
        write.writerow(NAMES)
        for number in range(ROWS):
            at = end - step * (ROWS - number)
            write.writerow([
                number, draw.randrange(50_000), draw.choice(("receipt", "reset", "news")),
                f"person{draw.randrange(200_000)}@example{number % 97}.org",
                "bounced" if number % 100 == 0 else "sent",
                at.isoformat(" "), (at + timedelta(seconds=1)).isoformat(" "),
                (at + timedelta(seconds=4)).isoformat(" "),
            ])  # fmt: skip


def run_command(url: str, folder: Path, file: Path) -> tuple[float, dict[str, int]]:
    """Seconds of one call, and what it said."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "mailyard.cli.main", "import", "history", file, "--json"],
        env=os.environ | {"MAILYARD_DATABASE_URL": url, "MAILYARD_DATA": str(folder)},
        stdout=subprocess.PIPE,
        check=True,
    )
    answer: dict[str, int] = msgspec.json.decode(done.stdout.splitlines()[-1])
    return time.monotonic() - began, answer


async def copy_beside(url: str, file: Path) -> float:
    """Seconds of COPY for the same rows into the same table, emptied before."""
    server = await asyncpg.connect(url)
    try:
        query = f"SELECT {', '.join(DELIVERY_COLUMNS)} FROM delivery ORDER BY id"
        await server.copy_from_query(query, output=file)
        await server.execute("TRUNCATE delivery")
        began = time.monotonic()
        with file.open("rb") as opened:
            await server.copy_to_table("delivery", source=opened, columns=DELIVERY_COLUMNS)
        return time.monotonic() - began
    finally:
        await server.close()


async def execute(url: str, statement: str, *arguments: object) -> object:
    server = await asyncpg.connect(url)
    try:
        return await server.fetchval(statement, *arguments)
    finally:
        await server.close()


def measure(folder: Path) -> list[Row]:
    table, again = folder / "emails.csv", folder / "again.csv"
    write_table(table)
    with product_postgres(folder) as server:
        asyncio.run(
            execute(server.url, "INSERT INTO workspace VALUES ($1, 'Shop') RETURNING id", uuid7())
        )
        seconds, told = run_command(server.url, folder, table)
        note(f"  import: {seconds:.1f} s, {told}")
        copied_s = asyncio.run(copy_beside(server.url, folder / "rows.copy"))
        note(f"  COPY of the same rows: {copied_s:.1f} s")
        with table.open() as whole, again.open("w") as part:
            part.writelines(islice(whole, AGAIN_ROWS + 1))
        again_s, told_again = run_command(server.url, folder, again)
        note(f"  again: {again_s:.1f} s, {told_again}")
        there = asyncio.run(execute(server.url, "SELECT count(*) FROM delivery"))
    assert isinstance(there, int)
    wrong = abs(there - ROWS) + abs(told["imported"] - ROWS) + told_again["imported"]
    rate, copy_rate = ROWS / seconds, ROWS / copied_s
    name = f"history of {ROWS:,} rows"
    return [
        Row(f"{name}: import", rate, "rows/s", BAR_ROWS_PER_S),
        Row(f"{name}: import beside COPY ({copy_rate:,.0f}/s)", rate / copy_rate, "x", BAR_RATIO),
        Row(f"{name}: the same again", AGAIN_ROWS / again_s, "rows/s", BAR_AGAIN_ROWS_PER_S),
        Row(f"{name}: rows astray", wrong, "rows", 0.0, less_is_better=True),
    ]


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="mailyard-bench-"))
    try:
        return report(measure(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    raise SystemExit(main())
