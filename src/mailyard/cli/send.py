"""`mailyard send`: one mail through the API."""

import base64
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from mailyard.cli.client import AsJson, ask, say
from mailyard.cli.files import read, read_text
from mailyard.core.errors import InvalidInput
from mailyard.proving.client import ApiClient

app = typer.Typer(add_completion=False)


@app.command()
def send(
    to: Annotated[list[str], typer.Option("--to", help="Recipient; may be given more than once.")],
    sender: Annotated[str, typer.Option("--from", help="As in From: name and address.")],
    subject: Annotated[str, typer.Option(help="Subject.")] = "",
    text: Annotated[str | None, typer.Option(help="Plain text; - reads standard input.")] = None,
    html: Annotated[Path | None, typer.Option(help="A file with HTML.")] = None,
    cc: Annotated[list[str] | None, typer.Option(help="Copy to.")] = None,
    bcc: Annotated[list[str] | None, typer.Option(help="Blind copy to.")] = None,
    attach: Annotated[list[Path] | None, typer.Option(help="A file to attach.")] = None,
    template: Annotated[str | None, typer.Option(help="A template's id (tpl_…).")] = None,
    data: Annotated[str | None, typer.Option(help="The template's variables as JSON.")] = None,
    idempotency_key: Annotated[
        str, typer.Option(help="The same key again sends nothing twice.")
    ] = "",
    send_at: Annotated[str, typer.Option(help="Not before, like 2026-12-24T09:00:00Z.")] = "",
    local_time: Annotated[
        str, typer.Option(help="On the recipients' clocks, like 2026-12-24T09:00.")
    ] = "",
    expires_at: Annotated[str, typer.Option(help="Not handed over after.")] = "",
    priority: Annotated[str, typer.Option(help="high, normal or low.")] = "",
    type_: Annotated[str, typer.Option("--type", help="Your word for this kind of mail.")] = "",
    as_json: AsJson = False,
) -> None:
    """Send one mail; it is durable when this returns, and on its way.

    Example: mailyard send --from ada@example.org --to bob@inbox.localhost --subject Hi --text Hello
    """
    body: dict[str, Any] = {"from": sender, "to": to, "subject": subject}
    if text is not None:
        body["text"] = read_text(Path("-")) if text == "-" else text
    if html is not None:
        body["html"] = read_text(html)
    if template is not None:
        body["template"] = template
        body["data"] = _object(data or "{}")
        del body["subject"]
    body |= {name: people for name, people in (("cc", cc), ("bcc", bcc)) if people}
    said = {
        "send_at": send_at,
        "local_time": local_time,
        "expires_at": expires_at,
        "priority": priority,
        "type": type_,
    }
    body |= {name: text for name, text in said.items() if text}
    if attach:
        body["attachments"] = [
            {"filename": path.name, "content": base64.b64encode(read(path)).decode()}
            for path in attach
        ]

    async def work(client: ApiClient) -> Any:
        return await client.post("/v1/emails", body, idempotency_key=idempotency_key)

    accepted = ask(work)
    lines = [f"{accepted['id']} accepted"]
    lines += [
        f"  {one['recipient']}  {one['state']}  {one['delivery_id']}"
        for one in accepted["recipients"]
    ]
    say(accepted, as_json, "\n".join(lines))


def _object(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise InvalidInput(f"--data is not a JSON object: {error}") from error
