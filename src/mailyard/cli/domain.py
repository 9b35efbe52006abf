"""`mailyard domain`: the domains that mail is sent from, their DNS records, their keys."""

from typing import Annotated, Any

import typer

from mailyard.cli import exit_code
from mailyard.cli.client import AsJson, ask, console, say, say_rows
from mailyard.cli.preflight import say_preflight
from mailyard.core.errors import NotFound
from mailyard.proving.client import ApiClient

app = typer.Typer(add_completion=False, no_args_is_help=True)

_Domain = Annotated[str, typer.Argument(help="A domain's name, or its id (dom_…).")]
_COLUMNS = (
    ("ID", "id"),
    ("Name", "name"),
    ("Status", "status"),
    ("Signs", "signs"),
    ("Return-path", "return_path"),
    ("Checked", "checked_at"),
)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The domain, such as example.org.")],
    return_path: Annotated[
        str, typer.Option(help="A name under it to which its mail comes back, such as bounces.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Add a domain with new keys, and show the DNS records to set.

    Example: mailyard domain add example.org --return-path bounces
    """
    body = {"name": name, "return_path": return_path}
    _show(ask(lambda client: client.post("/v1/domains", body)), as_json)


@app.command(name="list")
def list_domains(as_json: AsJson = False) -> None:
    """List sending domains, the newest first.

    Example: mailyard domain list
    """
    say_rows(ask(lambda client: client.all("/v1/domains")), as_json, _COLUMNS)


@app.command()
def show(domain: _Domain, as_json: AsJson = False) -> None:
    """Show a domain's records and how they stood at the last check.

    Example: mailyard domain show example.org
    """
    _show(ask(lambda client: _found(client, domain)), as_json)


@app.command()
def check(domain: _Domain, as_json: AsJson = False) -> None:
    """Look at a domain's records in DNS now. Exit status 1 when a required one does not stand.

    Example: mailyard domain check example.org
    """

    async def work(client: ApiClient) -> Any:
        return await client.post(f"/v1/domains/{await _id(client, domain)}/check")

    checked = ask(work)
    _show(checked, as_json)
    if checked["status"] != "ready":
        raise typer.Exit(exit_code.REFUSED)


@app.command()
def preflight(domain: _Domain, as_json: AsJson = False) -> None:
    """Look whether receivers would take a campaign from it well. Exit status 1 when an item blocks.

    Example: mailyard domain preflight example.org
    """

    async def work(client: ApiClient) -> Any:
        return await client.get(f"/v1/domains/{await _id(client, domain)}/preflight")

    say_preflight(ask(work), as_json)


@app.command()
def zone(domain: _Domain) -> None:
    """Print a domain's records as lines of a zone file, to import them at a DNS host.

    Example: mailyard domain zone example.org > example.org.zone
    """
    for record in ask(lambda client: _found(client, domain))["records"]:
        print(record["zone"])


@app.command()
def rotate(domain: _Domain, as_json: AsJson = False) -> None:
    """Make new keys; the old ones sign until a check sees the records of the new ones.

    Example: mailyard domain rotate example.org
    """

    async def work(client: ApiClient) -> Any:
        return await client.post(f"/v1/domains/{await _id(client, domain)}/rotate")

    _show(ask(work), as_json)


@app.command(name="return-path")
def return_path(
    domain: _Domain,
    name: Annotated[str, typer.Argument(help="A name under the domain; '' for the shared one.")],
    as_json: AsJson = False,
) -> None:
    """Let a domain's mail come back to a name of its own, once its records stand.

    Example: mailyard domain return-path example.org bounces
    """

    async def work(client: ApiClient) -> Any:
        where = f"/v1/domains/{await _id(client, domain)}"
        return await client.call("PATCH", where, body={"return_path": name})

    _show(ask(work), as_json)


@app.command()
def remove(domain: _Domain, as_json: AsJson = False) -> None:
    """Take a domain and its keys away: its mail is not signed any more.

    Example: mailyard domain remove example.org
    """

    async def work(client: ApiClient) -> str:
        domain_id = await _id(client, domain)
        await client.delete(f"/v1/domains/{domain_id}")
        return domain_id

    gone = ask(work)
    say({"id": gone}, as_json, f"{gone} removed")


async def _found(client: ApiClient, domain: str) -> dict[str, Any]:
    if domain.startswith("dom_"):
        found: dict[str, Any] = await client.get(f"/v1/domains/{domain}")
        return found
    for one in await client.all("/v1/domains"):
        if one["name"] == domain.lower().removesuffix("."):
            return one
    raise NotFound(f"{domain} is no sending domain here; `mailyard domain list` names them")


async def _id(client: ApiClient, domain: str) -> str:
    return str((await _found(client, domain))["id"])


def _show(domain: dict[str, Any], as_json: bool) -> None:
    if as_json:
        say(domain, as_json, "")
        return
    out = console()
    signs = "its mail is signed" if domain["signs"] else "its mail is not signed yet"
    out.print(f"{domain['name']} {domain['id']}: {domain['status']}; {signs}")
    for record in domain["records"]:
        needed = "" if record["required"] else ", not required"
        out.print(f"\n{record['state']}: {record['kind']} {record['name']}{needed}")
        out.print(f"  {record['value']}", soft_wrap=True)
        _say_problem(record)
        for value in record["remove"]:
            out.print(f"  remove: {value}", soft_wrap=True)
    for one in domain["checks"]:
        out.print(f"\n{one['state']}: {one['purpose'].replace('_', ' ')} {one['name']}")
        _say_problem(one)


def _say_problem(found: dict[str, Any]) -> None:
    if found["problem"]:
        console().print(f"  {found['problem']}", soft_wrap=True)
    if found["write"] and found["write"] != found.get("value"):
        console().print(f"  write: {found['write']}", soft_wrap=True)
