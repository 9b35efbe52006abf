"""`mailyard inbox`: make inboxes, list and read their mail, wait for it."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import typer

from mailyard.cli import exit_code
from mailyard.cli.client import AsJson, ask, say, say_rows
from mailyard.core.errors import InvalidInput, NotFound
from mailyard.proving.client import ApiClient

app = typer.Typer(add_completion=False, no_args_is_help=True)

_Inbox = Annotated[str, typer.Argument(help="An inbox's id (ibx_…) or its address.")]
_PIECE_BYTES = 256 * 1024
_INBOX_COLUMNS = (
    ("ID", "id"),
    ("Address", "address"),
    ("Name", "name"),
    ("Expires", "expires_at"),
)
_MESSAGE_COLUMNS = (
    ("ID", "id"),
    ("Received", "received_at"),
    ("From", "from_address"),
    ("Subject", "subject"),
)

_HELD_COLUMNS = (
    ("ID", "id"),
    ("Received", "received_at"),
    ("State", "state"),
    ("From", "from_address"),
    ("Subject", "subject"),
)


@app.command()
def create(
    address: Annotated[
        str | None, typer.Argument(help="Whole, or the part before @; without it, generated.")
    ] = None,
    ttl: Annotated[
        float | None, typer.Option(help="Seconds to live; without it, for ever.")
    ] = None,
    label: Annotated[list[str] | None, typer.Option(help="A label; more than one may be.")] = None,
    name: Annotated[str, typer.Option(help="A name for people.")] = "",
    message_ttl: Annotated[
        float | None, typer.Option(help="Seconds that its mail lives; without it, as it does.")
    ] = None,
    one_time: Annotated[bool, typer.Option("--one-time", help="Its first mail closes it.")] = False,
    messages_max: Annotated[int | None, typer.Option(help="How many messages it holds.")] = None,
    bytes_max: Annotated[int | None, typer.Option(help="How many bytes of mail it holds.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make an inbox and print its address.

    Example: mailyard inbox create signup-test --ttl 3600
    """
    body: dict[str, Any] = {
        "ttl_s": ttl,
        "name": name,
        "labels": label or [],
        "message_ttl_s": message_ttl,
        "one_time": one_time,
        "messages_max": messages_max,
        "bytes_max": bytes_max,
    }
    if address is not None:
        body["address"] = address

    async def work(client: ApiClient) -> Any:
        return await client.post("/v1/inboxes", body)

    made = ask(work)
    say(made, as_json, f"{made['address']}  {made['id']}")


