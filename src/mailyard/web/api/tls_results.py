"""TLS results: how sessions with recipients' mail servers went on a day (RFC 8460)."""

from datetime import date
from typing import Annotated

from msgspec import Meta

from mailyard.access import scope
from mailyard.core.limits import API_PAGE_ITEMS
from mailyard.sending.tls_count import FIRST, TlsResult
from mailyard.web.api.page import (
    Input,
    Limit,
    NameCursor,
    NextCursor,
    Output,
    read_names,
    write_names,
)
from mailyard.web.api.route import Call, Route
from mailyard.web.api.shaping import OPERATOR, TAG


class TlsItem(Output):
    """Sessions that ended alike."""

    domain: str
    policy_type: Annotated[str, Meta(description="`sts`, `tlsa` or `no-policy-found`.")]
    host: str
    result: Annotated[str, Meta(description="`success`, or a type of RFC 8460 section 4.3.")]
    sessions: int


class TlsPage(Output):
    """TLS results of a day, by name."""

    day: date
    items: list[TlsItem]
    next_cursor: NextCursor


class TlsQuery(Input):
    """Which day (UTC; today when not said)."""

    day: date | None = None
    limit: Limit = API_PAGE_ITEMS
    cursor: NameCursor | None = None


def _tls_item(one: TlsResult) -> TlsItem:
    return TlsItem(one.domain, one.policy_type, one.host, one.result, one.sessions)


async def list_tls_results(call: Call[None, TlsQuery]) -> TlsPage:
    await call.app.workspaces.require_operator(call.workspace_id)
    query = call.query
    day = query.day or call.app.clock.now().date()
    domain, policy_type, host, result = read_names(query.cursor, len(FIRST))
    found = await call.app.tls_results.page(
        day, after=(domain, policy_type, host, result), limit=query.limit
    )
    last = found[-1] if len(found) >= query.limit else None
    return TlsPage(
        day=day,
        items=[_tls_item(one) for one in found],
        next_cursor=write_names(last.domain, last.policy_type, last.host, last.result)
        if last is not None
        else None,
    )


ROUTES = (
    Route(
        "GET",
        "/v1/tls-results",
        list_tls_results,
        "listTlsResults",
        TAG,
        "Read how TLS went on a day",
        scope.SHAPING_READ,
        answer=TlsPage,
        query=TlsQuery,
        description="Sessions by domain, policy, host and result, as RFC 8460 counts them. "
        + OPERATOR,
    ),
)
