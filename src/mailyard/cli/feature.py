"""`mailyard feature`: features that come gradually."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from mailyard.cli.client import AsJson, ask, say, say_rows
from mailyard.proving.client import ApiClient

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.command(name="list")
def list_features(as_json: AsJson = False) -> None:
    """List what is on its way, and to how many workspaces it comes. For operators.

    Example: mailyard feature list
    """
    rows = ask(lambda client: client.get("/v1/features"))["items"]
    say_rows(
        rows,
        as_json,
        [
            ("Name", "name"),
            ("Percent", "percent"),
            ("Workspaces", "having"),
            ("of", "counted"),
            ("About", "about"),
        ],
    )


@app.command(name="set")
def set_feature(
    name: Annotated[str, typer.Argument(help="The feature.")],
    percent: Annotated[int, typer.Argument(help="0, 25, 50 or 100 of the workspaces.")],
    as_json: AsJson = False,
) -> None:
    """Let a feature come to more workspaces, or to none. For operators.

    Example: mailyard feature set person-limit 25
    """

    async def work(client: ApiClient) -> Any:
        path = f"/v1/features/{quote(name, safe='')}"
        return await client.call("PATCH", path, body={"percent": percent})

    say(ask(work), as_json, f"{name} comes to {percent} % of the workspaces")
