"""The workspace itself: its keys, its members, its name, its audit log."""

from typing import Annotated, Any, Literal

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import AuditEntry, Change
from mailyard.access.key import ApiKey
from mailyard.access.user import User
from mailyard.access.workspace import Workspace
from mailyard.core import ids
from mailyard.web.api.page import (
    AuditId,
    Input,
    KeyId,
    Moment,
    NextCursor,
    Output,
    PageQuery,
    UserId,
    WorkspaceId,
    next_cursor,
    read_cursor,
    since_epoch,
)
from mailyard.web.api.route import Answer, Call, Route

_KEYS, _MEMBERS, _WORKSPACES, _AUDIT = "API keys", "Members", "Workspaces", "Audit log"
_Role = Literal["owner", "member", "viewer"]
_Name = Annotated[str, Meta(min_length=1, max_length=100)]


class NewKey(Input):
    """A key to make."""

    name: _Name
    scopes: Annotated[
        list[Literal[tuple(scope.SCOPES)]],  # type: ignore[valid-type]  # the table of scopes
        Meta(
            min_length=1,
            max_length=len(scope.SCOPES),
            description="What the key may do; a write brings its read, `admin` everything.",
            examples=[["emails:send", "inboxes:read"]],
        ),
    ]


class KeyItem(Output):
    """An API key as it is listed."""

    id: KeyId
    name: str
    prefix: Annotated[str, Meta(description="How a key begins: `my_<prefix>_`.")]
    scopes: list[str]
    created_at: Moment
    revoked_at: Moment | None


class CreatedKey(KeyItem):
    """A key just made, with its secret: it is shown this once."""

    secret: Annotated[str, Meta(description="The whole key. Keep it now; it is not stored.")]


class KeyPage(Output):
    """Keys, newest first, revoked ones included."""

    items: list[KeyItem]
    next_cursor: NextCursor


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


class NewWorkspace(Input):
    """A workspace to make, or the name to give one."""

    name: _Name


class WorkspaceItem(Output):
    """A workspace."""

    id: WorkspaceId
    name: str
    created_at: Moment


class CreatedWorkspace(WorkspaceItem):
    """A workspace just made, with a first key for it: the key is shown this once."""

    secret: Annotated[str, Meta(description="An API key with the scope `admin` there.")]


class WorkspaceList(Output):
    """The workspaces that the caller belongs to."""

    items: list[WorkspaceItem]


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


def _key_fields(key: ApiKey) -> dict[str, Any]:
    return {
        "id": ids.type_id(ids.API_KEY, key.id),
        "name": key.name,
        "prefix": key.prefix,
        "scopes": list(key.scopes),
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
    }


async def create_key(call: Call[NewKey, None]) -> CreatedKey:
    made = await call.app.keys.create(
        call.workspace_id, call.body.name, call.body.scopes, actor=call.principal.actor
    )
    return CreatedKey(**_key_fields(made.key), secret=made.secret)


async def list_keys(call: Call[None, PageQuery]) -> KeyPage:
    cursor = read_cursor(call.query.cursor)
    before = {"before_id": cursor} if cursor is not None else {}
    keys = await call.app.keys.list(call.workspace_id, limit=call.query.limit, **before)
    return KeyPage(
        items=[KeyItem(**_key_fields(key)) for key in keys],
        next_cursor=next_cursor([key.id for key in keys], call.query.limit),
    )


async def get_key(call: Call[None, None]) -> KeyItem:
    return KeyItem(**_key_fields(await call.app.keys.get(call.workspace_id, call.ids["key_id"])))


async def revoke_key(call: Call[None, None]) -> KeyItem:
    key = await call.app.keys.revoke(
        call.workspace_id, call.ids["key_id"], actor=call.principal.actor
    )
    return KeyItem(**_key_fields(key))


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
    return MemberPage(
        items=[_member(user) for user in users],
        next_cursor=next_cursor([user.id for user in users], call.query.limit),
    )


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


def _workspace_fields(workspace: Workspace) -> dict[str, Any]:
    return {
        "id": ids.type_id(ids.WORKSPACE, workspace.id),
        "name": workspace.name,
        "created_at": workspace.created_at,
    }


async def create_workspace(call: Call[NewWorkspace, None]) -> Answer:
    actor = call.principal.actor
    await call.app.workspaces.require_operator(call.workspace_id)
    async with call.app.database.transaction() as tx:
        workspace = await call.app.workspaces.create(
            call.body.name, actor_kind=actor.kind, actor_name=actor.name, tx=tx
        )
        own = type(actor)(actor.kind, actor.name, workspace.id)
        made = await call.app.keys.create(
            workspace.id, "first key", [scope.ADMIN], actor=own, tx=tx
        )
        created = Change(
            "workspace.create_other",
            ids.type_id(ids.WORKSPACE, workspace.id),
            None,
            {"name": workspace.name},
        )
        item = CreatedWorkspace(**_workspace_fields(workspace), secret=made.secret)
        return await call.done(tx, item, created)


