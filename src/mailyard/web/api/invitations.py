"""Asking people into the workspace by mail."""

from typing import Annotated, Literal

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.account import Invitation
from mailyard.core import ids
from mailyard.web.api.page import (
    Input,
    InvitationId,
    Moment,
    NextCursor,
    Output,
    PageQuery,
    page_of,
    read_cursor,
)
from mailyard.web.api.route import Answer, Call, Route

TAG = "Members"


class NewInvitation(Input):
    """A person to ask in."""

    email: Annotated[str, Meta(min_length=3, max_length=320, examples=["ada@example.org"])]
    role: Literal["owner", "member", "viewer"]


class InvitationItem(Output):
    """An invitation that nobody has taken up."""

    id: InvitationId
    email: str
    role: str
    invited_by: str
    expires_at: Moment


class InvitationPage(Output):
    """Invitations."""

    items: list[InvitationItem]
    next_cursor: NextCursor


def _item(invitation: Invitation) -> InvitationItem:
    return InvitationItem(
        id=ids.type_id(ids.INVITATION, invitation.id),
        email=invitation.email,
        role=invitation.role,
        invited_by=invitation.invited_by,
        expires_at=invitation.expires_at,
    )


async def invite(call: Call[NewInvitation, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        invitation = await call.app.accounts.invite(
            call.workspace_id, call.body.email, call.body.role, actor=call.principal.actor, tx=tx
        )
        return await call.done(tx, _item(invitation))


async def list_invitations(call: Call[None, PageQuery]) -> InvitationPage:
    cursor = read_cursor(call.query.cursor)
    after = {"after": cursor} if cursor is not None else {}
    found = await call.app.accounts.invitations(call.workspace_id, limit=call.query.limit, **after)
    return page_of(InvitationPage, found, _item, call.query.limit)


async def withdraw_invitation(call: Call[None, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        await call.app.accounts.withdraw(
            call.workspace_id, call.ids["invitation_id"], actor=call.principal.actor, tx=tx
        )
        return await call.done(tx, None)


ROUTES = (
    Route(
        "POST",
        "/v1/invitations",
        invite,
        "invite",
        TAG,
        "Ask a person in by mail",
        scope.ADMIN,
        status=201,
        answer=InvitationItem,
        body=NewInvitation,
        description="The mailed link works once, for a week. Asking the same address again mails "
        "another link, and the one before leads nowhere. 409 for who is a member already.",
    ),
    Route(
        "GET",
        "/v1/invitations",
        list_invitations,
        "listInvitations",
        TAG,
        "List invitations that nobody has taken up",
        scope.ADMIN,
        answer=InvitationPage,
        query=PageQuery,
    ),
    Route(
        "DELETE",
        "/v1/invitations/{invitation_id:inv}",
        withdraw_invitation,
        "withdrawInvitation",
        TAG,
        "Take an invitation back",
        scope.ADMIN,
        status=204,
    ),
)
