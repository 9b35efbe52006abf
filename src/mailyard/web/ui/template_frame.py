"""What the editor shows of a mail: in a frame that can do nothing, at any width, light and dark,
with and without images, as text; and the same sent to an address."""

import re
from html import escape
from typing import Any

import msgspec
from litestar import Response, post
from litestar.params import FromPath

from mailyard.access import scope
from mailyard.core.errors import InvalidInput, MailyardError, NotFound
from mailyard.core.ids import TEMPLATE, parse_type_id
from mailyard.protocol.address import normalise
from mailyard.sending.render import Rendered
from mailyard.web.preview import Wanted, preview, test_mail
from mailyard.web.ui.frame import Visit
from mailyard.web.ui.template_pages import editor, source_of

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'{fonts}; img-src {images}; form-action 'none';"
    " frame-ancestors 'self'; base-uri 'none'; sandbox"
)
_SCHEME = re.compile(r"\(\s*prefers-color-scheme\s*:\s*(dark|light)\s*\)", re.IGNORECASE)
_ALWAYS, _NEVER = "(min-width:0)", "(max-width:0)"
_DARK = "<style>:root{color-scheme:dark}</style>"
# As mail programs do with a mail that says nothing about the dark: all colours turned, images not.
_INVERTED = (
    "<style>html{background:#fff;filter:invert(1) hue-rotate(180deg)}"
    "img{filter:invert(1) hue-rotate(180deg)}</style>"
)
_BODY = re.compile(r"<body\b[^>]*>", re.IGNORECASE)
_NOTE = "font:13px/1.5 system-ui,sans-serif;margin:0;padding:10px 14px;"
_decode = msgspec.json.Decoder(dict[str, Any]).decode


@post("/templates/{template_id:str}/frame", status_code=200)
async def frame(visit: Visit, template_id: FromPath[str]) -> Response[str]:
    """What is typed, rendered. It changes nothing; a POST because sources are long."""
    visit.principal.require(scope.TEMPLATES_READ)
    try:
        made = await _made(visit, template_id)
    except MailyardError as error:
        where = f"{error.field}: " if error.field and error.field not in error.message else ""
        page = f'<p style="{_NOTE}color:#b3202c">{escape(where + error.message)}</p>'
        return _framed(page, images=False)
    if visit.field("view") == "text":
        text = f"Subject: {made.subject}\n\n{made.text}"
        page = f'<pre style="white-space:pre-wrap;margin:14px">{escape(text)}</pre>'
        return _framed(page, images=False)
    return _framed(
        _shown(made, visit.field("scheme") == "dark"), images=not visit.field("no_images")
    )


@post("/templates/{template_id:str}/test", status_code=303)
async def send_test(visit: Visit, template_id: FromPath[str]) -> Response[Any]:
    """What is typed, as a mail to an address."""
    visit.principal.require(scope.TEMPLATES_READ)
    visit.principal.require(scope.EMAILS_SEND)
    identifier = parse_type_id(TEMPLATE, template_id)
    try:
        made = await _made(visit, template_id)
        await visit.application.emails.accept(
            visit.principal.workspace_id,
            test_mail(visit.field("from"), visit.field("to"), made),
            actor=visit.principal.actor,
        )
    except InvalidInput as error:
        head = await visit.application.templates.head(visit.principal.workspace_id, identifier)
        problem = f"{error.field}: {error.message}" if error.field else error.message
        return await editor(visit, identifier, source_of(visit, head.kind), problem)
    return visit.go(f"/templates/{template_id}", "tested")


async def _made(visit: Visit, template_id: str) -> Rendered:
    identifier, workspace_id = parse_type_id(TEMPLATE, template_id), visit.principal.workspace_id
    head = await visit.application.templates.head(workspace_id, identifier)
    wanted = Wanted(
        template_id=identifier,
        source=source_of(visit, head.kind),
        contact_id=await _contact(visit, visit.field("contact")),
        data=_data(visit.field("data")),
    )
    return await preview(visit.application, workspace_id, wanted)


async def _contact(visit: Visit, address: str) -> Any:
    """The id of the contact with an address; None for an empty one. Raises NotFound."""
    if not address:
        return None
    visit.principal.require(scope.CONTACTS_READ)
    wanted = normalise(address)
    found = await visit.application.contacts.find(
        visit.principal.workspace_id, search=wanted, limit=100
    )
    for contact in found:
        if contact.address == wanted:
            return contact.id
    raise NotFound(f"there is no contact {address[:100]}", field="contact")


def _data(text: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        return _decode(text)
    except msgspec.DecodeError as error:
        raise InvalidInput(f"expected a JSON object: {error}", field="data") from None


def _shown(made: Rendered, dark: bool) -> str:
    """The mail's HTML as one who reads it sees it, with the subject above."""
    html = made.html or f"<pre>{escape(made.text)}</pre>"
    wanted = "dark" if dark else "light"
    answers = "dark" in {found[1].lower() for found in _SCHEME.finditer(html)}
    html = _SCHEME.sub(lambda found: _ALWAYS if found[1].lower() == wanted else _NEVER, html)
    style = "" if not dark else _DARK if answers else _INVERTED
    subject = (
        f'{style}<div style="{_NOTE}border-bottom:1px solid #ccc;background:#fff;color:#16202e">'
        f"<b>{escape(made.subject)}</b></div>"
    )
    body = _BODY.search(html)
    place = body.end() if body else 0
    return html[:place] + subject + html[place:]


def _framed(html: str, *, images: bool) -> Response[str]:
    sources = "https: http: data:" if images else "'none'"
    policy = _POLICY.format(images=sources, fonts=" https:; font-src https:" if images else "")
    if not _BODY.search(html):
        html = f'<!doctype html><meta charset="utf-8"><body>{html}</body>'
    return Response(
        html,
        media_type="text/html; charset=utf-8",
        headers={
            "content-security-policy": policy,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cache-control": "no-store",
        },
    )


HANDLERS = [frame, send_test]
