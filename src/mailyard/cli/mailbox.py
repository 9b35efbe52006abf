"""`mailyard mailbox`: folders and threads, what is done to mail, and writing from an inbox."""

from typing import Annotated, Any

import typer

from mailyard.cli.client import AsJson, ask, say, say_rows
from mailyard.cli.inbox import inbox_id_of
from mailyard.proving.client import ApiClient

app = typer.Typer(add_completion=False, no_args_is_help=True)

_Inbox = Annotated[str, typer.Argument(help="An inbox's id (ibx_…) or its address.")]
_Mails = Annotated[
    list[str], typer.Argument(help="Messages (msg_…) and threads (thr_…), one or more.")
]
_ITEM_COLUMNS = (
    ("ID", "id"),
    ("Received", "received_at"),
    ("From", "from_address"),
    ("Subject", "subject"),
    ("Folder", "folder"),
    ("Read", "read"),
)
_CHANGE_COLUMNS = (("Number", "seq"), ("At", "at"), ("What", "kind"), ("Of", "item"))


@app.command()
def show(inbox: _Inbox, as_json: AsJson = False) -> None:
    """Show an inbox's folders, its labels and its last change.

    Example: mailyard mailbox show support@inbox.example.org
    """

    async def work(client: ApiClient) -> Any:
        return await client.get(f"/v1/inboxes/{await inbox_id_of(client, inbox)}/mailbox")

    found = ask(work)
    lines = [f"{folder['name']:<20} {folder['unread']:>5} unread" for folder in found["folders"]]
    lines.append(f"labels: {', '.join(found['labels']) or 'none'}; changes: {found['seq']}")
    say(found, as_json, "\n".join(lines))


@app.command()
def threads(
    inbox: _Inbox,
    folder: Annotated[str, typer.Option(help="Of which folder.")] = "inbox",
    unread: Annotated[bool, typer.Option(help="Only those with mail nobody has read.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List the conversations of a folder, the newest first.

    Example: mailyard mailbox threads support@inbox.example.org --unread
    """

    async def work(client: ApiClient) -> Any:
        box = await inbox_id_of(client, inbox)
        wanted = {"folder": folder, "unread": str(unread).lower(), "limit": limit}
        return await client.get(f"/v1/inboxes/{box}/threads", **wanted)

    rows = ask(work)["items"]
    if not as_json:
        rows = [{**row["newest"], "id": row["id"], "mails": row["mails"]} for row in rows]
    say_rows(rows, as_json, (*_ITEM_COLUMNS, ("Mails", "mails")))


@app.command()
def thread(
    inbox: _Inbox,
    thread: Annotated[str, typer.Argument(help="A thread's id (thr_…).")],
    as_json: AsJson = False,
) -> None:
    """List the mails of a conversation, the oldest first.

    Example: mailyard mailbox thread support@inbox.example.org thr_01jz…
    """

    async def work(client: ApiClient) -> Any:
        box = await inbox_id_of(client, inbox)
        return await client.get(f"/v1/inboxes/{box}/threads/{thread}")

    say_rows(ask(work)["messages"], as_json, _ITEM_COLUMNS)


@app.command()
def do(
    inbox: _Inbox,
    action: Annotated[
        str,
        typer.Argument(
            help="read, unread, star, unstar, archive, move, trash, restore, label, unlabel, mute, "
            "unmute, snooze or wake."
        ),
    ],
    mails: _Mails,
    folder: Annotated[str, typer.Option(help="Of a move.")] = "",
    label: Annotated[list[str] | None, typer.Option(help="Of label and unlabel.")] = None,
    until: Annotated[str | None, typer.Option(help="Of a snooze: 2026-12-01T09:00:00Z.")] = None,
    as_json: AsJson = False,
) -> None:
    """Do something to mails and threads; prints the number that takes it back.

    Example: mailyard mailbox do support@inbox.example.org archive thr_01jz…
    """
    body: dict[str, Any] = {
        "action": action,
        "message_ids": [one for one in mails if one.startswith("msg_")],
        "thread_ids": [one for one in mails if not one.startswith("msg_")],
        "folder": folder,
        "labels": label or [],
        "until": until,
    }

    async def work(client: ApiClient) -> Any:
        box = await inbox_id_of(client, inbox)
        return await client.post(f"/v1/inboxes/{box}/actions", body)

    done = ask(work)
    said = f"{len(done['message_ids'])} mails; take it back: mailyard mailbox undo {inbox} "
    say(done, as_json, "nothing to be done" if done["seq"] is None else f"{said}{done['seq']}")


@app.command()
def undo(
    inbox: _Inbox,
    number: Annotated[int, typer.Argument(help="The number that the change printed.")],
    as_json: AsJson = False,
) -> None:
    """Take back what was done to mails.

    Example: mailyard mailbox undo support@inbox.example.org 17
    """

    async def work(client: ApiClient) -> Any:
        box = await inbox_id_of(client, inbox)
        return await client.post(f"/v1/inboxes/{box}/undo", {"seq": number})

    done = ask(work)
    say(done, as_json, f"{len(done['message_ids'])} mails are as they were")


@app.command()
def changes(
    inbox: _Inbox,
    after: Annotated[int, typer.Option(min=0, help="The last number that you have seen.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Show what has changed in a mailbox since a number.

    Example: mailyard mailbox changes support@inbox.example.org --after 17
    """

    async def work(client: ApiClient) -> Any:
        box = await inbox_id_of(client, inbox)
        return await client.get(f"/v1/inboxes/{box}/changes", after=after, limit=limit)

    say_rows(ask(work)["items"], as_json, _CHANGE_COLUMNS)


@app.command()
def send(
    inbox: _Inbox,
    text: Annotated[str, typer.Option(help="What it says.")],
    to: Annotated[list[str] | None, typer.Option(help="To whom; of an answer: its sender.")] = None,
    subject: Annotated[str | None, typer.Option(help="About what.")] = None,
    reply_to: Annotated[
        str | None, typer.Option(help="The message (msg_…) that this answers.")
    ] = None,
    everyone: Annotated[bool, typer.Option(help="Answer all who got it.")] = False,
    undo_s: Annotated[float, typer.Option(min=0, help="Time to take it back.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Write from an inbox: a new mail, or an answer, which goes into its thread.

    Example: mailyard mailbox send support@inbox.example.org --reply-to msg_01jz… --text "Done."
    """
    body: dict[str, Any] = {"mode": "new", "text": text}
    if reply_to is not None:
        body |= {"mode": "reply_all" if everyone else "reply", "message_id": reply_to}
    if to:
        body["to"] = to
    if subject is not None:
        body["subject"] = subject

    async def work(client: ApiClient) -> Any:
        drafts = f"/v1/inboxes/{await inbox_id_of(client, inbox)}/drafts"
        draft = await client.post(drafts, body)
        sending = {"revision": draft["revision"], "undo_s": undo_s}
        return await client.post(f"{drafts}/{draft['id']}/send", sending)

    sent = ask(work)
    say(sent, as_json, f"{sent['id']} leaves at {sent['send_at']}")
