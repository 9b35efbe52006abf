"""`mailyard email`: look at a sent email, and withdraw what has not left."""

from typing import Annotated, Any

import typer

from mailyard.cli.client import AsJson, ask, say, say_rows
from mailyard.core.errors import NotFound
from mailyard.proving.client import ApiClient

app = typer.Typer(add_completion=False, no_args_is_help=True)

_Email = Annotated[str, typer.Argument(help="An email's id (eml_…).")]
_PAGE = 500


@app.command()
def show(email: _Email, as_json: AsJson = False) -> None:
    """Show where an email stands with each of its recipients.

    Example: mailyard email show eml_…
    """
    columns = (
        ("Recipient", "recipient"),
        ("State", "state"),
        ("Attempts", "attempts"),
        ("Next try", "next_attempt_at"),
        ("Reply", "reply"),
        ("ID", "id"),
    )
    say_rows(ask(lambda client: _deliveries(client, email)), as_json, columns)


@app.command()
def cancel(
    email: _Email,
    to: Annotated[
        list[str] | None, typer.Option("--to", help="Only these recipients, repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Withdraw an email from all whom it was not handed over to, or from some of them.

    Example: mailyard email cancel eml_… --to bob@example.org
    """

    async def work(client: ApiClient) -> Any:
        if not to:
            return await client.post(f"/v1/emails/{email}/cancel")
        wanted = {address.lower() for address in to}
        found = [
            one for one in await _deliveries(client, email) if one["recipient"].lower() in wanted
        ]
        missing = wanted - {one["recipient"].lower() for one in found}
        if missing:
            raise NotFound(f"the email has no recipient {', '.join(sorted(missing))}")
        done = [await client.post(f"/v1/deliveries/{one['id']}/cancel") for one in found]
        return {"recipients": [one["recipient"] for one in done]}

    cancelled = ask(work)
    say(cancelled, as_json, f"{email} withdrawn from {', '.join(cancelled['recipients'])}")


async def _deliveries(client: ApiClient, email: str) -> list[dict[str, Any]]:
    page: dict[str, list[dict[str, Any]]] = await client.get(
        "/v1/deliveries", email_id=email, limit=_PAGE
    )
    return page["items"]
