"""The mailbox of an inbox: its folders, its threads, and what is done to them."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from litestar import Response, get, post
from litestar.params import FromPath

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core.errors import InvalidInput
from mailyard.core.ids import DRAFT, INBOX, MESSAGE, THREAD, parse_type_id, type_id
from mailyard.mailbox import state as states
from mailyard.mailbox.inbox_value import Inbox
from mailyard.mailbox.mailbox_value import Line, Overview, Wanted
from mailyard.mailbox.message_value import Summary
from mailyard.mailbox.state import Act
from mailyard.web.ui.frame import Visit
from mailyard.web.ui.inbox_view import found_inbox, inbox_view

_THREAD_MAILS_READ = 20  # whose text is shown at once, the newest
_VERBS = frozenset((
    "read", "unread", "star", "unstar", "archive", "move", "trash", "restore", "label", "unlabel",
    "mute", "unmute", "snooze", "wake",
))  # fmt: skip
_SNOOZES = {"3h": timedelta(hours=3), "day": timedelta(days=1), "week": timedelta(days=7)}
_TITLES = {
    "inbox": "Inbox", "snoozed": "Snoozed", "archive": "Archive", "sent": "Sent", "spam": "Spam",
    "trash": "Trash",
}  # fmt: skip


def row_view(summary: Summary, line: Line | None = None) -> dict[str, Any]:
    """A mail as a list shows it; with `line` its thread."""
    sent = summary.folder == states.SENT
    return {
        "id": type_id(MESSAGE, summary.id),
        "inbox_id": type_id(INBOX, summary.inbox_id),
        "thread_id": type_id(THREAD, summary.thread_id),
        "who": f"To: {summary.recipient}" if sent else summary.from_name or summary.from_address,
        "subject": summary.subject,
        "preview": summary.preview,
        "attachments": summary.attachments,
        "received_at": summary.received_at,
        "seen": summary.seen,
        "starred": summary.starred,
        "labels": summary.labels,
        "mails": line.mails if line is not None else 1,
        "muted": line is not None and line.state.muted,
        "snoozed_until": line.state.snoozed_until if line is not None else None,
    }


async def rows(visit: Visit, inbox: Inbox) -> dict[str, Any]:
    """What a folder, a label or a filter shows, and the way to older mail."""
    workspace_id, shown = visit.principal.workspace_id, type_id(INBOX, inbox.id)
    text = visit.ask("before")
    before = parse_type_id(MESSAGE, text, "before") if text else None
    sender, subject = visit.ask("from"), visit.ask("subject")
    next_before: UUID | None
    if sender or subject:
        page = await visit.application.messages.list(
            workspace_id, inbox.id, from_=sender, subject=subject, before=before
        )
        found, next_before = [row_view(item) for item in page.items], page.next_before
    else:
        wanted = Wanted(
            folder=visit.ask("folder") or states.INBOX,
            label=visit.ask("label"),
            starred=bool(visit.ask("starred")),
            unread=bool(visit.ask("unread")),
            threads=True,
        )
        lines = await visit.application.mailboxes.list(
            workspace_id, inbox.id, wanted, before=before
        )
        found = [row_view(line.summary, line) for line in lines.items]
        next_before = lines.next_before
    following = None
    if next_before is not None:
        following = f"/inboxes/{shown}?" + visit.query_with(before=type_id(MESSAGE, next_before))
    return {"messages": found, "next_url": following}


def _folders(visit: Visit, overview: Overview) -> list[dict[str, Any]]:
    """The places of a mailbox, each with its address and how much is unread in it."""
    at = visit.ask("folder") or (
        "" if visit.ask("label") or visit.ask("starred") or visit.ask("from") else states.INBOX
    )
    places = [
        {
            "query": urlencode({"folder": name}),
            "name": _TITLES.get(name, name),
            "count": overview.unseen[name],
            "current": name == at,
        }
        for name in overview.folders
    ]
    places.insert(
        1,
        {
            "query": "starred=1",
            "name": "Starred",
            "count": 0,
            "current": bool(visit.ask("starred")),
        },
    )
    places += [
        {
            "query": urlencode({"label": label}),
            "name": f"# {label}",
            "count": 0,
            "current": visit.ask("label") == label,
        }
        for label in overview.labels
    ]
    return places


@get("/inboxes/{inbox_id:str}")
async def mailbox(visit: Visit, inbox_id: FromPath[str]) -> Response[str]:
    return await mailbox_page(visit, inbox_id)


async def mailbox_page(visit: Visit, inbox_id: str, problem: str | None = None) -> Response[str]:
    """A folder of the mailbox; with `problem` when something did not go as asked."""
    visit.principal.require(scope.INBOXES_READ)
    inbox = await found_inbox(visit, inbox_id)
    workspace_id = visit.principal.workspace_id
    overview = await visit.application.mailboxes.overview(workspace_id, inbox.id)
    drafts = await visit.application.drafts.list(workspace_id, inbox.id)
    undo = visit.ask("undo")
    return visit.page(
        "inbox.html",
        inbox=inbox_view(inbox),
        filters={"from": visit.ask("from"), "subject": visit.ask("subject")},
        query=visit.query_with(),
        places=_folders(visit, overview),
        folders=[name for name in overview.folders if name != states.SNOOZED],
        titles=_TITLES,
        labels=overview.labels,
        drafts=[
            {"id": type_id(DRAFT, one.id), "send_at": one.send_at, "leaving": one.leaving}
            for one in drafts
        ],
        undo=int(undo) if undo.isdecimal() and len(undo) < 19 else None,
        sending=visit.ask("sending"),
        back=f"/inboxes/{inbox_id}?{visit.query_with()}",
        may_write=scope.INBOXES_WRITE in visit.principal.scopes,
        problem=problem,
        **await rows(visit, inbox),
    )


@get("/fragments/inboxes/{inbox_id:str}/messages")
async def message_rows(visit: Visit, inbox_id: FromPath[str]) -> Response[str]:
    visit.principal.require(scope.INBOXES_READ)
    inbox = await found_inbox(visit, inbox_id)
    return visit.fragment("_messages.html", **await rows(visit, inbox))


@get("/inboxes/{inbox_id:str}/threads/{thread_id:str}")
async def thread(visit: Visit, inbox_id: FromPath[str], thread_id: FromPath[str]) -> Response[str]:
    visit.principal.require(scope.INBOXES_READ)
    inbox = await found_inbox(visit, inbox_id)
    lines = await visit.application.mailboxes.thread(
        visit.principal.workspace_id, inbox.id, parse_type_id(THREAD, thread_id)
    )
    read = lines[-_THREAD_MAILS_READ:]
    mails = [row_view(line.summary, line) | {"content": None} for line in lines]
    for view, line in zip(mails[-len(read) :], read, strict=True):
        message = await visit.application.messages.read(
            visit.principal.workspace_id, line.summary.id, inbox.id
        )
        headers = {name.lower(): value for name, value in reversed(message.content.headers)}
        view["content"] = message.content
        view["from_text"] = headers.get("from", "") or message.reverse_path or "(nobody)"
        view["to_text"] = headers.get("to", "") or line.summary.recipient
        view["cc_text"] = headers.get("cc", "")
    overview = await visit.application.mailboxes.overview(visit.principal.workspace_id, inbox.id)
    return visit.page(
        "thread.html",
        inbox=inbox_view(inbox),
        thread_id=type_id(THREAD, lines[0].thread_id),
        subject=lines[0].summary.subject,
        mails=mails,
        unread=not all(line.state.seen for line in lines),
        muted=any(line.state.muted for line in lines),
        starred=any(line.state.starred for line in lines),
        folder=lines[-1].state.folder,
        folders=[name for name in overview.folders if name != states.SNOOZED],
        titles=_TITLES,
        may_write=scope.INBOXES_WRITE in visit.principal.scopes,
    )


def _act(visit: Visit) -> Act:
    """What the form says. Raises InvalidInput."""
    verb = visit.field("action")
    if verb not in _VERBS:
        raise InvalidInput("no such action", field="action")
    until = None
    if verb == "snooze":
        chosen = visit.field("until")
        if chosen in _SNOOZES:
            until = visit.application.clock.now() + _SNOOZES[chosen]
        else:
            try:
                until = datetime.fromisoformat(chosen).replace(tzinfo=UTC)
            except ValueError:
                raise InvalidInput("until when?", field="until") from None
    return Act(
        verb,  # type: ignore[arg-type]  # it is one of them
        folder=visit.field("folder") if verb == "move" else "",
        labels=(visit.field("label"),) if verb in ("label", "unlabel") else (),
        until=until,
    )


def _chosen(visit: Visit, name: str, prefix: str) -> list[UUID]:
    return [
        parse_type_id(prefix, one, name)
        for one in visit.form.getall(name, [])
        if isinstance(one, str)
    ]


def back_to(visit: Visit, inbox_id: str, **more: str) -> str:
    """The page that the form came from, if it is of this inbox."""
    wanted = visit.field("back")
    page = f"/inboxes/{inbox_id}"
    if not wanted.startswith((f"{page}?", f"{page}/")) and wanted != page:
        wanted = page
    if not more:
        return wanted
    return wanted + ("&" if "?" in wanted else "?") + urlencode(more)


@post("/inboxes/{inbox_id:str}/act", status_code=303)
async def act(visit: Visit, inbox_id: FromPath[str]) -> Response[Any]:
    """Do something to the chosen mails and threads; `quietly`: no page is asked for."""
    visit.principal.require(scope.INBOXES_WRITE)
    wanted = _act(visit)
    async with visit.application.database.transaction() as tx:
        changed = await visit.application.mailboxes.change(
            visit.principal.workspace_id,
            parse_type_id(INBOX, inbox_id),
            wanted,
            message_ids=_chosen(visit, "message", MESSAGE),
            thread_ids=_chosen(visit, "thread", THREAD),
            tx=tx,
        )
        said = {"mails": len(changed.message_ids), "seq": changed.seq}
        done = Change(f"mailbox.{wanted.verb}", inbox_id, None, said)
        await visit.application.audit.record_many(visit.principal.actor, [done], tx)
    visit.application.mailboxes.announced()
    if visit.field("quietly"):
        return Response("", status_code=204)
    more = {} if changed.seq is None else {"undo": str(changed.seq)}
    return visit.go(back_to(visit, inbox_id, **more))


@post("/inboxes/{inbox_id:str}/undo", status_code=303)
async def undo(visit: Visit, inbox_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.INBOXES_WRITE)
    text = visit.field("seq")
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidInput("which change?", field="seq")
    async with visit.application.database.transaction() as tx:
        changed = await visit.application.mailboxes.undo(
            visit.principal.workspace_id, parse_type_id(INBOX, inbox_id), int(text), tx=tx
        )
        said = {"of": int(text), "mails": len(changed.message_ids), "seq": changed.seq}
        done = Change("mailbox.undo", inbox_id, None, said)
        await visit.application.audit.record_many(visit.principal.actor, [done], tx)
    visit.application.mailboxes.announced()
    return visit.go(back_to(visit, inbox_id))


HANDLERS = [mailbox, message_rows, thread, act, undo]
