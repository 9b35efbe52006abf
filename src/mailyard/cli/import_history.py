"""`mailyard import history`: mail that another system sent, as history of this one."""

import asyncio
import hashlib
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Annotated
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from mailyard.app import Application
from mailyard.cli.client import AsJson, progress_console, say
from mailyard.cli.operator import operator
from mailyard.core.errors import InvalidInput, NotFound
from mailyard.core.ids import WORKSPACE, parse_type_id, type_id
from mailyard.sending.history.columns import MEANINGS, read_columns, read_states
from mailyard.sending.history.load import HistoryImport, Rejects, Stand
from mailyard.sending.history.rows import reader
from mailyard.sending.history.tables import DIALECTS, Table, open_table
from mailyard.settings import load_settings
from mailyard.storage.partitions import history_since
from mailyard.storage.queries import load

app = typer.Typer(add_completion=False)
_SQL = load("history")

_FINGERPRINT_BYTES = 1 << 20


@app.command(name="import history")
def import_history(
    file: Annotated[Path, typer.Argument(help="CSV (packed with gzip or not) or Parquet.")],
    workspace: Annotated[
        str | None, typer.Option(help="Whose mail it was (wsp_…); the only one by itself.")
    ] = None,
    source: Annotated[
        str,
        typer.Option(help="A name for the other system. The same row of the same source is one."),
    ] = "history",
    column: Annotated[
        list[str] | None,
        typer.Option("--map", help=f"COLUMN=MEANING of {', '.join(MEANINGS)}; COLUMN=. for none."),
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(help="WORD=STATE for a word that is not one of the usual ones."),
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="The columns' names, by commas, where there is no header.")
    ] = None,
    dialect: Annotated[
        str, typer.Option("--format", help=f"How a CSV file is written: {', '.join(DIALECTS)}.")
    ] = "csv",
    zone: Annotated[str, typer.Option(help="The time zone of times that name none.")] = "UTC",
    type_: Annotated[str, typer.Option("--type", help="Of mail whose row has none.")] = "imported",
    rejects: Annotated[
        Path | None, typer.Option(help="Write rows that were refused here: line, reason, row.")
    ] = None,
    again: Annotated[bool, typer.Option(help="Read all of it once more.")] = False,
    as_json: AsJson = False,
) -> None:
    """Import a table of sent mail: id, user, type, recipient, state, times. It goes on where it
    broke off, and doing it again changes nothing twice. It works on the database itself, which
    must be there; nothing is sent.

    Example: mailyard import history emails.csv --map "to_addr=recipient" --rejects bad.csv
    """
    if dialect not in DIALECTS:
        raise InvalidInput(f"--format is one of {', '.join(DIALECTS)}, not {dialect!r}")
    names = [name.strip() for name in columns.split(",")] if columns is not None else None
    table = open_table(file, DIALECTS[dialect], names)
    meanings = {name: None if to in ("", ".") else to for name, to in _pairs(column, "--map")}
    words = dict(_pairs(state, "--state"))
    places, states = read_columns(table.names, meanings), read_states(words)
    told = msgspec.json.encode([table.names, meanings, words, dialect, zone, type_])
    fingerprint = _fingerprint(file, told)
    zone_of_times = _zone(zone)

    async def work() -> Stand:
        application = Application(load_settings())
        await application.open()
        try:
            workspace_id = await _workspace(application, workspace)
            now = datetime.now(UTC)
            read = reader(
                places,
                states,
                workspace_id=workspace_id,
                source=source,
                zone=zone_of_times,
                default_type=type_,
                oldest=history_since(application.settings.history_months, now),
                now=now,
            )
            importing = HistoryImport(
                database=application.database,
                workspace_id=workspace_id,
                source=source,
                fingerprint=fingerprint,
                table=table,
                read=read,
                rejects=Rejects(rejects, table.names),
            )
            await _note(application, workspace_id, file, source)
            return await _import(importing, table, again=again, shown=not as_json)
        finally:
            await application.close()

    stand = asyncio.run(work())
    answer = {
        "imported": stand.imported,
        "already_there": stand.already_there,
        "refused": stand.refused,
        "rows": stand.rows,
    }
    text = (
        f"{stand.rows:,} rows: {stand.imported:,} imported, {stand.already_there:,} were there, "
        f"{stand.refused:,} refused"
    )
    if stand.refused:
        text += f" (see {rejects})" if rejects is not None else " (--rejects FILE tells which)"
    say(answer, as_json, text)


async def _import(importing: HistoryImport, table: Table, *, again: bool, shown: bool) -> Stand:
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=progress_console(),
        disable=not shown,
    ) as bars:
        task = bars.add_task("Importing", total=max(1, table.size_bytes))

        def told(stand: Stand) -> None:
            text = f"{stand.rows:,} rows, {stand.refused:,} refused"
            bars.update(task, completed=table.read_bytes(), description=text)

        return await importing.run(again=again, told=told)


async def _workspace(application: Application, said: str | None) -> UUID:
    """Whose history it is. Raises InvalidInput, NotFound."""
    if said is not None:
        workspace_id = parse_type_id(WORKSPACE, said, "workspace")
        if await application.database.fetchval(_SQL.workspace_name, workspace_id) is None:
            raise NotFound(f"there is no workspace {said}")
        return workspace_id
    found = await application.database.fetch(_SQL.workspaces)
    if len(found) != 1:
        raise InvalidInput("say whose mail it was with --workspace wsp_…", field="workspace")
    only: UUID = found[0]["id"]
    return only


async def _note(application: Application, workspace_id: UUID, file: Path, source: str) -> None:
    """Who imports what into whose history, in the audit log."""
    async with application.database.transaction() as tx:
        await application.audit.record(
            operator(workspace_id),
            "history.import",
            type_id(WORKSPACE, workspace_id),
            None,
            {"file": file.name, "source": source},
            tx=tx,
        )


def _pairs(said: list[str] | None, option: str) -> list[tuple[str, str]]:
    pairs = []
    for one in said or []:
        name, equals, value = one.rpartition("=")
        if not equals or not name:
            raise InvalidInput(f"{option} wants NAME=VALUE, got {one!r}")
        pairs.append((name, value))
    return pairs


def _zone(name: str) -> tzinfo:
    if name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise InvalidInput(f"there is no time zone {name!r}; like Europe/Berlin") from None


def _fingerprint(file: Path, how: bytes) -> bytes:
    """Of a file, by its size, beginning and end, and of how it is read."""
    size_bytes = file.stat().st_size
    digest = hashlib.sha256(f"{size_bytes}\0".encode() + how)
    with file.open("rb") as opened:
        digest.update(opened.read(_FINGERPRINT_BYTES))
        opened.seek(max(0, size_bytes - _FINGERPRINT_BYTES))
        digest.update(opened.read(_FINGERPRINT_BYTES))
    return digest.digest()
