"""One mail: its text, its HTML in a frame that can do nothing, its headers, its files."""

from base64 import b64encode
from datetime import timedelta
from html import escape
from typing import Any
from urllib.parse import quote

from litestar import Response, get, post
from litestar.params import FromPath

from mailyard.access import scope
from mailyard.core.errors import NotFound
from mailyard.core.ids import INBOX, type_id
from mailyard.mailbox.message_value import ReadMessage
from mailyard.web.ui.analysis_pages import panel as meaning_panel
from mailyard.web.ui.form_values import seconds
from mailyard.web.ui.frame import Visit
from mailyard.web.ui.inbox_pages import message_ids
from mailyard.web.ui.sender_pages import sender_of

# The mail's HTML has a policy of its own: nothing runs, nothing is fetched, nothing is submitted,
# also when somebody opens the frame's address by itself.
_MAIL_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none';"
    " frame-ancestors 'self'; base-uri 'none'; sandbox allow-popups"
)
_INLINE_IMAGE_BYTES = 1024 * 1024
_SHOWN_AS_IMAGE = ("image/png", "image/jpeg", "image/gif", "image/webp")
_LIVES = (
    ("3600", "for 1 hour"),
    ("86400", "for 1 day"),
    ("604800", "for 7 days"),
    ("", "as its inbox"),
)
_PATH = "/inboxes/{inbox_id:str}/messages/{message_id:str}"


def _header(message: ReadMessage, name: str) -> str:
    for known, value in message.content.headers:
        if known.lower() == name:
            return value
    return ""


def _view(message: ReadMessage) -> dict[str, Any]:
    return {
        "subject": message.summary.subject,
        "from_text": _header(message, "from") or message.reverse_path or "(nobody)",
        "to_text": _header(message, "to") or message.summary.recipient,
        "cc_text": _header(message, "cc"),
        "sent_at": message.summary.sent_at,
        "received_at": message.summary.received_at,
        "size_bytes": message.summary.size_bytes,
        "expires_at": message.summary.expires_at,
        "text": message.content.text,
        "headers": message.content.headers,
        "attachments": message.content.attachments,
        "id": "",
    }


async def _read(visit: Visit, inbox_id: str, message_id: str) -> ReadMessage:
    visit.principal.require(scope.INBOXES_READ)
    inbox, message = message_ids(inbox_id, message_id)
    return await visit.application.messages.read(visit.principal.workspace_id, message, inbox)


@get(_PATH)
async def message(
    visit: Visit, inbox_id: FromPath[str], message_id: FromPath[str]
) -> Response[str]:
    found = await _read(visit, inbox_id, message_id)
    inbox = await visit.application.inboxes.get(
        visit.principal.workspace_id, message_ids(inbox_id, message_id)[0]
    )
    tabs = [("text", "Text"), ("headers", "Headers")]
    if found.content.html is not None:
        tabs.insert(0, ("html", "HTML"))
    view = visit.ask("view")
    if view not in dict(tabs):
        view = tabs[0][0]
    return visit.page(
        "message.html",
        **await meaning_panel(visit, message_id),
        inbox={"id": type_id(INBOX, inbox.id), "address": inbox.address},
        message={**_view(found), "id": message_id},
        tabs=tabs,
        view=view,
        remote_images=found.content.remote_images,
        sender=await sender_of(visit, inbox.id, found.summary.id),
        spam=found.spam,
        with_images=visit.ask("images") == "1" and visit.application.settings.remote_images,
        may_load_images=visit.application.settings.remote_images,
        lives=_LIVES,
        may_write=scope.INBOXES_WRITE in visit.principal.scopes,
    )


