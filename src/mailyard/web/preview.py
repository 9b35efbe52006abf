"""A template rendered for people to look at: a version, a draft or what is typed, with the fields
of any contact; and the same as a test mail."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from msgspec import structs

from mailyard.core.errors import InvalidInput
from mailyard.sending.build.source import BLOCK, EMAIL, Source
from mailyard.sending.render import Compiled, Rendered
from mailyard.sending.request import EmailRequest
from mailyard.sending.track.dress import Imprint, Wishes, dress

if TYPE_CHECKING:
    from mailyard.app import Application

TEST_TYPE = "template-test"
_SLOTS = frozenset(("footer", "physical_address", "preferences_url", "unsubscribe_url"))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to render: `source`, else the draft, else a version (None: the one in use)."""

    template_id: UUID
    version: int | None = None
    draft: bool = False
    source: Source | None = None
    contact_id: UUID | None = None
    data: dict[str, Any] = field(default_factory=dict)


async def preview(application: "Application", workspace_id: UUID, wanted: Wanted) -> Rendered:
    """The mail that a person would get.

    Raises NotFound, and InvalidInput: of the sources (source, line and column), or `data.…`.
    """
    compiled = await _compiled(application, workspace_id, wanted)
    data, to = dict(wanted.data), ""
    if wanted.contact_id is not None:
        contact = await application.contacts.get(workspace_id, wanted.contact_id)
        data = {**contact.attributes, "name": contact.name, "address": contact.address, **data}
        to = contact.address
    known = await application.templates.with_person(workspace_id, compiled.asks, data, to)
    try:
        made = compiled.render({**dict.fromkeys(_SLOTS, ""), **known})
        return await _with_imprint(application, workspace_id, compiled, known) or made
    except InvalidInput as error:
        if error.field is not None and not error.field.startswith("data"):
            error.field = f"data.{error.field}"
        raise


async def _with_imprint(
    application: "Application", workspace_id: UUID, compiled: Compiled, data: Mapping[str, Any]
) -> Rendered | None:
    """The mail with the workspace's footer and address, as a campaign has them; None when it would
    be the same. Its links to unsubscribe by lead nowhere."""
    imprint = await application.imprints.get(workspace_id)
    if not (imprint.footer_html or imprint.footer_text or _SLOTS & set(compiled.variables)):
        return None
    own = Imprint(imprint.physical_address, imprint.footer_html, imprint.footer_text)
    wishes = Wishes(application.settings.page_url.rstrip("/"), imprint=own)
    dressed = dress(compiled.sources["html"], compiled.sources["text"], wishes)
    slots = {"mailyard_preferences": "preview"}
    return compiled.rewritten(dressed.html, dressed.text).render({**slots, **data})


async def _compiled(application: "Application", workspace_id: UUID, wanted: Wanted) -> Compiled:
    templates, template_id = application.templates, wanted.template_id
    head = await templates.head(workspace_id, template_id)
    source = wanted.source
    if source is None and wanted.draft:
        source = (await templates.draft(workspace_id, template_id)).source
    if source is None and head.kind == EMAIL:
        return await templates.compiled(workspace_id, template_id, wanted.version)
    if source is None:
        source = (await templates.get(workspace_id, template_id, wanted.version)).source
    if head.kind == BLOCK and source.mjml.strip():
        raise InvalidInput("a block of MJML is seen in a template that uses it", field="mjml")
    source = structs.replace(source, kind=head.kind)
    built = (await templates.prove_source(workspace_id, source)).built
    locale = (await application.workspaces.get(workspace_id)).locale
    return Compiled(built.subject, built.html, built.text, built.origins, locale)


def test_mail(sender: str, to: str, made: Rendered) -> EmailRequest:
    """The preview as a mail. It is marked, so that nobody takes it for the real one."""
    return EmailRequest(
        sender=sender,
        to=[to],
        subject=f"[Test] {made.subject}"[:998],
        html=made.html or None,
        text=made.text or None,
        type=TEST_TYPE,
    )
