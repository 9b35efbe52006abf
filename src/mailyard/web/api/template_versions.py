"""Versions of templates: published, put into use again, and the layouts and blocks in them."""

from typing import Annotated, Any

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids, limits
from mailyard.core.errors import NotFound
from mailyard.sending.build.source import Source
from mailyard.sending.template_value import Draft, Proven, Template, Use
from mailyard.storage.database import Connection
from mailyard.web.api.page import Input, Limit, Output, TemplateId
from mailyard.web.api.route import Answer, Call, Route
from mailyard.web.api.templates import (
    BODY_BYTES,
    TAG,
    Kind,
    TemplateDetail,
    TemplateItem,
    TemplateParts,
    detail_of,
    fields_of,
    source_of,
)

Version = Annotated[int, Meta(ge=1, le=2**31 - 1)]


class VersionPage(Output):
    """Versions of a template, newest first."""

    items: list[TemplateItem]
    next_before: Annotated[int | None, Meta(description="Give it as `before` for the next page.")]


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


async def list_versions(call: Call[None, VersionsQuery]) -> VersionPage:
    query = call.query
    found = await call.app.templates.versions(
        call.workspace_id, call.ids["template_id"], before=query.before, limit=query.limit
    )
    full = len(found) >= query.limit
    return VersionPage(
        items=[TemplateItem(**fields_of(one)) for one in found],
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
