"""`mailyard plan`: what the workspace uses, the plans, and who has which."""

from typing import Annotated, Any

import typer

from mailyard.cli.client import AsJson, ask, say, say_rows
from mailyard.proving.client import ApiClient

app = typer.Typer(add_completion=False, no_args_is_help=True)

_PLAN_COLUMNS = (
    ("Plan", "name"),
    ("Price", "price_per_month"),
    ("", "currency"),
    ("Inboxes", "inboxes"),
    ("Mails a day", "messages_per_day"),
    ("Sends a day", "sends_per_day"),
    ("Requests/s", "requests_per_s"),
    ("Days", "retention_days"),
    ("Live", "live_connections"),
)
_METER_COLUMNS = (
    ("What", "kind"),
    ("Used", "used"),
    ("Limit", "limit"),
    ("", "level"),
    ("Begins anew", "resets_at"),
)


@app.command()
def usage(as_json: AsJson = False) -> None:
    """Show what the workspace uses of its plan.

    Example: mailyard plan usage
    """

    async def work(client: ApiClient) -> Any:
        return await client.get("/v1/usage", days=7)

    used = ask(work)
    if as_json:
        say(used, as_json, "")
        return
    print(f"plan: {used['plan']['name']}" if used["plan"] else "no plan, no limits")
    say_rows(used["meters"], as_json, _METER_COLUMNS)


@app.command(name="list")
def list_plans(as_json: AsJson = False) -> None:
    """List the plans of the file that MAILYARD_PLANS_FILE names.

    Example: mailyard plan list
    """

    async def work(client: ApiClient) -> Any:
        return await client.get("/v1/plans")

    say_rows(ask(work)["items"], as_json, _PLAN_COLUMNS)


@app.command()
def assign(
    workspace: Annotated[str, typer.Argument(help="A workspace's id (wsp_…).")],
    plan: Annotated[str, typer.Argument(help="A plan's name; none takes its plan away.")],
    as_json: AsJson = False,
) -> None:
    """Give a workspace a plan. Needs an admin key of the installation's first workspace.

    Example: mailyard plan assign wsp_… team
    """
    body = {"workspace_id": workspace, "plan": "" if plan == "none" else plan}

    async def work(client: ApiClient) -> Any:
        return await client.post("/v1/plans/assign", body)

    given = ask(work)
    say(given, as_json, f"{workspace}: {given['plan'] or 'no plan'}")