@app.command(name="list")
def list_inboxes(
    label: Annotated[str, typer.Option(help="Only those with this label.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List inboxes, the newest first.

    Example: mailyard inbox list --label demo
    """

    async def work(client: ApiClient) -> Any:
        return await client.get("/v1/inboxes", label=label, limit=limit)

    say_rows(ask(work)["items"], as_json, _INBOX_COLUMNS)


@app.command()
def read(
    inbox: _Inbox,
    message: Annotated[
        str | None, typer.Option(help="A message's id (msg_…): show it whole.")
    ] = None,
    subject: Annotated[str, typer.Option(help="Only mail with this in its subject.")] = "",
    sender: Annotated[str, typer.Option("--from", help="Only mail from here.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List an inbox's mail, or show one message.

    Example: mailyard inbox read signup-test@inbox.localhost --subject code
    """

    async def work(client: ApiClient) -> Any:
        if message is not None:
            return await client.get(f"/v1/messages/{message}")
        query = {"from": sender, "subject": subject, "limit": limit}
        inbox_id = await inbox_id_of(client, inbox)
        return await client.get(f"/v1/inboxes/{inbox_id}/messages", **query)

    answer = ask(work)
    if message is None:
        say_rows(answer["items"], as_json, _MESSAGE_COLUMNS)
    else:
        say(answer, as_json, _shown(answer))


@app.command(name="export")
def export_mail(
    inbox: _Inbox,
    file: Annotated[Path, typer.Argument(help="Where to write it; `-` for the standard output.")],
    form: Annotated[
        str, typer.Option("--format", help="mbox, or eml: a tar archive of .eml files.")
    ] = "mbox",
    as_json: AsJson = False,
) -> None:
    """Write all mail of an inbox into a file.

    Example: mailyard inbox export support@inbox.localhost support.mbox
    """

    async def work(client: ApiClient) -> Any:
        path = f"/v1/inboxes/{await inbox_id_of(client, inbox)}/export"
        if str(file) == "-":
            return await client.download(path, sys.stdout.buffer.write, format=form)
        part = file.with_name(f"{file.name}.part")  # a whole file or none
        with part.open("wb") as opened:
            size_bytes = await client.download(path, opened.write, format=form)
        part.replace(file)
        return size_bytes

    size_bytes = ask(work)
    if str(file) != "-":
        written = {"file": str(file), "bytes": size_bytes}
        say(written, as_json, f"{size_bytes:,} bytes written to {file}")


@app.command(name="import")
def import_mail(
    inbox: _Inbox,
    file: Annotated[Path, typer.Argument(help="An mbox file, a tar of .eml files, or one mail.")],
    as_json: AsJson = False,
) -> None:
    """Put the mail of a file into an inbox. Mail that is there already is passed over.

    Example: mailyard inbox import support@inbox.localhost support.mbox
    """
    if not file.is_file():
        raise InvalidInput(f"{file} is not a file")

    async def work(client: ApiClient) -> Any:
        path = f"/v1/inboxes/{await inbox_id_of(client, inbox)}/import"
        return await client.upload(path, _pieces(file), "application/octet-stream")

    told = ask(work)
    lines = [
        f"{told['imported']:,} imported, {told['already_there']:,} were there, "
        f"{told['refused']:,} refused",
        *(f"  mail {one['number']}: {one['reason']}" for one in told["refusals"]),
    ]
    say(told, as_json, "\n".join(lines))
    if told["refused"]:
        raise typer.Exit(exit_code.REFUSED)


async def _pieces(file: Path) -> AsyncIterator[bytes]:
    with file.open("rb") as opened:
        while piece := await asyncio.to_thread(opened.read, _PIECE_BYTES):
            yield piece


@app.command()
def wait(
    inbox: _Inbox,
    subject: Annotated[str, typer.Option(help="Until mail with this in its subject.")] = "",
    sender: Annotated[str, typer.Option("--from", help="Until mail from here.")] = "",
    timeout: Annotated[float, typer.Option(min=0, max=120, help="Seconds to wait.")] = 60.0,
    raw: Annotated[bool, typer.Option("--raw", help="As it came, with all headers.")] = False,
    as_json: AsJson = False,
) -> None:
    """Wait until a message that matches is there, and show it. Exit status 1 when none came.

    Example: mailyard inbox wait signup-test@inbox.localhost --subject code --timeout 30
    """

    async def work(client: ApiClient) -> Any:
        query = {"from": sender, "subject": subject, "timeout_s": timeout}
        found = await client.get(f"/v1/inboxes/{await inbox_id_of(client, inbox)}/wait", **query)
        if found is None or not raw:
            return found
        return (await client.request("GET", f"/v1/messages/{found['id']}/raw")).body

    message = ask(work)
    if isinstance(message, bytes):
        sys.stdout.buffer.write(message)
        return
    if message is None:
        say({"message": None}, as_json, "nothing came")
        raise typer.Exit(exit_code.REFUSED)
    say(message, as_json, _shown(message))


@app.command()
def delete(inbox: _Inbox, as_json: AsJson = False) -> None:
    """Delete an inbox with its mail.

    Example: mailyard inbox delete signup-test@inbox.localhost
    """

    async def work(client: ApiClient) -> str:
        inbox_id = await inbox_id_of(client, inbox)
        await client.delete(f"/v1/inboxes/{inbox_id}")
        return inbox_id

    deleted = ask(work)
    say({"deleted": deleted}, as_json, f"{deleted} deleted")


@app.command()
def senders(
    inbox: _Inbox,
    forged: Annotated[
        str | None,
        typer.Option(help="What it does with forged mail from now on: accept, tag or refuse."),
    ] = None,
    release: Annotated[
        str | None, typer.Option(help="A message's id (msg_…) to let in after all.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show or set what an inbox does with forged mail, and what it keeps out.

    Example: mailyard inbox senders support@example.org --forged refuse
    """

    async def work(client: ApiClient) -> Any:
        path = f"/v1/inboxes/{await inbox_id_of(client, inbox)}"
        if forged is not None:
            await client.call("PUT", f"{path}/sender-policy", body={"on_forged": forged})
        if release is not None:
            await client.post(f"{path}/held/{release}/release", None)
        policy = await client.get(f"{path}/sender-policy")
        return policy | {"held": (await client.get(f"{path}/held"))["items"]}

    answer = ask(work)
    if as_json:
        say(answer, True, "")
        return
    print(f"forged mail: {answer['on_forged']}")
    say_rows(answer["held"], False, _HELD_COLUMNS)


@app.command()
def change(
    inbox: _Inbox,
    name: Annotated[str | None, typer.Option(help="A name for people.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="Labels, in the place of all.")] = None,
    message_ttl: Annotated[
        float | None, typer.Option(help="Seconds that its mail lives; 0: as long as it does.")
    ] = None,
    messages_max: Annotated[
        int | None, typer.Option(help="How many messages it holds; 0: any number.")
    ] = None,
    bytes_max: Annotated[
        int | None, typer.Option(help="How many bytes of mail it holds; 0: any number.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change an inbox's name, labels or limits. What is left out stays as it is.

    Example: mailyard inbox change support@example.org --messages-max 1000 --message-ttl 604800
    """
    limits = {"message_ttl_s": message_ttl, "messages_max": messages_max, "bytes_max": bytes_max}
    body: dict[str, Any] = {
        key: value or None for key, value in limits.items() if value is not None
    }
    body |= {key: value for key, value in (("name", name), ("labels", label)) if value is not None}
    if not body:
        raise InvalidInput("say what to change: mailyard inbox change --help")

    async def work(client: ApiClient) -> Any:
        path = f"/v1/inboxes/{await inbox_id_of(client, inbox)}"
        return await client.call("PATCH", path, body=body)

    changed = ask(work)
    say(changed, as_json, f"{changed['address']} is changed")


@app.command()
def extend(
    inbox: _Inbox,
    ttl: Annotated[
        float | None, typer.Option(help="Seconds to live from now; without it, for ever.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Let an inbox live longer, or shorter.

    Example: mailyard inbox extend signup-test@inbox.localhost --ttl 86400
    """

    async def work(client: ApiClient) -> Any:
        path = f"/v1/inboxes/{await inbox_id_of(client, inbox)}/extend"
        return await client.post(path, {"ttl_s": ttl})

    extended = ask(work)
    say(extended, as_json, f"{extended['address']} ends {extended['expires_at'] or 'never'}")


@app.command(name="end-message")
def end_message(
    message: Annotated[str, typer.Argument(help="A message's id (msg_…).")],
    ttl: Annotated[
        float | None, typer.Option(help="Seconds from now; without it, as its inbox lets it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say when a single message ends: nothing shows it from then on, and its bytes leave.

    Example: mailyard inbox end-message msg_01h455vb4pex5vsknk084sn02q --ttl 3600
    """
    body = {"expires_at": None} if ttl is None else {"ttl_s": ttl}
    ended = ask(lambda client: client.call("PATCH", f"/v1/messages/{message}", body=body))
    say(ended, as_json, f"{message} ends {ended['expires_at'] or 'with its inbox'}")


@app.command()
def purge(inbox: _Inbox, as_json: AsJson = False) -> None:
    """Purge an inbox: its mail leaves tables, indexes, caches and events, now and for good.

    Example: mailyard inbox purge signup-test@inbox.localhost
    """

    async def work(client: ApiClient) -> Any:
        body = {"inbox_ids": [await inbox_id_of(client, inbox)]}
        return await client.post("/v1/inboxes/purge", body)

    gone = ask(work)
    say(gone, as_json, f"{gone['inbox_ids'][0]} is gone; its bytes follow within seconds")


async def inbox_id_of(client: ApiClient, inbox: str) -> str:
    if "@" not in inbox:
        return inbox
    found = (await client.get("/v1/inboxes", address=inbox))["items"]
    if not found:
        raise NotFound(f"there is no inbox {inbox}")
    return str(found[0]["id"])


def _shown(message: dict[str, Any]) -> str:
    """A message for people; control characters of strangers do not reach the terminal."""
    content = message["content"]
    lines = [
        f"From: {message['from_name']} <{message['from_address']}>".replace(":  <", ": <"),
        f"To: {message['recipient']}",
        f"Subject: {message['subject']}",
        f"Received: {message['received_at']}",
        *(f"Attachment: {file['file_name']} ({file['content_type']})" for file in content["files"]),
        "",
        content["text"] or content["html"] or "",
    ]
    return "\n".join(
        "".join(character for character in line if character.isprintable() or character in "\t\n")
        for line in "\n".join(lines).split("\n")
    )
