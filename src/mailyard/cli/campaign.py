"""`mailyard campaign`: make, start, pause, resume, cancel, watch and list campaigns."""

import asyncio
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mailyard.cli import exit_code
from mailyard.cli.client import AsJson, ask, progress_console, say, say_rows
from mailyard.cli.preflight import say_preflight
from mailyard.proving.client import ApiClient

app = typer.Typer(add_completion=False, no_args_is_help=True)

_Campaign = Annotated[str, typer.Argument(help="A campaign's id (cmp_…).")]
_LOOK_AGAIN_S = 0.5


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="A name for people.")],
    template: Annotated[str, typer.Option(help="What they get: a template's id (tpl_…).")],
    sender: Annotated[str, typer.Option("--from", help="As in From: name and address.")],
    to_list: Annotated[
        str | None, typer.Option("--list", help="Who gets it: a list's id (lst_…).")
    ] = None,
    to_segment: Annotated[
        str | None, typer.Option("--segment", help="Or a segment's id (seg_…).")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Mails a second at most.")] = None,
    reply_to: Annotated[str, typer.Option(help="Where answers go.")] = "",
    list_unsubscribe: Annotated[
        str, typer.Option(help="An https address that unsubscribes; Mailyard's own when not said.")
    ] = "",
    topic: Annotated[
        str | None, typer.Option(help="What it is about: a topic's id (top_…).")
    ] = None,
    opens: Annotated[
        bool | None, typer.Option("--track-opens/--no-track-opens", help="Follow opens.")
    ] = None,
    clicks: Annotated[
        bool | None, typer.Option("--track-clicks/--no-track-clicks", help="Follow clicks.")
    ] = None,
    utm_source: Annotated[str, typer.Option(help="Appended to links.")] = "",
    utm_campaign: Annotated[str, typer.Option(help="Appended to links.")] = "",
    send_at: Annotated[
        str, typer.Option(help="A start waits for it, like 2026-12-24T09:00:00Z.")
    ] = "",
    local_time: Annotated[
        str, typer.Option(help="On each recipient's own clock, like 2026-12-24T09:00.")
    ] = "",
    start_now: Annotated[bool, typer.Option("--start", help="Start it at once.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a campaign.

    Example: mailyard campaign create News --list lst_… --template tpl_… --from news@example.org
    """
    body = {
        "name": name,
        "list": to_list,
        "segment": to_segment,
        "template": template,
        "from": sender,
        "rate_per_s": rate,
        "reply_to": reply_to,
        "list_unsubscribe": list_unsubscribe,
        "send_at": send_at or None,
        "local_time": local_time or None,
        "topic": topic,
        "track": {"opens": opens, "clicks": clicks},
        "utm": {"source": utm_source, "campaign": utm_campaign},
    }

    async def work(client: ApiClient) -> Any:
        made = await client.post("/v1/campaigns", body)
        return await _move(client, made["id"], "start") if start_now else made

    _say(ask(work), as_json)


@app.command()
def preflight(campaign: _Campaign, as_json: AsJson = False) -> None:
    """Look whether receivers would take it well. Exit status 1 when an item blocks.

    Example: mailyard campaign preflight cmp_…
    """
    found = ask(lambda client: client.get(f"/v1/campaigns/{campaign}/preflight"))
    say_preflight(found, as_json)


@app.command()
def start(
    campaign: _Campaign,
    force: Annotated[
        bool, typer.Option("--force", help="Although the preflight blocks; the audit log says so.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Begin to send.

    Example: mailyard campaign start cmp_…
    """
    word = "start?force=true" if force else "start"
    _say(ask(lambda client: _move(client, campaign, word)), as_json)


@app.command()
def pause(campaign: _Campaign, as_json: AsJson = False) -> None:
    """Stop for now; what was begun is finished, nobody gets it twice.

    Example: mailyard campaign pause cmp_…
    """
    _say(ask(lambda client: _move(client, campaign, "pause")), as_json)


@app.command()
def resume(campaign: _Campaign, as_json: AsJson = False) -> None:
    """Go on where it was paused.

    Example: mailyard campaign resume cmp_…
    """
    _say(ask(lambda client: _move(client, campaign, "resume")), as_json)


@app.command()
def cancel(campaign: _Campaign, as_json: AsJson = False) -> None:
    """Stop for good; who has not got it gets nothing.

    Example: mailyard campaign cancel cmp_…
    """
    _say(ask(lambda client: _move(client, campaign, "cancel")), as_json)


@app.command()
def watch(campaign: _Campaign, as_json: AsJson = False) -> None:
    """Show progress until it has ended. Exit status 1 when it was cancelled.

    Example: mailyard campaign watch cmp_…
    """

    async def work(client: ApiClient) -> Any:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:,.0f}/s"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=progress_console(), disable=as_json) as bars:
            task = bars.add_task("Sending", total=None, rate=0.0)
            while True:
                now = await client.get(f"/v1/campaigns/{campaign}/progress")
                bars.update(
                    task,
                    description=now["state"].capitalize(),
                    total=now["recipients"],
                    completed=now["recipients"] - now["waiting"],
                    rate=now["rate_per_s"],
                )
                if now["state"] in ("finished", "cancelled"):
                    return now
                await asyncio.sleep(_LOOK_AGAIN_S)

    ended = ask(work)
    counts = ", ".join(f"{count:,} {state}" for state, count in ended["counts"].items() if count)
    say(ended, as_json, f"{campaign} {ended['state']}: {counts or 'nobody'}")
    if ended["state"] == "cancelled":
        raise typer.Exit(exit_code.REFUSED)


@app.command()
def tracking(campaign: _Campaign, as_json: AsJson = False) -> None:
    """Show who opened, clicked and left, people and machines apart, and the links.

    Example: mailyard campaign tracking cmp_…
    """

    async def work(client: ApiClient) -> Any:
        totals = await client.get(f"/v1/campaigns/{campaign}/tracking")
        links = await client.get(f"/v1/campaigns/{campaign}/links", limit=500)
        return {**totals, "links": links["items"]}

    found = ask(work)
    if as_json:
        say(found, as_json, "")
        return
    print(
        f"opened {found['opened']:,} ({found['opens']:,} times, {found['machine_opens']:,} by "
        f"machines), clicked {found['clicked']:,} ({found['clicks']:,} times, "
        f"{found['machine_clicks']:,} by machines), unsubscribed {found['unsubscribed']:,}"
    )
    columns = (("Clicks", "clicks"), ("Machines", "machine_clicks"), ("Link", "url"))
    say_rows(found["links"], as_json, columns)


@app.command(name="list")
def list_campaigns(
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List campaigns, the newest first.

    Example: mailyard campaign list
    """

    async def work(client: ApiClient) -> Any:
        return await client.get("/v1/campaigns", limit=limit)

    columns = (("ID", "id"), ("Name", "name"), ("State", "state"), ("Recipients", "recipients"))
    say_rows(ask(work)["items"], as_json, columns)


async def _move(client: ApiClient, campaign: str, word: str) -> Any:
    return await client.post(f"/v1/campaigns/{campaign}/{word}")


def _say(campaign: dict[str, Any], as_json: bool) -> None:
    say(campaign, as_json, f"{campaign['id']} {campaign['state']}")
