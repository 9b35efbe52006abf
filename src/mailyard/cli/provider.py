"""`mailyard provider`: the ways out of a workspace, how they fare, a try."""

import sys
from typing import Annotated, Any

import typer

from mailyard.cli.client import AsJson, ask, say, say_rows
from mailyard.core.errors import InvalidInput
from mailyard.proving.client import ApiClient

app = typer.Typer(add_completion=False, no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The provider's name, or its id.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting as name=value, repeatable; see the guide to providers."),
]
Secrets = Annotated[
    list[str] | None,
    typer.Option(
        "--secret",
        help="The name of a secret, repeatable; its value is a line of standard input, in order.",
    ),
]
_COLUMNS = (
    ("Name", "name"),
    ("Kind", "kind"),
    ("On", "enabled"),
    ("Shared", "shared"),
    ("Breaker", "breaker"),
    ("Accepted", "accepted"),
    ("Refused", "refused"),
    ("Unknown", "unknown"),
    ("Passed on", "passed_on"),
    ("Why", "why"),
)


@app.command(name="list")
def list_providers(as_json: AsJson = False) -> None:
    """List providers and how they fare.

    Example: mailyard provider list
    """

    async def work(client: ApiClient) -> list[dict[str, Any]]:
        return await client.all("/v1/providers")

    rows = ask(work)
    if rows or as_json:
        say_rows(rows if as_json else [_row(one) for one in rows], as_json, _COLUMNS)
    else:
        print("No providers yet: all mail takes the installation's own way out.")
        print("Add one: mailyard provider add office --kind smtp --set host=smtp.example.org")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Its name, for ever.")],
    kind: Annotated[
        str, typer.Option(help="smtp, ses, sendgrid, postmark, mailgun, resend, file, …")
    ],
    settings: Settings = None,
    secrets: Secrets = None,
    shared: Annotated[bool, typer.Option(help="For all workspaces (the operator alone).")] = False,
    as_json: AsJson = False,
) -> None:
    """Add a provider. It gets mail once a route names it.

    Example: mailyard provider add office --kind smtp --set host=smtp.example.org
    --set username=app --secret password
    """
    body = {
        "name": name,
        "kind": kind,
        "settings": _settings(settings),
        "secrets": _secrets(secrets),
        "shared": shared,
    }

    async def work(client: ApiClient) -> Any:
        return await client.post("/v1/providers", body)

    made = ask(work)
    say(made, as_json, f"{made['name']} ({made['id']}) is there; name it on a route")


@app.command()
def change(
    provider: Name,
    settings: Settings = None,
    secrets: Secrets = None,
    on: Annotated[bool | None, typer.Option("--on/--off", help="Whether it gets mail.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change settings, all of them together, or secrets, or switch it off and on.

    Example: mailyard provider change office --off
    """
    body: dict[str, Any] = {}
    if settings is not None:
        body["settings"] = _settings(settings)
    if secrets is not None:
        body["secrets"] = _secrets(secrets)
    if on is not None:
        body["enabled"] = on

    async def work(client: ApiClient) -> Any:
        return await client.call("PATCH", f"/v1/providers/{await _id(client, provider)}", body=body)

    changed = ask(work)
    say(changed, as_json, f"{changed['name']} is {'on' if changed['enabled'] else 'off'}")


@app.command()
def show(provider: Name, as_json: AsJson = False) -> None:
    """Show a provider and what its breaker did.

    Example: mailyard provider show office
    """

    async def work(client: ApiClient) -> Any:
        return await client.get(f"/v1/providers/{await _id(client, provider)}")

    one = ask(work)
    lines = [f"{name}: {value}" for name, value in _row(one).items() if value not in ("", None)]
    lines += [f"{name} = {value}" for name, value in one["settings"].items()]
    lines += [f"secret: {name}" for name in one["secrets"]]
    lines += [f"{event['at']} {event['position']} {event['why']}" for event in one["events"]]
    say(one, as_json, "\n".join(lines))


@app.command()
def test(
    provider: Name,
    sender: Annotated[str, typer.Option("--from", help="Who writes.")],
    to: Annotated[str, typer.Option(help="Who gets the mail.")],
    as_json: AsJson = False,
) -> None:
    """Send one test mail through a provider now; exit code 1 when it is not accepted.

    Example: mailyard provider test office --from app@example.org --to me@example.org
    """

    async def work(client: ApiClient) -> Any:
        path = f"/v1/providers/{await _id(client, provider)}/test"
        return await client.post(path, {"from": sender, "to": to})

    said = ask(work)
    code = f"{said['reply_code']} " if said["reply_code"] else ""
    say(said, as_json, f"{said['outcome']}: {code}{said['reply']}")
    if said["outcome"] != "accepted":
        raise typer.Exit(1)


@app.command()
def remove(provider: Name, as_json: AsJson = False) -> None:
    """Remove a provider that no route names.

    Example: mailyard provider remove office
    """

    async def work(client: ApiClient) -> Any:
        await client.delete(f"/v1/providers/{await _id(client, provider)}")
        return {"removed": provider}

    say(ask(work), as_json, f"{provider} is gone")


async def _id(client: ApiClient, provider: str) -> str:
    """The id of the provider with that name or id."""
    for one in await client.all("/v1/providers"):
        if provider in (one["id"], one["name"]):
            return str(one["id"])
    raise InvalidInput(f"there is no provider {provider!r}; `mailyard provider list` shows them")


def _row(one: dict[str, Any]) -> dict[str, Any]:
    health = one["health"]
    return {
        "name": one["name"],
        "kind": one["kind"],
        "enabled": one["enabled"],
        "shared": one["shared"],
        "breaker": health["position"] or "unused",
        **{name: health[name] for name in ("accepted", "refused", "unknown", "passed_on", "why")},
    }


def _settings(given: list[str] | None) -> dict[str, Any]:
    """`name=value` pairs; whole numbers, true and false are what they look like."""
    settings: dict[str, Any] = {}
    for pair in given or []:
        name, equals, text = pair.partition("=")
        if not equals:
            raise InvalidInput(f"{pair!r} is no setting; write it as name=value")
        words: dict[str, Any] = {"true": True, "false": False}
        value: Any = words.get(text, text)
        if text.isascii() and text.isdigit():
            value = int(text)
        settings[name] = value
    return settings


def _secrets(names: list[str] | None) -> dict[str, str]:
    """Read from standard input, so that they stand in no history and no list of processes."""
    secrets = {}
    for name in names or []:
        if sys.stdin.isatty():
            secrets[name] = typer.prompt(name, hide_input=True)
        else:
            secrets[name] = sys.stdin.readline().rstrip("\r\n")
    return secrets
