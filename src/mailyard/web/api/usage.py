"""What the workspace uses of its plan, and the plans that there are."""

from datetime import date
from typing import Annotated

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.plan import Plan
from mailyard.access.usage import Meter
from mailyard.core import ids
from mailyard.web.api.page import Input, Moment, Output, WorkspaceId
from mailyard.web.api.route import Call, Route

TAG = "Usage"

_Days = Annotated[int, Meta(ge=1, le=90, description="How many days back, today included.")]
_Most = Annotated[int | None, Meta(description="Null: no such limit.")]


class PlanItem(Output):
    """A plan. Null is no such limit."""

    name: str
    title: str
    price_per_month: float
    currency: str
    inboxes: _Most
    messages_per_day: _Most
    sends_per_day: _Most
    requests_per_s: float | None
    retention_days: _Most
    live_connections: _Most


class MeterItem(Output):
    """One limit and what is used of it."""

    kind: Annotated[str, Meta(description="`inboxes`, `messages` or `sends`.")]
    used: Annotated[int, Meta(description="Inboxes without a limit are counted to 100,000.")]
    limit: _Most
    level: Annotated[
        str,
        Meta(
            description="`free`; `soft` from the share on where the owners are told; `hard`: no "
            "more of it, answered with 402 (mail is put off with 452)."
        ),
    ]
    resets_at: Annotated[Moment | None, Meta(description="Null for what lives.")]


class DayItem(Output):
    """What was used on one day (UTC)."""

    day: Annotated[str, Meta(examples=["2026-01-31"])]
    messages: Annotated[int, Meta(description="Received, once for each inbox.")]
    sends: Annotated[int, Meta(description="Recipients that mail was handed over for.")]


class UsageItem(Output):
    """What the workspace uses."""

    plan: Annotated[PlanItem | None, Meta(description="Null: the workspace has no plan.")]
    meters: list[MeterItem]
    days: Annotated[list[DayItem], Meta(description="The oldest first; counted within seconds.")]


class UsageQuery(Input):
    """Of which time."""

    days: _Days = 30


class PlanList(Output):
    """The plans."""

    items: list[PlanItem]


class PlanAssignment(Input):
    """Which workspace gets which plan."""

    workspace_id: WorkspaceId
    plan: Annotated[str, Meta(max_length=40, description="A plan's name; empty for none.")]


class AssignedPlan(Output):
    """The plan that a workspace has now."""

    workspace_id: WorkspaceId
    plan: str


def _plan(name: str, plan: Plan, currency: str) -> PlanItem:
    return PlanItem(
        name=name,
        title=plan.title or name,
        price_per_month=plan.price_per_month,
        currency=currency,
        inboxes=plan.inboxes,
        messages_per_day=plan.messages_per_day,
        sends_per_day=plan.sends_per_day,
        requests_per_s=plan.requests_per_s,
        retention_days=plan.retention_days,
        live_connections=plan.live_connections,
    )


def _meter(meter: Meter) -> MeterItem:
    return MeterItem(
        kind=meter.kind,
        used=meter.used,
        limit=meter.most,
        level=meter.level,
        resets_at=meter.resets_at,
    )


def _day(day: date) -> str:
    return day.isoformat()


async def get_usage(call: Call[None, UsageQuery]) -> UsageItem:
    app, workspace_id = call.app, call.workspace_id
    name = await app.plans.name_of(workspace_id)
    book = app.plans.book
    sends = await app.allowances.plan_use(workspace_id)
    return UsageItem(
        plan=_plan(name, book.plan(name), book.currency) if name else None,
        meters=[_meter(meter) for meter in await app.usage.meters(workspace_id, sends)],
        days=[
            DayItem(_day(used.day), used.messages, used.sends)
            for used in await app.usage.days(workspace_id, call.query.days)
        ],
    )


async def list_plans(call: Call[None, None]) -> PlanList:
    book = call.app.plans.book
    return PlanList(items=[_plan(name, plan, book.currency) for name, plan in book.plans.items()])


async def assign_plan(call: Call[PlanAssignment, None]) -> AssignedPlan:
    await call.app.workspaces.require_operator(call.workspace_id)
    workspace_id = ids.parse_type_id(ids.WORKSPACE, call.body.workspace_id, "workspace_id")
    await call.app.plans.assign(workspace_id, call.body.plan, actor=call.principal.actor)
    return AssignedPlan(call.body.workspace_id, call.body.plan)


ROUTES = (
    Route(
        "GET",
        "/v1/usage",
        get_usage,
        "getUsage",
        TAG,
        "Read what the workspace uses of its plan, and used by day",
        scope.STATS_READ,
        answer=UsageItem,
        query=UsageQuery,
    ),
    Route(
        "GET",
        "/v1/plans",
        list_plans,
        "listPlans",
        TAG,
        "List the plans",
        scope.STATS_READ,
        answer=PlanList,
    ),
    Route(
        "POST",
        "/v1/plans/assign",
        assign_plan,
        "assignPlan",
        TAG,
        "Give a workspace a plan",
        scope.ADMIN,
        answer=AssignedPlan,
        body=PlanAssignment,
        errors=(404,),
        description="Only from the installation's first workspace. In force within five seconds "
        "in every process.",
    ),
)
