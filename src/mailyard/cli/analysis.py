"""`mailyard analysis`: what a mail means, models, when mail is analysed, what a day used."""

import sys
from typing import Annotated, Any

import typer

from mailyard.cli.client import AsJson, ask, say, say_rows
from mailyard.core.errors import InvalidInput
from mailyard.proving.client import ApiClient

app = typer.Typer(add_completion=False, no_args_is_help=True)

Message = Annotated[str, typer.Argument(help="A message's id (msg_…).")]
Model = Annotated[str, typer.Argument(help="The model's name, or its id.")]
_MODELS = "/v1/analysis/models"
_POLICY = "/v1/analysis/policy"
_COLUMNS = (
    ("Name", "name"),
    ("Kind", "kind"),
    ("Model", "model"),
    ("Place", "place"),
    ("On", "enabled"),
    ("Rests until", "resting_until"),
    ("Why", "why"),
)


@app.command()
def find(message: Message, as_json: AsJson = False) -> None:
    """Show what rules find in a message: codes, links, numbers, dates, sums, the reply.

    Example: mailyard analysis find msg_01jz…
    """

    async def work(client: ApiClient) -> Any:
        return await client.get(f"/v1/messages/{message}/meaning")

    found = ask(work)["meaning"]
    lines = [f"code: {one['value']}" for one in found["codes"]]
    lines += [f"{one['purpose']}: {one['url']}" for one in found["links"]]
    lines += [f"unsubscribe ({one['method']}): {one['url']}" for one in found["unsubscribe"]]
    lines += [f"parcel ({one['carrier']}): {one['number']}" for one in found["parcels"]]
    lines += [f"{one['kind']}: {one['number']}" for one in found["orders"]]
    lines += [f"amount: {one['value']} {one['currency']}" for one in found["amounts"]]
    lines += [f"date: {one['value']}" for one in found["days"]]
    lines += ["", found["reply"]["text"]]
    say(found, as_json, "\n".join(map(_plain, lines)))


@app.command(name="ask")
def ask_message(message: Message, as_json: AsJson = False) -> None:
    """Have a message analysed; run it again to see what a model has answered.

    Example: mailyard analysis ask msg_01jz…
    """

    async def work(client: ApiClient) -> Any:
        return await client.post(f"/v1/messages/{message}/analyses", {})

    one = ask(work)
    if one["answer"] is None:
        say(one, as_json, "queued: ask again in a moment")
        return
    said = one["answer"]
    lines = [f"by {one['model']}"]
    lines += [f"{name}: {said[name]['value']}" for name in ("category", "urgency", "sentiment")]
    lines += [f"summary: {said['summary']}"]
    lines += [f"{sign['kind']}: {sign['quote']}" for sign in said["phishing"]]
    lines += [f"answer: {said['suggested_answer']}"] if said["suggested_answer"] else []
    lines += [f"withheld: {why}" for why in one["withheld"]] + one["notes"]
    say(one, as_json, "\n".join(map(_plain, lines)))


