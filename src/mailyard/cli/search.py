"""`mailyard search`: find mail, and index anew what lies there."""

from html import unescape
from typing import Annotated, Any

import typer

from mailyard.cli.client import AsJson, ask, say, say_rows
from mailyard.core.errors import InvalidInput, NotFound
from mailyard.proving.client import ApiClient

app = typer.Typer(add_completion=False, no_args_is_help=True)

_COLUMNS = (
    ("ID", "id"),
    ("Received", "received_at"),
    ("From", "from_address"),
    ("Subject", "subject"),
    ("Where", "snippet"),
)


@app.command()
def mail(
    text: Annotated[str, typer.Argument(help="What to look for, like: from:ann invoice")],
    inbox: Annotated[str, typer.Option(help="Only in this inbox: its id or its address.")] = "",
    best: Annotated[bool, typer.Option("--best", help="The best first, not the newest.")] = False,
    meaning: Annotated[
        bool, typer.Option("--meaning", help="What says the like, not what says the words.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 30,
    cursor: Annotated[str, typer.Option(help="Go on where a page ended.")] = "",
    as_json: AsJson = False,
) -> None:
    """Search received mail.

    Example: mailyard search mail "from:ann invoice -draft after:30d has:attachment"
    """

    async def work(client: ApiClient) -> Any:
        query: dict[str, Any] = {"q": text, "limit": limit, "sort": "best" if best else "newest"}
        if meaning:
            query["mode"] = "meaning"
        if inbox:
            query["inbox_id"] = await _id_of(client, inbox)
        if cursor:
            query["cursor"] = cursor
        return await client.get("/v1/search", **query)

    found = ask(work)
    if as_json:
        say(found, as_json, "")
        return
    say_rows(
        [{**one, "snippet": _plain(one["snippet"])} for one in found["items"]], False, _COLUMNS
    )
    if found["next_cursor"]:
        print(f"more: --cursor={found['next_cursor']}")


@app.command()
def reindex(
    again: Annotated[
        bool, typer.Option("--again", help="Also what is indexed: after a change of settings.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Index the mail that lies in the workspace's inboxes, in the background.

    Example: mailyard search reindex --again
    """

    async def work(client: ApiClient) -> Any:
        return await client.post("/v1/search/reindex", {"again": again})

    say(ask(work) or {"started": True}, as_json, "started; mail is found as it is indexed")


@app.command()
def inbox(
    inbox: Annotated[str, typer.Argument(help="The inbox: its id or its address.")],
    meaning: Annotated[
        str | None,
        typer.Option(help="Found by meaning: on, off, or workspace (as the workspace says)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show or set whether an inbox's mail can be found by meaning.

    Example: mailyard search inbox support@inbox.localhost --meaning on
    """
    words = {"on": True, "off": False, "workspace": None}
    if meaning is not None and meaning not in words:
        raise InvalidInput(f"on, off or workspace, not {meaning}", field="meaning")

    async def work(client: ApiClient) -> Any:
        path = f"/v1/inboxes/{await _id_of(client, inbox)}/search"
        if meaning is None:
            return await client.get(path)
        return await client.call("PUT", path, body={"by_meaning": words[meaning]})

    said = ask(work)
    shown = {word: name for name, word in words.items()}[said["by_meaning"]]
    say(said, as_json, f"by meaning: {shown}")


async def _id_of(client: ApiClient, inbox: str) -> str:
    if "@" not in inbox:
        return inbox
    found = (await client.get("/v1/inboxes", address=inbox))["items"]
    if not found:
        raise NotFound(f"there is no inbox {inbox}")
    return str(found[0]["id"])


def _plain(snippet: str) -> str:
    """A snippet for a terminal: no marks, no control characters of strangers."""
    text = unescape(snippet.replace("<mark>", "").replace("</mark>", ""))
    return "".join(one for one in text if one.isprintable())[:120]
