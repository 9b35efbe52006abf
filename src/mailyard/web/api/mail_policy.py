"""Whom a workspace takes mail from, as a whole: lists, limits for a source, greylisting, spam."""

# ruff: noqa: RUF012 (msgspec copies a default that is a list)

from typing import Annotated, Any

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids
from mailyard.receiving.policy import ENTRIES_MAX, GREYLIST_MAX_S, MailPolicy
from mailyard.web.api.page import Input
from mailyard.web.api.route import Answer, Call, Route

TAG = "Receiving domains"
_Entry = Annotated[str, Meta(min_length=1, max_length=320)]


class MailPolicyBody(Input):
    """Whom this workspace takes mail from. Entries are networks (192.0.2.0/24), addresses, or
    domains with all below them."""

    allowed: Annotated[
        list[_Entry], Meta(max_length=ENTRIES_MAX, description="Nothing below holds for these.")
    ] = []
    blocked: Annotated[
        list[_Entry], Meta(max_length=ENTRIES_MAX, description="Refused: 550 5.7.1.")
    ] = []
    source_per_minute: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=1_000_000,
                description="Recipients a minute that one network may name: 451.",
            ),
        ]
        | None
    ) = None
    greylist_s: (
        Annotated[
            int,
            Meta(
                ge=1, le=GREYLIST_MAX_S, description="How long a stranger's first mail waits: 451."
            ),
        ]
        | None
    ) = None
    spam_tag_at: (
        Annotated[
            float,
            Meta(gt=0, le=1000, description="From these points on a mail has X-Mailyard-Spam."),
        ]
        | None
    ) = None
    spam_refuse_at: (
        Annotated[
            float, Meta(gt=0, le=1000, description="From these points on a mail is refused: 550.")
        ]
        | None
    ) = None


def _policy_item(one: MailPolicy) -> MailPolicyBody:
    return MailPolicyBody(
        list(one.allowed),
        list(one.blocked),
        one.source_per_minute,
        one.greylist_s,
        one.spam_tag_at,
        one.spam_refuse_at,
    )


def told(one: MailPolicy) -> dict[str, Any]:
    return {
        "allowed": list(one.allowed),
        "blocked": list(one.blocked),
        "source_per_minute": one.source_per_minute,
        "greylist_s": one.greylist_s,
        "spam_tag_at": one.spam_tag_at,
        "spam_refuse_at": one.spam_refuse_at,
    }


async def get_mail_policy(call: Call[None, None]) -> MailPolicyBody:
    return _policy_item(await call.app.mail_policies.get(call.workspace_id))


async def set_mail_policy(call: Call[MailPolicyBody, None]) -> Answer:
    body, policies = call.body, call.app.mail_policies
    wanted = MailPolicy(
        tuple(body.allowed),
        tuple(body.blocked),
        body.source_per_minute,
        body.greylist_s,
        body.spam_tag_at,
        body.spam_refuse_at,
    )
    async with call.app.database.transaction() as tx:
        before = await policies.get(call.workspace_id, tx)
        after = await policies.set(call.workspace_id, wanted, tx)
        subject = ids.type_id(ids.WORKSPACE, call.workspace_id)
        changed = Change("mail_policy.set", subject, told(before), told(after))
        return await call.done(tx, _policy_item(after), changed)


ROUTES = (
    Route(
        "GET",
        "/v1/mail-policy",
        get_mail_policy,
        "getMailPolicy",
        TAG,
        "Read whom this workspace takes mail from",
        scope.DOMAINS_READ,
        answer=MailPolicyBody,
    ),
    Route(
        "PUT",
        "/v1/mail-policy",
        set_mail_policy,
        "setMailPolicy",
        TAG,
        "Say whom this workspace takes mail from: lists, limits, greylisting, spam",
        scope.DOMAINS_WRITE,
        answer=MailPolicyBody,
        body=MailPolicyBody,
        description="As a whole: what is left out holds no longer. Listeners follow in seconds.",
    ),
)
