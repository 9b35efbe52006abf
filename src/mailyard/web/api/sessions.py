"""Where the people of a workspace are signed in."""

from typing import Annotated

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.session import SessionOf
from mailyard.core import ids
from mailyard.core.limits import API_PAGE_ITEMS
from mailyard.web.api.page import Input, Limit, Moment, Output, UserId
from mailyard.web.api.route import Answer, Call, Route

TAG = "Members"
_SessionId = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="The id of the session.")]


class SessionsQuery(Input):
    """Which sessions to list."""

    user_id: Annotated[UserId, Meta(description="Only those of this person.")] | None = None
    after: Annotated[_SessionId, Meta(description="Those behind this one.")] | None = None
    limit: Limit = API_PAGE_ITEMS


class SessionItem(Output):
    """A browser that somebody is signed in with. Its id ends it and opens nothing."""

    id: _SessionId
    user_id: UserId
    email: str
    user_agent: Annotated[str, Meta(description="What the browser says that it is.")]
    created_at: Moment
    expires_at: Moment


class SessionPage(Output):
    """Sessions that are in the workspace, by id."""

    items: list[SessionItem]
    next_after: Annotated[
        str | None, Meta(description="Give it as `after` for the next page; null on the last.")
    ]


def _item(one: SessionOf) -> SessionItem:
    return SessionItem(
        id=one.id,
        user_id=ids.type_id(ids.USER, one.user_id),
        email=one.email,
        user_agent=one.user_agent,
        created_at=one.created_at,
        expires_at=one.expires_at,
    )


async def list_sessions(call: Call[None, SessionsQuery]) -> SessionPage:
    query = call.query
    user = None if query.user_id is None else ids.parse_type_id(ids.USER, query.user_id, "user_id")
    found = await call.app.sessions.in_workspace(
        call.workspace_id, after=query.after or "", limit=query.limit, user_id=user
    )
    following = found[-1].id if len(found) == query.limit else None
    return SessionPage(items=[_item(one) for one in found], next_after=following)


async def end_session(call: Call[None, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        await call.app.sessions.end_in(
            call.workspace_id, call.names["session_id"], actor=call.principal.actor, tx=tx
        )
        return await call.done(tx, None)


ROUTES = (
    Route(
        "GET",
        "/v1/sessions",
        list_sessions,
        "listSessions",
        TAG,
        "List where people are signed in to this workspace",
        scope.ADMIN,
        answer=SessionPage,
        query=SessionsQuery,
    ),
    Route(
        "DELETE",
        "/v1/sessions/{session_id}",
        end_session,
        "endSession",
        TAG,
        "End a session: its browser has to sign in again",
        scope.ADMIN,
        status=204,
    ),
)
