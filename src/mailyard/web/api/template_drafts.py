"""A template's draft: written freely, previewed with anybody's data, sent as a test, published."""

# ruff: noqa: RUF012 (msgspec copies a default that is a list or an object)

from typing import Annotated, Any

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids
from mailyard.core.errors import Conflict
from mailyard.web.api.body import check_depth
from mailyard.web.api.emails import AcceptedEmail, Mailbox, accepted_answer, idempotency_of
from mailyard.web.api.page import ContactId, Input, Output
from mailyard.web.api.route import Answer, Call, Route
from mailyard.web.api.template_versions import Version, publish
from mailyard.web.api.templates import (
    BODY_BYTES,
    TAG,
    TemplateDetail,
    TemplateParts,
    detail_of,
    source_of,
)
from mailyard.web.preview import Wanted, preview, test_mail

_PATH = "/v1/templates/{template_id:tpl}"


class PreviewData(Input):
    """What to render, and what its variables are."""

    data: Annotated[dict[str, Any], Meta(description="Stands over the fields of the contact.")] = {}
    contact: Annotated[ContactId, Meta(description="Whose fields to render with.")] | None = None
    version: Version | None = None
    draft: Annotated[bool, Meta(description="The draft instead of a version.")] = False
    source: Annotated[
        TemplateParts | None, Meta(description="Sources that are not stored, instead.")
    ] = None

    def __post_init__(self) -> None:
        check_depth(self.data, "data")


class Preview(Output):
    """What the template makes of the data."""

    subject: str
    html: str
    text: str


class TestMail(PreviewData, kw_only=True, rename={"sender": "from"}):
    """A preview, sent."""

    sender: Mailbox
    to: Mailbox


def _wanted(call: Call[Any, None]) -> Wanted:
    body: PreviewData = call.body
    contact = body.contact
    return Wanted(
        template_id=call.ids["template_id"],
        version=body.version,
        draft=body.draft,
        source=source_of(body.source) if body.source is not None else None,
        contact_id=ids.parse_type_id(ids.CONTACT, contact, "contact") if contact else None,
        data=body.data,
    )


async def save_draft(call: Call[TemplateParts, None]) -> Answer:
    templates, template_id = call.app.templates, call.ids["template_id"]
    head = await templates.head(call.workspace_id, template_id)
    async with call.app.database.transaction() as tx:
        draft = await templates.save_draft(
            call.workspace_id,
            template_id,
            source_of(call.body, head.kind),
            author=call.principal.actor.name,
            tx=tx,
        )
        after = {"subject": call.body.subject}
        saved = Change("template.draft", ids.type_id(ids.TEMPLATE, template_id), None, after)
        return await call.done(tx, detail_of(draft), saved)


async def get_draft(call: Call[None, None]) -> TemplateDetail:
    return detail_of(await call.app.templates.draft(call.workspace_id, call.ids["template_id"]))


async def drop_draft(call: Call[None, None]) -> Answer:
    templates, template_id = call.app.templates, call.ids["template_id"]
    async with call.app.database.transaction() as tx:
        draft = await templates.draft(call.workspace_id, template_id, tx=tx)
        if draft.published == 0:
            raise Conflict("nothing else is there of this template: publish it first")
        await templates.drop_draft(call.workspace_id, template_id, tx=tx)
        before = {"subject": draft.source.subject}
        dropped = Change("template.draft", ids.type_id(ids.TEMPLATE, template_id), before, None)
        return await call.done(tx, None, dropped)


async def publish_draft(call: Call[None, None]) -> Answer:
    templates, template_id = call.app.templates, call.ids["template_id"]
    head = await templates.head(call.workspace_id, template_id)
    draft = await templates.draft(call.workspace_id, template_id)
    return await publish(call, head, draft.source, draft)


async def preview_template(call: Call[PreviewData, None]) -> Preview:
    made = await preview(call.app, call.workspace_id, _wanted(call))
    return Preview(subject=made.subject, html=made.html, text=made.text)


async def send_test(call: Call[TestMail, None]) -> Answer:
    made = await preview(call.app, call.workspace_id, _wanted(call))
    result = await call.app.emails.accept(
        call.workspace_id,
        test_mail(call.body.sender, call.body.to, made),
        idempotency_of(call),
        call.principal.actor,
    )
    return accepted_answer(result)


ROUTES = (
    Route(
        "PUT",
        _PATH + "/draft",
        save_draft,
        "saveTemplateDraft",
        TAG,
        "Keep what is being written of a template",
        scope.TEMPLATES_WRITE,
        answer=TemplateDetail,
        body=TemplateParts,
        body_bytes=BODY_BYTES,
        description="It is stored as it is, right or wrong; a preview says which.",
    ),
    Route(
        "GET",
        _PATH + "/draft",
        get_draft,
        "getTemplateDraft",
        TAG,
        "Read what is being written of a template",
        scope.TEMPLATES_READ,
        answer=TemplateDetail,
    ),
    Route(
        "DELETE",
        _PATH + "/draft",
        drop_draft,
        "dropTemplateDraft",
        TAG,
        "Forget what is being written of a template",
        scope.TEMPLATES_WRITE,
        status=204,
        errors=(409,),
        description="409 when nothing else is there of the template.",
    ),
    Route(
        "POST",
        _PATH + "/draft/publish",
        publish_draft,
        "publishTemplateDraft",
        TAG,
        "Publish the draft as the next version",
        scope.TEMPLATES_WRITE,
        status=201,
        answer=TemplateDetail,
    ),
    Route(
        "POST",
        _PATH + "/preview",
        preview_template,
        "previewTemplate",
        TAG,
        "See what a template makes of some data",
        scope.TEMPLATES_READ,
        answer=Preview,
        body=PreviewData,
        body_bytes=BODY_BYTES,
        idempotency="none",
    ),
    Route(
        "POST",
        _PATH + "/test",
        send_test,
        "sendTemplateTest",
        TAG,
        "Send a preview to an address",
        scope.EMAILS_SEND,
        status=202,
        answer=AcceptedEmail,
        body=TestMail,
        body_bytes=BODY_BYTES,
        errors=(402,),
    ),
)
