"""Inboxes and the mail in them."""

from typing import Any
from uuid import UUID

from litestar import Response, get, post

from mailyard.access import scope
from mailyard.core.errors import InvalidInput, NotFound
from mailyard.core.ids import INBOX, MESSAGE, parse_type_id, type_id
from mailyard.mailbox.inbox import Inbox, NewInbox
from mailyard.web.ui.frame import Visit

_DAY_S = 86_400.0


def _inbox_view(inbox: Inbox) -> dict[str, Any]:
    return {
        "id": type_id(INBOX, inbox.id),
        "address": inbox.address,
        "name": inbox.name,
        "labels": inbox.labels,
        "expires_at": inbox.expires_at,
    }


@get("/inboxes")
async def inboxes(visit: Visit) -> Response[str]:
    visit.principal.require(scope.INBOXES_READ)
    service, workspace_id = visit.application.inboxes, visit.principal.workspace_id
    wanted, before, problem = visit.ask("address"), visit.ask("before"), None
    found: list[Inbox] = []
    next_url = None
    if wanted:
        try:
            found = [await service.find(workspace_id, wanted)]
        except (NotFound, InvalidInput):
            problem = f"There is no inbox {wanted}."
    else:
        page = await service.list(
            workspace_id, before=parse_type_id(INBOX, before, "before") if before else None
        )
        found = page.items
        if page.next_before is not None:
            next_url = f"/inboxes?before={type_id(INBOX, page.next_before)}"
    return visit.page(
        "inboxes.html",
        inboxes=[_inbox_view(inbox) for inbox in found],
        next_url=next_url,
        address=wanted,
        problem=problem,
    )


@post("/inboxes", status_code=303)
async def make_inbox(visit: Visit) -> Response[Any]:
    visit.principal.require(scope.INBOXES_WRITE)
    ttl = visit.field("ttl_s")
    labels = tuple(label.strip() for label in visit.field("labels").split(",") if label.strip())
    if ttl and not ttl.isdecimal():
        raise InvalidInput("the time to live is a number of seconds", field="ttl_s")
    wanted = NewInbox(
        address=visit.field("address") or None, ttl_s=float(ttl) if ttl else None, labels=labels
    )
    async with visit.application.database.transaction() as tx:
        [inbox] = await visit.application.inboxes.create(
            visit.principal.workspace_id, [wanted], tx=tx
        )
        shown = type_id(INBOX, inbox.id)
        await visit.application.audit.record(
            visit.principal.actor, "inbox.create", shown, after={"address": inbox.address}, tx=tx
        )
    return visit.go(f"/inboxes/{shown}", "made")


async def _inbox(visit: Visit, inbox_id: str) -> Inbox:
    return await visit.application.inboxes.get(
        visit.principal.workspace_id, parse_type_id(INBOX, inbox_id)
    )


async def _message_rows(visit: Visit, inbox: Inbox) -> dict[str, Any]:
    sender, subject, before = visit.ask("from"), visit.ask("subject"), visit.ask("before")
    page = await visit.application.messages.list(
        visit.principal.workspace_id,
        inbox.id,
        from_=sender,
        subject=subject,
        before=parse_type_id(MESSAGE, before, "before") if before else None,
    )
    shown = type_id(INBOX, inbox.id)
    rows = [
        {
            "id": type_id(MESSAGE, item.id),
            "inbox_id": shown,
            "from_name": item.from_name,
            "from_address": item.from_address,
            "subject": item.subject,
            "preview": item.preview,
            "attachments": item.attachments,
            "received_at": item.received_at,
        }
        for item in page.items
    ]
    following = None
    if page.next_before is not None:
        following = f"/inboxes/{shown}?" + visit.query_with(
            before=type_id(MESSAGE, page.next_before)
        )
    return {"messages": rows, "next_url": following}


@get("/inboxes/{inbox_id:str}")
async def inbox(visit: Visit, inbox_id: str) -> Response[str]:
    visit.principal.require(scope.INBOXES_READ)
    found = await _inbox(visit, inbox_id)
    return visit.page(
        "inbox.html",
        inbox=_inbox_view(found),
        filters={"from": visit.ask("from"), "subject": visit.ask("subject")},
        query=visit.query_with(),
        **await _message_rows(visit, found),
    )


@get("/fragments/inboxes/{inbox_id:str}/messages")
async def message_rows(visit: Visit, inbox_id: str) -> Response[str]:
    visit.principal.require(scope.INBOXES_READ)
    found = await _inbox(visit, inbox_id)
    return visit.fragment("_messages.html", **await _message_rows(visit, found))


@post("/inboxes/{inbox_id:str}/extend", status_code=303)
async def extend(visit: Visit, inbox_id: str) -> Response[Any]:
    visit.principal.require(scope.INBOXES_WRITE)
    before = await _inbox(visit, inbox_id)
    async with visit.application.database.transaction() as tx:
        after = await visit.application.inboxes.extend(
            visit.principal.workspace_id, before.id, _DAY_S, tx=tx
        )
        await visit.application.audit.record(
            visit.principal.actor,
            "inbox.extend",
            inbox_id,
            {"expires_at": before.expires_at},
            {"expires_at": after.expires_at},
            tx,
        )
    return visit.go(f"/inboxes/{inbox_id}", "extended")


@post("/inboxes/{inbox_id:str}/delete", status_code=303)
async def delete_inbox(visit: Visit, inbox_id: str) -> Response[Any]:
    visit.principal.require(scope.INBOXES_WRITE)
    found = await _inbox(visit, inbox_id)
    async with visit.application.database.transaction() as tx:
        await visit.application.inboxes.delete(visit.principal.workspace_id, [found.id], tx=tx)
        await visit.application.audit.record(
            visit.principal.actor, "inbox.delete", inbox_id, {"address": found.address}, None, tx
        )
    return visit.go("/inboxes", "deleted")


def message_ids(inbox_id: str, message_id: str) -> tuple[UUID, UUID]:
    """The two ids of a message's path."""
    return parse_type_id(INBOX, inbox_id), parse_type_id(MESSAGE, message_id)


HANDLERS = [inboxes, make_inbox, inbox, message_rows, extend, delete_inbox]
