"""What the workspace allows itself, and what it has used."""

from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids
from mailyard.sending.allowance import (
    CAP_DAYS_MAX,
    CAP_MAX,
    QUOTA_MAX,
    RATE_MAX_PER_S,
    Limits,
    limits_of,
)
from mailyard.web.api.page import Input, Moment, Output
from mailyard.web.api.route import Answer, Call, Route

TAG = "Workspaces"

_Zone = Annotated[
    str,
    Meta(
        max_length=64,
        description="As in the IANA database. Where a contact has no attribute `timezone` it is "
        "the contact's too; days of the quota are its days.",
        examples=["Europe/Rome"],
    ),
]
_Clock = Annotated[
    str,
    Meta(
        pattern="^[0-2][0-9]:[0-5][0-9]$",
        description="On the recipient's clock. Campaigns wait for the end of quiet hours; an email "
        "only if it asks for that.",
        examples=["22:00"],
    ),
]
_Rate = Annotated[
    float,
    Meta(ge=0.01, le=RATE_MAX_PER_S, description="Recipients a second; more is answered with 429."),
]
_Quota = Annotated[
    int,
    Meta(ge=1, le=QUOTA_MAX, description="Recipients a day; more is answered with 429."),
]
_Cap = Annotated[
    int,
    Meta(ge=1, le=CAP_MAX, description="Campaigns that one contact gets in `campaigns_days`."),
]
_CapDays = Annotated[int, Meta(ge=1, le=CAP_DAYS_MAX)]


class LimitsChange(Input):
    """Limits to set. What is not named stays; null takes a limit away."""

    time_zone: _Zone | UnsetType = UNSET
    quiet_from: _Clock | UnsetType | None = UNSET
    quiet_until: _Clock | UnsetType | None = UNSET
    emails_per_s: _Rate | UnsetType | None = UNSET
    emails_per_day: _Quota | UnsetType | None = UNSET
    campaigns_per_contact: _Cap | UnsetType | None = UNSET
    campaigns_days: _CapDays | UnsetType | None = UNSET


class LimitsItem(Output):
    """The workspace's limits and what it has used; null: no such limit."""

    time_zone: _Zone
    quiet_from: _Clock | None
    quiet_until: _Clock | None
    emails_per_s: _Rate | None
    emails_per_day: _Quota | None
    campaigns_per_contact: _Cap | None
    campaigns_days: _CapDays | None
    used_today: Annotated[
        int, Meta(description="Recipients since the day began; counted while there is a limit.")
    ]
    resets_at: Annotated[Moment, Meta(description="When the workspace's next day begins.")]


async def _item(call: Call[Any, None], limits: Limits) -> LimitsItem:
    use = await call.app.allowances.use(call.workspace_id, limits)
    return LimitsItem(**limits.as_fields(), used_today=use.used, resets_at=use.resets_at)


async def get_limits(call: Call[None, None]) -> LimitsItem:
    return await _item(call, await call.app.allowances.read(call.workspace_id))


async def change_limits(call: Call[LimitsChange, None]) -> Answer:
    wanted = {
        name: value
        for name in LimitsChange.__struct_fields__
        if (value := getattr(call.body, name)) is not UNSET
    }
    async with call.app.database.transaction() as tx:
        before = await call.app.allowances.read(call.workspace_id, tx)
        limits = limits_of({**before.as_fields(), **wanted})
        await call.app.allowances.write(call.workspace_id, limits, tx)
        changed = Change(
            "limits.change",
            ids.type_id(ids.WORKSPACE, call.workspace_id),
            before.as_fields(),
            limits.as_fields(),
        )
        return await call.done(tx, await _item(call, limits), changed)


ROUTES = (
    Route(
        "GET",
        "/v1/workspace/limits",
        get_limits,
        "getLimits",
        TAG,
        "Read the sending limits and what was used of them",
        scope.EMAILS_READ,
        answer=LimitsItem,
    ),
    Route(
        "PATCH",
        "/v1/workspace/limits",
        change_limits,
        "changeLimits",
        TAG,
        "Change the sending limits",
        scope.ADMIN,
        answer=LimitsItem,
        body=LimitsChange,
        description="In force within two seconds in every process.",
    ),
)
