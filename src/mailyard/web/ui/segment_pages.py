"""Segments: written with a live count, counted exactly step by step, their contacts shown."""

from typing import Any
from uuid import UUID

from litestar import Response, get, post
from litestar.params import FromPath

from mailyard.access import scope
from mailyard.campaigns.audience import Counted
from mailyard.campaigns.estimate import Estimate
from mailyard.campaigns.filter.tokens import FilterError
from mailyard.campaigns.segment import Segment
from mailyard.core.errors import Conflict, InvalidInput
from mailyard.core.ids import SEGMENT, parse_type_id, type_id
from mailyard.core.limits import API_PAGE_ITEMS
from mailyard.web.api.page import read_cursor, write_cursor
from mailyard.web.ui.frame import Visit

_FORM = ("name", "filter")
_SHOWN = 20  # contacts beside the editor


@get("/segments")
async def segments(visit: Visit) -> Response[str]:
    visit.principal.require(scope.CONTACTS_READ)
    text = visit.ask("after")
    after = parse_type_id(SEGMENT, text, "after") if text else None
    found = await visit.application.segments.page(visit.principal.workspace_id, after=after)
    following = None
    if len(found) == API_PAGE_ITEMS:
        following = "/segments?" + visit.query_with(after=type_id(SEGMENT, found[-1].id))
    return visit.page(
        "segments.html",
        segments=[
            {
                "id": type_id(SEGMENT, one.id),
                "name": one.name,
                "filter": one.filter,
                "updated_at": one.updated_at,
            }
            for one in found
        ],
        next_url=following,
    )


@get("/segments/new")
async def new_segment(visit: Visit) -> Response[str]:
    visit.principal.require(scope.CONTACTS_WRITE)
    return _form_page(visit, {"name": "", "filter": visit.ask("filter")})


@post("/segments", status_code=303)
async def make_segment(visit: Visit) -> Response[Any]:
    visit.principal.require(scope.CONTACTS_WRITE)
    form = _form(visit)
    try:
        async with visit.application.database.transaction() as tx:
            made = await visit.application.segments.create(
                visit.principal.workspace_id, form["name"], form["filter"], tx=tx
            )
            shown = type_id(SEGMENT, made.id)
            after = {"name": made.name, "filter": made.filter}
            await visit.application.audit.record(
                visit.principal.actor, "segment.create", shown, after=after, tx=tx
            )
    except (InvalidInput, Conflict) as error:
        return _form_page(visit, form, _said(error))
    return visit.go(f"/segments/{shown}", "made")


@get("/segments/{segment_id:str}")
async def segment(visit: Visit, segment_id: FromPath[str]) -> Response[str]:
    visit.principal.require(scope.CONTACTS_READ)
    return await _segment_page(visit, parse_type_id(SEGMENT, segment_id))


@post("/segments/{segment_id:str}", status_code=303)
async def change_segment(visit: Visit, segment_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.CONTACTS_WRITE)
    identifier, form = parse_type_id(SEGMENT, segment_id), _form(visit)
    service, workspace_id = visit.application.segments, visit.principal.workspace_id
    try:
        async with visit.application.database.transaction() as tx:
            before = await service.get(workspace_id, identifier, tx=tx)
            after = await service.update(
                workspace_id, identifier, name=form["name"], source=form["filter"], tx=tx
            )
            await visit.application.audit.record(
                visit.principal.actor,
                "segment.change",
                segment_id,
                {"name": before.name, "filter": before.filter},
                {"name": after.name, "filter": after.filter},
                tx,
            )
    except (InvalidInput, Conflict) as error:
        return await _segment_page(visit, identifier, form, _said(error))
    return visit.go(f"/segments/{segment_id}", "saved")


