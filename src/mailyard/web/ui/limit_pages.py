"""What the workspace allows itself: its clock, quiet hours, rate, quota and frequency cap."""

from collections.abc import Callable
from typing import Any

from litestar import Response, get, post

from mailyard.access import scope
from mailyard.core.errors import InvalidInput
from mailyard.core.ids import WORKSPACE, type_id
from mailyard.sending.allowance import limits_of
from mailyard.web.ui.frame import Visit

_NUMBERS: dict[str, Callable[[str], float]] = {
    "emails_per_s": float,
    "emails_per_day": int,
    "campaigns_per_contact": int,
    "campaigns_days": int,
}


async def _page(visit: Visit, **form: str) -> Response[str]:
    allowances = visit.application.allowances
    workspace_id = visit.principal.workspace_id
    limits = await allowances.read(workspace_id)
    use = await allowances.use(workspace_id, limits)
    shown = {
        name: "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
        for name, value in limits.as_fields().items()
    }
    problem = form.pop("problem", None)
    return visit.page(
        "limits.html",
        status=422 if problem else 200,
        problem=problem,
        form={**shown, **form},
        limits=limits,
        use=use,
        owner=scope.ADMIN in visit.principal.scopes,
    )


@get("/limits")
async def limits(visit: Visit) -> Response[str]:
    visit.principal.require(scope.EMAILS_READ)
    return await _page(visit)


@post("/limits", status_code=303)
async def change_limits(visit: Visit) -> Response[Any]:
    visit.principal.require(scope.ADMIN)
    names = ("time_zone", "quiet_from", "quiet_until", *_NUMBERS)
    form = {name: visit.field(name) for name in names}
    workspace_id = visit.principal.workspace_id
    allowances = visit.application.allowances
    try:
        wanted = limits_of(_read(form))
        async with visit.application.database.transaction() as tx:
            before = await allowances.write(workspace_id, wanted, tx)
            await visit.application.audit.record(
                visit.principal.actor,
                "limits.change",
                type_id(WORKSPACE, workspace_id),
                before=before.as_fields(),
                after=wanted.as_fields(),
                tx=tx,
            )
    except InvalidInput as error:
        said = f"{error.field}: {error.message}" if error.field else error.message
        return await _page(visit, problem=said, **form)
    return visit.go("/limits", "saved")


def _read(form: dict[str, str]) -> dict[str, Any]:
    """The form's fields as values. Raises InvalidInput naming the field."""
    values: dict[str, Any] = {
        "time_zone": form["time_zone"] or "UTC",
        "quiet_from": form["quiet_from"] or None,
        "quiet_until": form["quiet_until"] or None,
    }
    for name, kind in _NUMBERS.items():
        try:
            values[name] = kind(form[name]) if form[name] else None
        except (ValueError, OverflowError):
            raise InvalidInput("a number", field=name) from None
    return values


HANDLERS = [limits, change_limits]
