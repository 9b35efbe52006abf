"""Features that come gradually, for operators."""

from typing import Annotated, Literal

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.access.feature import Reach
from mailyard.web.api.page import Input, Moment, Output
from mailyard.web.api.route import Answer, Call, Route

TAG = "Features"
_OPERATOR = "For the installation's first workspace."


class FeatureItem(Output):
    """A feature that is on its way to all workspaces."""

    name: str
    about: str
    percent: Annotated[int, Meta(description="To so many of the workspaces it comes.")]
    having: Annotated[int, Meta(description="Workspaces that have it, of those counted.")]
    counted: Annotated[int, Meta(description="Workspaces counted: the oldest 10,000.")]
    changed_at: Annotated[
        Moment | None, Meta(description="When somebody said so; null: as the program does.")
    ]


class FeatureList(Output):
    """All of them."""

    items: list[FeatureItem]


class FeatureChange(Input):
    """How far it comes. Who has it at 25 percent has it at 50 too."""

    percent: Literal[0, 25, 50, 100]


class FeatureState(Output):
    """How far it comes now."""

    name: str
    percent: int


def _item(reach: Reach) -> FeatureItem:
    return FeatureItem(
        name=reach.rollout.feature.name,
        about=reach.rollout.feature.about,
        percent=reach.rollout.percent,
        having=reach.having,
        counted=reach.counted,
        changed_at=reach.rollout.changed_at,
    )


async def list_features(call: Call[None, None]) -> FeatureList:
    await call.app.workspaces.require_operator(call.workspace_id)
    return FeatureList(items=[_item(reach) for reach in await call.app.features.all()])


async def change_feature(call: Call[FeatureChange, None]) -> Answer:
    await call.app.workspaces.require_operator(call.workspace_id)
    name, percent = call.names["feature"], call.body.percent
    async with call.app.database.transaction() as tx:
        before = await call.app.features.roll_out(name, percent, tx)
        answer = await call.done(
            tx,
            FeatureState(name=name, percent=percent),
            Change("feature.roll_out", name, {"percent": before.percent}, {"percent": percent}),
        )
    call.app.features.announce()
    return answer


ROUTES = (
    Route(
        "GET",
        "/v1/features",
        list_features,
        "listFeatures",
        TAG,
        "List features that come gradually",
        scope.STATS_READ,
        answer=FeatureList,
        description=_OPERATOR,
    ),
    Route(
        "PATCH",
        "/v1/features/{feature}",
        change_feature,
        "changeFeature",
        TAG,
        "Say to how many workspaces a feature comes",
        scope.ADMIN,
        answer=FeatureState,
        body=FeatureChange,
        description=_OPERATOR + " In force at once in every process that hears the bus, within "
        "five seconds in all.",
    ),
)
