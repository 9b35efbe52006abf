"""`mailyard template`: write, publish, look at and send templates."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from mailyard.cli.client import AsJson, ask, say, say_rows
from mailyard.cli.files import read_text
from mailyard.core.errors import InvalidInput, NotFound
from mailyard.proving.client import ApiClient

app = typer.Typer(add_completion=False, no_args_is_help=True)

_Template = Annotated[str, typer.Argument(help="A template's name or id (tpl_…).")]
_Version = Annotated[int | None, typer.Option("--version", help="Instead of the one in use.")]
_Draft = Annotated[bool, typer.Option("--draft", help="The draft instead of a version.")]
_Data = Annotated[str, typer.Option(help='What the variables are: {"name": "Ann"}.')]
_Contact = Annotated[str | None, typer.Option(help="Whose fields: a contact's id (con_…).")]


def _source(what: str) -> Any:
    return typer.Option(exists=True, dir_okay=False, help=f"A file with its {what}.")


@app.command(name="list")
def list_templates(
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List templates, the newest first.

    Example: mailyard template list
    """

    async def work(client: ApiClient) -> Any:
        return await client.get("/v1/templates", limit=limit)

    columns = (("ID", "id"), ("Name", "name"), ("Kind", "kind"), ("Version", "version"))
    say_rows(ask(work)["items"], as_json, columns)


@app.command()
def push(
    name: Annotated[str, typer.Argument(help="The template's name; it is made when it is new.")],
    subject: Annotated[str | None, typer.Option(help="If not said, as it was.")] = None,
    html: Annotated[Path | None, _source("HTML")] = None,
    mjml: Annotated[Path | None, _source("MJML")] = None,
    text: Annotated[Path | None, _source("text part")] = None,
    kind: Annotated[str, typer.Option(help="Of a new one: email, layout or block.")] = "email",
    keep_css: Annotated[bool, typer.Option(help="Leave style sheets as they are.")] = False,
    draft: Annotated[bool, typer.Option("--draft", help="Keep it as a draft.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring sources from files: as the next version, or as the draft.

    Example: mailyard template push welcome --subject "Hello {{ name }}" --mjml welcome.mjml
    """
    if html is not None and mjml is not None:
        raise InvalidInput("a template has HTML or MJML, not both", field="mjml")
    sources = {
        "html": read_text(html) if html else "",
        "mjml": read_text(mjml) if mjml else "",
        "text": read_text(text) if text else "",
        "inline_css": not keep_css,
    }

    async def work(client: ApiClient) -> Any:
        known = await _find(client, name)
        if known is None:
            body = {"name": name, "kind": kind, "draft": draft, "subject": subject or "", **sources}
            return await client.post("/v1/templates", body)
        body = {"subject": known["subject"] if subject is None else subject, **sources}
        path = f"/v1/templates/{known['id']}"
        if draft:
            return await client.call("PUT", f"{path}/draft", body=body)
        return await client.post(f"{path}/versions", body)

    _say(ask(work), as_json)


@app.command()
def publish(template: _Template, as_json: AsJson = False) -> None:
    """Publish the draft.

    Example: mailyard template publish welcome
    """
    _say(ask(lambda client: _post(client, template, "draft/publish")), as_json)


@app.command()
def republish(
    template: _Template,
    users: Annotated[
        bool, typer.Option("--users", help="Instead: every template that this layout is in.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Publish the version in use once more, with its layouts and blocks as they are now.

    Example: mailyard template republish newsletter-layout --users
    """

    async def work(client: ApiClient) -> list[Any]:
        one = await _known(client, template)
        if not users:
            return [await client.post(f"/v1/templates/{one['id']}/republish")]
        uses = await client.get(f"/v1/templates/{one['id']}/uses")
        return [
            await client.post(f"/v1/templates/{user['id']}/republish")
            for user in uses["used_by"]
            if not user["current"]
        ]

    columns = (("ID", "id"), ("Name", "name"), ("Version", "version"))
    say_rows(ask(work), as_json, columns)


@app.command()
def rollback(
    template: _Template,
    version: Annotated[int, typer.Argument(help="Which version to use again.")],
    as_json: AsJson = False,
) -> None:
    """Put an older version into use.

    Example: mailyard template rollback welcome 3
    """
    _say(ask(lambda client: _post(client, template, f"versions/{version}/use")), as_json)


@app.command()
def versions(template: _Template, as_json: AsJson = False) -> None:
    """List a template's versions: who published what, and when.

    Example: mailyard template versions welcome
    """

    async def work(client: ApiClient) -> Any:
        one = await _known(client, template)
        return await client.get(f"/v1/templates/{one['id']}/versions", limit=100)

    columns = (
        ("Version", "version"), ("Subject", "subject"), ("By", "author"), ("At", "created_at")
    )  # fmt: skip
    say_rows(ask(work)["items"], as_json, columns)


@app.command()
def preview(
    template: _Template,
    data: _Data = "{}",
    contact: _Contact = None,
    version: _Version = None,
    draft: _Draft = False,
    html: Annotated[bool, typer.Option("--html", help="The HTML instead of the text.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a template makes of some data.

    Example: mailyard template preview welcome --data '{"name": "Ann"}'
    """
    body = _wanted(data, contact, version, draft)
    made = ask(lambda client: _post(client, template, "preview", body))
    shown = made["html"] if html else f"Subject: {made['subject']}\n\n{made['text']}"
    say(made, as_json, shown)


@app.command()
def test(
    template: _Template,
    to: Annotated[str, typer.Option(help="Who gets it.")],
    sender: Annotated[str, typer.Option("--from", help="As in From: name and address.")],
    data: _Data = "{}",
    contact: _Contact = None,
    version: _Version = None,
    draft: _Draft = False,
    as_json: AsJson = False,
) -> None:
    """Send a preview to an address.

    Example: mailyard template test welcome --to you@example.org --from news@example.org
    """
    body = {**_wanted(data, contact, version, draft), "to": to, "from": sender}
    sent = ask(lambda client: _post(client, template, "test", body))
    say(sent, as_json, f"{sent['id']} to {to}")


def _wanted(data: str, contact: str | None, version: int | None, draft: bool) -> dict[str, Any]:
    try:
        values = msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise InvalidInput(f"--data wants a JSON object: {error}", field="data") from None
    return {"data": values, "contact": contact, "version": version, "draft": draft}


async def _find(client: ApiClient, name: str) -> Any | None:
    """The template with a name or an id; None when there is none."""
    if name.startswith("tpl_"):
        return await client.get(f"/v1/templates/{name}")
    found = await client.get("/v1/templates", name=name, limit=1)
    return found["items"][0] if found["items"] else None


async def _known(client: ApiClient, name: str) -> Any:
    found = await _find(client, name)
    if found is None:
        raise NotFound(f"there is no template {name!r}")
    return found


async def _post(client: ApiClient, template: str, word: str, body: Any = None) -> Any:
    one = await _known(client, template)
    return await client.post(f"/v1/templates/{one['id']}/{word}", body)


def _say(template: dict[str, Any], as_json: bool) -> None:
    version = template["version"]
    state = f"version {version}" if version else "draft"
    say(template, as_json, f"{template['id']} {template['name']} {state}")
