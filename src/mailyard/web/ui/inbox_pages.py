"""Inboxes and the mail in them."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from litestar import Response, get, post
from litestar.datastructures import UploadFile
from litestar.params import FromPath
from litestar.response import Stream

from mailyard.access import scope
from mailyard.core.errors import InvalidInput, NotFound
from mailyard.core.ids import INBOX, MESSAGE, parse_type_id, type_id
from mailyard.core.limits import KIB, MIB
from mailyard.mailbox.inbox_value import Inbox, NewInbox
from mailyard.mailbox.mail_file import MEDIA_TYPES, UNKNOWN, Format
from mailyard.storage.database import Connection
from mailyard.web.api.inbox_item import told
from mailyard.web.ui.form_values import lines, seconds, size_bytes, whole
from mailyard.web.ui.frame import Visit
from mailyard.web.ui.inbox_view import found_inbox, inbox_view
from mailyard.web.ui.mailbox_pages import mailbox_page

_DAY_S = 86_400.0
_PIECE_BYTES = 256 * KIB
_UPLOAD_BYTES = 256 * MIB  # larger files by the command


@get("/inboxes")
async def inboxes(visit: Visit) -> Response[str]:
    visit.principal.require(scope.INBOXES_READ)
    service, workspace_id = visit.application.inboxes, visit.principal.workspace_id
    wanted, before, problem = visit.ask("address"), visit.ask("before"), None
    found: list[Inbox] = []
    next_url = None
    if wanted:
        try:
            found = [await service.find(workspace_id, wanted)]
        except (NotFound, InvalidInput):
            problem = f"There is no inbox {wanted}."
    else:
        page = await service.list(
            workspace_id, before=parse_type_id(INBOX, before, "before") if before else None
        )
        found = page.items
        if page.next_before is not None:
            next_url = f"/inboxes?before={type_id(INBOX, page.next_before)}"
    return visit.page(
        "inboxes.html",
        inboxes=[inbox_view(inbox) for inbox in found],
        next_url=next_url,
        address=wanted,
        problem=problem,
    )


@post("/inboxes", status_code=303)
async def make_inbox(visit: Visit) -> Response[Any]:
    visit.principal.require(scope.INBOXES_WRITE)
    wanted = NewInbox(
        address=visit.field("address") or None,
        ttl_s=seconds(visit.field("ttl_s"), "ttl_s"),
        labels=lines(visit.field("labels")),
        message_ttl_s=seconds(visit.field("message_ttl_s"), "message_ttl_s"),
        one_time=visit.field("one_time") == "yes",
        messages_max=whole(visit.field("messages_max"), "messages_max"),
        bytes_max=size_bytes(visit.field("bytes_max"), "bytes_max"),
    )
    async with visit.application.database.transaction() as tx:
        [inbox] = await visit.application.inboxes.create(
            visit.principal.workspace_id, [wanted], tx=tx
        )
        shown = type_id(INBOX, inbox.id)
        await visit.application.audit.record(
            visit.principal.actor, "inbox.create", shown, after=told(inbox), tx=tx
        )
    return visit.go(f"/inboxes/{shown}", "made")


@get("/inboxes/{inbox_id:str}/export")
async def export_inbox(visit: Visit, inbox_id: FromPath[str]) -> Stream:
    """All mail of the inbox as a file, `?format=mbox` or `eml`."""
    visit.principal.require(scope.INBOXES_READ)
    form: Format = "eml" if visit.ask("format") == "eml" else "mbox"
    pieces = await visit.application.mail_files.export(
        visit.principal.workspace_id, parse_type_id(INBOX, inbox_id), form
    )
    name = f"{inbox_id}.{'tar' if form == 'eml' else 'mbox'}"
    return Stream(
        pieces,
        media_type=MEDIA_TYPES[form],
        headers={
            "content-disposition": f'attachment; filename="{name}"',
            "x-content-type-options": "nosniff",
            "content-security-policy": "default-src 'none'; sandbox",
            "cache-control": "no-store",
        },
    )


async def _pieces(file: UploadFile) -> AsyncIterator[bytes]:
    while piece := await file.read(_PIECE_BYTES):
        yield piece


@post("/inboxes/{inbox_id:str}/import", status_code=303, request_max_body_size=_UPLOAD_BYTES)
async def import_inbox(visit: Visit, inbox_id: FromPath[str]) -> Response[Any]:
    """The mail of a file (mbox, a tar of .eml files, one mail) into the inbox."""
    visit.principal.require(scope.INBOXES_WRITE)
    file = visit.form.get("file")
    if not isinstance(file, UploadFile) or not file.filename:
        raise InvalidInput("choose a file", field="file")
    file_name = file.filename

    async def witness(tx: Connection) -> None:
        await visit.application.audit.record(
            visit.principal.actor, "inbox.import", inbox_id, after={"file_name": file_name}, tx=tx
        )

    told = await visit.application.mail_files.bring_in(
        visit.principal.workspace_id,
        parse_type_id(INBOX, inbox_id),
        _pieces(file),
        UNKNOWN,
        witness,
    )
    if not told.refused:
        return visit.go(f"/inboxes/{inbox_id}", "mail_imported")
    refused = "; ".join(f"mail {one.number}: {one.reason}" for one in told.refusals[:5])
    return await mailbox_page(
        visit, inbox_id, f"{told.imported} imported, {told.refused} refused ({refused})."
    )


@post("/inboxes/{inbox_id:str}/extend", status_code=303)
async def extend(visit: Visit, inbox_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.INBOXES_WRITE)
    before = await found_inbox(visit, inbox_id)
    async with visit.application.database.transaction() as tx:
        after = await visit.application.inboxes.extend(
            visit.principal.workspace_id, before.id, _DAY_S, tx=tx
        )
        await visit.application.audit.record(
            visit.principal.actor,
            "inbox.extend",
            inbox_id,
            {"expires_at": before.expires_at},
            {"expires_at": after.expires_at},
            tx,
        )
    return visit.go(f"/inboxes/{inbox_id}", "extended")


@post("/inboxes/{inbox_id:str}/delete", status_code=303)
async def delete_inbox(visit: Visit, inbox_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.INBOXES_WRITE)
    found = await found_inbox(visit, inbox_id)
    async with visit.application.database.transaction() as tx:
        await visit.application.inboxes.delete(visit.principal.workspace_id, [found.id], tx=tx)
        await visit.application.audit.record(
            visit.principal.actor, "inbox.delete", inbox_id, {"address": found.address}, None, tx
        )
    return visit.go("/inboxes", "deleted")


def message_ids(inbox_id: str, message_id: str) -> tuple[UUID, UUID]:
    """The two ids of a message's path."""
    return parse_type_id(INBOX, inbox_id), parse_type_id(MESSAGE, message_id)


HANDLERS = [
    inboxes, make_inbox, export_inbox, import_inbox, extend, delete_inbox,
]  # fmt: skip
