"""`mailyard tracking-domain`: names of your own that tracking links go by."""

from typing import Annotated, Any

import typer

from mailyard.cli import exit_code
from mailyard.cli.client import AsJson, ask, say, say_rows
from mailyard.proving.client import ApiClient

app = typer.Typer(add_completion=False, no_args_is_help=True)

_Domain = Annotated[str, typer.Argument(help="A tracking domain's id (tdm_…).")]


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="A name below your sending domain.")],
    as_json: AsJson = False,
) -> None:
    """Add a name; it says which record to publish.

    Example: mailyard tracking-domain add click.example.org
    """
    made = ask(lambda client: client.post("/v1/tracking-domains", {"name": name}))
    record = f"{made['name']}. CNAME {made['target']}."
    say(made, as_json, f"{made['id']}\nPublish, then check:\n  {record}")


@app.command()
def check(domain: _Domain, as_json: AsJson = False) -> None:
    """Look at its CNAME in DNS now. Exit status 1 when something is wrong.

    Example: mailyard tracking-domain check tdm_…
    """
    found = ask(lambda client: client.post(f"/v1/tracking-domains/{domain}/check"))
    say(found, as_json, found["finding"] or f"{found['name']} is in use")
    if not found["verified"]:
        raise typer.Exit(exit_code.REFUSED)


@app.command(name="list")
def list_domains(
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List names, the newest first.

    Example: mailyard tracking-domain list
    """

    async def work(client: ApiClient) -> Any:
        return await client.get("/v1/tracking-domains", limit=limit)

    columns = (("ID", "id"), ("Name", "name"), ("In use", "verified"), ("Finding", "finding"))
    say_rows(ask(work)["items"], as_json, columns)


@app.command()
def remove(domain: _Domain, as_json: AsJson = False) -> None:
    """Remove a name; links that were sent with it lead nowhere any more.

    Example: mailyard tracking-domain remove tdm_…
    """
    ask(lambda client: client.delete(f"/v1/tracking-domains/{domain}"))
    say({"id": domain, "removed": True}, as_json, f"{domain} removed")
