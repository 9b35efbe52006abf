"""The installation as its operator watches it: figures, alerts, decisions of the autoscaler.

They live at `/monitoring/…`, beside `/metrics`, and are answered like `/v1`: an API key of the
installation's first workspace, its scope, its limits, its audit log.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.account import account_buckets
from mailyard.access.audit import Change
from mailyard.core import ids
from mailyard.core.errors import InvalidInput, NotFound
from mailyard.core.limits import API_PAGE_ITEMS
from mailyard.fleet.alerts.board import Alert
from mailyard.fleet.alerts.notify import ALERT
from mailyard.protocol.address import normalise
from mailyard.ratelimit.policy import SUBJECT_CHARACTERS
from mailyard.web.api.page import Input, Limit, Moment, Output
from mailyard.web.api.route import Answer, Call, Route

TAG = "Monitoring"
_OPERATOR = "Only from the installation's first workspace."


class SlowQuery(Output):
    """A named query that takes time."""

    query: str
    share_of_a_second: Annotated[float, Meta(description="Over all processes.")]
    mean_s: float


class MonitoringFigures(Output):
    """All figures, by name and then by subject (a queue, a role; empty where there is one)."""

    figures: Annotated[dict[str, dict[str, float | None]], Meta(description="Null: not known now.")]
    slowest_queries: list[SlowQuery]


class AlertNotice(Output):
    """What was told of an alert."""

    event: Annotated[str, Meta(description="warning, critical or resolved.")]
    channel: Annotated[str, Meta(description="mail, webhook or slack.")]
    at: Moment
    sent_at: Annotated[Moment | None, Meta(description="Null: it is tried again.")]
    error: str


class AlertItem(Output):
    """Something that is or was not as it should be."""

    id: str
    rule: str
    subject: str
    level: str
    worst: str
    value: float
    about: str
    since: Moment
    started_at: Moment
    ended_at: Annotated[Moment | None, Meta(description="Null: it still is.")]
    notices: list[AlertNotice]


class AlertList(Output):
    """Alerts, the newest first."""

    items: list[AlertItem]


class AlertsQuery(Input):
    """Which alerts."""

    only_open: Annotated[bool, Meta(description="Only those that have not ended.")] = False
    limit: Limit = API_PAGE_ITEMS


class ScaleDecision(Output):
    """What the autoscaler did or held back, and what it was made from."""

    at: Moment
    group: str
    actuator: Annotated[str, Meta(description="local, kubernetes or dry-run.")]
    kind: Annotated[str, Meta(description="up, down, blocked or advise.")]
    was: int
    became: int
    wanted: Annotated[int | None, Meta(description="By the rule of capacity; null: unknown.")]
    reason: str
    inputs: dict[str, Any]


class ScaleDecisionList(Output):
    """Decisions, the newest first."""

    items: list[ScaleDecision]


class ScaleQuery(Input):
    """Which decisions."""

    group: Annotated[str, Meta(max_length=60)] | None = None
    limit: Limit = API_PAGE_ITEMS


class ClearedCache(Output):
    """The caches are empty."""

    cleared: bool
    shared: Annotated[
        bool,
        Meta(description="False: Redis is away; what it has may be read again when it is back."),
    ]


class ResetLimits(Output):
    """Whose limits are full again."""

    user: str
    limits: Annotated[list[str], Meta(description="Which: api, sign-in, account, and policies.")]


async def get_monitoring_metrics(call: Call[None, None]) -> MonitoringFigures:
    await call.app.workspaces.require_operator(call.workspace_id)
    _, figures = await call.app.monitor.look()
    business = await call.app.business.figures()
    today = business.today
    return MonitoringFigures(
        figures={
            **figures,
            "business.active_inboxes": {"": float(business.active_inboxes)},
            "business.mails_today": {"received": today.messages, "sent": today.sends},
            "business.sign_ups_today": {"": float(today.sign_ups)},
        },
        slowest_queries=[
            SlowQuery(query=name, share_of_a_second=share, mean_s=mean)
            for name, share, mean in call.app.monitor.slowest()
        ],
    )


def _items(alerts: Sequence[Alert]) -> list[AlertItem]:
    return [
        AlertItem(
            id=ids.type_id(ALERT, one.id),
            rule=one.rule,
            subject=one.subject,
            level=one.level,
            worst=one.worst,
            value=one.value,
            about=one.about,
            since=one.since,
            started_at=one.started_at,
            ended_at=one.ended_at,
            notices=[
                AlertNotice(
                    event=told.event,
                    channel=told.channel,
                    at=told.at,
                    sent_at=told.sent_at,
                    error=told.error,
                )
                for told in one.told
            ],
        )
        for one in alerts
    ]


async def list_alerts(call: Call[None, AlertsQuery]) -> AlertList:
    await call.app.workspaces.require_operator(call.workspace_id)
    query = call.query
    found = await call.app.alert_board.list(only_open=query.only_open, limit=query.limit)
    return AlertList(items=_items(found))


async def list_scale_decisions(call: Call[None, ScaleQuery]) -> ScaleDecisionList:
    await call.app.workspaces.require_operator(call.workspace_id)
    found = await call.app.decisions.list(group=call.query.group, limit=call.query.limit)
    return ScaleDecisionList(
        items=[
            ScaleDecision(
                at=one.at,
                group=one.group,
                actuator=one.actuator,
                kind=one.kind,
                was=one.was,
                became=one.became,
                wanted=one.wanted,
                reason=one.reason,
                inputs=dict(one.inputs),
            )
            for one in found
        ]
    )


async def clear_cache(call: Call[None, None]) -> Answer:
    await call.app.workspaces.require_operator(call.workspace_id)
    async with call.app.database.transaction() as tx:
        shared = await call.app.cache.clear(call.workspace_id, tx)
        answer = await call.done(
            tx,
            ClearedCache(cleared=True, shared=shared),
            Change("cache.clear", "cache", None, {"cleared": True, "shared": shared}),
        )
    await call.app.cache.cleared()
    return answer


async def reset_user_limits(call: Call[None, None]) -> Answer:
    await call.app.workspaces.require_operator(call.workspace_id)
    user = await _caller(call, call.names["user"])
    policies = call.app.limit_policies
    limits = ["api"] + (["account", "sign-in"] if "@" in user else []) + sorted(policies.book)
    async with call.app.database.transaction() as tx:
        change = Change("limits.reset", user, None, {"user": user, "limits": limits})
        answer = await call.done(tx, ResetLimits(user=user, limits=limits), change)
        # Before the commit: with Redis away nothing is said to have been reset.
        await call.app.limits.forget(_buckets(user))
        await policies.reset(user)
    return answer


def _buckets(user: str) -> list[str]:
    """What requests, signing in and asking for letters count against."""
    keys = [f"api:{user}"]
    if "@" in user:
        keys += [f"sign-in:{user.lower()[:200]}", *account_buckets(user)]
    return keys


async def _caller(call: Call[None, None], text: str) -> str:
    """Whom limits count by: a person's address, or an API key's id. Raises NotFound."""
    if "@" in text and len(text) <= SUBJECT_CHARACTERS:
        try:
            return normalise(text)  # as people are stored, and so counted
        except InvalidInput:
            raise NotFound("that is no address") from None
    prefix = text.partition("_")[0]
    try:
        if prefix == ids.USER:
            user_id = ids.parse_type_id(ids.USER, text, "user")
            return (await call.app.users.get(call.workspace_id, user_id)).email
        if prefix == ids.API_KEY:
            ids.parse_type_id(ids.API_KEY, text, "user")
            return text
    except InvalidInput:
        pass
    raise NotFound("a user is an address, or the id of a person or of an API key")


ROUTES = (
    Route(
        "GET",
        "/monitoring/metrics",
        get_monitoring_metrics,
        "getMonitoringMetrics",
        TAG,
        "Read all figures of the installation",
        scope.STATS_READ,
        answer=MonitoringFigures,
        description=_OPERATOR,
    ),
    Route(
        "GET",
        "/monitoring/alerts",
        list_alerts,
        "listAlerts",
        TAG,
        "List alerts, and what was told of them",
        scope.STATS_READ,
        answer=AlertList,
        query=AlertsQuery,
        description=_OPERATOR,
    ),
    Route(
        "GET",
        "/v1/scaling/decisions",
        list_scale_decisions,
        "listScaleDecisions",
        TAG,
        "List what the autoscaler did, and why",
        scope.STATS_READ,
        answer=ScaleDecisionList,
        query=ScaleQuery,
        description=_OPERATOR,
    ),
    Route(
        "POST",
        "/monitoring/operations/clear-cache",
        clear_cache,
        "clearCache",
        TAG,
        "Empty the caches of all processes",
        scope.ADMIN,
        answer=ClearedCache,
        description=_OPERATOR,
    ),
    Route(
        "POST",
        "/monitoring/operations/reset-user-limits/{user}",
        reset_user_limits,
        "resetUserLimits",
        TAG,
        "Fill the rate limits of a person or an API key again",
        scope.ADMIN,
        answer=ResetLimits,
        errors=(404,),
        description=_OPERATOR + " `user`: an address, or the id of a person or an API key.",
    ),
)
