"""`mailyard segment`: make, change, list, estimate and count segments, and show who is in one."""

from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from mailyard.cli.client import AsJson, ask, progress_console, say, say_rows
from mailyard.proving.client import ApiClient

app = typer.Typer(add_completion=False, no_args_is_help=True)

_Segment = Annotated[str, typer.Argument(help="A segment's id (seg_…).")]
_Filter = Annotated[
    str, typer.Argument(help='A filter, as in: country = "DE" and opened within 30 days.')
]
_Which = Annotated[str, typer.Argument(help="A segment's id (seg_…), or a filter.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="A name for people.")],
    filter_text: _Filter,
    as_json: AsJson = False,
) -> None:
    """Make a segment.

    Example: mailyard segment create Readers 'opened within 30 days and not list "churned"'
    """

    async def work(client: ApiClient) -> Any:
        return await client.post("/v1/segments", {"name": name, "filter": filter_text})

    made = ask(work)
    say(made, as_json, f"{made['id']} {made['name']}")


@app.command()
def change(
    segment: _Segment,
    filter_text: Annotated[str, typer.Option("--filter", help="Another filter.")] = "",
    name: Annotated[str, typer.Option(help="Another name.")] = "",
    as_json: AsJson = False,
) -> None:
    """Change a segment's filter or name.

    Example: mailyard segment change seg_… --filter 'opened within 60 days'
    """
    given = {"name": name, "filter": filter_text}
    body = {key: value for key, value in given.items() if value}

    async def work(client: ApiClient) -> Any:
        return await client.call("PATCH", f"/v1/segments/{segment}", body=body)

    changed = ask(work)
    say(changed, as_json, f"{changed['id']} {changed['name']}: {changed['filter']}")


@app.command()
def delete(segment: _Segment, as_json: AsJson = False) -> None:
    """Remove a segment; its contacts stay.

    Example: mailyard segment delete seg_…
    """
    ask(lambda client: client.delete(f"/v1/segments/{segment}"))
    say({"id": segment, "deleted": True}, as_json, f"{segment} removed")


@app.command()
def estimate(which: _Which, as_json: AsJson = False) -> None:
    """Say how many contacts match, about, at once.

    Example: mailyard segment estimate 'country = "DE" and plan = "pro"'
    """

    async def work(client: ApiClient) -> Any:
        return await client.post(
            "/v1/segments/estimate", {"filter": await _filter_of(client, which)}
        )

    found = ask(work)
    between = f" ({found['low']:,} to {found['high']:,})" if found["low"] < found["high"] else ""
    say(found, as_json, f"{found['contacts']:,}{between} of {found['of']:,} contacts")


@app.command()
def count(which: _Which, as_json: AsJson = False) -> None:
    """Count exactly how many contacts match, and show how far it is.

    Example: mailyard segment count seg_…
    """

    async def work(client: ApiClient) -> Any:
        body: dict[str, Any] = {"filter": await _filter_of(client, which)}
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
        contacts = 0
        with Progress(*columns, console=progress_console(), disable=as_json) as bars:
            task = bars.add_task("Counting", total=None)
            while True:
                step = await client.post("/v1/segments/count", body)
                contacts += step["contacts"]
                bars.update(task, total=step["of"], advance=step["looked"])
                if step["next_cursor"] is None:
                    return contacts
                body["cursor"] = step["next_cursor"]

    contacts = ask(work)
    say({"contacts": contacts}, as_json, f"{contacts:,} contacts")


@app.command()
def contacts(
    segment: _Segment,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Show some of the contacts in a segment.

    Example: mailyard segment contacts seg_…
    """

    async def work(client: ApiClient) -> Any:
        return await client.get(f"/v1/segments/{segment}/contacts", limit=limit)

    columns = (("ID", "id"), ("Address", "address"), ("Name", "name"))
    say_rows(ask(work)["items"], as_json, columns)


@app.command(name="list")
def list_segments(
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List segments, the newest first.

    Example: mailyard segment list
    """

    async def work(client: ApiClient) -> Any:
        return await client.get("/v1/segments", limit=limit)

    columns = (("ID", "id"), ("Name", "name"), ("Filter", "filter"))
    say_rows(ask(work)["items"], as_json, columns)


async def _filter_of(client: ApiClient, which: str) -> str:
    """The filter of a segment, or what was said instead of its id."""
    if not which.startswith("seg_"):
        return which
    segment = await client.get(f"/v1/segments/{which}")
    return str(segment["filter"])
