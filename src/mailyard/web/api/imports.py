"""Imports: CSV files of contacts, streamed in, and what became of them."""

from typing import Annotated

import msgspec
from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.campaigns.importing import Import
from mailyard.core import ids, limits
from mailyard.core.errors import InvalidInput, TooLarge
from mailyard.storage.database import Connection
from mailyard.web.api.body import invalid, stream_body
from mailyard.web.api.page import (
    ImportId,
    Input,
    ListId,
    Moment,
    NextCursor,
    Output,
    PageQuery,
    page_of,
    read_cursor,
)
from mailyard.web.api.route import Call, Download, Media, Route

TAG = "Imports"
_Mapping = Annotated[dict[str, str | None], Meta(max_length=limits.CSV_COLUMNS)]
_UPLOADS = ("text/csv", "application/csv", "application/octet-stream", "text/plain")


class ImportQuery(Input):
    """How to read the file in the body."""

    file_name: Annotated[str, Meta(max_length=255)] = "contacts.csv"
    list_id: Annotated[str, Meta(description="The list that the contacts come into.")] | None = None
    mapping: (
        Annotated[
            str,
            Meta(
                max_length=16 * limits.KIB,
                description="JSON object: column name to `address`, `name`, an attribute's name, "
                "or null to leave it out. Other columns mean what their header suggests.",
                examples=['{"E-Mail": "address", "Town": "city"}'],
            ),
        ]
        | None
    ) = None


class ImportItem(Output):
    """A file's way in."""

    id: ImportId
    list_id: ListId | None
    file_name: str
    state: Annotated[
        str, Meta(description="`uploading`, `queued`, `running`, `finished` or `failed`.")
    ]
    mapping: dict[str, str | None]
    size_bytes: int
    read_bytes: int
    rows_imported: int
    rows_rejected: int
    error: str
    created_at: Moment
    finished_at: Moment | None


class ImportPage(Output):
    """Imports, newest first."""

    items: list[ImportItem]
    next_cursor: NextCursor


def _item(one: Import) -> ImportItem:
    return ImportItem(
        id=ids.type_id(ids.IMPORT, one.id),
        list_id=ids.type_id(ids.LIST, one.list_id) if one.list_id else None,
        file_name=one.file_name,
        state=one.state,
        mapping=one.mapping,
        size_bytes=one.size_bytes,
        read_bytes=one.read_bytes,
        rows_imported=one.rows_imported,
        rows_rejected=one.rows_rejected,
        error=one.error,
        created_at=one.created_at,
        finished_at=one.finished_at,
    )


def _mapping(text: str | None) -> dict[str, str | None]:
    if text is None:
        return {}
    try:
        mapping: dict[str, str | None] = msgspec.json.decode(text, type=_Mapping)
    except msgspec.ValidationError as error:
        raise invalid(error, "mapping.") from None
    except msgspec.DecodeError as error:
        raise InvalidInput(f"not JSON: {error}", field="mapping") from None
    return mapping


async def start_import(call: Call[None, ImportQuery]) -> ImportItem:
    query = call.query
    mapping = _mapping(query.mapping)
    list_id = None
    if query.list_id is not None:
        list_id = ids.parse_type_id(ids.LIST, query.list_id, "list_id")
    declared = call.headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limits.IMPORT_BYTES:
        raise TooLarge(f"the file may have {limits.IMPORT_BYTES} bytes")

    async def witness(one: Import, tx: Connection) -> None:
        after = {"file_name": one.file_name, "size_bytes": one.size_bytes, "list_id": query.list_id}
        begun = Change("import.create", ids.type_id(ids.IMPORT, one.id), None, after)
        await call.app.audit.record_many(call.principal.actor, [begun], tx)

    one = await call.app.imports.upload(
        call.workspace_id,
        query.file_name,
        stream_body(call.receive, limits.IMPORT_BYTES),
        list_id=list_id,
        mapping=mapping,
        witness=witness,
    )
    return _item(one)


async def list_imports(call: Call[None, PageQuery]) -> ImportPage:
    found = await call.app.imports.page(
        call.workspace_id, after=read_cursor(call.query.cursor), limit=call.query.limit
    )
    return page_of(ImportPage, found, _item, call.query.limit)


async def get_import(call: Call[None, None]) -> ImportItem:
    return _item(await call.app.imports.get(call.workspace_id, call.ids["import_id"]))


async def get_rejects(call: Call[None, None]) -> Download:
    import_id = call.ids["import_id"]
    one = await call.app.imports.get(call.workspace_id, import_id)
    return Download(
        call.app.imports.rejects_csv(call.workspace_id, import_id),
        "text/csv; charset=utf-8",
        f"rejects-{ids.type_id(ids.IMPORT, one.id)}.csv",
    )


ROUTES = (
    Route(
        "POST",
        "/v1/imports",
        start_import,
        "startImport",
        TAG,
        "Import contacts from a CSV file",
        scope.CONTACTS_WRITE,
        status=202,
        answer=ImportItem,
        query=ImportQuery,
        upload=_UPLOADS,
        errors=(404,),
        description="The body is the file itself, up to 2 GiB; it is stored as it arrives. Rows go "
        "in afterwards; importing a file again changes nothing twice.",
    ),
    Route(
        "GET",
        "/v1/imports",
        list_imports,
        "listImports",
        TAG,
        "List imports",
        scope.CONTACTS_READ,
        answer=ImportPage,
        query=PageQuery,
    ),
    Route(
        "GET",
        "/v1/imports/{import_id:imp}",
        get_import,
        "getImport",
        TAG,
        "Read an import",
        scope.CONTACTS_READ,
        answer=ImportItem,
    ),
    Route(
        "GET",
        "/v1/imports/{import_id:imp}/rejects.csv",
        get_rejects,
        "getImportRejects",
        TAG,
        "Download the rows that were refused, with line and reason",
        scope.CONTACTS_READ,
        answer=Media("text/csv", "Line, reason and row; no cell starts like a formula."),
    ),
)
