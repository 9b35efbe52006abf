"""`mailyard route`: which providers may have which mail."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from mailyard.cli.client import AsJson, ask, say, say_rows
from mailyard.cli.files import read_text
from mailyard.core.errors import InvalidInput
from mailyard.proving.client import ApiClient

app = typer.Typer(add_completion=False, no_args_is_help=True)

Shared = Annotated[
    bool, typer.Option(help="Those for workspaces without routes of their own (operator alone).")
]
_COLUMNS = (("Route", "name"), ("When", "when"), ("Providers", "legs"))


@app.command(name="list")
def list_routes(shared: Shared = False, as_json: AsJson = False) -> None:
    """List the routes, from the top.

    Example: mailyard route list
    """

    async def work(client: ApiClient) -> Any:
        return await client.get("/v1/routes", **({"shared": "true"} if shared else {}))

    found = ask(work)
    rows = found["items"] if as_json else [_row(one) for one in found["items"]]
    say_rows(rows, as_json, _COLUMNS)
    if not as_json:
        print(f"in force: {found['in_force']}")


@app.command(name="set")
def set_routes(
    legs: Annotated[
        list[str] | None,
        typer.Argument(help="For one route for all mail: name, name:weight or name:weight:order."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="All routes as JSON, as `route list --json` has them; -.")
    ] = None,
    shared: Shared = False,
    as_json: AsJson = False,
) -> None:
    """Set all routes: one for all mail, or those in a file.

    Example: mailyard route set ses-ireland:3 sendgrid:1 relay:1:1
    """
    if (file is None) is not bool(legs):
        raise InvalidInput("give providers for one route, or --file, and not both")
    routes = _from_file(file) if file is not None else [{"name": "all", "legs": _legs(legs or [])}]
    _put(routes, shared, as_json)


@app.command()
def clear(shared: Shared = False, as_json: AsJson = False) -> None:
    """Take all routes away: mail goes by the shared ones, or the relay of the settings.

    Example: mailyard route clear
    """
    _put([], shared, as_json)


def _put(routes: list[Any], shared: bool, as_json: bool) -> None:
    async def work(client: ApiClient) -> Any:
        return await client.call("PUT", "/v1/routes", body={"routes": routes, "shared": shared})

    found = ask(work)
    count = len(found["items"])
    say(found, as_json, f"{count} routes; this workspace's mail goes by: {found['in_force']}")


def _legs(texts: list[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for text in texts:
        name, *numbers = text.split(":")
        if len(numbers) > 2 or not all(one.isascii() and one.isdigit() for one in numbers):
            raise InvalidInput(f"{text!r}: write name, name:weight or name:weight:order")
        found.append(
            {"provider": name, **dict(zip(("weight", "order"), map(int, numbers), strict=False))}
        )
    return found


def _from_file(file: Path) -> list[Any]:
    try:
        given = msgspec.json.decode(read_text(file))
    except msgspec.DecodeError as error:
        raise InvalidInput(f"{file} cannot be read as JSON: {error}") from None
    routes = given.get("items") if isinstance(given, dict) else given
    if not isinstance(routes, list):
        raise InvalidInput(f"{file} holds no list of routes")
    return routes


def _row(route: dict[str, Any]) -> dict[str, str]:
    when = "; ".join(f"{name}: {', '.join(of)}" for name, of in route["when"].items() if of)
    legs = ", ".join(
        f"{leg['provider']} ({leg['weight']}{', then' if leg['order'] else ''})"
        for leg in sorted(route["legs"], key=lambda leg: leg["order"])
    )
    return {"name": route["name"], "when": when or "always", "legs": legs}
