"""Suppressions: addresses that get no mail."""

from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids
from mailyard.core.limits import SUPPRESSION_FILE_BYTES
from mailyard.sending.suppress import Suppression
from mailyard.storage.database import Connection
from mailyard.web.api.body import stream_body
from mailyard.web.api.page import (
    DeliveryId,
    Input,
    Moment,
    NextCursor,
    Output,
    PageQuery,
    SuppressionId,
    page_of,
    read_cursor,
)
from mailyard.web.api.route import Answer, Call, Download, Media, Route

TAG = "Suppressions"
_Stream = Annotated[
    Literal["all", "campaign"],
    Meta(description="`all` stops every mail to the address, `campaign` only campaigns."),
]


_Reason = Annotated[
    Literal["hard_bounce", "complaint", "unsubscribed", "by_hand"],
    Meta(description="Why the address gets no mail."),
]


class NewSuppression(Input):
    """An address that shall get no mail."""

    address: Annotated[str, Meta(min_length=3, max_length=320, examples=["ada@example.org"])]
    stream: _Stream = "all"
    reason: _Reason = "by_hand"
    evidence: Annotated[str, Meta(max_length=500, description="What is known about it.")] = ""


class SuppressionImportQuery(Input):
    """How to read the file."""

    file_name: Annotated[str, Meta(max_length=100)] = "file"
    stream: _Stream = "all"
    reason: _Reason = "by_hand"


class BadLine(Output):
    """A line that did not go in."""

    line: int
    reason: str
    text: str


class ImportedSuppressions(Output):
    """What became of a file."""

    lines: Annotated[int, Meta(description="Lines that could be read.")]
    added: int
    stood: Annotated[int, Meta(description="Addresses that were suppressed already.")]
    rejected: int
    errors: list[BadLine]


class SuppressionItem(Output):
    """An address that gets no mail."""

    id: SuppressionId
    address: str
    stream: str
    reason: str
    source: Annotated[
        str, Meta(description="Who said so: `mail`, a provider's kind, `api`, `page`, a file.")
    ]
    evidence: Annotated[str, Meta(description="What was said, such as the refusing answer.")]
    delivery_id: Annotated[DeliveryId | None, Meta(description="The mail that it was said of.")]
    created_at: Moment


class SuppressionPage(Output):
    """Suppressions, newest first."""

    items: list[SuppressionItem]
    next_cursor: NextCursor


class SuppressionsQuery(PageQuery):
    """Which suppressions to list."""

    address: Annotated[str, Meta(max_length=320)] | None = None
    stream: _Stream | None = None
    reason: _Reason | None = None


def _item(one: Suppression) -> SuppressionItem:
    return SuppressionItem(
        id=ids.type_id(ids.SUPPRESSION, one.id),
        address=one.address,
        stream=one.stream,
        reason=one.reason,
        source=one.source,
        evidence=one.evidence,
        delivery_id=ids.type_id(ids.DELIVERY, one.delivery_id) if one.delivery_id else None,
        created_at=one.created_at,
    )


def told(one: Suppression) -> dict[str, str]:
    """A suppression as the audit log keeps it."""
    return {
        "address": one.address,
        "stream": one.stream,
        "reason": one.reason,
        "source": one.source,
        "evidence": one.evidence,
    }


def imported_change(workspace_id: UUID, file_name: str, added: int) -> Change:
    """A part of a file that was brought in, as the audit log keeps it."""
    subject = ids.type_id(ids.WORKSPACE, workspace_id)
    return Change("suppression.import", subject, None, {"file": file_name, "added": added})


async def import_suppressions(call: Call[None, SuppressionImportQuery]) -> ImportedSuppressions:
    query = call.query

    async def witness(added: int, tx: Connection) -> None:
        change = imported_change(call.workspace_id, query.file_name, added)
        await call.app.audit.record_many(call.principal.actor, [change], tx)

    done = await call.app.suppression_files.bring_in(
        call.workspace_id,
        stream_body(call.receive, SUPPRESSION_FILE_BYTES),
        source=query.file_name,
        stream=query.stream,
        reason=query.reason,
        witness=witness,
    )
    return ImportedSuppressions(
        lines=done.lines,
        added=done.added,
        stood=done.stood,
        rejected=done.rejected,
        errors=[BadLine(line=one.line, reason=one.reason, text=one.text) for one in done.errors],
    )


