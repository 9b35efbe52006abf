"""Whom the workspace takes mail from: lists, limits for a network, greylisting, spam."""

from typing import Any

from litestar import Response, get, post

from mailyard.access import scope
from mailyard.core.errors import InvalidInput
from mailyard.core.ids import WORKSPACE, type_id
from mailyard.receiving.policy import MailPolicy
from mailyard.web.api.mail_policy import told
from mailyard.web.ui.form_values import lines, number, said_seconds, seconds, whole
from mailyard.web.ui.frame import Visit

_FIELDS = (
    "allowed", "blocked", "source_per_minute", "greylist_s", "spam_tag_at", "spam_refuse_at",
)  # fmt: skip


def _shown(policy: MailPolicy) -> dict[str, str]:
    """The policy as its form has it."""
    points = (policy.spam_tag_at, policy.spam_refuse_at)
    tag_at, refuse_at = ("" if one is None else f"{one:g}" for one in points)
    rate = policy.source_per_minute
    return {
        "allowed": "\n".join(policy.allowed),
        "blocked": "\n".join(policy.blocked),
        "source_per_minute": "" if rate is None else str(rate),
        "greylist_s": said_seconds(policy.greylist_s),
        "spam_tag_at": tag_at,
        "spam_refuse_at": refuse_at,
    }


def _wanted(form: dict[str, str]) -> MailPolicy:
    """The form as a policy. Raises InvalidInput naming the field."""
    waits_s = seconds(form["greylist_s"], "greylist_s")
    return MailPolicy(
        lines(form["allowed"]),
        lines(form["blocked"]),
        whole(form["source_per_minute"], "source_per_minute"),
        None if waits_s is None else round(waits_s),
        number(form["spam_tag_at"], "spam_tag_at"),
        number(form["spam_refuse_at"], "spam_refuse_at"),
    )


async def _page(
    visit: Visit, form: dict[str, str] | None = None, problem: InvalidInput | None = None
) -> Response[str]:
    stored = await visit.application.mail_policies.get(visit.principal.workspace_id)
    wrong = "" if problem is None else (problem.field or "").partition(".")[0]
    return visit.page(
        "policy.html",
        status=422 if problem else 200,
        form=_shown(stored) if form is None else form,
        wrong=wrong,
        wrong_text="" if problem is None else _told_wrong(problem, form or {}),
        problem=None if problem is None or wrong in _FIELDS else problem.message,
        may_change=scope.DOMAINS_WRITE in visit.principal.scopes,
    )


def _told_wrong(problem: InvalidInput, form: dict[str, str]) -> str:
    """What is wrong, with the entry of a list that it is about."""
    name, _, place = (problem.field or "").partition(".")
    entries = lines(form.get(name, ""))
    if place.isdecimal() and int(place) < len(entries):
        return f"{entries[int(place)][:80]}: {problem.message}"
    return problem.message


@get("/receiving-policy")
async def policy(visit: Visit) -> Response[str]:
    visit.principal.require(scope.DOMAINS_READ)
    return await _page(visit)


@post("/receiving-policy", status_code=303)
async def set_policy(visit: Visit) -> Response[Any]:
    visit.principal.require(scope.DOMAINS_WRITE)
    form = {name: visit.field(name).replace("\r", "") for name in _FIELDS}
    policies, workspace_id = visit.application.mail_policies, visit.principal.workspace_id
    try:
        wanted = _wanted(form)
        async with visit.application.database.transaction() as tx:
            before = await policies.get(workspace_id, tx)
            after = await policies.set(workspace_id, wanted, tx)
            await visit.application.audit.record(
                visit.principal.actor,
                "mail_policy.set",
                type_id(WORKSPACE, workspace_id),
                told(before),
                told(after),
                tx,
            )
    except InvalidInput as error:
        return await _page(visit, form, error)
    return visit.go("/receiving-policy", "saved")


HANDLERS = [policy, set_policy]
