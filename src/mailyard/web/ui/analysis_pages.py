"""Analysis: models in their order, when mail is analysed, the budget; and the panel of a mail."""

from typing import Any

from litestar import Response, get, post
from litestar.params import FromPath

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.analysis.task import ASPECTS
from mailyard.core.errors import InvalidInput, MailyardError
from mailyard.core.ids import MESSAGE, MODEL, parse_type_id, type_id
from mailyard.storage.database import Connection
from mailyard.web.api.analysis import MICROS
from mailyard.web.api.analysis import told as told_policy
from mailyard.web.api.models import change_of, told
from mailyard.web.ui.frame import Visit


async def panel(visit: Visit, message_id: str) -> dict[str, Any]:
    """What the page of a mail shows of its meaning."""
    identifier = parse_type_id(MESSAGE, message_id)
    application, workspace_id = visit.application, visit.principal.workspace_id
    return {
        "meaning": await application.meanings.of(workspace_id, identifier),
        "analyses": await application.analyses.list(workspace_id, identifier),
        "may_analyse": scope.ANALYSIS_WRITE in visit.principal.scopes,
    }


async def _page(visit: Visit, **shown: Any) -> Response[str]:
    from mailyard.analysis.book import KINDS

    application, workspace_id = visit.application, visit.principal.workspace_id
    models = await application.models.list(workspace_id)
    policy = await application.analysis_policies.get(workspace_id)
    problem = shown.pop("problem", None)
    return visit.page(
        "analysis.html",
        status=422 if problem else 200,
        problem=problem,
        models=[{"id": type_id(MODEL, one.id), "it": one} for one in models],
        kinds=KINDS,
        policy=policy,
        aspects=ASPECTS,
        day_money="" if policy.day_micros is None else f"{policy.day_micros / MICROS:g}",
        days=[
            (one, one.micros / MICROS)
            for one in await application.analysis_policies.spent(workspace_id, 7)
        ],
        may_write=scope.ANALYSIS_WRITE in visit.principal.scopes,
        form={
            "name": "",
            "kind": "openai",
            "model": "",
            "base_url": "",
            "input_price": "0",
            "output_price": "0",
            **shown,
        },
    )


@get("/analysis")
async def analysis(visit: Visit) -> Response[str]:
    visit.principal.require(scope.ANALYSIS_READ)
    return await _page(visit)


@post("/analysis", status_code=303)
async def set_policy(visit: Visit) -> Response[Any]:
    visit.principal.require(scope.ANALYSIS_WRITE)
    application, workspace_id = visit.application, visit.principal.workspace_id
    policies = application.analysis_policies
    try:
        async with application.database.transaction() as tx:
            before = await policies.get(workspace_id, tx)
            tokens = _number(visit, "day_tokens")
            money = _number(visit, "day_money")
            after = await policies.set(
                workspace_id,
                on_arrival=visit.field("on_arrival") == "yes",
                aspects=[one for one in ASPECTS if visit.field(f"aspect_{one}") == "yes"],
                fields=before.ask.fields_schema,
                day_tokens=None if tokens is None else int(tokens),
                day_micros=None if money is None else round(money * MICROS),
                tx=tx,
            )
            change = Change("analysis.policy", "analysis", told_policy(before), told_policy(after))
            await _record(visit, change, tx)
    except MailyardError as error:
        return await _page(visit, problem=_said(error))
    return visit.go("/analysis", "saved")


@post("/analysis/models", status_code=303)
async def add_model(visit: Visit) -> Response[Any]:
    from mailyard.analysis.book import NewModel

    visit.principal.require(scope.ANALYSIS_WRITE)
    names = ("name", "kind", "model", "base_url", "input_price", "output_price")
    form = {name: visit.field(name) for name in names}
    application, workspace_id = visit.application, visit.principal.workspace_id
    try:
        settings = {
            "model": form["model"],
            "base_url": form["base_url"],
            "input_price": _number(visit, "input_price") or 0.0,
            "output_price": _number(visit, "output_price") or 0.0,
        }
        wanted = NewModel(form["name"], form["kind"], settings, visit.field("key"))
        async with application.database.transaction() as tx:
            one = await application.models.create(workspace_id, wanted, tx)
            await _record(visit, change_of("model.create", one, None, told(one)), tx)
    except MailyardError as error:
        return await _page(visit, problem=_said(error), **form)
    return visit.go("/analysis", "made")


@post("/analysis/models/{model_id:str}/switch", status_code=303)
async def switch_model(visit: Visit, model_id: FromPath[str]) -> Response[Any]:
    from mailyard.analysis.book import ModelChange

    visit.principal.require(scope.ANALYSIS_WRITE)
    application, workspace_id = visit.application, visit.principal.workspace_id
    identifier = parse_type_id(MODEL, model_id)
    change = ModelChange(enabled=visit.field("on") == "yes")
    async with application.database.transaction() as tx:
        before = await application.models.get(workspace_id, identifier, tx)
        after = await application.models.change(workspace_id, identifier, change, tx)
        await _record(visit, change_of("model.change", after, told(before), told(after)), tx)
    return visit.go("/analysis", "saved")


@post("/analysis/models/{model_id:str}/remove", status_code=303)
async def remove_model(visit: Visit, model_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.ANALYSIS_WRITE)
    application, workspace_id = visit.application, visit.principal.workspace_id
    async with application.database.transaction() as tx:
        one = await application.models.remove(workspace_id, parse_type_id(MODEL, model_id), tx)
        await _record(visit, change_of("model.remove", one, told(one), None), tx)
    return visit.go("/analysis", "deleted")


@post("/inboxes/{inbox_id:str}/messages/{message_id:str}/analyse", status_code=303)
async def analyse(
    visit: Visit, inbox_id: FromPath[str], message_id: FromPath[str]
) -> Response[Any]:
    """Ask everything of a mail that the inbox shows."""
    from mailyard.analysis.task import EVERYTHING
    from mailyard.web.ui.inbox_pages import message_ids

    visit.principal.require(scope.ANALYSIS_WRITE)
    application, workspace_id = visit.application, visit.principal.workspace_id
    inbox, identifier = message_ids(inbox_id, message_id)
    await application.messages.raw(workspace_id, identifier, inbox)
    async with application.database.transaction() as tx:
        found = await application.analyses.request(workspace_id, identifier, EVERYTHING, tx)
        asked = Change("analysis.ask", message_id, None, {"task": found.task.hex()})
        await _record(visit, asked, tx)
    application.analyses.announced()
    return visit.go(f"/inboxes/{inbox_id}/messages/{message_id}", "analysed")


def _number(visit: Visit, name: str) -> float | None:
    """A number of the form; None when it is empty. Raises InvalidInput."""
    text = visit.field(name).replace(",", ".")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise InvalidInput("a number", field=name) from None
    if not 0 <= value <= 1e12:
        raise InvalidInput("0 or more", field=name)
    return value


async def _record(visit: Visit, change: Change, tx: Connection) -> None:
    await visit.application.audit.record_many(visit.principal.actor, [change], tx)


def _said(error: MailyardError) -> str:
    return f"{error.field}: {error.message}" if error.field else error.message


HANDLERS = [analysis, set_policy, add_model, switch_model, remove_model, analyse]
