"""Templates: the list, the editor with its preview, versions and what changed between them."""

from datetime import datetime
from difflib import unified_diff
from typing import Any
from uuid import UUID

from litestar import Response, get, post
from litestar.params import FromPath

from mailyard.access import scope
from mailyard.core.errors import Conflict, InvalidInput, NotFound
from mailyard.core.ids import TEMPLATE, parse_type_id, type_id
from mailyard.sending.build.source import EMAIL, KINDS, Source
from mailyard.sending.template_value import Draft, Template, TemplateLine, Use
from mailyard.web.ui.frame import Visit

_DIFF_LINES = 2_000  # of a source; comparing longer ones takes too long
_EMPTY = Source()


@get("/templates")
async def templates(visit: Visit) -> Response[str]:
    visit.principal.require(scope.TEMPLATES_READ)
    lines = await visit.application.templates.list(visit.principal.workspace_id)
    return visit.page("templates.html", templates=[_line_view(line) for line in lines])


@get("/templates/new")
async def new_template(visit: Visit) -> Response[str]:
    visit.principal.require(scope.TEMPLATES_WRITE)
    return _new_page(visit, "", _EMPTY)


@post("/templates", status_code=303)
async def make_template(visit: Visit) -> Response[Any]:
    visit.principal.require(scope.TEMPLATES_WRITE)
    service, workspace_id = visit.application.templates, visit.principal.workspace_id
    name, author = visit.field("name"), visit.principal.actor.name
    source = source_of(visit, visit.field("kind") or EMAIL)
    try:
        if visit.field("draft"):
            async with visit.application.database.transaction() as tx:
                draft = await service.create_draft(workspace_id, name, source, author=author, tx=tx)
                shown = type_id(TEMPLATE, draft.id)
                await visit.application.audit.record(
                    visit.principal.actor, "template.create", shown, after={"name": name}, tx=tx
                )
            return visit.go(f"/templates/{shown}", "made")
        proven = await service.prove_source(workspace_id, source)
        async with visit.application.database.transaction() as tx:
            made = await service.create(workspace_id, name, proven, author=author, tx=tx)
            shown = type_id(TEMPLATE, made.id)
            await visit.application.audit.record(
                visit.principal.actor, "template.create", shown, after={"name": made.name}, tx=tx
            )
    except (InvalidInput, Conflict) as error:
        return _new_page(visit, name, source, problem=_said(error))
    service.announce()
    return visit.go(f"/templates/{shown}", "made")


@get("/templates/{template_id:str}")
async def template(visit: Visit, template_id: FromPath[str]) -> Response[str]:
    visit.principal.require(scope.TEMPLATES_READ)
    return await editor(visit, parse_type_id(TEMPLATE, template_id))


@post("/templates/{template_id:str}", status_code=303)
async def publish(visit: Visit, template_id: FromPath[str]) -> Response[Any]:
    """What is in the form becomes the next version; a draft is done with."""
    visit.principal.require(scope.TEMPLATES_WRITE)
    service, workspace_id = visit.application.templates, visit.principal.workspace_id
    identifier = parse_type_id(TEMPLATE, template_id)
    head = await service.head(workspace_id, identifier)
    source = source_of(visit, head.kind)
    try:
        proven = await service.prove_source(workspace_id, source)
        async with visit.application.database.transaction() as tx:
            await service.drop_draft(workspace_id, identifier, tx=tx)
            made = await service.publish(
                workspace_id, identifier, proven, author=visit.principal.actor.name, tx=tx
            )
            await visit.application.audit.record(
                visit.principal.actor,
                "template.publish",
                template_id,
                {"version": head.published},
                {"version": made.version},
                tx,
            )
    except InvalidInput as error:
        return await editor(visit, identifier, source, _said(error))
    service.announce()
    return visit.go(f"/templates/{template_id}", "published")