async def export_suppressions(call: Call[None, None]) -> Download:
    pieces = call.app.suppression_files.take_out(call.workspace_id)
    return Download(pieces, "text/csv; charset=utf-8", "suppressions.csv")


async def add_suppression(call: Call[NewSuppression, None]) -> Answer:
    body = call.body
    async with call.app.database.transaction() as tx:
        one = await call.app.suppressions.add(
            call.workspace_id,
            body.address,
            body.stream,
            body.reason,
            tx,
            source="api",
            evidence=body.evidence,
        )
        subject = ids.type_id(ids.SUPPRESSION, one.id)
        return await call.done(tx, _item(one), Change("suppression.add", subject, None, told(one)))


async def list_suppressions(call: Call[None, SuppressionsQuery]) -> SuppressionPage:
    query = call.query
    found = await call.app.suppressions.page(
        call.workspace_id,
        address=query.address,
        stream=query.stream,
        reason=query.reason,
        before=read_cursor(query.cursor),
        limit=query.limit,
    )
    return page_of(SuppressionPage, found, _item, query.limit)


async def get_suppression(call: Call[None, None]) -> SuppressionItem:
    return _item(await call.app.suppressions.get(call.workspace_id, call.ids["suppression_id"]))


async def remove_suppression(call: Call[None, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        one = await call.app.suppressions.remove(
            call.workspace_id, call.ids["suppression_id"], tx=tx
        )
        subject = ids.type_id(ids.SUPPRESSION, one.id)
        return await call.done(tx, None, Change("suppression.remove", subject, told(one), None))


ROUTES = (
    Route(
        "POST",
        "/v1/suppressions/import",
        import_suppressions,
        "importSuppressions",
        TAG,
        "Bring in suppressions from a CSV file",
        scope.SUPPRESSIONS_WRITE,
        answer=ImportedSuppressions,
        query=SuppressionImportQuery,
        upload=("text/csv", "text/plain", "application/octet-stream"),
        description="The body is the file itself, with a column named `address` (or `email`), and "
        "where there are such, `stream`, `reason` and `evidence`. Good lines go in whatever the "
        "others are; each bad one is named, up to 1,000 of them. Doing it again changes nothing.",
    ),
    Route(
        "GET",
        "/v1/suppressions/export.csv",
        export_suppressions,
        "exportSuppressions",
        TAG,
        "Download all suppressions",
        scope.SUPPRESSIONS_READ,
        answer=Media("text/csv", "Every address with why; no cell starts like a formula."),
    ),
    Route(
        "POST",
        "/v1/suppressions",
        add_suppression,
        "addSuppression",
        TAG,
        "Stop mail to an address",
        scope.SUPPRESSIONS_WRITE,
        status=201,
        answer=SuppressionItem,
        body=NewSuppression,
    ),
    Route(
        "GET",
        "/v1/suppressions",
        list_suppressions,
        "listSuppressions",
        TAG,
        "List addresses that get no mail",
        scope.SUPPRESSIONS_READ,
        answer=SuppressionPage,
        query=SuppressionsQuery,
    ),
    Route(
        "GET",
        "/v1/suppressions/{suppression_id:sup}",
        get_suppression,
        "getSuppression",
        TAG,
        "Read a suppression",
        scope.SUPPRESSIONS_READ,
        answer=SuppressionItem,
    ),
    Route(
        "DELETE",
        "/v1/suppressions/{suppression_id:sup}",
        remove_suppression,
        "removeSuppression",
        TAG,
        "Allow mail to an address again",
        scope.SUPPRESSIONS_WRITE,
        status=204,
    ),
)