@get(_PATH + "/html")
async def message_html(
    visit: Visit, inbox_id: FromPath[str], message_id: FromPath[str]
) -> Response[str]:
    """The sanitised HTML as a document of its own, with its inline images inside."""
    found = await _read(visit, inbox_id, message_id)
    html = found.content.html or ""
    for attachment in found.content.attachments:
        cid = attachment.content_id
        if (
            not cid
            or f"cid:{escape(cid)}" not in html
            or attachment.content_type not in _SHOWN_AS_IMAGE
            or attachment.size_bytes > _INLINE_IMAGE_BYTES
        ):
            continue
        inbox, identifier = message_ids(inbox_id, message_id)
        file = await visit.application.messages.attachment(
            visit.principal.workspace_id, identifier, attachment.index, inbox
        )
        image = f"data:{attachment.content_type};base64,{b64encode(file.content).decode()}"
        html = html.replace(f"cid:{escape(cid)}", image)
    if visit.ask("images") == "1" and visit.application.settings.remote_images:
        html = await visit.application.remote_images.within(html)
    page = f'<!doctype html><html><head><meta charset="utf-8"></head><body>{html}</body></html>'
    return Response(
        page,
        media_type="text/html",
        headers={
            "content-security-policy": _MAIL_POLICY,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cache-control": "no-store",
        },
    )


def _download(content: bytes, file_name: str) -> Response[bytes]:
    """As a file, never as a page: no browser may render what a stranger sent."""
    return Response(
        content,
        media_type="application/octet-stream",
        headers={
            "content-disposition": f"attachment; filename*=UTF-8''{quote(file_name, safe='')}",
            "x-content-type-options": "nosniff",
            "content-security-policy": "default-src 'none'; sandbox",
            "cache-control": "no-store",
        },
    )


@get(_PATH + "/raw")
async def message_raw(
    visit: Visit, inbox_id: FromPath[str], message_id: FromPath[str]
) -> Response[bytes]:
    visit.principal.require(scope.INBOXES_READ)
    inbox, identifier = message_ids(inbox_id, message_id)
    raw = await visit.application.messages.raw(visit.principal.workspace_id, identifier, inbox)
    return _download(raw, f"{message_id}.eml")


@get(_PATH + "/attachments/{index:int}")
async def attachment(
    visit: Visit, inbox_id: FromPath[str], message_id: FromPath[str], index: FromPath[int]
) -> Response[bytes]:
    visit.principal.require(scope.INBOXES_READ)
    inbox, identifier = message_ids(inbox_id, message_id)
    file = await visit.application.messages.attachment(
        visit.principal.workspace_id, identifier, index, inbox
    )
    return _download(file.content, file.attachment.filename or f"attachment-{index}")


@post(_PATH + "/delete", status_code=303)
async def delete_message(
    visit: Visit, inbox_id: FromPath[str], message_id: FromPath[str]
) -> Response[Any]:
    visit.principal.require(scope.INBOXES_WRITE)
    inbox, identifier = message_ids(inbox_id, message_id)
    async with visit.application.database.transaction() as tx:
        gone = await visit.application.messages.delete(
            visit.principal.workspace_id, [identifier], inbox, tx
        )
        if not gone:
            raise NotFound("no such message")
        await visit.application.audit.record(
            visit.principal.actor, "message.delete", message_id, {"inbox": inbox_id}, tx=tx
        )
    return visit.go(f"/inboxes/{inbox_id}", "deleted")


@post(_PATH + "/end", status_code=303)
async def set_end(
    visit: Visit, inbox_id: FromPath[str], message_id: FromPath[str]
) -> Response[Any]:
    """Let the mail end after a while; an empty one: with its inboxes."""
    visit.principal.require(scope.INBOXES_WRITE)
    app, workspace_id = visit.application, visit.principal.workspace_id
    ttl_s = seconds(visit.field("ttl_s"), "ttl_s")
    ends_at = None if ttl_s is None else app.clock.now() + timedelta(seconds=ttl_s)
    before = (await _read(visit, inbox_id, message_id)).summary
    async with app.database.transaction() as tx:
        ending = await app.endings.set(workspace_id, before.id, ends_at, tx)
        await app.audit.record(
            visit.principal.actor,
            "message.end",
            message_id,
            {"expires_at": before.expires_at},
            {"expires_at": ending.expires_at},
            tx,
        )
    return visit.go(f"/inboxes/{inbox_id}/messages/{message_id}", "saved")


HANDLERS = [message, message_html, message_raw, attachment, delete_message, set_end]