@post("/templates/{template_id:str}/draft", status_code=303)
async def save_draft(visit: Visit, template_id: FromPath[str]) -> Response[Any]:
    """What is in the form is kept, right or wrong."""
    visit.principal.require(scope.TEMPLATES_WRITE)
    service, workspace_id = visit.application.templates, visit.principal.workspace_id
    identifier = parse_type_id(TEMPLATE, template_id)
    head = await service.head(workspace_id, identifier)
    source = source_of(visit, head.kind)
    try:
        async with visit.application.database.transaction() as tx:
            await service.save_draft(
                workspace_id, identifier, source, author=visit.principal.actor.name, tx=tx
            )
            await visit.application.audit.record(
                visit.principal.actor,
                "template.draft",
                template_id,
                after={"subject": source.subject},
                tx=tx,
            )
    except InvalidInput as error:
        return await editor(visit, identifier, source, _said(error))
    return visit.go(f"/templates/{template_id}", "saved")


@post("/templates/{template_id:str}/draft/drop", status_code=303)
async def drop_draft(visit: Visit, template_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.TEMPLATES_WRITE)
    service, workspace_id = visit.application.templates, visit.principal.workspace_id
    identifier = parse_type_id(TEMPLATE, template_id)
    head = await service.head(workspace_id, identifier)
    if head.published == 0:
        raise Conflict("nothing else is there of this template: publish it first")
    async with visit.application.database.transaction() as tx:
        if not await service.drop_draft(workspace_id, identifier, tx=tx):
            raise NotFound("this template has no draft")
        await visit.application.audit.record(
            visit.principal.actor, "template.draft", template_id, {"draft": True}, None, tx
        )
    return visit.go(f"/templates/{template_id}", "deleted")


@post("/templates/{template_id:str}/versions/{version:int}/use", status_code=303)
async def use_version(
    visit: Visit, template_id: FromPath[str], version: FromPath[int]
) -> Response[Any]:
    visit.principal.require(scope.TEMPLATES_WRITE)
    service, workspace_id = visit.application.templates, visit.principal.workspace_id
    identifier = parse_type_id(TEMPLATE, template_id)
    async with visit.application.database.transaction() as tx:
        before = await service.roll_back(workspace_id, identifier, _known(version), tx=tx)
        await visit.application.audit.record(
            visit.principal.actor,
            "template.use_version",
            template_id,
            {"version": before},
            {"version": version},
            tx,
        )
    service.announce()
    return visit.go(f"/templates/{template_id}", "saved")


@get("/templates/{template_id:str}/versions/{version:int}")
async def version_page(
    visit: Visit, template_id: FromPath[str], version: FromPath[int]
) -> Response[str]:
    """A version, and what it changed."""
    visit.principal.require(scope.TEMPLATES_READ)
    service, workspace_id = visit.application.templates, visit.principal.workspace_id
    identifier = parse_type_id(TEMPLATE, template_id)
    one = await service.get(workspace_id, identifier, _known(version))
    before = _EMPTY
    if version > 1:
        before = (await service.get(workspace_id, identifier, version - 1)).source
    return visit.page(
        "template_version.html",
        it={"id": template_id, "name": one.name},
        one=one,
        changes=_changes(before, one.source),
    )


def source_of(visit: Visit, kind: str) -> Source:
    """The sources as they were typed; a browser sends CRLF line ends."""
    typed = {
        name: str(visit.form.get(name, "")).replace("\r\n", "\n")
        for name in ("subject", "html", "mjml", "body", "text")
    }
    if visit.field("format") == "mjml":
        typed["mjml"] = typed["mjml"] or typed["body"]
    else:
        typed["html"] = typed["html"] or typed["body"]
    if kind not in KINDS:
        raise InvalidInput(f"one of {', '.join(KINDS)}", field="kind")
    return Source(
        "" if kind != EMAIL else typed["subject"],
        typed["html"],
        typed["mjml"],
        typed["text"],
        kind,
        inline_css=not visit.field("keep_css"),
    )


def _said(error: InvalidInput | Conflict) -> str:
    if error.field and not error.message.startswith(error.field):
        return f"{error.field}: {error.message}"
    return error.message


