"""`mailyard shaping`: how destinations are written to now, what happened, pausing; TLS results."""

from typing import Annotated, Any

import typer

from mailyard.cli.client import AsJson, ask, say, say_rows
from mailyard.core.errors import InvalidInput
from mailyard.proving.client import ApiClient
from mailyard.sending.shape.measure import duration_s

app = typer.Typer(add_completion=False, no_args_is_help=True)

_Destination = Annotated[
    str, typer.Argument(help="A destination's name, as `mailyard shaping show` shows it.")
]
_COLUMNS = (
    ("Destination", "destination"),
    ("From", "source"),
    ("Mode", "mode"),
    ("Rate/s", "rate_per_s"),
    ("Connections", "connections"),
    ("Most", "connections_most"),
    ("Until", "until"),
    ("Why", "why"),
    ("Last answer", "last"),
)
_EVENT_COLUMNS = (
    ("At", "at"),
    ("Destination", "destination"),
    ("What", "kind"),
    ("Rule", "rule"),
    ("Until", "until"),
    ("Answer", "answer"),
    ("Text", "text"),
)
_SOURCE_COLUMNS = (
    ("Pool", "pool"),
    ("Address", "address"),
    ("Hello", "hello"),
    ("Weight", "weight"),
    ("Plan", "plan"),
    ("Day", "day"),
    ("Mails", "mails"),
    ("Bad", "bad"),
    ("Paused until", "paused_until"),
    ("Why", "why"),
)
_TLS_COLUMNS = (
    ("Domain", "domain"),
    ("Policy", "policy_type"),
    ("Host", "host"),
    ("Result", "result"),
    ("Sessions", "sessions"),
)


@app.command()
def show(
    search: Annotated[str, typer.Argument(help="Part of the names.")] = "",
    held: Annotated[
        bool, typer.Option("--held", help="Only what is slower, paused or probing.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Show how destinations are written to now.

    Example: mailyard shaping show --held
    """

    async def work(client: ApiClient) -> Any:
        held_only = "true" if held else "false"
        return await client.get("/v1/shaping", search=search, held=held_only, limit=limit)

    items = ask(work)["items"]
    if not as_json:
        for item in items:
            item["last"] = item["answers"][0]["text"] if item["answers"] else ""
    say_rows(items, as_json, _COLUMNS)


@app.command()
def events(
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List what happened to destinations, the newest first.

    Example: mailyard shaping events
    """

    async def work(client: ApiClient) -> Any:
        return await client.get("/v1/shaping/events", limit=limit)

    say_rows(ask(work)["items"], as_json, _EVENT_COLUMNS)


@app.command()
def pause(
    destination: _Destination,
    time: Annotated[str, typer.Option("--for", help='How long: "90 s", "2 h", "1 d".')] = "1 h",
    why: Annotated[str, typer.Option(help="Shown to whoever asks.")] = "by hand",
    as_json: AsJson = False,
) -> None:
    """Send nothing to a destination for a while; its mail waits.

    Example: mailyard shaping pause mx.example.org --for "2 h"
    """
    try:
        seconds = duration_s(time)
    except ValueError as error:
        raise InvalidInput(f"--for is {time!r}; allowed is {error}", field="for") from None

    async def work(client: ApiClient) -> Any:
        body = {"destination": destination, "seconds": seconds, "why": why}
        return await client.post("/v1/shaping/pause", body)

    answer = ask(work)
    say(answer, as_json, f"{destination} is paused until {answer['until']}")


@app.command()
def resume(destination: _Destination, as_json: AsJson = False) -> None:
    """Let a paused or probing destination go on.

    Example: mailyard shaping resume mx.example.org
    """

    async def work(client: ApiClient) -> Any:
        return await client.post("/v1/shaping/resume", {"destination": destination})

    say(ask(work), as_json, f"{destination} goes on")


@app.command()
def sources(as_json: AsJson = False) -> None:
    """Show how source addresses stand today: warm-up, what went, pauses.

    Example: mailyard shaping sources
    """

    async def work(client: ApiClient) -> Any:
        return await client.get("/v1/shaping/sources")

    say_rows(ask(work)["items"], as_json, _SOURCE_COLUMNS)


@app.command()
def tls(
    day: Annotated[str | None, typer.Option(help="As 2026-11-23; today when not said.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Show how TLS went with the domains of a day.

    Example: mailyard shaping tls --day 2026-11-23
    """

    async def work(client: ApiClient) -> Any:
        return await client.get("/v1/tls-results", day=day, limit=limit)

    say_rows(ask(work)["items"], as_json, _TLS_COLUMNS)
