"""`mailyard import`: contacts from a CSV file."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from mailyard.cli import exit_code
from mailyard.cli.client import AsJson, ask, progress_console, say
from mailyard.core.errors import InvalidInput
from mailyard.core.limits import KIB
from mailyard.proving.client import ApiClient

app = typer.Typer(add_completion=False)

_CHUNK_BYTES = 256 * KIB
_LOOK_AGAIN_S = 0.2


@app.command(name="import")
def import_contacts(
    file: Annotated[Path, typer.Argument(help="A CSV file; a header names its columns.")],
    to_list: Annotated[
        str | None, typer.Option("--list", help="A list's id (lst_…) or its name; made if new.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option("--map", help="COLUMN=address, COLUMN=name, COLUMN=attribute, or COLUMN=."),
    ] = None,
    rejects: Annotated[
        Path | None, typer.Option(help="Write rows that were refused into this file.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait until it is done.")] = True,
    as_json: AsJson = False,
) -> None:
    """Import contacts. Doing it again changes nothing twice. Exit status 1 when it failed.

    Example: mailyard import people.csv --list readers --map "Company=company" --rejects bad.csv
    """
    mapping = _mapping(column or [])
    if not file.is_file():
        raise InvalidInput(f"{file} is not a file")
    size_bytes = file.stat().st_size

    async def work(client: ApiClient) -> Any:
        list_id = await _list_id(client, to_list)
        with _bars(shown=not as_json) as bars:
            begun = await client.upload(
                "/v1/imports",
                _chunks(file, size_bytes, bars),
                "text/csv",
                file_name=file.name,
                list_id=list_id,
                mapping=msgspec.json.encode(mapping).decode() if mapping else None,
            )
            done = await _until_done(client, begun, bars) if wait else begun
        if rejects is not None and done["rows_rejected"]:
            refused = await client.request("GET", f"/v1/imports/{done['id']}/rejects.csv")
            await asyncio.to_thread(rejects.write_bytes, refused.body)
        return done

    done = ask(work)
    say(done, as_json, _told(done, rejects))
    if done["state"] == "failed":
        raise typer.Exit(exit_code.REFUSED)


def _told(done: dict[str, Any], rejects: Path | None) -> str:
    if done["state"] == "failed":
        return f"{done['id']} failed: {done['error']}"
    text = (
        f"{done['id']} {done['state']}: {done['rows_imported']:,} rows imported, "
        f"{done['rows_rejected']:,} rejected"
    )
    if done["rows_rejected"] and rejects is not None:
        return f"{text} (see {rejects})"
    return text


def _bars(*, shown: bool) -> Progress:
    return Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=progress_console(),
        disable=not shown,
    )


async def _chunks(file: Path, size_bytes: int, bars: Progress) -> AsyncIterator[bytes]:
    task = bars.add_task("Uploading", total=max(1, size_bytes))
    with file.open("rb") as opened:
        while chunk := await asyncio.to_thread(opened.read, _CHUNK_BYTES):
            yield chunk
            bars.advance(task, len(chunk))


async def _until_done(client: ApiClient, begun: dict[str, Any], bars: Progress) -> Any:
    task = bars.add_task("Importing", total=max(1, begun["size_bytes"]))
    while True:
        now = await client.get(f"/v1/imports/{begun['id']}")
        bars.update(task, completed=now["read_bytes"])
        if now["state"] in ("finished", "failed"):
            return now
        await asyncio.sleep(_LOOK_AGAIN_S)


async def _list_id(client: ApiClient, wanted: str | None) -> str | None:
    """The list's id: given as such, or found by its name, or made."""
    if wanted is None or wanted.startswith("lst_"):
        return wanted
    for one in await client.all("/v1/lists"):
        if one["name"] == wanted:
            return str(one["id"])
    return str((await client.post("/v1/lists", {"name": wanted}))["id"])


def _mapping(columns: list[str]) -> dict[str, str | None]:
    mapping: dict[str, str | None] = {}
    for column in columns:
        name, equals, meaning = column.rpartition("=")
        if not equals or not name:
            raise InvalidInput(f"--map wants COLUMN=MEANING, got {column!r}")
        mapping[name] = None if meaning in ("", ".") else meaning
    return mapping
