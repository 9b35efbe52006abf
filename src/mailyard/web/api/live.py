"""The live routes in the documentation. `web/live` serves them: see its application."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from mailyard.access import scope
from mailyard.bus.live import KINDS
from mailyard.core import ids
from mailyard.core.limits import SEARCH_CHARACTERS, WAIT_TIMEOUT_S
from mailyard.web.api.message_item import MessageDetail
from mailyard.web.api.page import Input, id_pattern
from mailyard.web.api.route import Call, Media, Route

TAG = "Live"


class EventsQuery(Input):
    """Which events to follow, from where."""

    kinds: Annotated[
        str,
        Meta(
            pattern=r"^[a-z._,]*$",
            max_length=500,
            description=f"Comma-separated: {', '.join(f'`{kind}`' for kind in KINDS)}; without it "
            "all of them.",
        ),
    ] = ""
    inboxes: Annotated[
        str,
        Meta(
            pattern=r"^(ibx_[0-7][0-9a-hjkmnp-tv-z]{25}(,ibx_[0-7][0-9a-hjkmnp-tv-z]{25})*)?$",
            max_length=3100,
            description="Comma-separated ids: only events of these inboxes.",
        ),
    ] = ""
    where: Annotated[
        str,
        Meta(
            pattern=r"^([a-z]+(_[a-z]+)*:.+)?$",
            max_length=250,
            description="`field:text`, as in `subject:*invoice*`; `*` stands for anything. Give it "
            "again for more: of one field any must fit, of several fields each.",
        ),
    ] = ""
    after: (
        Annotated[
            str,
            Meta(
                pattern=r"^[0-9]{1,15}-[0-9]{1,15}-[0-9]{1,9}$",
                description="The id of the last event seen, as in Last-Event-ID: none is missed.",
            ),
        ]
        | None
    ) = None


class WaitQuery(Input):
    """Which message to wait for."""

    timeout_s: Annotated[float, Meta(ge=0, le=WAIT_TIMEOUT_S)] = 30.0
    from_: Annotated[
        str, Meta(max_length=SEARCH_CHARACTERS, description="In the sender's name or address.")
    ] = msgspec.field(default="", name="from")
    subject: Annotated[
        str, Meta(max_length=SEARCH_CHARACTERS, description="In the subject, in any case.")
    ] = ""
    after: (
        Annotated[
            str,
            Meta(
                pattern=id_pattern(ids.MESSAGE),
                description="Only messages received after this one. A time is taken too.",
            ),
        ]
        | None
    ) = None


async def served_elsewhere(call: Call[Any, Any]) -> None:
    """The front sends these paths to `web/live`; the table of routes never gets them."""
    raise AssertionError(f"{call.scope['path']} belongs to web/live")


ROUTES = (
    Route(
        "GET",
        "/v1/events",
        served_elsewhere,
        "followEvents",
        TAG,
        "Follow the workspace's events",
        scope.EVENTS_READ,
        answer=Media("text/event-stream", "Server-Sent Events, for as long as you listen."),
        query=EventsQuery,
        description="An event's `id` is a cursor in commit order: give the last one as "
        "Last-Event-ID (browsers do) or `after`, and no event is missed or repeated. Past the "
        "ceiling of live connections: 503 with Retry-After. The same address opens a WebSocket, "
        'whose messages are `{"id", "type", "data"}`: with Authorization, or with the subprotocols '
        "`mailyard.v1` and `bearer.<key>`, or with the session of this site's own pages.",
    ),
    Route(
        "GET",
        "/v1/inboxes/{inbox_id:ibx}/wait",
        served_elsewhere,
        "waitForMessage",
        TAG,
        "Wait until a message arrives",
        scope.INBOXES_READ,
        answer=MessageDetail,
        more_answers={204: "No such message came in time: ask again."},
        query=WaitQuery,
        description="Answers at once with the oldest message that matches, or as soon as one "
        "arrives.",
    ),
)
