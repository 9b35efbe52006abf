"""Suppressions: addresses that get no mail."""

from typing import Annotated, Literal

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids
from mailyard.sending.suppress import Suppression
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
from mailyard.web.api.route import Answer, Call, Route

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


def _told(one: Suppression) -> dict[str, str]:
    """A suppression as the audit log keeps it."""
    return {
        "address": one.address,
        "stream": one.stream,
        "reason": one.reason,
        "source": one.source,
        "evidence": one.evidence,
    }


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
        return await call.done(tx, _item(one), Change("suppression.add", subject, None, _told(one)))


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
        return await call.done(tx, None, Change("suppression.remove", subject, _told(one), None))


ROUTES = (
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
