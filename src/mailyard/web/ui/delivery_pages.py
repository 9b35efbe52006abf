"""Deliveries: one row a recipient, and the whole story of each."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from litestar import Response, get, post
from litestar.params import FromPath

from mailyard.access import scope
from mailyard.core.errors import InvalidInput
from mailyard.core.ids import CAMPAIGN, DELIVERY, EMAIL, parse_type_id, type_id
from mailyard.sending.delivery import Delivery, Page
from mailyard.sending.states import State
from mailyard.web.delivery import as_it_stands
from mailyard.web.ui.frame import Visit

_STATES = [state.value for state in State if state is not State.LEASED]
_DAYS = 30


def _view(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": type_id(DELIVERY, delivery.id),
        "recipient": delivery.recipient,
        "state": delivery.state.value,
        "type": delivery.type,
        "reply_code": delivery.reply_code,
        "reply": delivery.reply,
        "reason": delivery.reason,
        "updated_at": delivery.updated_at,
        "attempts": delivery.attempts,
        "transport": delivery.transport,
        "next_attempt_at": delivery.next_attempt_at,
        "campaign_id": _shown(CAMPAIGN, delivery.campaign_id),
        "email_id": _shown(EMAIL, delivery.email_id),
    }


def _shown(prefix: str, identifier: UUID | None) -> str | None:
    return type_id(prefix, identifier) if identifier is not None else None


def _days(visit: Visit) -> int:
    text = visit.ask("days")
    a_number = text.isdecimal() and len(text) <= 4
    return int(text) if a_number and 1 <= int(text) <= 3650 else _DAYS


def _state(visit: Visit) -> State | None:
    text = visit.ask("state")
    if not text:
        return None
    if text not in _STATES:
        raise InvalidInput(f"a state is one of {', '.join(_STATES)}", field="state")
    return State(text)


async def _page(visit: Visit) -> Page:
    workspace_id, service = visit.principal.workspace_id, visit.application.deliveries
    text = visit.ask("before")
    before = parse_type_id(DELIVERY, text, "before") if text else None
    if campaign_text := visit.ask("campaign"):
        campaign = await visit.application.campaigns.get(
            workspace_id, parse_type_id(CAMPAIGN, campaign_text, "campaign")
        )
        if campaign.first_started_at is None:
            return Page([], None)
        return await service.page_of_campaign(
            workspace_id,
            campaign.id,
            campaign.first_started_at,
            state=_state(visit),
            before=before,
        )
    return await service.page(
        workspace_id,
        recipient=visit.ask("recipient") or None,
        type=visit.ask("type") or None,
        state=_state(visit),
        since=datetime.now(UTC) - timedelta(days=_days(visit)),
        before=before,
    )


async def _rows(visit: Visit) -> dict[str, Any]:
    page = await _page(visit)
    following = None
    if page.before is not None:
        following = "/deliveries?" + visit.query_with(before=type_id(DELIVERY, page.before))
    return {"deliveries": [_view(item) for item in page.items], "next_url": following}


@get("/deliveries")
async def deliveries(visit: Visit) -> Response[str]:
    visit.principal.require(scope.EMAILS_READ)
    rows: dict[str, Any] = {"deliveries": [], "next_url": None}
    problem = None
    try:
        rows = await _rows(visit)
    except InvalidInput as error:
        problem = error.message
    return visit.page(
        "deliveries.html",
        status=422 if problem else 200,
        problem=problem,
        filters={
            "recipient": visit.ask("recipient"),
            "state": visit.ask("state"),
            "type": visit.ask("type"),
            "campaign": visit.ask("campaign"),
            "days": _days(visit),
        },
        states=_STATES,
        live=not visit.ask("before"),
        query=visit.query_with(),
        **rows,
    )


@get("/fragments/deliveries")
async def delivery_rows(visit: Visit) -> Response[str]:
    visit.principal.require(scope.EMAILS_READ)
    return visit.fragment("_deliveries.html", **await _rows(visit))


@get("/deliveries/{delivery_id:str}")
async def delivery(visit: Visit, delivery_id: FromPath[str]) -> Response[str]:
    visit.principal.require(scope.EMAILS_READ)
    found, story = await visit.application.deliveries.get(
        visit.principal.workspace_id, parse_type_id(DELIVERY, delivery_id)
    )
    events = [
        {
            "state": event.state.value,
            "at": event.at,
            "attempt": event.attempt,
            "reply_code": event.reply_code,
            "detail": event.detail,
            "transport": event.transport,
            "told": event.kind,
            "reason": event.reason,
            "status": event.status,
            "source": event.source,
            "mail": event.seq if event.message_id is not None else None,
        }
        for event in story
    ]
    seen = await visit.application.tracking_report.of_delivery(
        visit.principal.workspace_id, found.id
    )
    shown = await as_it_stands(visit.application.engine, found)
    return visit.page("delivery.html", delivery={**_view(shown), "events": events}, seen=seen)


@post("/deliveries/{delivery_id:str}/cancel", status_code=303)
async def cancel(visit: Visit, delivery_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.EMAILS_SEND)
    application, workspace_id = visit.application, visit.principal.workspace_id
    async with application.database.transaction() as tx:
        before = await application.emails.cancel_delivery(
            workspace_id, parse_type_id(DELIVERY, delivery_id), tx
        )
        await application.audit.record(
            visit.principal.actor,
            "delivery.cancel",
            delivery_id,
            {"state": before.value},
            {"state": State.CANCELLED.value},
            tx,
        )
    return visit.go(f"/deliveries/{delivery_id}", "cancelled")


HANDLERS = [deliveries, delivery_rows, delivery, cancel]
