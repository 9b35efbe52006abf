"""Telling a webhook once more what happened."""

from datetime import datetime

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids
from mailyard.web.api.page import Input, Moment, Output, WebhookReplayId
from mailyard.web.api.route import Answer, Call, Route
from mailyard.web.api.webhooks import TAG
from mailyard.webhooks.replay import Replay


class NewWebhookReplay(Input):
    """A span of time, to be told again."""

    since: Moment
    until: Moment | None = None


class WebhookReplayItem(Output):
    """A replay: `events` are in the line by now; over at `done_at`."""

    id: WebhookReplayId
    since: Moment
    until: Moment
    events: int
    done_at: Moment | None


class WebhookReplayList(Output):
    """The last replays of an endpoint."""

    items: list[WebhookReplayItem]


def _replay(one: Replay) -> WebhookReplayItem:
    return WebhookReplayItem(
        ids.type_id(ids.WEBHOOK_REPLAY, one.id), one.since, one.until, one.events, one.done_at
    )


async def start_replay(call: Call[NewWebhookReplay, None]) -> Answer:
    webhook_id, body = call.ids["webhook_id"], call.body
    async with call.app.database.transaction() as tx:
        replay = await call.app.webhook_replays.start(
            call.workspace_id, webhook_id, body.since, body.until, tx
        )
        change = Change(
            "webhook.replay", ids.type_id(ids.WEBHOOK, webhook_id), None, told_replay(replay)
        )
        return await call.done(tx, _replay(replay), change)


def told_replay(replay: Replay) -> dict[str, datetime]:
    """A replay as the audit log keeps it."""
    return {"since": replay.since, "until": replay.until}


async def list_replays(call: Call[None, None]) -> WebhookReplayList:
    webhook = await call.app.webhooks.get(call.workspace_id, call.ids["webhook_id"])
    found = await call.app.webhook_replays.page(call.workspace_id, webhook.id)
    return WebhookReplayList([_replay(one) for one in found])


ROUTES = (
    Route(
        "POST",
        "/v1/webhooks/{webhook_id:whk}/replays",
        start_replay,
        "startWebhookReplay",
        TAG,
        "Tell a webhook again what happened in a span of time",
        scope.WEBHOOKS_WRITE,
        status=202,
        answer=WebhookReplayItem,
        body=NewWebhookReplay,
        errors=(409,),
        description="As far back as events are kept (three days). Events keep their ids, so that a "
        "receiver takes each once.",
    ),
    Route(
        "GET",
        "/v1/webhooks/{webhook_id:whk}/replays",
        list_replays,
        "listWebhookReplays",
        TAG,
        "List a webhook's replays",
        scope.WEBHOOKS_READ,
        answer=WebhookReplayList,
    ),
)
