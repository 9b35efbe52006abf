"""Who sent a mail (a panel of its page), and what an inbox does with forged mail."""

from typing import Any
from uuid import UUID

from litestar import Response, get, post
from litestar.params import FromPath

from mailyard.access import scope
from mailyard.core.errors import InvalidInput
from mailyard.core.ids import INBOX, MESSAGE, parse_type_id, type_id
from mailyard.core.limits import API_PAGE_ITEMS
from mailyard.receiving.verdict import OnForged
from mailyard.web.api.senders import authentication_of, held_message, release
from mailyard.web.ui.frame import Visit

POLICIES = (
    ("accept", "takes it"),
    ("tag", "takes it and marks it"),
    ("refuse", "keeps it out"),
)


async def sender_of(visit: Visit, inbox_id: UUID, message_id: UUID) -> Any:
    """What `_sender.html` shows of a message; None until it is judged."""
    return await authentication_of(
        visit.application, visit.principal.workspace_id, message_id, inbox_id
    )


@get("/inboxes/{inbox_id:str}/senders")
async def senders(visit: Visit, inbox_id: FromPath[str]) -> Response[str]:
    visit.principal.require(scope.INBOXES_READ)
    application, workspace_id = visit.application, visit.principal.workspace_id
    inbox = await application.inboxes.get(workspace_id, parse_type_id(INBOX, inbox_id))
    before = visit.ask("before")
    page = await application.verdicts.held(
        workspace_id,
        inbox.id,
        inbox.retention_days,
        before=parse_type_id(MESSAGE, before, "before") if before else None,
        limit=API_PAGE_ITEMS,
    )
    policy = await application.verdicts.policy(workspace_id, inbox.id, inbox.address)
    following = None
    if page.next_before:
        following = "?" + visit.query_with(before=type_id(MESSAGE, page.next_before))
    return visit.page(
        "senders.html",
        inbox={"id": inbox_id, "address": inbox.address},
        policies=POLICIES,
        policy=policy.name.lower(),
        held=[{**_view(one), "id": type_id(MESSAGE, one.id)} for one in page.items],
        next_url=following,
        may_change=scope.INBOXES_WRITE in visit.principal.scopes,
    )


@post("/inboxes/{inbox_id:str}/senders", status_code=303)
async def set_policy(visit: Visit, inbox_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.INBOXES_WRITE)
    application, workspace_id = visit.application, visit.principal.workspace_id
    inbox = await application.inboxes.get(workspace_id, parse_type_id(INBOX, inbox_id))
    wanted = visit.field("on_forged").upper()
    if wanted not in OnForged.__members__:
        raise InvalidInput("accept, tag or refuse", field="on_forged")
    async with application.database.transaction() as tx:
        before = await application.verdicts.set_policy(
            workspace_id, inbox.id, inbox.address, OnForged[wanted], tx
        )
        await application.audit.record(
            visit.principal.actor,
            "inbox.sender_policy",
            inbox_id,
            {"on_forged": before.name.lower()},
            {"on_forged": wanted.lower()},
            tx=tx,
        )
    return visit.go(f"/inboxes/{inbox_id}/senders", "saved")


@post("/inboxes/{inbox_id:str}/held/{message_id:str}/release", status_code=303)
async def let_in(visit: Visit, inbox_id: FromPath[str], message_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.INBOXES_WRITE)
    application, workspace_id = visit.application, visit.principal.workspace_id
    inbox = await application.inboxes.get(workspace_id, parse_type_id(INBOX, inbox_id))
    held = await held_message(application, workspace_id, parse_type_id(MESSAGE, message_id))
    async with application.database.transaction() as tx:
        await release(application, workspace_id, inbox.id, held, tx)
        await application.audit.record(
            visit.principal.actor, "message.release", message_id, None, {"inbox": inbox_id}, tx=tx
        )
    application.live.announced()
    return visit.go(f"/inboxes/{inbox_id}/messages/{message_id}", "saved")


def _view(one: Any) -> dict[str, Any]:
    return {
        "state": one.state,
        "from_text": one.from_name or one.from_address or "(nobody)",
        "from_address": one.from_address,
        "subject": one.subject,
        "received_at": one.received_at,
    }


HANDLERS = [senders, set_policy, let_in]
