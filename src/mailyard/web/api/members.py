"""The people of a workspace, and what they may do."""

from typing import Annotated, Literal

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.member import User
from mailyard.core import ids
from mailyard.web.api.page import (
    Input,
    Moment,
    NextCursor,
    Output,
    PageQuery,
    UserId,
    page_of,
    read_cursor,
)
from mailyard.web.api.route import Answer, Call, Route

TAG = "Members"
_Role = Literal["owner", "member", "viewer"]


class NewMember(Input):
    """A person to let into the workspace."""

    email: Annotated[str, Meta(min_length=3, max_length=320, examples=["ada@example.org"])]
    role: _Role


class MemberChange(Input):
    """A member's new role."""

    role: _Role


class MemberItem(Output):
    """A member of the workspace."""

    id: UserId
    email: str
    role: str
    has_password: bool
    created_at: Moment


class MemberPage(Output):
    """Members."""

    items: list[MemberItem]
    next_cursor: NextCursor


class SignInLink(Output):
    """A link that signs a member in once, within a day."""

    path: Annotated[str, Meta(examples=["/sign-in/…"])]


def _member(user: User) -> MemberItem:
    return MemberItem(
        id=ids.type_id(ids.USER, user.id),
        email=user.email,
        role=user.role,
        has_password=user.has_password,
        created_at=user.created_at,
    )


async def add_member(call: Call[NewMember, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        user = await call.app.users.add(
            call.workspace_id, call.body.email, call.body.role, actor=call.principal.actor, tx=tx
        )
        return await call.done(tx, _member(user))


async def list_members(call: Call[None, PageQuery]) -> MemberPage:
    cursor = read_cursor(call.query.cursor)
    after = {"after": cursor} if cursor is not None else {}
    users = await call.app.users.list(call.workspace_id, limit=call.query.limit, **after)
    return page_of(MemberPage, users, _member, call.query.limit)


async def get_member(call: Call[None, None]) -> MemberItem:
    return _member(await call.app.users.get(call.workspace_id, call.ids["user_id"]))


async def change_member(call: Call[MemberChange, None]) -> MemberItem:
    user = await call.app.users.change_role(
        call.workspace_id, call.ids["user_id"], call.body.role, actor=call.principal.actor
    )
    return _member(user)


async def remove_member(call: Call[None, None]) -> None:
    await call.app.users.remove(call.workspace_id, call.ids["user_id"], actor=call.principal.actor)


async def create_link(call: Call[None, None]) -> SignInLink:
    user = await call.app.users.get(call.workspace_id, call.ids["user_id"])
    token = await call.app.sessions.create_link(user.id, actor=call.principal.actor)
    return SignInLink(path=f"/sign-in/{token}")


ROUTES = (
    Route(
        "POST",
        "/v1/members",
        add_member,
        "addMember",
        TAG,
        "Let a person in",
        scope.ADMIN,
        status=201,
        answer=MemberItem,
        body=NewMember,
    ),
    Route(
        "GET",
        "/v1/members",
        list_members,
        "listMembers",
        TAG,
        "List members",
        scope.ADMIN,
        answer=MemberPage,
        query=PageQuery,
    ),
    Route(
        "GET",
        "/v1/members/{user_id:usr}",
        get_member,
        "getMember",
        TAG,
        "Read a member",
        scope.ADMIN,
        answer=MemberItem,
    ),
    Route(
        "PATCH",
        "/v1/members/{user_id:usr}",
        change_member,
        "changeMember",
        TAG,
        "Give a member another role",
        scope.ADMIN,
        answer=MemberItem,
        body=MemberChange,
        errors=(409,),
    ),
    Route(
        "DELETE",
        "/v1/members/{user_id:usr}",
        remove_member,
        "removeMember",
        TAG,
        "Take a member out",
        scope.ADMIN,
        status=204,
        errors=(409,),
        description="Their sessions here end. 409 for the last owner.",
    ),
    Route(
        "POST",
        "/v1/members/{user_id:usr}/link",
        create_link,
        "createSignInLink",
        TAG,
        "Make a one-time sign-in link",
        scope.ADMIN,
        status=201,
        answer=SignInLink,
        idempotency="none",
    ),
)
