"""The limits by name, and giving somebody all of one again."""

from typing import Annotated

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.ratelimit.policy import SUBJECT_CHARACTERS
from mailyard.web.api.page import Input, Output
from mailyard.web.api.route import Answer, Call, Route

TAG = "Figures"
_OPERATOR = "For the installation's first workspace."


class LimitPolicy(Output):
    """So many units in each window."""

    name: str
    about: str
    per: Annotated[str, Meta(description="Whose the limit is.")]
    units: float
    window_s: float
    burst: Annotated[float, Meta(description="Of the units, so many may come at once.")]
    concurrent: Annotated[int | None, Meta(description="Requests under way together.")]
    within: Annotated[str, Meta(description="The limit of everybody together, if there is one.")]
    source: str


class LimitPolicyList(Output):
    """Every limit by name."""

    items: list[LimitPolicy]


class LimitReset(Input):
    """Whose limit begins anew."""

    subject: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=SUBJECT_CHARACTERS,
            description="As it is counted: a person's address, a mailbox's.",
            examples=["ada@example.org"],
        ),
    ]


class LimitWasReset(Output):
    """What begins anew."""

    subject: str
    policies: list[str]


async def list_policies(call: Call[None, None]) -> LimitPolicyList:
    await call.app.workspaces.require_operator(call.workspace_id)
    return LimitPolicyList(
        items=[
            LimitPolicy(
                name=name,
                about=policy.about,
                per=policy.per,
                units=policy.units,
                window_s=policy.window_s,
                burst=policy.burst,
                concurrent=policy.concurrent,
                within=policy.within,
                source=policy.source,
            )
            for name, policy in sorted(call.app.limit_policies.book.items())
        ]
    )


async def reset_policy(call: Call[LimitReset, None]) -> Answer:
    await call.app.workspaces.require_operator(call.workspace_id)
    subject, policies = call.body.subject, call.app.limit_policies
    name = policies.known(call.names["policy"])
    async with call.app.database.transaction() as tx:
        answer = await call.done(
            tx,
            LimitWasReset(subject=subject, policies=[name]),
            Change("limit_policy.reset", name, after={"subject": subject}),
        )
    await policies.reset(subject, name)
    return answer


ROUTES = (
    Route(
        "GET",
        "/v1/limit-policies",
        list_policies,
        "listLimitPolicies",
        TAG,
        "List the limits by name",
        scope.STATS_READ,
        answer=LimitPolicyList,
        description=_OPERATOR,
    ),
    Route(
        "POST",
        "/v1/limit-policies/{policy}/reset",
        reset_policy,
        "resetLimitPolicy",
        TAG,
        "Give somebody all of a limit again",
        scope.ADMIN,
        answer=LimitWasReset,
        body=LimitReset,
        description=_OPERATOR,
    ),
)