def _known(version: int) -> int:
    if not 1 <= version < 2**31:
        raise NotFound("there is no such template or version")
    return version


def _form(source: Source) -> dict[str, Any]:
    return {
        "subject": source.subject,
        "format": source.body,
        "body": source.mjml or source.html,
        "text": source.text,
        "keep_css": source.inline_css is False,
    }


def _line_view(line: TemplateLine) -> dict[str, Any]:
    return {
        "id": type_id(TEMPLATE, line.id),
        "name": line.name,
        "kind": line.kind,
        "version": line.version,
        "has_draft": line.has_draft,
        "created_at": line.created_at,
    }


def _new_page(visit: Visit, name: str, source: Source, problem: str | None = None) -> Response[str]:
    return visit.page(
        "template_new.html",
        status=422 if problem else 200,
        form=_form(source),
        name=name,
        kind=source.kind,
        kinds=KINDS,
        problem=problem,
    )


async def editor(
    visit: Visit, template_id: UUID, typed: Source | None = None, problem: str | None = None
) -> Response[str]:
    """The draft in the form, else the version in use; or what was typed and refused."""
    service, workspace_id = visit.application.templates, visit.principal.workspace_id
    head = await service.head(workspace_id, template_id)
    lines = await service.versions(workspace_id, template_id, limit=20)
    draft, stored = await _stored(visit, head)
    source = typed or (draft.source if draft is not None else stored.source if stored else _EMPTY)
    contacts = []
    if scope.CONTACTS_READ in visit.principal.scopes:
        contacts = await visit.application.contacts.find(workspace_id, limit=20)
    uses = await service.uses(workspace_id, template_id, head.published)
    users = await service.users(workspace_id, template_id) if head.kind != EMAIL else []
    return visit.page(
        "template.html",
        status=422 if problem else 200,
        form=_form(source),
        it={"id": type_id(TEMPLATE, template_id), "name": head.name, "kind": head.kind},
        published=head.published,
        edited_at=_edited(draft),
        versions=lines,
        variables=stored.variables if stored else (),
        addresses=[contact.address for contact in contacts],
        uses=[_use_view(one, one.version == one.published) for one in uses],
        users=[_use_view(one, one.version == head.published) for one in users],
        sender=visit.field("from"),
        to=visit.field("to"),
        problem=problem,
    )


async def _stored(visit: Visit, head: Use) -> tuple[Draft | None, Template | None]:
    """The draft and the version in use, where there are such."""
    service, workspace_id = visit.application.templates, visit.principal.workspace_id
    stored = await service.get(workspace_id, head.id) if head.published else None
    try:
        return await service.draft(workspace_id, head.id), stored
    except NotFound:
        return None, stored


def _edited(draft: Draft | None) -> datetime | None:
    return draft.edited_at if draft is not None else None


def _use_view(one: Use, current: bool) -> dict[str, Any]:
    return {
        "id": type_id(TEMPLATE, one.id),
        "name": one.name,
        "kind": one.kind,
        "version": one.version,
        "current": current,
    }


def _changes(before: Source, after: Source) -> list[tuple[str, list[tuple[str, str]] | None]]:
    """Each source that changed, its lines with `+`, `-` or a space; None: too long to compare."""
    changed: list[tuple[str, list[tuple[str, str]] | None]] = []
    for name in ("subject", "html", "mjml", "text"):
        old, new = getattr(before, name).split("\n"), getattr(after, name).split("\n")
        if old == new:
            continue
        if max(len(old), len(new)) > _DIFF_LINES:
            changed.append((name, None))
            continue
        lines = list(unified_diff(old, new, n=3, lineterm=""))[2:]
        changed.append((name, [(line[:1], line[1:]) for line in lines]))
    if (before.inline_css is False) != (after.inline_css is False):
        changed.append(("inline CSS", [("+", "no" if after.inline_css is False else "yes")]))
    return changed


HANDLERS = [
    templates, new_template, make_template, template, publish, save_draft, drop_draft, use_version,
    version_page,
]  # fmt: skip
