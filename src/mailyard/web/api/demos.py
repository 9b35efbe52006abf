"""Demonstrations: a campaign into inboxes of our own, compared message by message."""

from typing import Annotated, Any

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids
from mailyard.proving.demo import DemoRun
from mailyard.proving.demonstration import RECIPIENTS_MAX
from mailyard.web.api.page import (
    DemoId,
    Input,
    Moment,
    NextCursor,
    Output,
    PageQuery,
    page_of,
    read_cursor,
)
from mailyard.web.api.route import Answer, Call, Route

TAG = "Demonstrations"


class NewDemo(Input):
    """A run to start."""

    recipients: Annotated[int, Meta(ge=1, le=RECIPIENTS_MAX)] = 1_000


class DemoItem(Output):
    """A run."""

    id: DemoId
    recipients: int
    state: Annotated[str, Meta(description="`queued`, `running`, `finished` or `failed`.")]
    stage: str
    done: int
    verdict: Annotated[
        dict[str, Any] | None, Meta(description="Sent, received, lost, twice, wrong, rates.")
    ]
    error: str
    created_at: Moment


class DemoPage(Output):
    """Runs, newest first."""

    items: list[DemoItem]
    next_cursor: NextCursor


def _item(run: DemoRun) -> DemoItem:
    return DemoItem(
        id=ids.type_id(ids.DEMO, run.id),
        recipients=run.recipients,
        state=run.state,
        stage=run.stage,
        done=run.done,
        verdict=run.verdict,
        error=run.error,
        created_at=run.created_at,
    )


async def start_demo(call: Call[NewDemo, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        run = await call.app.demos.start(call.workspace_id, call.body.recipients, tx)
        after = {"recipients": run.recipients}
        begun = Change("demo.start", ids.type_id(ids.DEMO, run.id), None, after)
        return await call.done(tx, _item(run), begun)


async def list_demos(call: Call[None, PageQuery]) -> DemoPage:
    found = await call.app.demos.page(
        call.workspace_id, after=read_cursor(call.query.cursor), limit=call.query.limit
    )
    return page_of(DemoPage, found, _item, call.query.limit)


async def get_demo(call: Call[None, None]) -> DemoItem:
    return _item(await call.app.demos.get(call.workspace_id, call.ids["demo_id"]))


ROUTES = (
    Route(
        "POST",
        "/v1/demos",
        start_demo,
        "startDemo",
        TAG,
        "Start a demonstration",
        scope.DEMOS_WRITE,
        status=202,
        answer=DemoItem,
        body=NewDemo,
        description="409 while one is waiting or running.",
    ),
    Route(
        "GET",
        "/v1/demos",
        list_demos,
        "listDemos",
        TAG,
        "List demonstrations",
        scope.DEMOS_READ,
        answer=DemoPage,
        query=PageQuery,
    ),
    Route(
        "GET",
        "/v1/demos/{demo_id:dmo}",
        get_demo,
        "getDemo",
        TAG,
        "Read a demonstration and its verdict",
        scope.DEMOS_READ,
        answer=DemoItem,
    ),
)
