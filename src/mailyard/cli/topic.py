"""`mailyard topic`: make, list and remove topics; show and set what a contact gets."""

from typing import Annotated, Any

import typer

from mailyard.cli.client import AsJson, ask, say, say_rows
from mailyard.proving.client import ApiClient

app = typer.Typer(add_completion=False, no_args_is_help=True)

_Topic = Annotated[str, typer.Argument(help="A topic's id (top_…).")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Its name, as people see it.")],
    description: Annotated[str, typer.Option(help="Shown on the preference page.")] = "",
    on_request: Annotated[
        bool, typer.Option("--on-request", help="Only who has asked for it gets it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a topic that campaigns can be about.

    Example: mailyard topic create "Weekly news"
    """
    body = {"name": name, "description": description, "on_request": on_request}
    made = ask(lambda client: client.post("/v1/topics", body))
    say(made, as_json, made["id"])


@app.command(name="list")
def list_topics(
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List topics, the newest first.

    Example: mailyard topic list
    """

    async def work(client: ApiClient) -> Any:
        return await client.get("/v1/topics", limit=limit)

    columns = (("ID", "id"), ("Name", "name"), ("On request", "on_request"))
    say_rows(ask(work)["items"], as_json, columns)


@app.command()
def delete(topic: _Topic, as_json: AsJson = False) -> None:
    """Remove a topic, and what people have said about it.

    Example: mailyard topic delete top_…
    """
    ask(lambda client: client.delete(f"/v1/topics/{topic}"))
    say({"id": topic, "deleted": True}, as_json, f"{topic} removed")


@app.command()
def contact(
    contact: Annotated[str, typer.Argument(help="A contact's id (con_…).")],
    on: Annotated[list[str] | None, typer.Option("--on", help="A topic that it wants.")] = None,
    off: Annotated[
        list[str] | None, typer.Option("--off", help="A topic that it does not want.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a contact gets; with --on and --off, say it first.

    Example: mailyard topic contact con_… --off top_…
    """
    wishes = [{"topic": one, "subscribed": True} for one in on or ()]
    wishes += [{"topic": one, "subscribed": False} for one in off or ()]
    path = f"/v1/contacts/{contact}/topics"

    async def work(client: ApiClient) -> Any:
        if wishes:
            return await client.call("PATCH", path, body={"items": wishes})
        return await client.get(path)

    columns = (("Topic", "topic"), ("Name", "name"), ("Gets it", "subscribed"), ("Said so", "said"))
    say_rows(ask(work)["items"], as_json, columns)
