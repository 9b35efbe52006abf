"""Templates: written, proved at publishing, versioned."""

from typing import Any
from uuid import UUID

from litestar import Response, get, post

from mailyard.access import scope
from mailyard.core.errors import Conflict, InvalidInput
from mailyard.core.ids import TEMPLATE, parse_type_id, type_id
from mailyard.sending.template import Proven
from mailyard.web.ui.frame import Visit

_EMPTY = {"name": "", "subject": "", "html": "", "text": ""}


@get("/templates")
async def templates(visit: Visit) -> Response[str]:
    visit.principal.require(scope.TEMPLATES_READ)
    lines = await visit.application.templates.list(visit.principal.workspace_id)
    return visit.page(
        "templates.html",
        templates=[
            {"id": type_id(TEMPLATE, line.id), "name": line.name, "version": line.version}
            for line in lines
        ],
    )


@get("/templates/new")
async def new_template(visit: Visit) -> Response[str]:
    visit.principal.require(scope.TEMPLATES_WRITE)
    return _form_page(visit, dict(_EMPTY))


@post("/templates", status_code=303)
async def make_template(visit: Visit) -> Response[Any]:
    visit.principal.require(scope.TEMPLATES_WRITE)
    form = _form(visit)
    try:
        source = await _proven(visit, form)
        async with visit.application.database.transaction() as tx:
            made = await visit.application.templates.create(
                visit.principal.workspace_id, form["name"], source, tx=tx
            )
            shown = type_id(TEMPLATE, made.id)
            await visit.application.audit.record(
                visit.principal.actor, "template.create", shown, after={"name": made.name}, tx=tx
            )
    except (InvalidInput, Conflict) as error:
        return _form_page(visit, form, problem=_said(error))
    visit.application.templates.announce()
    return visit.go(f"/templates/{shown}", "made")


@get("/templates/{template_id:str}")
async def template(visit: Visit, template_id: str) -> Response[str]:
    visit.principal.require(scope.TEMPLATES_READ)
    return await _template_page(visit, parse_type_id(TEMPLATE, template_id))


@post("/templates/{template_id:str}", status_code=303)
async def publish(visit: Visit, template_id: str) -> Response[Any]:
    visit.principal.require(scope.TEMPLATES_WRITE)
    identifier, form = parse_type_id(TEMPLATE, template_id), _form(visit)
    try:
        source = await _proven(visit, form)
        async with visit.application.database.transaction() as tx:
            made = await visit.application.templates.publish(
                visit.principal.workspace_id, identifier, source, tx=tx
            )
            await visit.application.audit.record(
                visit.principal.actor,
                "template.publish",
                template_id,
                {"version": made.version - 1},
                {"version": made.version},
                tx,
            )
    except InvalidInput as error:
        return await _template_page(visit, identifier, form, _said(error))
    visit.application.templates.announce()
    return visit.go(f"/templates/{template_id}", "saved")


def _form(visit: Visit) -> dict[str, str]:
    """The three sources as they were typed; a browser sends CRLF line ends."""
    return {
        name: str(visit.form.get(name, "")).replace("\r\n", "\n")
        for name in ("name", "subject", "html", "text")
    }


async def _proven(visit: Visit, form: dict[str, str]) -> Proven:
    return await visit.application.templates.prove(form["subject"], form["html"], form["text"])


def _said(error: InvalidInput | Conflict) -> str:
    return f"{error.field}: {error.message}" if error.field else error.message


def _form_page(visit: Visit, form: dict[str, str], problem: str | None = None) -> Response[str]:
    return visit.page(
        "template.html",
        status=422 if problem else 200,
        form=form,
        version=None,
        versions=[],
        variables=(),
        action="/templates",
        problem=problem,
    )


async def _template_page(
    visit: Visit, template_id: UUID, form: dict[str, str] | None = None, problem: str | None = None
) -> Response[str]:
    """The newest version in the form, or what was typed and refused."""
    service, workspace_id = visit.application.templates, visit.principal.workspace_id
    stored = await service.get(workspace_id, template_id)
    typed = form or {"subject": stored.subject, "html": stored.html, "text": stored.text}
    return visit.page(
        "template.html",
        status=422 if problem else 200,
        form={**typed, "name": stored.name},
        version=stored.version,
        versions=await service.versions(workspace_id, template_id),
        variables=stored.variables,
        action=f"/templates/{type_id(TEMPLATE, template_id)}",
        problem=problem,
    )


HANDLERS = [templates, new_template, make_template, template, publish]
