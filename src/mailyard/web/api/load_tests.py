"""Load tests: what the installation was seen to bear, and when."""

from typing import Annotated, Any

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids
from mailyard.core.limits import API_PAGE_ITEMS
from mailyard.proving.demonstration import RECIPIENTS_MAX, Verdict
from mailyard.proving.load_test import COMMAND, LOAD_TEST, LoadTest
from mailyard.web.api.page import Input, Limit, Moment, Output
from mailyard.web.api.route import Answer, Call, Route

TAG = "Monitoring"
_OPERATOR = "Only from the installation's first workspace."

Count = Annotated[int, Meta(ge=0, le=100 * RECIPIENTS_MAX)]


class NewLoadTest(Input):
    """The verdict of a test that has ended just now, as `mailyard demo --json` prints it."""

    recipients: Annotated[int, Meta(ge=1, le=RECIPIENTS_MAX)]
    sent: Count
    received: Count
    lost: Count
    twice: Count
    wrong: Count
    unknown: Count
    seconds: Annotated[float, Meta(gt=0.0, le=1e7)]
    per_second: Count
    import_seconds: Annotated[float, Meta(ge=0.0, le=1e7)] = 0.0


class LoadTestItem(Output):
    """A load test."""

    id: str
    at: Moment
    origin: Annotated[str, Meta(description="`command` (mailyard demo) or `page`.")]
    version: Annotated[str, Meta(description="Of Mailyard.")]
    recipients: int
    per_second: int
    clean: Annotated[bool, Meta(description="Nothing lost, twice or wrong.")]
    verdict: dict[str, Any]
    processes: Annotated[dict[str, int], Meta(description="How many lived then, by role.")]


class LoadTestList(Output):
    """Load tests, the newest first."""

    items: list[LoadTestItem]


class LoadTestsQuery(Input):
    """How many."""

    limit: Limit = API_PAGE_ITEMS


def _item(one: LoadTest) -> LoadTestItem:
    return LoadTestItem(
        id=ids.type_id(LOAD_TEST, one.id),
        at=one.at,
        origin=one.origin,
        version=one.version,
        recipients=one.recipients,
        per_second=one.per_second,
        clean=one.clean,
        verdict=dict(one.verdict),
        processes=dict(one.processes),
    )


async def record_load_test(call: Call[NewLoadTest, None]) -> Answer:
    await call.app.workspaces.require_operator(call.workspace_id)
    said = call.body
    verdict = Verdict(
        recipients=said.recipients,
        sent=said.sent,
        received=said.received,
        lost=said.lost,
        twice=said.twice,
        wrong=said.wrong,
        unknown=said.unknown,
        seconds=said.seconds,
        per_second=said.per_second,
        import_seconds=said.import_seconds,
    )
    async with call.app.database.transaction() as tx:
        kept = _item(await call.app.load_tests.add(COMMAND, verdict, tx))
        after = {"recipients": kept.recipients, "clean": kept.clean}
        return await call.done(tx, kept, Change("load_test.record", kept.id, None, after))


async def list_load_tests(call: Call[None, LoadTestsQuery]) -> LoadTestList:
    await call.app.workspaces.require_operator(call.workspace_id)
    found = await call.app.load_tests.list(limit=call.query.limit)
    return LoadTestList(items=[_item(one) for one in found])


ROUTES = (
    Route(
        "POST",
        "/v1/load-tests",
        record_load_test,
        "recordLoadTest",
        TAG,
        "Record what a load test has shown",
        scope.DEMOS_WRITE,
        status=201,
        answer=LoadTestItem,
        body=NewLoadTest,
        description=_OPERATOR + " `mailyard demo` does it; `mailyard doctor --for` asks for it.",
    ),
    Route(
        "GET",
        "/v1/load-tests",
        list_load_tests,
        "listLoadTests",
        TAG,
        "List load tests",
        scope.DEMOS_READ,
        answer=LoadTestList,
        query=LoadTestsQuery,
        description=_OPERATOR,
    ),
)
