"""Templates: subject, HTML or MJML, and text, with variables; versions that never change."""

from typing import Annotated, Any, Literal

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids, limits
from mailyard.core.errors import NotFound
from mailyard.sending.build.source import EMAIL, Source
from mailyard.sending.template import Draft, Proven, Template, TemplateLine, Use
from mailyard.storage.database import Connection
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
BODY_BYTES = 4 * limits.TEMPLATE_SOURCE_BYTES + limits.MIB
_Source = Annotated[str, Meta(max_length=limits.TEMPLATE_SOURCE_BYTES)]
Version = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Kind = Literal["email", "layout", "block"]


class TemplateParts(Input):
    """The sources of a template, in the language of Jinja: a body in HTML or MJML, and text.

    `{% extends "name" %}` and `{% include "name" %}` take layouts and blocks of the workspace, as
    they are published now. Without `text` the text part is made from the body.
    """

    subject: Annotated[_Source, Meta(examples=["Hello {{ name }}"])] = ""
    html: Annotated[_Source, Meta(examples=["<p>Hello {{ name }}</p>"])] = ""
    mjml: _Source = ""
    text: Annotated[_Source, Meta(examples=["Hello {{ name }}"])] = ""
    inline_css: (
        Annotated[
            bool,
            Meta(
                description="Whether rules of `<style>` move into the elements they are for; when"
                " not said, they do where template code does not stand in the way."
            ),
        ]
        | None
    ) = None


