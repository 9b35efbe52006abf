"""Contacts, and bringing them in from CSV files."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from litestar import Response, get, post
from litestar.datastructures import UploadFile

from mailyard.access import scope
from mailyard.campaigns.importing import Import
from mailyard.core.errors import Conflict, InvalidInput, MailyardError
from mailyard.core.ids import CONTACT, IMPORT, LIST, SEGMENT, parse_type_id, type_id
from mailyard.core.limits import API_PAGE_ITEMS, MIB
from mailyard.storage.database import Connection
from mailyard.web.ui.frame import Visit

UPLOAD_BYTES = 100 * MIB
_PIECE_BYTES = 256 * 1024


async def list_views(visit: Visit) -> list[dict[str, Any]]:
    """The workspace's lists, for a choice."""
    lists = await visit.application.lists.page(visit.principal.workspace_id)
    return [
        {"id": type_id(LIST, entry.id), "name": entry.name, "members": entry.members}
        for entry in lists
    ]


async def segment_views(visit: Visit) -> list[dict[str, Any]]:
    """The workspace's segments, for a choice."""
    segments = await visit.application.segments.page(visit.principal.workspace_id)
    return [{"id": type_id(SEGMENT, entry.id), "name": entry.name} for entry in segments]


@get("/contacts")
async def contacts(visit: Visit) -> Response[str]:
    visit.principal.require(scope.CONTACTS_READ)
    workspace_id = visit.principal.workspace_id
    search, list_text, after_text = visit.ask("search"), visit.ask("list"), visit.ask("after")
    after = parse_type_id(CONTACT, after_text, "after") if after_text else None
    if list_text:
        found = await visit.application.lists.members(
            workspace_id, parse_type_id(LIST, list_text, "list"), after=after
        )
    else:
        found = await visit.application.contacts.find(workspace_id, search=search, after=after)
    following = None
    if len(found) == API_PAGE_ITEMS:
        following = "/contacts?" + visit.query_with(after=type_id(CONTACT, found[-1].id))
    return visit.page(
        "contacts.html",
        contacts=[
            {"address": item.address, "name": item.name, "attributes": item.attributes}
            for item in found
        ],
        lists=await list_views(visit),
        filters={"search": search, "list": list_text},
        next_url=following,
    )


def _import_view(entry: Import) -> dict[str, Any]:
    return {
        "id": type_id(IMPORT, entry.id),
        "file_name": entry.file_name,
        "state": entry.state,
        "size_bytes": entry.size_bytes,
        "read_bytes": entry.read_bytes,
        "rows_imported": entry.rows_imported,
        "rows_rejected": entry.rows_rejected,
        "error": entry.error,
        "created_at": entry.created_at,
    }


async def _import_views(visit: Visit) -> list[dict[str, Any]]:
    entries = await visit.application.imports.page(visit.principal.workspace_id)
    return [_import_view(entry) for entry in entries]


async def _imports_page(visit: Visit, problem: str | None = None) -> Response[str]:
    return visit.page(
        "imports.html",
        status=422 if problem else 200,
        imports=await _import_views(visit),
        upload_limit=UPLOAD_BYTES,
        problem=problem,
    )


@get("/imports")
async def imports(visit: Visit) -> Response[str]:
    visit.principal.require(scope.CONTACTS_READ)
    return await _imports_page(visit)


@get("/fragments/imports")
async def import_rows(visit: Visit) -> Response[str]:
    visit.principal.require(scope.CONTACTS_READ)
    return visit.fragment("_imports.html", imports=await _import_views(visit))


async def _pieces(file: UploadFile) -> AsyncIterator[bytes]:
    while piece := await file.read(_PIECE_BYTES):
        yield piece


@post("/imports", status_code=303, request_max_body_size=UPLOAD_BYTES)
async def upload(visit: Visit) -> Response[Any]:
    visit.principal.require(scope.CONTACTS_WRITE)
    workspace_id, file = visit.principal.workspace_id, visit.form.get("file")
    list_name = visit.field("list")

    async def witness(made: Import, tx: Connection) -> None:
        await visit.application.audit.record(
            visit.principal.actor,
            "import.create",
            type_id(IMPORT, made.id),
            after={"file_name": made.file_name, "list": list_name},
            tx=tx,
        )

    try:
        if not isinstance(file, UploadFile) or not file.filename:
            raise InvalidInput("choose a file", field="file")
        list_id = await _list_of(visit, list_name)
        await visit.application.imports.upload(
            workspace_id, file.filename, _pieces(file), list_id=list_id, witness=witness
        )
    except MailyardError as error:
        return await _imports_page(visit, error.message)
    return visit.go("/imports", "uploaded")


async def _list_of(visit: Visit, name: str) -> UUID:
    """The list of this name, made when there is none."""
    workspace_id, lists = visit.principal.workspace_id, visit.application.lists
    while (found := await lists.find(workspace_id, name)) is None:
        try:
            async with visit.application.database.transaction() as tx:
                made = await lists.create(workspace_id, name, tx=tx)
                await visit.application.audit.record(
                    visit.principal.actor,
                    "list.create",
                    type_id(LIST, made.id),
                    after={"name": made.name},
                    tx=tx,
                )
        except Conflict:
            continue  # somebody else has just made it
        return made.id
    return found


HANDLERS = [contacts, imports, import_rows, upload]
