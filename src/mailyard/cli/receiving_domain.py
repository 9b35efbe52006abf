"""`mailyard receiving-domain`: receive for domains of your own, and say where their mail goes."""

from typing import Annotated, Any

import typer

from mailyard.cli import exit_code
from mailyard.cli.client import AsJson, ask, console, say, say_rows
from mailyard.core.errors import NotFound
from mailyard.proving.client import ApiClient

app = typer.Typer(add_completion=False, no_args_is_help=True)

_Domain = Annotated[str, typer.Argument(help="A domain's name, or its id (rdm_…).")]
_COLUMNS = (
    ("ID", "id"),
    ("Name", "name"),
    ("Yours", "proved"),
    ("MX", "mx_state"),
    ("Checked", "checked_at"),
)
_ROUTE_COLUMNS = (
    ("ID", "id"),
    ("Pattern", "pattern"),
    ("Action", "action"),
    ("Inbox", "inbox"),
    ("Forward to", "forward_to"),
)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The domain, such as example.org.")],
    as_json: AsJson = False,
) -> None:
    """Add a domain, and show the DNS records to set.

    Example: mailyard receiving-domain add example.org
    """
    _show(ask(lambda client: client.post("/v1/receiving-domains", {"name": name})), as_json)


@app.command(name="list")
def list_domains(as_json: AsJson = False) -> None:
    """List receiving domains, the newest first.

    Example: mailyard receiving-domain list
    """
    say_rows(ask(lambda client: client.all("/v1/receiving-domains")), as_json, _COLUMNS)


@app.command()
def check(domain: _Domain, as_json: AsJson = False) -> None:
    """Look at a domain's proof and MX in DNS now. Exit status 1 when it does not receive yet.

    Example: mailyard receiving-domain check example.org
    """

    async def work(client: ApiClient) -> Any:
        return await client.post(f"/v1/receiving-domains/{await _id(client, domain)}/check")

    checked = ask(work)
    _show(checked, as_json)
    if not checked["proved"]:
        raise typer.Exit(exit_code.REFUSED)


@app.command()
def route(
    domain: _Domain,
    pattern: Annotated[str, typer.Argument(help="A name, a pattern like support-*, or *.")],
    action: Annotated[str, typer.Argument(help="inbox, forward, webhook, drop or refuse.")],
    to: Annotated[
        list[str] | None, typer.Argument(help="An inbox's address, or addresses to forward to.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say where mail goes that is no inbox's.

    Example: mailyard receiving-domain route example.org 'support-*' forward team@example.net
    """
    body: dict[str, Any] = {"pattern": pattern, "action": action}
    if action == "inbox":
        body["inbox"] = (to or [""])[0]
    elif to:
        body["forward_to"] = to

    async def work(client: ApiClient) -> Any:
        return await client.post(f"/v1/receiving-domains/{await _id(client, domain)}/routes", body)

    made = ask(work)
    say(made, as_json, f"{made['pattern']}: {made['action']}  {made['id']}")


@app.command()
def routes(domain: _Domain, as_json: AsJson = False) -> None:
    """List a domain's routes, in the order in which they are asked.

    Example: mailyard receiving-domain routes example.org
    """

    async def work(client: ApiClient) -> Any:
        return await client.get(f"/v1/receiving-domains/{await _id(client, domain)}/routes")

    say_rows(ask(work)["items"], as_json, _ROUTE_COLUMNS)


@app.command(name="remove-route")
def remove_route(
    route_id: Annotated[str, typer.Argument(help="A route's id (irt_…).")], as_json: AsJson = False
) -> None:
    """Take a route away, and its own inbox with the mail in it.

    Example: mailyard receiving-domain remove-route irt_01h455vb4pex5vsknk084sn02q
    """
    ask(lambda client: client.delete(f"/v1/inbound-routes/{route_id}"))
    say({"id": route_id}, as_json, f"{route_id} removed")


@app.command()
def policy(
    allow: Annotated[list[str] | None, typer.Option(help="Passes everything below.")] = None,
    block: Annotated[list[str] | None, typer.Option(help="Refused.")] = None,
    per_minute: Annotated[int | None, typer.Option(help="Recipients of one network.")] = None,
    greylist: Annotated[int | None, typer.Option(help="Seconds a stranger waits.")] = None,
    tag_spam_at: Annotated[float | None, typer.Option(help="Points.")] = None,
    refuse_spam_at: Annotated[float | None, typer.Option(help="Points.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Take mail from everybody.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show whom the workspace takes mail from; with an option, say it anew as a whole.

    Example: mailyard receiving-domain policy --block bad.example --greylist 300
    """
    body = {
        "allowed": allow or [],
        "blocked": block or [],
        "source_per_minute": per_minute,
        "greylist_s": greylist,
        "spam_tag_at": tag_spam_at,
        "spam_refuse_at": refuse_spam_at,
    }

    async def work(client: ApiClient) -> Any:
        if clear or any(body.values()):
            return await client.call("PUT", "/v1/mail-policy", body=body)
        return await client.get("/v1/mail-policy")

    found = ask(work)
    say(found, as_json, "\n".join(f"{name}: {value}" for name, value in found.items()))


@app.command()
def remove(domain: _Domain, as_json: AsJson = False) -> None:
    """Stop receiving for a domain: its addresses take no mail any more.

    Example: mailyard receiving-domain remove example.org
    """

    async def work(client: ApiClient) -> str:
        domain_id = await _id(client, domain)
        await client.delete(f"/v1/receiving-domains/{domain_id}")
        return domain_id

    gone = ask(work)
    say({"id": gone}, as_json, f"{gone} removed")


async def _id(client: ApiClient, domain: str) -> str:
    if domain.startswith("rdm_"):
        return domain
    for one in await client.all("/v1/receiving-domains"):
        if one["name"] == domain.lower().removesuffix("."):
            return str(one["id"])
    raise NotFound(
        f"{domain} is no receiving domain here; `mailyard receiving-domain list` names them"
    )


def _show(domain: dict[str, Any], as_json: bool) -> None:
    if as_json:
        say(domain, as_json, "")
        return
    out = console()
    out.print(f"{domain['name']} {domain['id']}")
    state = "it is yours" if domain["proved"] else "it is not shown to be yours yet"
    out.print(f"\n{state}: TXT {domain['proof_name']}\n  {domain['proof_text']}", soft_wrap=True)
    if domain["finding"]:
        out.print(f"  {domain['finding']}", soft_wrap=True)
    out.print(f"\n{domain['mx_state']}: MX {domain['name']}\n  10 {domain['mx_host']}")
    if domain["mx_finding"]:
        out.print(f"  {domain['mx_finding']}", soft_wrap=True)