class NewTemplate(TemplateParts, kw_only=True):
    """A template to make; this is its version 1, or its draft."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    kind: Annotated[
        Kind, Meta(description="An `email` is sent; a `layout` and a `block` are parts of others.")
    ] = "email"
    draft: Annotated[bool, Meta(description="Keep it as a draft: nothing is proven yet.")] = False


class TemplateItem(Output):
    """A version of a template without its bodies. Version 0: nothing is published yet."""

    id: TemplateId
    name: str
    kind: Kind
    version: int
    published: Annotated[int, Meta(description="The version in use; 0: none.")]
    subject: str
    variables: Annotated[list[str], Meta(description="The names that its sources use.")]
    author: str
    created_at: Moment | None


class TemplateDetail(TemplateItem):
    """A version of a template."""

    html: str
    mjml: str
    text: str
    inline_css: bool


class TemplatePage(Output):
    """Templates with their versions in use, newest template first."""

    items: list[TemplateItem]
    next_cursor: NextCursor


class VersionPage(Output):
    """Versions of a template, newest first."""

    items: list[TemplateItem]
    next_before: Annotated[int | None, Meta(description="Give it as `before` for the next page.")]


class TemplatesQuery(PageQuery):
    """Which templates to list."""

    name: Annotated[str, Meta(max_length=200, description="Of this name alone.")] | None = None


class VersionsQuery(Input):
    """Which versions to list."""

    limit: Limit = limits.API_PAGE_ITEMS
    before: Version | None = None


class UseItem(Output):
    """A layout or block in a template, or a template that one is in."""

    id: TemplateId
    name: str
    kind: Kind
    version: Annotated[int, Meta(description="The version of the layout or block that is in it.")]
    current: Annotated[bool, Meta(description="Whether that is the one in use now.")]


class TemplateUses(Output):
    """What the version in use was built with, and what was built with the template."""

    uses: list[UseItem]
    used_by: list[UseItem]


def source_of(parts: TemplateParts, kind: str = EMAIL) -> Source:
    """What the caller wrote, as a source of a template of `kind`."""
    return Source(parts.subject, parts.html, parts.mjml, parts.text, kind, parts.inline_css)


def _fields(one: Template | TemplateLine) -> dict[str, Any]:
    return {
        "id": ids.type_id(ids.TEMPLATE, one.id),
        "name": one.name,
        "kind": one.kind,
        "version": one.version,
        "published": one.published,
        "subject": one.subject,
        "variables": list(one.variables),
        "author": one.author,
        "created_at": one.created_at,
    }


def detail_of(one: Template | Draft) -> TemplateDetail:
    """A version with its bodies; of a draft, as version 0."""
    if isinstance(one, Template):
        fields, source = _fields(one), one.source
    else:
        source = one.source
        fields = {
            "id": ids.type_id(ids.TEMPLATE, one.id),
            "name": one.name,
            "kind": source.kind,
            "version": 0,
            "published": one.published,
            "subject": source.subject,
            "variables": [],
            "author": one.author,
            "created_at": one.edited_at,
        }
    return TemplateDetail(
        **fields,
        html=source.html,
        mjml=source.mjml,
        text=source.text,
        inline_css=source.inline_css is not False,
    )


async def create_template(call: Call[NewTemplate, None]) -> Answer:
    body, templates = call.body, call.app.templates
    author = call.principal.actor.name
    source = source_of(body, body.kind)
    if body.draft:
        async with call.app.database.transaction() as tx:
            draft = await templates.create_draft(
                call.workspace_id, body.name, source, author=author, tx=tx
            )
            after: dict[str, Any] = {"name": draft.name, "version": 0, "subject": body.subject}
            made = Change("template.create", ids.type_id(ids.TEMPLATE, draft.id), None, after)
            return await call.done(tx, detail_of(draft), made)
    proven = await templates.prove_source(call.workspace_id, source)
    async with call.app.database.transaction() as tx:
        one = await templates.create(call.workspace_id, body.name, proven, author=author, tx=tx)
        after = {"name": one.name, "version": one.version, "subject": one.subject}
        made = Change("template.create", ids.type_id(ids.TEMPLATE, one.id), None, after)
        answer = await call.done(tx, detail_of(one), made)
    templates.announce()
    return answer


async def publish_template(call: Call[TemplateParts, None]) -> Answer:
    head = await call.app.templates.head(call.workspace_id, call.ids["template_id"])
    return await publish(call, head, source_of(call.body, head.kind))


async def republish_template(call: Call[None, None]) -> Answer:
    """The version in use once more, with its layouts and blocks as they are published now."""
    templates, template_id = call.app.templates, call.ids["template_id"]
    head = await templates.head(call.workspace_id, template_id)
    one = await templates.get(call.workspace_id, template_id)
    return await publish(call, head, one.source)


async def publish(
    call: Call[Any, None], head: Use, source: Source, draft: Draft | None = None
) -> Answer:
    """The next version from `source`; a draft that it came from is done with."""
    templates = call.app.templates
    proven = await templates.prove_source(call.workspace_id, source)
    async with call.app.database.transaction() as tx:
        one, changed = await _published(call, head, proven, draft, tx)
        answer = await call.done(tx, detail_of(one), changed)
    templates.announce()
    return answer


async def _published(
    call: Call[Any, None], head: Use, proven: Proven, draft: Draft | None, tx: Connection
) -> tuple[Template, Change]:
    templates = call.app.templates
    if draft is not None:
        await templates.finish_draft(call.workspace_id, draft, tx=tx)
    one = await templates.publish(
        call.workspace_id, head.id, proven, author=call.principal.actor.name, tx=tx
    )
    changed = Change(
        "template.publish",
        ids.type_id(ids.TEMPLATE, head.id),
        {"version": head.published},
        {"version": one.version, "subject": one.subject},
    )
    return one, changed


async def use_version(call: Call[None, None]) -> Answer:
    templates, template_id = call.app.templates, call.ids["template_id"]
    version = _version_of(call)
    async with call.app.database.transaction() as tx:
        before = await templates.roll_back(call.workspace_id, template_id, version, tx=tx)
        one = await templates.get(call.workspace_id, template_id, version, tx=tx)
        changed = Change(
            "template.use_version",
            ids.type_id(ids.TEMPLATE, template_id),
            {"version": before},
            {"version": version},
        )
        answer = await call.done(tx, detail_of(one), changed)
    templates.announce()
    return answer


async def list_templates(call: Call[None, TemplatesQuery]) -> TemplatePage:
    query = call.query
    found = await call.app.templates.list(
        call.workspace_id, name=query.name, after=read_cursor(query.cursor), limit=query.limit
    )
    return page_of(TemplatePage, found, lambda one: TemplateItem(**_fields(one)), call.query.limit)


async def get_template(call: Call[None, None]) -> TemplateDetail:
    templates, template_id = call.app.templates, call.ids["template_id"]
    head = await templates.head(call.workspace_id, template_id)
    if head.published == 0:
        return detail_of(await templates.draft(call.workspace_id, template_id))
    return detail_of(await templates.get(call.workspace_id, template_id))


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
    version = _version_of(call)
    return detail_of(
        await call.app.templates.get(call.workspace_id, call.ids["template_id"], version)
    )


async def get_uses(call: Call[None, None]) -> TemplateUses:
    templates, template_id = call.app.templates, call.ids["template_id"]
    head = await templates.head(call.workspace_id, template_id)
    uses = await templates.uses(call.workspace_id, template_id, head.published)
    users = await templates.users(call.workspace_id, template_id)
    return TemplateUses(
        uses=[_use(one, one.version == one.published) for one in uses],
        used_by=[_use(one, one.version == head.published) for one in users],
    )


def _use(one: Use, current: bool) -> UseItem:
    return UseItem(
        id=ids.type_id(ids.TEMPLATE, one.id),
        name=one.name,
        kind=one.kind,  # type: ignore[arg-type]  # the table's check
        version=one.version,
        current=current,
    )


def _version_of(call: Call[Any, Any]) -> int:
    text = call.names["version"]
    if not (text.isascii() and text.isdigit() and 1 <= len(text) <= 9):
        raise NotFound("there is no such template or version")
    return int(text)


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
        body_bytes=BODY_BYTES,
        description="It is built and proven first, within limits of time, memory and output.",
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
        query=TemplatesQuery,
    ),
    Route(
        "GET",
        "/v1/templates/{template_id:tpl}",
        get_template,
        "getTemplate",
        TAG,
        "Read the version in use of a template",
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
        body_bytes=BODY_BYTES,
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
        "/v1/templates/{template_id:tpl}/versions/{version}/use",
        use_version,
        "useTemplateVersion",
        TAG,
        "Put a version into use again",
        scope.TEMPLATES_WRITE,
        answer=TemplateDetail,
        description="Running campaigns keep the version that they began with.",
    ),
    Route(
        "POST",
        "/v1/templates/{template_id:tpl}/republish",
        republish_template,
        "republishTemplate",
        TAG,
        "Publish the version in use with today's layouts and blocks",
        scope.TEMPLATES_WRITE,
        status=201,
        answer=TemplateDetail,
    ),
    Route(
        "GET",
        "/v1/templates/{template_id:tpl}/uses",
        get_uses,
        "getTemplateUses",
        TAG,
        "Read which layouts and blocks a template has in it, and what it is in",
        scope.TEMPLATES_READ,
        answer=TemplateUses,
    ),
)
