"""Who belongs to a workspace, read through the cache: every page asks.

Whoever changes a membership, a role or a person's password names the workspaces that show it
(`changed`), in the transaction of the change.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from mailyard.cache.kind import USER
from mailyard.cache.layered import LayeredCache
from mailyard.core.errors import NotFound
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("access")
_TAG = "members"
_MEMBER_BYTES = 400
ANY_WORKSPACE = UUID(int=0)  # a session is looked for before its workspace is known


@dataclass(frozen=True, slots=True)
class User:
    """A person as a member of one workspace."""

    id: UUID
    email: str
    role: str
    has_password: bool
    created_at: datetime


class Members:
    """The members of all workspaces."""

    def __init__(self, *, database: Database, cache: LayeredCache | None = None) -> None:
        self._database = database
        self._cache = cache

    async def get(self, workspace_id: UUID, user_id: UUID) -> User:
        """A member of the workspace. Raises NotFound."""

        async def read() -> User:
            row = await self._database.fetchrow(_SQL.get_member, workspace_id, user_id)
            if row is None:
                raise NotFound("no such member")
            return _user(row)

        if self._cache is None:
            return await read()
        key = f"member:{user_id}"
        return await self._cache.get_or_make(USER, workspace_id, key, read, [_TAG])

    async def list(self, workspace_id: UUID, after: UUID, limit: int) -> list[User]:
        """Members after the person `after`, in the order of their ids."""

        async def read() -> list[User]:
            rows = await self._database.fetch(_SQL.list_members, workspace_id, after, limit)
            return [_user(row) for row in rows]

        if self._cache is None:
            return await read()
        found = await self._cache.get_or_make(
            USER,
            workspace_id,
            f"members:{after}:{limit}",
            read,
            [_TAG],
            weigh=lambda members: _MEMBER_BYTES * len(members),
        )
        return list(found)

    async def changed(self, workspace_ids: Iterable[UUID], tx: Connection) -> None:
        """Who belongs to these workspaces, or as what, is no longer so from the commit of `tx`."""
        if self._cache is not None:
            for workspace_id in workspace_ids:
                await self._cache.change(workspace_id, [_TAG], tx)

    async def sessions_ended(self, rows: Iterable[asyncpg.Record], tx: Connection) -> None:
        """The sessions with these `token_hash` are no more from the commit of `tx` on."""
        tags = [session_tag(row["token_hash"]) for row in rows]
        if self._cache is not None and tags:
            await self._cache.change(ANY_WORKSPACE, tags, tx)

    async def person_changed(self, user_id: UUID, tx: Connection) -> None:
        """The same, wherever the person belongs."""
        rows = await self._database.fetch(_SQL.workspaces_of_user, user_id, tx=tx)
        await self.changed([row["workspace_id"] for row in rows], tx)


def session_tag(token_hash: bytes) -> str:
    """What a cached session carries."""
    return f"session:{token_hash.hex()}"


def _user(row: asyncpg.Record) -> User:
    return User(row["user_id"], row["email"], row["role"], row["has_password"], row["created_at"])
