"""The installation for its operator: alerts with their history, and why processes came and went."""

from typing import Any

from litestar import Response, get

from mailyard.access import scope
from mailyard.web.ui.frame import Visit

_SHOWN = (
    ("API requests a second", "api.requests_per_s", ""),
    ("API p95, s", "api.p95_s", ""),
    ("API errors", "api.error_share", "%"),
    ("Database connections", "database.connections_share", "%"),
    ("Disk used", "disk.used", "%"),
    ("Wait before mail leaves, s", "send.latency_s", ""),
)
_ROWS = 100


async def _operator(visit: Visit) -> None:
    await visit.application.workspaces.require_operator(visit.principal.workspace_id)
    visit.principal.require(scope.STATS_READ)


@get("/alerts")
async def alerts(visit: Visit) -> Response[str]:
    await _operator(visit)
    app = visit.application
    _, figures = await app.monitor.look()
    found = await app.alert_board.list(limit=_ROWS)
    return visit.page(
        "alerts.html",
        shown=[(label, _text(figures.get(name, {}).get(""), unit)) for label, name, unit in _SHOWN],
        open=[one for one in found if one.ended_at is None],
        over=[one for one in found if one.ended_at is not None],
        rules=app.alert_rules,
        what_helps={rule.name: rule.do for rule in app.alert_rules},
        judged=app.settings.alerts,
        slowest=app.monitor.slowest(),
    )


def _text(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    return f"{value * 100:.1f} %" if unit == "%" else f"{value:.3g}"


@get("/scaling")
async def scaling(visit: Visit) -> Response[str]:
    await _operator(visit)
    app = visit.application
    _, figures = await app.monitor.look()
    counts: dict[str, Any] = figures.get("process.count", {})
    return visit.page(
        "scaling.html",
        mode=app.settings.autoscale,
        counts=counts,
        policies=app.scale_policies,
        decisions=await app.decisions.list(limit=_ROWS),
    )


HANDLERS = [alerts, scaling]
