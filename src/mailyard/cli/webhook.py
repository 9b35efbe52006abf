"""`mailyard webhook`: where events are told, and what was told there."""

from typing import Annotated, Any

import typer

from mailyard.bus.filter import parse_where
from mailyard.cli.client import AsJson, ask, say, say_rows
from mailyard.proving.client import ApiClient

app = typer.Typer(add_completion=False, no_args_is_help=True)

_COLUMNS = (
    ("ID", "id"),
    ("Name", "name"),
    ("URL", "url"),
    ("On", "enabled"),
    ("Waiting", "waiting"),
    ("Dead", "dead"),
    ("Failures", "failures"),
)
_DELIVERY_COLUMNS = (
    ("ID", "id"),
    ("Event", "kind"),
    ("State", "state"),
    ("Tries", "attempts"),
    ("Status", "status"),
    ("Why", "why"),
    ("Happened", "happened_at"),
)
_Id = Annotated[str, typer.Argument(help="An id (whk_…).")]


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="A name for people.")],
    url: Annotated[str, typer.Argument(help="Where events are told.")],
    kind: Annotated[
        list[str] | None, typer.Option(help="message.received, delivery.changed, …; repeatable.")
    ] = None,
    inbox: Annotated[
        list[str] | None, typer.Option(help="Only of this inbox (ibx_…); repeatable.")
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="Only where, as in 'subject:*invoice*'; repeatable.")
    ] = None,
    reference: Annotated[bool, typer.Option(help="Tell ids, and where to ask.")] = False,
    ordered: Annotated[bool, typer.Option(help="One after the other, in order.")] = False,
    concurrency: Annotated[int, typer.Option(help="Requests at the same time.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Make a webhook. Its secret is shown once.

    Example: mailyard webhook add Orders https://app.example.org/hooks --where "subject:*order*"
    """
    body = {
        "name": name,
        "url": url,
        "kinds": kind or ["message.received"],
        "inboxes": inbox or [],
        "where": parse_where(where or []),
        "payload": "reference" if reference else "value",
        "ordered": ordered,
        "concurrency": concurrency,
    }

    async def work(client: ApiClient) -> Any:
        return await client.post("/v1/webhooks", body)

    made = ask(work)
    say(made, as_json, f"{made['id']}\n{made['secret']}")


@app.command(name="list")
def list_webhooks(as_json: AsJson = False) -> None:
    """List webhooks and how they fare.

    Example: mailyard webhook list
    """

    async def work(client: ApiClient) -> Any:
        return await client.get("/v1/webhooks", limit=500)

    items = ask(work)["items"]
    say_rows(items if as_json else [{**one, **one["health"]} for one in items], as_json, _COLUMNS)


@app.command()
def deliveries(
    webhook: _Id,
    state: Annotated[str, typer.Option(help="waiting, delivered or dead.")] = "",
    limit: Annotated[int, typer.Option(help="How many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List what a webhook was told, newest first.

    Example: mailyard webhook deliveries whk_01jz… --state dead
    """
    chosen = {"state": state} if state else {}

    async def work(client: ApiClient) -> Any:
        return await client.get(f"/v1/webhooks/{webhook}/deliveries", limit=limit, **chosen)

    say_rows(ask(work)["items"], as_json, _DELIVERY_COLUMNS)


@app.command()
def show(
    delivery: Annotated[str, typer.Argument(help="An id (whd_…).")], as_json: AsJson = False
) -> None:
    """Show a delivery with each request and its answer.

    Example: mailyard webhook show whd_01jz…
    """

    async def work(client: ApiClient) -> Any:
        return await client.get(f"/v1/webhook-deliveries/{delivery}")

    found = ask(work)
    say(found, as_json, _story(found))


@app.command()
def test(webhook: _Id, as_json: AsJson = False) -> None:
    """Send a test event now and show the answer.

    Example: mailyard webhook test whk_01jz…
    """

    async def work(client: ApiClient) -> Any:
        return await client.post(f"/v1/webhooks/{webhook}/test")

    found = ask(work)
    say(found, as_json, _story(found))
    if found["state"] != "delivered":
        raise typer.Exit(1)


@app.command()
def rotate(
    webhook: _Id,
    overlap: Annotated[float, typer.Option(help="Hours for which the old one signs too.")] = 24.0,
    as_json: AsJson = False,
) -> None:
    """Replace the secret. The new one is shown once.

    Example: mailyard webhook rotate whk_01jz… --overlap 48
    """

    async def work(client: ApiClient) -> Any:
        return await client.post(f"/v1/webhooks/{webhook}/rotate", {"overlap_s": overlap * 3600})

    made = ask(work)
    say(made, as_json, made["secret"])


@app.command()
def enable(webhook: _Id, as_json: AsJson = False) -> None:
    """Tell it again of what happens from now on.

    Example: mailyard webhook enable whk_01jz…
    """
    _switch(webhook, True, as_json)


@app.command()
def disable(webhook: _Id, as_json: AsJson = False) -> None:
    """Tell it nothing more.

    Example: mailyard webhook disable whk_01jz…
    """
    _switch(webhook, False, as_json)


@app.command()
def redrive(
    webhook: _Id,
    delivery: Annotated[
        list[str] | None, typer.Argument(help="Ids (whd_…); without any, all dead ones.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Put dead deliveries back into the line.

    Example: mailyard webhook redrive whk_01jz…
    """
    body = {"delivery_ids": delivery} if delivery else {}

    async def work(client: ApiClient) -> Any:
        return await client.post(f"/v1/webhooks/{webhook}/redrive", body)

    back = ask(work)
    say(back, as_json, f"{len(back['delivery_ids'])} put back")


@app.command()
def replay(
    webhook: _Id,
    since: Annotated[str, typer.Argument(help="From when, as in 2026-01-31T12:00:00Z.")],
    until: Annotated[str, typer.Option(help="Until when; now.")] = "",
    as_json: AsJson = False,
) -> None:
    """Tell it again what happened in a span of time.

    Example: mailyard webhook replay whk_01jz… 2026-01-31T12:00:00Z
    """
    body = {"since": since} | ({"until": until} if until else {})

    async def work(client: ApiClient) -> Any:
        return await client.post(f"/v1/webhooks/{webhook}/replays", body)

    started = ask(work)
    say(started, as_json, f"{started['id']} started")


@app.command()
def remove(webhook: _Id, as_json: AsJson = False) -> None:
    """Remove a webhook: what waits in its line is told to nobody.

    Example: mailyard webhook remove whk_01jz…
    """

    async def work(client: ApiClient) -> None:
        await client.delete(f"/v1/webhooks/{webhook}")

    ask(work)
    say({"id": webhook}, as_json, f"{webhook} removed")


def _switch(webhook: str, on: bool, as_json: bool) -> None:
    async def work(client: ApiClient) -> Any:
        return await client.call("PATCH", f"/v1/webhooks/{webhook}", body={"enabled": on})

    changed = ask(work)
    say(changed, as_json, f"{webhook} {'enabled' if on else 'disabled'}")


def _story(found: dict[str, Any]) -> str:
    """A delivery for people."""
    lines = [f"{found['kind']} {found['state']} ({found['event_id']})"]
    for one in found["log"]:
        answer = one["status"] if one["status"] is not None else "no answer"
        lines.append(f"\n{one['at']} POST {one['url']} -> {answer} in {one['took_ms']} ms")
        if one["error"]:
            lines.append(one["error"])
        lines.append(one["request_body"])
        if one["answer_body"]:
            lines.append(f"-> {one['answer_body']}")
    return "\n".join(lines)
