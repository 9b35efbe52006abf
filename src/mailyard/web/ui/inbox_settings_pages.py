"""What an inbox is called, how long it and its mail live, how much it holds; and purging it."""

from datetime import datetime
from typing import Any

from litestar import Response, get, post
from litestar.params import FromPath

from mailyard.access import scope
from mailyard.core.errors import InvalidInput, MailyardError
from mailyard.mailbox.inbox_value import Inbox
from mailyard.web.api.inbox_item import told
from mailyard.web.ui.form_values import lines, said_seconds, said_size, seconds, size_bytes, whole
from mailyard.web.ui.frame import Visit
from mailyard.web.ui.inbox_view import found_inbox, inbox_view

_FIELDS = ("name", "labels", "message_ttl_s", "messages_max", "bytes_max")
BY_MEANING = {"": None, "yes": True, "no": False}
LIVES = (
    ("3600", "1 hour"),
    ("86400", "1 day"),
    ("604800", "7 days"),
    ("2592000", "30 days"),
    ("", "for ever"),
)


def _shown(inbox: Inbox) -> dict[str, str]:
    return {
        "name": inbox.name,
        "labels": ", ".join(inbox.labels),
        "message_ttl_s": said_seconds(inbox.message_ttl_s),
        "messages_max": "" if inbox.messages_max is None else str(inbox.messages_max),
        "bytes_max": said_size(inbox.bytes_max),
    }


async def _page(
    visit: Visit,
    inbox_id: str,
    form: dict[str, str] | None = None,
    problem: MailyardError | None = None,
) -> Response[str]:
    inbox = await found_inbox(visit, inbox_id)
    said = None
    if problem is not None:
        said = f"{problem.field}: {problem.message}" if problem.field else problem.message
    return visit.page(
        "inbox_settings.html",
        status=problem.status if problem else 200,
        inbox=inbox_view(inbox),
        one_time=inbox.one_time,
        form=_shown(inbox) if form is None else form,
        lives=LIVES,
        meaning_available=visit.application.vectors.available,
        by_meaning=await visit.application.indexer.says(visit.principal.workspace_id, inbox.id),
        problem=said,
        may_write=scope.INBOXES_WRITE in visit.principal.scopes,
    )


@get("/inboxes/{inbox_id:str}/settings")
async def settings(visit: Visit, inbox_id: FromPath[str]) -> Response[str]:
    visit.principal.require(scope.INBOXES_READ)
    return await _page(visit, inbox_id)


@post("/inboxes/{inbox_id:str}/settings", status_code=303)
async def change(visit: Visit, inbox_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.INBOXES_WRITE)
    form = {name: visit.field(name) for name in _FIELDS}
    app, workspace_id = visit.application, visit.principal.workspace_id
    before = await found_inbox(visit, inbox_id)
    try:
        ttl_s = seconds(form["message_ttl_s"], "message_ttl_s")
        messages_max = whole(form["messages_max"], "messages_max")
        bytes_max = size_bytes(form["bytes_max"], "bytes_max")
        async with app.database.transaction() as tx:
            after = await app.inboxes.relabel(
                workspace_id, before.id, name=form["name"], labels=lines(form["labels"]), tx=tx
            )
            if (ttl_s, messages_max, bytes_max) != _limits(before):
                after = await app.inboxes.limit(
                    workspace_id,
                    before.id,
                    message_ttl_s=ttl_s,
                    messages_max=messages_max,
                    bytes_max=bytes_max,
                    tx=tx,
                )
            await app.audit.record(
                visit.principal.actor, "inbox.change", inbox_id, told(before), told(after), tx
            )
    except InvalidInput as error:
        return await _page(visit, inbox_id, form, error)
    return visit.go(f"/inboxes/{inbox_id}/settings", "saved")


@post("/inboxes/{inbox_id:str}/life", status_code=303)
async def set_life(visit: Visit, inbox_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.INBOXES_WRITE)
    before = await found_inbox(visit, inbox_id)
    app = visit.application
    try:
        ttl_s = seconds(visit.field("ttl_s"), "ttl_s")
        async with app.database.transaction() as tx:
            after = await app.inboxes.extend(visit.principal.workspace_id, before.id, ttl_s, tx=tx)
            await app.audit.record(
                visit.principal.actor,
                "inbox.extend",
                inbox_id,
                _ends(before.expires_at),
                _ends(after.expires_at),
                tx,
            )
    except MailyardError as error:
        if error.status >= 500:
            raise
        return await _page(visit, inbox_id, None, error)
    return visit.go(f"/inboxes/{inbox_id}/settings", "saved")


@post("/inboxes/{inbox_id:str}/search", status_code=303)
async def set_search(visit: Visit, inbox_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.INBOXES_WRITE)
    inbox, app = await found_inbox(visit, inbox_id), visit.application
    workspace_id, after = visit.principal.workspace_id, BY_MEANING.get(visit.field("by_meaning"))
    before = await app.indexer.says(workspace_id, inbox.id)
    try:
        async with app.database.transaction() as tx:
            await app.indexer.say(workspace_id, inbox.id, after, tx)
            await app.audit.record(
                visit.principal.actor,
                "search.inbox",
                inbox_id,
                {"by_meaning": before},
                {"by_meaning": after},
                tx,
            )
    except MailyardError as error:
        if error.status >= 500:
            raise
        return await _page(visit, inbox_id, None, error)
    return visit.go(f"/inboxes/{inbox_id}/settings", "saved")


@post("/inboxes/{inbox_id:str}/purge", status_code=303)
async def purge(visit: Visit, inbox_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.INBOXES_WRITE)
    inbox = await found_inbox(visit, inbox_id)
    if visit.field("address").lower() != inbox.address:
        wrong = InvalidInput("write the address of this inbox, to be sure", field="address")
        return await _page(visit, inbox_id, None, wrong)
    async with visit.application.database.transaction() as tx:
        await visit.application.purges.ask(visit.principal.workspace_id, [inbox.id], tx)
        await visit.application.audit.record(
            visit.principal.actor, "inbox.purge", inbox_id, {}, None, tx
        )
    return visit.go("/inboxes", "purged")


def _limits(inbox: Inbox) -> tuple[float | None, int | None, int | None]:
    return inbox.message_ttl_s, inbox.messages_max, inbox.bytes_max


def _ends(moment: datetime | None) -> dict[str, Any]:
    return {"expires_at": moment}


HANDLERS = [settings, change, set_life, set_search, purge]