@post("/segments/{segment_id:str}/delete", status_code=303)
async def delete_segment(visit: Visit, segment_id: FromPath[str]) -> Response[Any]:
    visit.principal.require(scope.CONTACTS_WRITE)
    service, workspace_id = visit.application.segments, visit.principal.workspace_id
    identifier = parse_type_id(SEGMENT, segment_id)
    async with visit.application.database.transaction() as tx:
        before = await service.get(workspace_id, identifier, tx=tx)
        await service.delete(workspace_id, identifier, tx=tx)
        await visit.application.audit.record(
            visit.principal.actor,
            "segment.delete",
            segment_id,
            {"name": before.name, "filter": before.filter},
            None,
            tx,
        )
    return visit.go("/segments", "deleted")


# Counting: a POST because the question is long; nothing is changed.


@post("/fragments/segments/estimate", status_code=200)
async def estimate(visit: Visit) -> Response[str]:
    """What stands under the editor while one types."""
    visit.principal.require(scope.CONTACTS_READ)
    audiences, source = visit.application.segments.audiences, _form(visit)["filter"]
    found: Estimate | None = None
    error: FilterError | None = None
    if source:
        try:
            audience = await audiences.read(visit.principal.workspace_id, source)
            found = await audiences.estimate(audience)
        except FilterError as refused:
            error = refused
    return visit.fragment("_segment_estimate.html", estimate=found, error=error)


@post("/fragments/segments/count", status_code=200)
async def count(visit: Visit) -> Response[str]:
    """A second's worth of an exact count; what it says asks for the next one by itself."""
    visit.principal.require(scope.CONTACTS_READ)
    audiences, source = visit.application.segments.audiences, _form(visit)["filter"]
    try:
        audience = await audiences.read(visit.principal.workspace_id, source)
    except FilterError as refused:
        return visit.fragment("_segment_estimate.html", estimate=None, error=refused)
    step = await audiences.count(audience, read_cursor(visit.field("cursor") or None))
    return visit.fragment("_segment_count.html", **_so_far(visit, step))


def _so_far(visit: Visit, step: Counted) -> dict[str, Any]:
    contacts = _number(visit.field("contacts")) + step.contacts
    looked = min(_number(visit.field("looked")) + step.looked, step.of)
    return {
        "contacts": contacts,
        "looked": looked,
        "of": max(step.of, 1),
        "cursor": write_cursor(step.upto),
    }


def _number(text: str) -> int:
    if not text:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise InvalidInput("a number of contacts", field="contacts")
    return int(text)


def _form(visit: Visit) -> dict[str, str]:
    """The fields as they were typed; a browser sends CRLF line ends."""
    return {name: visit.field(name).replace("\r\n", "\n") for name in _FORM}


def _said(error: InvalidInput | Conflict) -> str:
    return error.message if isinstance(error, FilterError) else f"{error.field}: {error.message}"


def _form_page(visit: Visit, form: dict[str, str], problem: str | None = None) -> Response[str]:
    return visit.page(
        "segment.html",
        status=422 if problem else 200,
        form=form,
        segment_id=None,
        contacts=[],
        problem=problem,
    )


async def _segment_page(
    visit: Visit, segment_id: UUID, form: dict[str, str] | None = None, problem: str | None = None
) -> Response[str]:
    """The segment in the editor, or what was typed and refused; some of its contacts beside it."""
    service, workspace_id = visit.application.segments, visit.principal.workspace_id
    stored: Segment = await service.get(workspace_id, segment_id)
    contacts = []
    try:
        audience = await service.audiences.read(workspace_id, stored.filter)
        contacts = (await service.audiences.members(audience, limit=_SHOWN)).contacts
    except FilterError as error:  # a list that it names is gone
        problem = problem or error.message
    return visit.page(
        "segment.html",
        status=422 if problem else 200,
        form=form or {"name": stored.name, "filter": stored.filter},
        segment_id=type_id(SEGMENT, segment_id),
        contacts=[{"address": one.address, "name": one.name} for one in contacts],
        problem=problem,
    )


HANDLERS = [
    segments,
    new_segment,
    make_segment,
    segment,
    change_segment,
    delete_segment,
    estimate,
    count,
]