@app.command()
def models(as_json: AsJson = False) -> None:
    """List the models in the order in which they are asked.

    Example: mailyard analysis models
    """
    rows = ask(_all)
    shown = [{**one, "model": one["settings"]["model"]} for one in rows]
    say_rows(rows if as_json else shown, as_json, _COLUMNS)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Its name here.")],
    kind: Annotated[str, typer.Option(help="openai (spoken by many servers) or anthropic.")],
    model: Annotated[str, typer.Option(help="The server's name for it.")],
    url: Annotated[str, typer.Option(help="The server; without it the vendor's own.")] = "",
    place: Annotated[int, typer.Option(help="The lowest is asked first.")] = 100,
    input_price: Annotated[float, typer.Option(help="For a million tokens read.")] = 0.0,
    output_price: Annotated[float, typer.Option(help="For a million tokens written.")] = 0.0,
    key: Annotated[
        bool, typer.Option("--key", help="Its key is a line of standard input.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Add a model.

    Example: mailyard analysis add small --kind openai --model small-1 --key < key.txt
    """
    secret = ""
    if key:
        prompt = sys.stdin.isatty()
        secret = typer.prompt("key", hide_input=True) if prompt else sys.stdin.readline().strip()
    settings = {
        "model": model,
        "base_url": url,
        "input_price": input_price,
        "output_price": output_price,
    }
    body = {"name": name, "kind": kind, "settings": settings, "key": secret, "place": place}

    async def work(client: ApiClient) -> Any:
        return await client.post(_MODELS, body)

    made = ask(work)
    say(made, as_json, f"{made['name']} ({made['id']}) is there")


@app.command()
def test(model: Model, as_json: AsJson = False) -> None:
    """Ask a model about one mail now; exit code 1 when it does not answer.

    Example: mailyard analysis test small
    """

    async def work(client: ApiClient) -> Any:
        return await client.post(f"{_MODELS}/{await _id(client, model)}/test", {})

    said = ask(work)
    say(said, as_json, _plain(said["why"] or said["answer"]["summary"]))
    if said["why"]:
        raise typer.Exit(1)


@app.command()
def switch(
    model: Model,
    on: Annotated[bool, typer.Option("--on/--off", help="Whether it is asked.")],
    as_json: AsJson = False,
) -> None:
    """Switch a model off and on.

    Example: mailyard analysis switch small --off
    """

    async def work(client: ApiClient) -> Any:
        path = f"{_MODELS}/{await _id(client, model)}"
        return await client.call("PATCH", path, body={"enabled": on})

    changed = ask(work)
    say(changed, as_json, f"{changed['name']} is {'on' if changed['enabled'] else 'off'}")


@app.command()
def remove(model: Model, as_json: AsJson = False) -> None:
    """Remove a model and its key.

    Example: mailyard analysis remove small
    """

    async def work(client: ApiClient) -> Any:
        await client.delete(f"{_MODELS}/{await _id(client, model)}")
        return {"removed": model}

    say(ask(work), as_json, f"{model} is gone")


@app.command()
def policy(
    on_arrival: Annotated[
        bool | None, typer.Option("--on-arrival/--on-demand", help="When mail is analysed.")
    ] = None,
    day_tokens: Annotated[int | None, typer.Option(help="Tokens a day; -1: no limit.")] = None,
    day_money: Annotated[float | None, typer.Option(help="Money a day; -1: no limit.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show, or set, when mail is analysed and what a day may use.

    Example: mailyard analysis policy --on-arrival --day-money 5
    """

    async def work(client: ApiClient) -> Any:
        now = await client.get(_POLICY)
        wanted = dict(now)
        if on_arrival is not None:
            wanted["on_arrival"] = on_arrival
        for name, value in (("day_tokens", day_tokens), ("day_money", day_money)):
            if value is not None:
                wanted[name] = None if value < 0 else value
        return now if wanted == now else await client.call("PUT", _POLICY, body=wanted)

    now = ask(work)
    when = "on arrival" if now["on_arrival"] else "on demand"
    limits = [
        f"{now[name]:g} {what} a day"
        for name, what in (("day_tokens", "tokens"), ("day_money", "money"))
        if now[name] is not None
    ]
    say(now, as_json, f"{when}; {', '.join(limits) or 'no limit a day'}")


@app.command()
def usage(as_json: AsJson = False) -> None:
    """Show what the last days used.

    Example: mailyard analysis usage
    """

    async def work(client: ApiClient) -> Any:
        return await client.get("/v1/analysis/usage")

    columns = [
        (one.capitalize(), one) for one in ("day", "tokens", "money", "calls", "failures", "kept")
    ]
    say_rows(ask(work)["items"], as_json, columns)


async def _all(client: ApiClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.get(_MODELS))["items"]
    return found


async def _id(client: ApiClient, model: str) -> str:
    for one in await _all(client):
        if model in (one["id"], one["name"]):
            return str(one["id"])
    raise InvalidInput(f"there is no model {model!r}; `mailyard analysis models` shows them")


def _plain(text: str) -> str:
    """Control characters of strangers do not reach the terminal."""
    return "".join(one for one in text if one.isprintable() or one == "\n")
