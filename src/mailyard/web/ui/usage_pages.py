"""What the workspace uses of its plan; and, for the operator, what all of them bring."""

from datetime import UTC, datetime, time
from typing import Any

from litestar import Response, get, post

from mailyard.access import scope
from mailyard.core.errors import MailyardError
from mailyard.core.ids import WORKSPACE, parse_type_id
from mailyard.web.ui.frame import Visit

_NAMES = {
    "inboxes": "Inboxes that live",
    "messages": "Mails received today",
    "sends": "Recipients written to today",
}


@get("/usage")
async def usage(visit: Visit) -> Response[str]:
    visit.principal.require(scope.STATS_READ)
    app, workspace_id = visit.application, visit.principal.workspace_id
    name = await app.plans.name_of(workspace_id)
    book = app.plans.book
    days = await app.usage.days(workspace_id)
    return visit.page(
        "usage.html",
        name=name,
        plan=book.plan(name),
        book=book,
        meters=[
            (_NAMES[meter.kind], meter)
            for meter in await app.usage.meters(
                workspace_id, await app.allowances.plan_use(workspace_id)
            )
        ],
        days=days,
        most=max([1, *(max(day.messages, day.sends) for day in days)]),
    )


@get("/usage/days.json")
async def usage_days(visit: Visit) -> dict[str, list[int]]:
    """The chart's columns: seconds since 1970, what came in, what went out."""
    visit.principal.require(scope.STATS_READ)
    found = await visit.application.usage.days(visit.principal.workspace_id)
    return {
        "at": [int(datetime.combine(one.day, time.min, UTC).timestamp()) for one in found],
        "received": [one.messages for one in found],
        "sent": [one.sends for one in found],
    }


async def _business_page(visit: Visit, **said: str) -> Response[str]:
    app = visit.application
    await app.workspaces.require_operator(visit.principal.workspace_id)
    visit.principal.require(scope.ADMIN)
    figures = await app.business.figures()
    return visit.page(
        "business.html",
        status=422 if "problem" in said else 200,
        figures=figures,
        book=app.plans.book,
        most=max([1, *(max(day.messages, day.sends) for day in figures.days)]),
        sign_up=app.settings.sign_up,
        **said,
    )


@get("/business")
async def business(visit: Visit) -> Response[str]:
    return await _business_page(visit)


@post("/business/plan", status_code=303)
async def assign_plan(visit: Visit) -> Response[Any]:
    await visit.application.workspaces.require_operator(visit.principal.workspace_id)
    visit.principal.require(scope.ADMIN)
    try:
        await visit.application.plans.assign(
            parse_type_id(WORKSPACE, visit.field("workspace"), "workspace"),
            visit.field("plan"),
            actor=visit.principal.actor,
        )
    except MailyardError as error:
        return await _business_page(visit, problem=error.message)
    return visit.go("/business", "saved")


HANDLERS = [usage, usage_days, business, assign_plan]
