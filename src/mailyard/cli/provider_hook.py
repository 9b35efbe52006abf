"""`mailyard provider-hook`: the addresses to which providers send what became of mail."""

import sys
from typing import Annotated, Any

import typer

from mailyard.cli.client import AsJson, ask, say, say_rows
from mailyard.core.errors import InvalidInput
from mailyard.proving.client import ApiClient

app = typer.Typer(add_completion=False, no_args_is_help=True)

_COLUMNS = (("ID", "id"), ("Provider", "kind"), ("Name", "name"), ("Confirmed", "confirmed_at"))
_Secret = Annotated[
    str,
    typer.Option(
        help="What its requests are checked with; without it, read from standard input. SES: the "
        "topic's ARN. SendGrid: the verification key. Postmark: name:password. Mailgun: the "
        "webhook signing key. Resend: whsec_…"
    ),
]


@app.command()
def add(
    kind: Annotated[str, typer.Argument(help="ses, sendgrid, postmark, mailgun or resend.")],
    name: Annotated[str, typer.Argument(help="A name for people.")],
    secret: _Secret = "",
    as_json: AsJson = False,
) -> None:
    """Make an address for a provider's events. It is shown once.

    Example: mailyard provider-hook add mailgun "Mailgun EU" < signing-key
    """
    body = {"kind": kind, "name": name, "secret": _secret(secret)}

    async def work(client: ApiClient) -> Any:
        return await client.post("/v1/provider-hooks", body)

    made = ask(work)
    say(made, as_json, f"{made['id']}\n{made['url']}")


@app.command(name="list")
def list_hooks(as_json: AsJson = False) -> None:
    """List the addresses for providers' events.

    Example: mailyard provider-hook list
    """

    async def work(client: ApiClient) -> Any:
        return await client.get("/v1/provider-hooks", limit=500)

    say_rows(ask(work)["items"], as_json, _COLUMNS)


@app.command()
def secret(
    hook: Annotated[str, typer.Argument(help="An id (hok_…).")],
    secret: _Secret = "",
    as_json: AsJson = False,
) -> None:
    """Change what a provider's requests are checked with.

    Example: mailyard provider-hook secret hok_01jz… < new-signing-key
    """
    body = {"secret": _secret(secret)}

    async def work(client: ApiClient) -> Any:
        return await client.call("PUT", f"/v1/provider-hooks/{hook}/secret", body=body)

    changed = ask(work)
    say(changed, as_json, f"{changed['id']} changed")


@app.command()
def remove(
    hook: Annotated[str, typer.Argument(help="An id (hok_…).")], as_json: AsJson = False
) -> None:
    """Remove an address: the provider's events are refused from then on.

    Example: mailyard provider-hook remove hok_01jz…
    """

    async def work(client: ApiClient) -> None:
        await client.delete(f"/v1/provider-hooks/{hook}")

    ask(work)
    say({"id": hook}, as_json, f"{hook} removed")


def _secret(given: str) -> str:
    if given:
        return given
    read = sys.stdin.readline().strip()
    if not read:
        raise InvalidInput("a secret is needed: give --secret, or a line on standard input")
    return read
