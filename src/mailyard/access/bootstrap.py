"""The first start: makes the first workspace, its owner, an API key and a one-time sign-in link.

Several instances may start together on one empty database: an advisory lock lets one of them be
the first, the others find a workspace and make nothing.
"""

from dataclasses import dataclass
from uuid import UUID

from mailyard.access.audit import Actor
from mailyard.access.key import ApiKeys
from mailyard.access.scope import ADMIN, OWNER
from mailyard.access.session import Sessions
from mailyard.access.user import Users
from mailyard.access.workspace import Workspaces
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("access")
FIRST_WORKSPACE = "Main"
FIRST_OWNER = "owner@mailyard.localhost"


@dataclass(frozen=True, slots=True)
class FirstStart:
    """What the first start shows, once: the whole key and the link's token."""

    workspace_id: UUID
    user_id: UUID
    owner: str
    api_key: str
    link_token: str


async def bootstrap(
    *,
    database: Database,
    workspaces: Workspaces,
    users: Users,
    keys: ApiKeys,
    sessions: Sessions,
) -> FirstStart | None:
    """Set an empty installation up; None when it has a workspace already."""
    async with database.transaction() as tx:
        await database.execute(_SQL.lock_first_start, tx=tx)
        if await database.fetchval(_SQL.any_workspace, tx=tx):
            return None
        workspace = await workspaces.create(
            FIRST_WORKSPACE, actor_kind="system", actor_name="first start", tx=tx
        )
        actor = Actor("system", "first start", workspace.id)
        user = await users.add(workspace.id, FIRST_OWNER, OWNER, actor=actor, tx=tx)
        key = await keys.create(workspace.id, "first key", [ADMIN], actor=actor, tx=tx)
        link = await sessions.create_link(user.id, actor=actor, tx=tx)
    return FirstStart(workspace.id, user.id, user.email, key.secret, link)
