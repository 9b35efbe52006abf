"""`mailyard suppression`: whom the workspace does not write to, and why."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import typer

from mailyard.cli import exit_code
from mailyard.cli.client import AsJson, ask, console, say, say_rows
from mailyard.core.errors import InvalidInput
from mailyard.core.limits import KIB
from mailyard.proving.client import ApiClient

app = typer.Typer(add_completion=False, no_args_is_help=True)

_CHUNK_BYTES = 256 * KIB
_SHOWN_ERRORS = 20
_COLUMNS = (
    ("Address", "address"),
    ("Stream", "stream"),
    ("Reason", "reason"),
    ("Source", "source"),
    ("Since", "created_at"),
    ("ID", "id"),
)
_Stream = Annotated[str, typer.Option(help="all, or campaign: campaigns only.")]
_Reason = Annotated[str, typer.Option(help="hard_bounce, complaint, unsubscribed or by_hand.")]


@app.command(name="list")
def list_suppressions(
    address: Annotated[str, typer.Option(help="Only this address.")] = "",
    stream: _Stream = "",
    reason: _Reason = "",
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List addresses that get no mail, the newest first.

    Example: mailyard suppression list --reason hard_bounce
    """
    query = {"address": address, "stream": stream, "reason": reason, "limit": limit}

    async def work(client: ApiClient) -> Any:
        return await client.get(
            "/v1/suppressions", **{name: value for name, value in query.items() if value}
        )

    say_rows(ask(work)["items"], as_json, _COLUMNS)


@app.command()
def add(
    address: Annotated[str, typer.Argument(help="Who shall get no mail.")],
    stream: _Stream = "all",
    reason: _Reason = "by_hand",
    evidence: Annotated[str, typer.Option(help="What is known about it.")] = "",
    as_json: AsJson = False,
) -> None:
    """Stop mail to an address.

    Example: mailyard suppression add ada@example.org --stream campaign
    """
    body = {"address": address, "stream": stream, "reason": reason, "evidence": evidence}

    async def work(client: ApiClient) -> Any:
        return await client.post("/v1/suppressions", body)

    made = ask(work)
    say(made, as_json, f"{made['address']}  {made['stream']}  {made['id']}")


@app.command()
def remove(
    address: Annotated[str, typer.Argument(help="An address, or an entry's id (sup_…).")],
    as_json: AsJson = False,
) -> None:
    """Allow mail to an address again, in every stream.

    Example: mailyard suppression remove ada@example.org
    """

    async def work(client: ApiClient) -> Any:
        if address.startswith("sup_"):
            found = [address]
        else:
            listed = await client.get("/v1/suppressions", address=address, limit=10)
            found = [one["id"] for one in listed["items"]]
        for entry in found:
            await client.delete(f"/v1/suppressions/{entry}")
        return {"removed": found}

    gone = ask(work)
    say(gone, as_json, f"{len(gone['removed'])} removed")
    if not gone["removed"]:
        raise typer.Exit(exit_code.REFUSED)


@app.command(name="import")
def import_file(
    file: Annotated[Path, typer.Argument(help="A CSV file with a column named address.")],
    stream: _Stream = "all",
    reason: _Reason = "by_hand",
    as_json: AsJson = False,
) -> None:
    """Bring in the suppressions of another system. Doing it again changes nothing twice.

    Exit status 1 when some line was refused; each is named.

    Example: mailyard suppression import bounces.csv --reason hard_bounce
    """
    if not file.is_file():
        raise InvalidInput(f"{file} is not a file")

    async def work(client: ApiClient) -> Any:
        return await client.upload(
            "/v1/suppressions/import",
            _chunks(file),
            "text/csv",
            file_name=file.name,
            stream=stream,
            reason=reason,
        )

    done = ask(work)
    text = f"{done['added']:,} added, {done['stood']:,} stood already, {done['rejected']:,} refused"
    say(done, as_json, text)
    if done["rejected"] and not as_json:
        for error in done["errors"][:_SHOWN_ERRORS]:
            console().print(f"  line {error['line']}: {error['reason']}")
    if done["rejected"]:
        raise typer.Exit(exit_code.REFUSED)


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="Where the CSV file goes.")],
    as_json: AsJson = False,
) -> None:
    """Write the whole list as CSV. No cell begins like a formula.

    Example: mailyard suppression export suppressions.csv
    """

    async def work(client: ApiClient) -> int:
        answer = await client.request("GET", "/v1/suppressions/export.csv")
        await asyncio.to_thread(file.write_bytes, answer.body)
        return len(answer.body)

    size_bytes = ask(work)
    say({"file": str(file), "bytes": size_bytes}, as_json, f"{file}: {size_bytes:,} bytes")


async def _chunks(file: Path) -> AsyncIterator[bytes]:
    with file.open("rb") as opened:
        while chunk := await asyncio.to_thread(opened.read, _CHUNK_BYTES):
            yield chunk
