"""Templates: subject, HTML and text with variables; versions that never change."""

# ruff: noqa: RUF012 (msgspec copies a default that is a list or an object)

from typing import Annotated, Any

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids, limits
from mailyard.core.errors import InvalidInput, NotFound
from mailyard.sending.template import Template, TemplateLine
from mailyard.web.api.body import check_depth
from mailyard.web.api.page import (
    Input,
    Limit,
    Moment,
    NextCursor,
    Output,
    PageQuery,
    TemplateId,
    page_of,
    read_cursor,
)
from mailyard.web.api.route import Answer, Call, Route

TAG = "Templates"
_BODY_BYTES = 3 * limits.TEMPLATE_SOURCE_BYTES + limits.MIB
_Source = Annotated[str, Meta(max_length=limits.TEMPLATE_SOURCE_BYTES)]
_Version = Annotated[int, Meta(ge=1, le=2**31 - 1)]


class TemplateParts(Input):
    """The sources of a template, in the language of Jinja."""

    subject: Annotated[_Source, Meta(examples=["Hello {{ name }}"])]
    html: Annotated[_Source, Meta(examples=["<p>Hello {{ name }}</p>"])] = ""
    text: Annotated[_Source, Meta(examples=["Hello {{ name }}"])] = ""


class NewTemplate(TemplateParts, kw_only=True):
    """A template to make; this is its version 1."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]


class PreviewData(Input):
    """What the variables are, for a preview."""

    data: dict[str, Any] = {}
    version: _Version | None = None

    def __post_init__(self) -> None:
        check_depth(self.data, "data")


class TemplateItem(Output):
    """A version of a template without its bodies."""

    id: TemplateId
    name: str
    version: int
    subject: str
    variables: Annotated[list[str], Meta(description="The names that its sources use.")]
    created_at: Moment


class TemplateDetail(TemplateItem):
    """A version of a template."""

    html: str
    text: str


class TemplatePage(Output):
    """Templates with their newest versions, newest first."""

    items: list[TemplateItem]
    next_cursor: NextCursor


class VersionPage(Output):
    """Versions of a template, newest first."""

    items: list[TemplateItem]
    next_before: Annotated[int | None, Meta(description="Give it as `before` for the next page.")]


class VersionsQuery(Input):
    """Which versions to list."""

    limit: Limit = limits.API_PAGE_ITEMS
    before: _Version | None = None


class Preview(Output):
    """What the template makes of the data."""

    subject: str
    html: str
    text: str


def _fields(one: Template | TemplateLine) -> dict[str, Any]:
    return {
        "id": ids.type_id(ids.TEMPLATE, one.id),
        "name": one.name,
        "version": one.version,
        "subject": one.subject,
        "variables": list(one.variables),
        "created_at": one.created_at,
    }


def _detail(one: Template) -> TemplateDetail:
    return TemplateDetail(**_fields(one), html=one.html, text=one.text)


async def create_template(call: Call[NewTemplate, None]) -> Answer:
    body, templates = call.body, call.app.templates
    source = await templates.prove(body.subject, body.html, body.text)
    async with call.app.database.transaction() as tx:
        one = await templates.create(call.workspace_id, body.name, source, tx=tx)
        after = {"name": one.name, "version": one.version, "subject": one.subject}
        made = Change("template.create", ids.type_id(ids.TEMPLATE, one.id), None, after)
        answer = await call.done(tx, _detail(one), made)
    templates.announce()
    return answer


async def publish_template(call: Call[TemplateParts, None]) -> Answer:
    body, template_id, templates = call.body, call.ids["template_id"], call.app.templates
    await templates.get(call.workspace_id, template_id)
    source = await templates.prove(body.subject, body.html, body.text)
    async with call.app.database.transaction() as tx:
        one = await templates.publish(call.workspace_id, template_id, source, tx=tx)
        before = await templates.get(call.workspace_id, template_id, one.version - 1, tx=tx)
        published = Change(
            "template.publish",
            ids.type_id(ids.TEMPLATE, template_id),
            {"version": before.version, "subject": before.subject},
            {"version": one.version, "subject": one.subject},
        )
        return await call.done(tx, _detail(one), published)


async def list_templates(call: Call[None, PageQuery]) -> TemplatePage:
    found = await call.app.templates.list(
        call.workspace_id, after=read_cursor(call.query.cursor), limit=call.query.limit
    )
    return page_of(TemplatePage, found, lambda one: TemplateItem(**_fields(one)), call.query.limit)


async def get_template(call: Call[None, None]) -> TemplateDetail:
    return _detail(await call.app.templates.get(call.workspace_id, call.ids["template_id"]))


async def list_versions(call: Call[None, VersionsQuery]) -> VersionPage:
    query = call.query
    found = await call.app.templates.versions(
        call.workspace_id, call.ids["template_id"], before=query.before, limit=query.limit
    )
    full = len(found) >= query.limit
    return VersionPage(
        items=[TemplateItem(**_fields(one)) for one in found],
        next_before=found[-1].version if full else None,
    )


async def get_version(call: Call[None, None]) -> TemplateDetail:
    text = call.names["version"]
    if not (text.isascii() and text.isdigit() and 1 <= len(text) <= 9):
        raise NotFound("there is no such template or version")
    return _detail(
        await call.app.templates.get(call.workspace_id, call.ids["template_id"], int(text))
    )


async def preview_template(call: Call[PreviewData, None]) -> Preview:
    try:
        made = await call.app.templates.render(
            call.workspace_id,
            call.ids["template_id"],
            call.body.data,
            version=call.body.version,
        )
    except InvalidInput as error:
        if error.field is not None and not error.field.startswith("data"):
            error.field = f"data.{error.field}"
        raise
    return Preview(subject=made.subject, html=made.html, text=made.text)


ROUTES = (
    Route(
        "POST",
        "/v1/templates",
        create_template,
        "createTemplate",
        TAG,
        "Make a template",
        scope.TEMPLATES_WRITE,
        status=201,
        answer=TemplateDetail,
        body=NewTemplate,
        body_bytes=_BODY_BYTES,
        description="It is proven first, within limits of time, memory and output.",
    ),
    Route(
        "GET",
        "/v1/templates",
        list_templates,
        "listTemplates",
        TAG,
        "List templates",
        scope.TEMPLATES_READ,
        answer=TemplatePage,
        query=PageQuery,
    ),
    Route(
        "GET",
        "/v1/templates/{template_id:tpl}",
        get_template,
        "getTemplate",
        TAG,
        "Read the newest version of a template",
        scope.TEMPLATES_READ,
        answer=TemplateDetail,
    ),
    Route(
        "POST",
        "/v1/templates/{template_id:tpl}/versions",
        publish_template,
        "publishTemplate",
        TAG,
        "Publish the next version of a template",
        scope.TEMPLATES_WRITE,
        status=201,
        answer=TemplateDetail,
        body=TemplateParts,
        body_bytes=_BODY_BYTES,
    ),
    Route(
        "GET",
        "/v1/templates/{template_id:tpl}/versions",
        list_versions,
        "listTemplateVersions",
        TAG,
        "List a template's versions",
        scope.TEMPLATES_READ,
        answer=VersionPage,
        query=VersionsQuery,
    ),
    Route(
        "GET",
        "/v1/templates/{template_id:tpl}/versions/{version}",
        get_version,
        "getTemplateVersion",
        TAG,
        "Read one version of a template",
        scope.TEMPLATES_READ,
        answer=TemplateDetail,
    ),
    Route(
        "POST",
        "/v1/templates/{template_id:tpl}/preview",
        preview_template,
        "previewTemplate",
        TAG,
        "See what a template makes of some data",
        scope.TEMPLATES_READ,
        answer=Preview,
        body=PreviewData,
        idempotency="none",
    ),
)
