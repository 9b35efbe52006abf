"""`mailyard address`: addresses that the workspace holds, with or without an inbox."""

from typing import Annotated

import typer

from mailyard.cli.client import AsJson, ask, say, say_rows
from mailyard.proving.client import ApiClient

app = typer.Typer(add_completion=False, no_args_is_help=True)
_PAGE = 500


@app.command()
def hold(
    addresses: Annotated[list[str], typer.Argument(help="Whole addresses.")],
    as_json: AsJson = False,
) -> None:
    """Hold addresses, with or without an inbox: nobody else can have them.

    Example: mailyard address hold support@inbox.localhost
    """
    held = ask(lambda client: client.post("/v1/reserved-addresses", {"addresses": addresses}))
    say(held, as_json, f"{len(held['items'])} held")


@app.command(name="list")
def list_held(as_json: AsJson = False) -> None:
    """List the addresses that are held for this workspace.

    Example: mailyard address list
    """

    async def work(client: ApiClient) -> list[dict[str, str]]:
        items: list[str] = []
        while True:
            after = items[-1] if items else ""
            page = (await client.get("/v1/reserved-addresses", after=after, limit=_PAGE))["items"]
            items += page
            if len(page) < _PAGE:
                return [{"address": one} for one in items]

    say_rows(ask(work), as_json, (("Address", "address"),))


@app.command()
def release(
    addresses: Annotated[list[str], typer.Argument(help="Whole addresses.")],
    as_json: AsJson = False,
) -> None:
    """Let held addresses go.

    Example: mailyard address release support@inbox.localhost
    """
    body = {"addresses": addresses}
    gone = ask(lambda client: client.post("/v1/reserved-addresses/release", body))
    say(gone, as_json, f"{len(gone['items'])} let go")
