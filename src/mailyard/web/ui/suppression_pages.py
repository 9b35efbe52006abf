"""Whom the workspace does not write to, and why: looking, adding, removing, files in and out."""

from collections.abc import AsyncIterator
from typing import Any

from litestar import Response, get, post
from litestar.datastructures import UploadFile
from litestar.params import FromPath

from mailyard.access import scope
from mailyard.core.errors import InvalidInput, MailyardError
from mailyard.core.ids import DELIVERY, SUPPRESSION, parse_type_id, type_id
from mailyard.core.limits import API_PAGE_ITEMS, MIB
from mailyard.sending.suppress import REASONS, STREAMS, Suppression
from mailyard.storage.database import Connection
from mailyard.web.api.suppressions import imported_change, told
from mailyard.web.ui.frame import Visit

UPLOAD_BYTES = 100 * MIB
_PIECE_BYTES = 256 * 1024


def _view(one: Suppression) -> dict[str, Any]:
    return {
        "id": type_id(SUPPRESSION, one.id),
        "address": one.address,
        "stream": one.stream,
        "reason": one.reason,
        "source": one.source,
        "evidence": one.evidence,
        "delivery_id": type_id(DELIVERY, one.delivery_id) if one.delivery_id else None,
        "created_at": one.created_at,
    }


async def _page(visit: Visit, problem: str | None = None, done: Any = None) -> Response[str]:
    workspace_id, before = visit.principal.workspace_id, visit.ask("before")
    found: Any = []
    try:
        found = await visit.application.suppressions.page(
            workspace_id,
            address=visit.ask("address") or None,
            stream=visit.ask("stream") or None,
            reason=visit.ask("reason") or None,
            before=parse_type_id(SUPPRESSION, before, "before") if before else None,
            limit=API_PAGE_ITEMS,
        )
    except InvalidInput as error:
        problem = problem or error.message
    following = None
    if len(found) == API_PAGE_ITEMS:
        following = "/suppressions?" + visit.query_with(before=type_id(SUPPRESSION, found[-1].id))
    return visit.page(
        "suppressions.html",
        status=422 if problem else 200,
        problem=problem,
        suppressions=[_view(one) for one in found],
        filters={name: visit.ask(name) for name in ("address", "stream", "reason")},
        streams=STREAMS,
        reasons=REASONS,
        imported=done,
        next_url=following,
        may_change=scope.SUPPRESSIONS_WRITE in visit.principal.scopes,
    )


@get("/suppressions")
async def suppressions(visit: Visit) -> Response[str]:
    visit.principal.require(scope.SUPPRESSIONS_READ)
    return await _page(visit)


@post("/suppressions", status_code=303)
async def add(visit: Visit) -> Response[Any]:
    visit.principal.require(scope.SUPPRESSIONS_WRITE)
    application = visit.application
    try:
        async with application.database.transaction() as tx:
            one = await application.suppressions.add(
                visit.principal.workspace_id,
                visit.field("address"),
                visit.field("stream"),
                visit.field("reason") or "by_hand",
                tx,
                source="page",
                evidence=visit.field("evidence"),
            )
            await application.audit.record(
                visit.principal.actor,
                "suppression.add",
                type_id(SUPPRESSION, one.id),
                after=told(one),
                tx=tx,
            )
    except MailyardError as error:
        return await _page(visit, error.message)
    return visit.go("/suppressions", "saved")


@post("/suppressions/{suppression_id:str}/remove", status_code=303)
async def remove(visit: Visit, suppression_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.SUPPRESSIONS_WRITE)
    application = visit.application
    async with application.database.transaction() as tx:
        one = await application.suppressions.remove(
            visit.principal.workspace_id, parse_type_id(SUPPRESSION, suppression_id), tx
        )
        await application.audit.record(
            visit.principal.actor,
            "suppression.remove",
            type_id(SUPPRESSION, one.id),
            before=told(one),
            tx=tx,
        )
    return visit.go("/suppressions", "deleted")


@post("/suppressions/import", status_code=200, request_max_body_size=UPLOAD_BYTES)
async def bring_in(visit: Visit) -> Response[Any]:
    visit.principal.require(scope.SUPPRESSIONS_WRITE)
    application, file = visit.application, visit.form.get("file")

    async def witness(added: int, tx: Connection) -> None:
        change = imported_change(visit.principal.workspace_id, name, added)
        await application.audit.record_many(visit.principal.actor, [change], tx)

    try:
        if not isinstance(file, UploadFile) or not file.filename:
            raise InvalidInput("choose a file", field="file")
        name = file.filename[:100]
        done = await application.suppression_files.bring_in(
            visit.principal.workspace_id,
            _pieces(file),
            source=name,
            stream=visit.field("stream"),
            reason=visit.field("reason"),
            witness=witness,
        )
    except MailyardError as error:
        return await _page(visit, error.message)
    return await _page(visit, done=done)


async def _pieces(file: UploadFile) -> AsyncIterator[bytes]:
    while piece := await file.read(_PIECE_BYTES):
        yield piece


HANDLERS = [suppressions, add, remove, bring_in]
