"""`mailyard import history`: files into the partitions of history, once, whatever happens."""

import asyncio
import csv
import gzip
import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mailyard.core.ids import WORKSPACE, type_id, uuid7
from mailyard.sending.delivery import Deliveries
from mailyard.sending.history.columns import read_columns, read_states
from mailyard.sending.history.load import HistoryImport, Rejects, Stand
from mailyard.sending.history.rows import reader
from mailyard.sending.history.tables import MYSQL, POSTGRESQL, Dialect, open_table
from mailyard.storage.database import Database

NAMES = ["id", "user_id", "type", "recipient", "status", "created_at", "sent_at", "delivered_at"]
NOW = datetime(2026, 6, 1, tzinfo=UTC)
STATES = ["sent", "delivered", "bounced", "failed"]


def rows_of(count: int, seed: int = 1) -> list[list[str]]:
    """Rows over four months, in order of time."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        at = NOW - timedelta(days=120) + timedelta(days=110) * number / count
        rows.append([
            str(number), str(draw.randrange(500)), draw.choice(["receipt", "news"]),
            f"person{draw.randrange(1_000)}@example.org", draw.choice(STATES),
            at.isoformat(" "), (at + timedelta(seconds=2)).isoformat(" "),
            (at + timedelta(seconds=9)).isoformat(" "),
        ])  # fmt: skip
    return rows


def write_csv(file: Path, rows: Sequence[Sequence[str]]) -> Path:
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows([NAMES, *rows])
    return file


@pytest.fixture
async def workspace(database: Database) -> Any:
    workspace_id = uuid7()
    await database.pool.execute("INSERT INTO workspace VALUES ($1, 'Shop')", workspace_id)
    return workspace_id


def importing(
    database: Database,
    workspace: Any,
    file: Path,
    rejects: Path | None = None,
    dialect: Dialect = POSTGRESQL,
    names: list[str] | None = None,
    fingerprint: bytes = b"file",
    run_rows: int = 500,
) -> HistoryImport:
    table = open_table(file, dialect, names)
    read = reader(
        read_columns(table.names, {}),
        read_states({}),
        workspace_id=workspace,
        source="old",
        zone=UTC,
        default_type="imported",
        oldest=None,
        now=NOW,
    )
    return HistoryImport(
        database=database,
        workspace_id=workspace,
        source="old",
        fingerprint=fingerprint,
        table=table,
        read=read,
        rejects=Rejects(rejects, table.names),
        run_rows=run_rows,
    )


async def counted(database: Database) -> tuple[int, int]:
    return (
        await database.pool.fetchval("SELECT count(*) FROM delivery"),
        await database.pool.fetchval("SELECT count(*) FROM delivery_event"),
    )


async def test_history_lies_in_its_months_and_is_read_like_our_own(
    database: Database, workspace: Any, tmp_path: Path
) -> None:
    rows = rows_of(3_000)
    stand = await importing(database, workspace, write_csv(tmp_path / "mail.csv", rows)).run()
    assert stand == Stand(3_000, 3_001, 3_000, 0, 0, finished=True)
    months = await database.pool.fetch(
        "SELECT tableoid::regclass::text AS part, to_char(min(queued_at), 'YYYY_MM') AS low, "
        "to_char(max(queued_at), 'YYYY_MM') AS high FROM delivery GROUP BY 1"
    )
    assert len(months) == 4
    assert all(
        row["part"] == f"delivery_{row['low']}" == f"delivery_{row['high']}" for row in months
    )
    deliveries = Deliveries(database=database)
    page = await deliveries.page(workspace, recipient=rows[700][3], since=NOW - timedelta(days=365))
    assert {one.recipient for one in page.items} == {rows[700][3]}
    one, story = await deliveries.get(workspace, page.items[0].id)
    assert [event.state.value for event in story][:2] == ["queued", "handed_off"]
    assert (one.transport, "of user" in one.reply) == ("imported", True)


async def test_doing_it_again_changes_nothing_twice(
    database: Database, workspace: Any, tmp_path: Path
) -> None:
    rows = rows_of(2_000)
    await importing(database, workspace, write_csv(tmp_path / "a.csv", rows)).run()
    before = await counted(database)
    file = tmp_path / "a.csv"
    done = await importing(database, workspace, file).run()
    assert (done.rows, done.imported, done.finished) == (2_000, 2_000, True)
    again = await importing(database, workspace, file).run(again=True)
    assert (again.imported, again.already_there) == (0, 2_000)
    # Another cut of the same table, with rows that are new and one that stands twice in it.
    more = [*rows[1_500:], *rows_of(2_600)[2_000:], rows[1_999]]
    other = write_csv(tmp_path / "b.csv", [*more, more[0]])
    stand = await importing(database, workspace, other, fingerprint=b"other").run()
    assert stand.already_there >= 502
    assert stand.imported + stand.already_there == len(more) + 1
    assert (await counted(database))[0] == before[0] + stand.imported


async def test_bad_rows_are_told_with_line_and_reason_and_hold_up_no_other(
    database: Database, workspace: Any, tmp_path: Path
) -> None:
    rows = rows_of(1_200)
    rows[10][3] = "nobody"
    rows[20] = rows[20][:5]
    rows[1_100][4] = "teleported"
    rows[30][2] = "two\nlines"
    file = write_csv(tmp_path / "mail.csv", rows)
    rejects = tmp_path / "bad.csv"
    stand = await importing(database, workspace, file, rejects).run()
    assert (stand.imported, stand.refused) == (1_197, 3)
    with rejects.open(newline="") as opened:
        told = list(csv.reader(opened))
    assert told[0] == ["line", "reason", *NAMES]
    assert [row[0] for row in told[1:]] == ["12", "22", "1103"]
    assert "nobody" in told[1][1]
    assert told[1][2:] == rows[10]
    # What was mended is imported from that very file.
    rows[10][3] = "somebody@example.org"
    mended = tmp_path / "mended.csv"
    mended.write_text(rejects.read_text().replace(",nobody,", ",somebody@example.org,"))
    stand = await importing(database, workspace, mended, fingerprint=b"mended").run()
    assert stand.imported == 1


async def test_an_import_that_broke_off_goes_on_where_it_was(
    database: Database, workspace: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(4_000)
    for number in range(0, 4_000, 400):
        rows[number][3] = "nobody"
    file, rejects = write_csv(tmp_path / "mail.csv", rows), tmp_path / "bad.csv"
    broken = importing(database, workspace, file, rejects)
    write = broken._write

    async def breaks(run: Any) -> None:
        if run.number == 3:
            raise OSError("the machine is gone")
        await write(run)

    monkeypatch.setattr(broken, "_write", breaks)
    with pytest.raises(OSError, match="gone"):
        await broken.run()
    before = await broken.stand()
    assert 0 < before.rows <= 1_500
    with rejects.open("a", newline="") as opened:  # told, and then the machine was gone
        csv.writer(opened).writerow(["3602", "a reason", *rows[3_600]])
    stand = await importing(database, workspace, file, rejects).run()
    assert (stand.rows, stand.refused) == (4_000, 10)
    assert stand.imported + stand.already_there == 3_990
    assert (await counted(database))[0] == 3_990
    with rejects.open(newline="") as opened:
        lines = [row[0] for row in csv.reader(opened)][1:]
    assert lines == [str(number + 2) for number in range(0, 4_000, 400)]


async def test_a_process_that_is_killed_loses_nothing_and_doubles_nothing(
    database: Database, workspace: Any, database_url: str, tmp_path: Path
) -> None:
    file = write_csv(tmp_path / "mail.csv", rows_of(30_000))
    command = [sys.executable, "-m", "mailyard.cli.main", "import", "history", str(file), "--json",
               "--workspace", type_id(WORKSPACE, workspace)]  # fmt: skip
    environment = os.environ | {"MAILYARD_DATABASE_URL": database_url,
                                "MAILYARD_DATA": str(tmp_path)}  # fmt: skip
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    while not await database.pool.fetchval("SELECT coalesce(max(rows), 0) > 0 FROM history_import"):
        assert process.poll() is None, "it has ended before it was killed"
        await asyncio.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert await database.pool.fetchval("SELECT finished_at IS NULL FROM history_import")
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, stdout=subprocess.PIPE, check=True
    )
    answer = msgspec.json.decode(done.stdout.splitlines()[-1])
    assert (answer["rows"], answer["refused"]) == (30_000, 0)
    assert answer["imported"] + answer["already_there"] == 30_000
    assert (await counted(database))[0] == 30_000
    assert (
        await database.pool.fetchval(
            "SELECT count(*) FROM audit_log WHERE action = 'history.import' AND actor LIKE '%@%'"
        )
        == 2
    )


@pytest.mark.parametrize("form", ["csv.gz", "mysql", "parquet"])
async def test_other_forms_of_a_table_say_the_same(
    database: Database, workspace: Any, tmp_path: Path, form: str
) -> None:
    rows = rows_of(1_000)
    rows[5][1] = ""
    rows[6][2] = 'a "b", c\\d'
    file, dialect, names = tmp_path / f"mail.{form}", POSTGRESQL, None
    if form == "csv.gz":
        plain = write_csv(tmp_path / "mail.csv", rows)
        file.write_bytes(gzip.compress(plain.read_bytes()))
    elif form == "mysql":
        dialect, names = MYSQL, NAMES
        lines = ["\t".join(one.replace("\\", "\\\\") or "\\N" for one in row) for row in rows]
        file.write_text("\n".join(lines) + "\n")
    else:
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        table = pyarrow.table({
            name: [datetime.fromisoformat(row[nth]) if name.endswith("_at") else row[nth]
                   for row in rows]
            for nth, name in enumerate(NAMES)
        })  # fmt: skip
        parquet.write_table(table, file)
    await importing(database, workspace, write_csv(tmp_path / "plain.csv", rows)).run()
    stand = await importing(
        database, workspace, file, dialect=dialect, names=names, fingerprint=form.encode()
    ).run()
    assert (stand.imported, stand.already_there, stand.refused) == (0, 1_000, 0)
