"""`mailyard delivery`: find deliveries, and read the whole story of one."""

from typing import Annotated, Any

import typer

from mailyard.cli.client import AsJson, ask, console, say, say_rows
from mailyard.proving.client import ApiClient

app = typer.Typer(add_completion=False, no_args_is_help=True)

_Delivery = Annotated[str, typer.Argument(help="A delivery's id (dlv_…).")]
_COLUMNS = (
    ("Queued", "queued_at"),
    ("Recipient", "recipient"),
    ("Type", "type"),
    ("State", "state"),
    ("Through", "transport"),
    ("Why", "reason"),
    ("ID", "id"),
)


@app.command(name="list")
def list_deliveries(
    to: Annotated[str | None, typer.Option(help="Of this recipient.")] = None,
    kind: Annotated[str | None, typer.Option("--type", help="Of this type.")] = None,
    state: Annotated[str | None, typer.Option(help="In this state, such as bounced.")] = None,
    campaign: Annotated[str | None, typer.Option(help="Of this campaign (cmp_…).")] = None,
    since: Annotated[str | None, typer.Option(help="Accepted since (RFC 3339).")] = None,
    until: Annotated[str | None, typer.Option(help="Accepted before (RFC 3339).")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many, newest first.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Find deliveries.

    Example: mailyard delivery list --to ada@example.org --state bounced
    """
    asked = {
        "recipient": to,
        "type": kind,
        "state": state,
        "campaign_id": campaign,
        "since": since,
        "until": until,
    }

    async def work(client: ApiClient) -> list[dict[str, Any]]:
        chosen = {name: value for name, value in asked.items() if value is not None}
        page: dict[str, list[dict[str, Any]]] = await client.get(
            "/v1/deliveries", limit=limit, **chosen
        )
        return page["items"]

    say_rows(ask(work), as_json, _COLUMNS)


@app.command()
def show(delivery: _Delivery, as_json: AsJson = False) -> None:
    """Tell a delivery's story: every attempt, who had the mail, what was answered, what came back.

    Example: mailyard delivery show dlv_…
    """
    found = ask(lambda client: client.get(f"/v1/deliveries/{delivery}"))
    if as_json:
        say(found, as_json, "")
        return
    out = console()
    out.print(f"{found['recipient']}: {found['state']}, {found['type']}, {found['attempts']} tries")
    for event in found["events"]:
        out.print(_line(event))
        if said := " ".join(str(event[name]) for name in ("reply_code", "detail") if event[name]):
            out.print(f"    {said}")
    for seen in found["tracking"]:
        by = f"machine: {seen['machine']}" if seen["machine"] else "a person"
        out.print(f"{seen['at']}  {seen['kind']} ({by}) {seen['url'] or ''}".rstrip())
    if found["next_attempt_at"]:
        out.print(f"{found['next_attempt_at']}  it is tried again")


def _line(event: dict[str, Any]) -> str:
    """One step of the story, without what was said."""
    told = event["told"]
    parts = [f"{event['at']}  {told or event['state']}"]
    if event["attempt"] and not told:
        parts.append(f"attempt {event['attempt']}")
    if event["transport"]:
        parts.append(f"through {event['transport']}")
    if event["source"]:
        parts.append(f"told by {event['source']}")
    if event["reason"]:
        parts.append(str(event["reason"]))
    if told and told != event["state"]:
        parts.append(f"it stays {event['state']}")
    if event["message"]:
        parts.append(f"the mail that told it has number {event['message']}")
    return ", ".join(parts)
