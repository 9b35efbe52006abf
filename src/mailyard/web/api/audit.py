"""The audit log: who changed what."""

from typing import Annotated, Any

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import AuditEntry
from mailyard.core import ids
from mailyard.web.api.page import (
    AuditId,
    Moment,
    NextCursor,
    Output,
    PageQuery,
    page_of,
    read_cursor,
    since_epoch,
)
from mailyard.web.api.route import Call, Route

TAG = "Audit log"


class AuditItem(Output):
    """A change: who, what, before, after."""

    id: AuditId
    at: Moment
    actor_kind: Annotated[str, Meta(description="`user`, `key`, `command` or `system`.")]
    actor: str
    action: Annotated[str, Meta(examples=["inbox.create"])]
    subject: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class AuditPage(Output):
    """Changes, newest first."""

    items: list[AuditItem]
    next_cursor: NextCursor


class AuditQuery(PageQuery):
    """Which changes to list."""

    actor: Annotated[str, Meta(max_length=320)] | None = None
    action: (
        Annotated[
            str, Meta(max_length=100, description="Whole (`inbox.create`) or its first word.")
        ]
        | None
    ) = None
    subject: Annotated[str, Meta(max_length=320, description="The id of what changed.")] | None = (
        None
    )
    since: Moment | None = None
    until: Moment | None = None


def _entry(entry: AuditEntry) -> AuditItem:
    return AuditItem(
        id=ids.type_id(ids.AUDIT, entry.id),
        at=entry.at,
        actor_kind=entry.actor_kind,
        actor=entry.actor,
        action=entry.action,
        subject=entry.subject,
        before=entry.before,
        after=entry.after,
    )


async def list_audit(call: Call[None, AuditQuery]) -> AuditPage:
    query = call.query
    entries = await call.app.audit.list(
        call.workspace_id,
        actor=query.actor,
        action=query.action,
        subject=query.subject,
        since=since_epoch(query.since),
        until=since_epoch(query.until),
        before_id=read_cursor(query.cursor),
        limit=query.limit,
    )
    return page_of(AuditPage, entries, _entry, query.limit)


ROUTES = (
    Route(
        "GET",
        "/v1/audit",
        list_audit,
        "listAudit",
        TAG,
        "Find changes",
        scope.ADMIN,
        answer=AuditPage,
        query=AuditQuery,
    ),
)