async def list_workspaces(call: Call[None, None]) -> WorkspaceList:
    session = call.principal.session
    if session is not None:
        found = await call.app.workspaces.of_user(session.user_id)
    else:
        found = [await call.app.workspaces.get(call.workspace_id)]
    return WorkspaceList(items=[WorkspaceItem(**_workspace_fields(one)) for one in found])


async def get_workspace(call: Call[None, None]) -> WorkspaceItem:
    return WorkspaceItem(**_workspace_fields(await call.app.workspaces.get(call.workspace_id)))


async def rename_workspace(call: Call[NewWorkspace, None]) -> WorkspaceItem:
    workspace = await call.app.workspaces.rename(
        call.workspace_id, call.body.name, actor=call.principal.actor
    )
    return WorkspaceItem(**_workspace_fields(workspace))


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
    return AuditPage(
        items=[_entry(entry) for entry in entries],
        next_cursor=next_cursor([entry.id for entry in entries], query.limit),
    )


def _admin(
    method: str, path: str, handler: Any, operation: str, tag: str, summary: str, **more: Any
) -> Route:
    return Route(method, path, handler, operation, tag, summary, scope.ADMIN, **more)


ROUTES = (
    _admin(
        "POST",
        "/v1/keys",
        create_key,
        "createKey",
        _KEYS,
        "Make an API key",
        status=201,
        answer=CreatedKey,
        body=NewKey,
        # A kept answer would keep the secret, which is stored nowhere.
        idempotency="none",
    ),
    _admin(
        "GET",
        "/v1/keys",
        list_keys,
        "listKeys",
        _KEYS,
        "List API keys",
        answer=KeyPage,
        query=PageQuery,
    ),
    _admin(
        "GET",
        "/v1/keys/{key_id:key}",
        get_key,
        "getKey",
        _KEYS,
        "Read an API key's record",
        answer=KeyItem,
    ),
    _admin(
        "POST",
        "/v1/keys/{key_id:key}/revoke",
        revoke_key,
        "revokeKey",
        _KEYS,
        "Revoke an API key",
        answer=KeyItem,
        description="It stops working within two seconds, everywhere.",
    ),
    _admin(
        "POST",
        "/v1/members",
        add_member,
        "addMember",
        _MEMBERS,
        "Let a person in",
        status=201,
        answer=MemberItem,
        body=NewMember,
    ),
    _admin(
        "GET",
        "/v1/members",
        list_members,
        "listMembers",
        _MEMBERS,
        "List members",
        answer=MemberPage,
        query=PageQuery,
    ),
    _admin(
        "GET",
        "/v1/members/{user_id:usr}",
        get_member,
        "getMember",
        _MEMBERS,
        "Read a member",
        answer=MemberItem,
    ),
    _admin(
        "PATCH",
        "/v1/members/{user_id:usr}",
        change_member,
        "changeMember",
        _MEMBERS,
        "Give a member another role",
        answer=MemberItem,
        body=MemberChange,
        errors=(409,),
    ),
    _admin(
        "DELETE",
        "/v1/members/{user_id:usr}",
        remove_member,
        "removeMember",
        _MEMBERS,
        "Take a member out",
        status=204,
        errors=(409,),
        description="Their sessions here end. 409 for the last owner.",
    ),
    _admin(
        "POST",
        "/v1/members/{user_id:usr}/link",
        create_link,
        "createSignInLink",
        _MEMBERS,
        "Make a one-time sign-in link",
        status=201,
        answer=SignInLink,
        idempotency="none",
    ),
    _admin(
        "POST",
        "/v1/workspaces",
        create_workspace,
        "createWorkspace",
        _WORKSPACES,
        "Make another workspace",
        description="Only from the installation's first workspace.",
        status=201,
        answer=CreatedWorkspace,
        body=NewWorkspace,
        idempotency="none",
    ),
    _admin(
        "GET",
        "/v1/workspaces",
        list_workspaces,
        "listWorkspaces",
        _WORKSPACES,
        "List the workspaces that you belong to",
        answer=WorkspaceList,
    ),
    _admin(
        "GET",
        "/v1/workspace",
        get_workspace,
        "getWorkspace",
        _WORKSPACES,
        "Read this workspace",
        answer=WorkspaceItem,
    ),
    _admin(
        "PATCH",
        "/v1/workspace",
        rename_workspace,
        "renameWorkspace",
        _WORKSPACES,
        "Rename this workspace",
        answer=WorkspaceItem,
        body=NewWorkspace,
    ),
    _admin(
        "GET",
        "/v1/audit",
        list_audit,
        "listAudit",
        _AUDIT,
        "Find changes",
        answer=AuditPage,
        query=AuditQuery,
    ),
)
