"""Templates: subject, HTML or MJML, and text, with variables."""

from typing import Annotated, Any, Literal

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids, limits
from mailyard.sending.build.source import EMAIL, Source
from mailyard.sending.template_value import Draft, Template, TemplateLine
from mailyard.web.api.page import (
    Input,
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


class TemplatesQuery(PageQuery):
    """Which templates to list."""

    name: Annotated[str, Meta(max_length=200, description="Of this name alone.")] | None = None


def source_of(parts: TemplateParts, kind: str = EMAIL) -> Source:
    """What the caller wrote, as a source of a template of `kind`."""
    return Source(parts.subject, parts.html, parts.mjml, parts.text, kind, parts.inline_css)


def fields_of(one: Template | TemplateLine) -> dict[str, Any]:
    """What every item says of a version."""
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
        fields, source = fields_of(one), one.source
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


async def list_templates(call: Call[None, TemplatesQuery]) -> TemplatePage:
    query = call.query
    found = await call.app.templates.list(
        call.workspace_id, name=query.name, after=read_cursor(query.cursor), limit=query.limit
    )
    return page_of(
        TemplatePage, found, lambda one: TemplateItem(**fields_of(one)), call.query.limit
    )


async def get_template(call: Call[None, None]) -> TemplateDetail:
    templates, template_id = call.app.templates, call.ids["template_id"]
    head = await templates.head(call.workspace_id, template_id)
    if head.published == 0:
        return detail_of(await templates.draft(call.workspace_id, template_id))
    return detail_of(await templates.get(call.workspace_id, template_id))


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
)
