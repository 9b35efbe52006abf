"""Workspaces: the tenants. Everything else belongs to exactly one of them."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from mailyard.access.audit import Actor, Audit
from mailyard.cache.kind import USER
from mailyard.cache.layered import LayeredCache
from mailyard.core import ids
from mailyard.core.errors import InvalidInput, NotAllowed, NotFound
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("access")
NAME_CHARACTERS = 100
_TAG = "workspace"


@dataclass(frozen=True, slots=True)
class Workspace:
    """A tenant. `role` is that of the person asked for, or None."""

    id: UUID
    name: str
    created_at: datetime
    role: str | None = None
    locale: str = "en"
    region: str = ""


def check_name(name: str, field: str = "name") -> str:
    """A name for people: 1 to 100 characters, no control characters. Raises InvalidInput."""
    text = name.strip()
    if not 1 <= len(text) <= NAME_CHARACTERS:
        raise InvalidInput(f"a name has 1 to {NAME_CHARACTERS} characters", field=field)
    if not text.isprintable():
        raise InvalidInput("a name has no control characters", field=field)
    return text


class Workspaces:
    """Makes, names and finds workspaces."""

    def __init__(
        self,
        *,
        database: Database,
        audit: Audit,
        cache: LayeredCache | None = None,
        region: str = "",
    ) -> None:
        """`region`: where those that are made here are at home, and those that name none."""
        self._region = region
        self._database = database
        self._audit = audit
        self._cache = cache
        self._first: UUID | None = None

    async def create(
        self, name: str, *, actor_kind: str, actor_name: str, tx: Connection | None = None
    ) -> Workspace:
        """A new, empty workspace; its first audit entry says who made it."""
        if tx is None:
            async with self._database.transaction() as own:
                return await self.create(name, actor_kind=actor_kind, actor_name=actor_name, tx=own)
        name = check_name(name)
        workspace_id = ids.uuid7()
        created_at = await self._database.fetchval(
            _SQL.add_workspace, workspace_id, name, self._region or None, tx=tx
        )
        await self._audit.record(
            Actor(actor_kind, actor_name, workspace_id),
            "workspace.create",
            ids.type_id(ids.WORKSPACE, workspace_id),
            None,
            {"name": name},
            tx,
        )
        return Workspace(workspace_id, name, created_at, region=self._region)

    async def get(self, workspace_id: UUID) -> Workspace:
        """The workspace. Raises NotFound."""

        async def read() -> Workspace:
            row = _found(await self._database.fetchrow(_SQL.get_workspace, workspace_id))
            return Workspace(
                row["workspace_id"],
                row["name"],
                row["created_at"],
                locale=row["locale"],
                region=row["region"] or self._region,
            )

        if self._cache is None:
            return await read()
        return await self._cache.get_or_make(USER, workspace_id, "workspace", read, [_TAG])

    async def require_operator(self, workspace_id: UUID) -> None:
        """Raises NotAllowed unless this is the installation's own workspace, its first one.

        What belongs to nobody in particular (queues, processes, other workspaces) is run from
        there, so that one tenant can neither see nor stop another's work.
        """
        if workspace_id != await self.first():
            raise NotAllowed("only the installation's first workspace may do this")

    async def first(self) -> UUID:
        """The installation's own workspace. Raises NotFound before the first start."""
        if self._first is None:
            self._first = await self._database.fetchval(_SQL.first_workspace)
        if self._first is None:
            raise NotFound("nothing is set up yet: `mailyard up` does it")
        return self._first

    async def change(
        self,
        workspace_id: UUID,
        *,
        name: str | None = None,
        locale: str | None = None,
        actor: Actor,
    ) -> Workspace:
        """Give the workspace another name, another locale of its templates. Raises NotFound.

        A locale is a tag that the caller has found good.
        """
        before: dict[str, str] = {}
        after: dict[str, str] = {}
        async with self._database.transaction() as tx:
            if name is not None:
                after["name"] = check_name(name)
                row = await self._database.fetchrow(
                    _SQL.rename_workspace, workspace_id, after["name"], tx=tx
                )
                before["name"] = _found(row)["name_before"]
            if locale is not None:
                after["locale"] = locale
                row = await self._database.fetchrow(
                    _SQL.set_workspace_locale, workspace_id, locale, tx=tx
                )
                before["locale"] = _found(row)["locale_before"]
            if after:
                subject = ids.type_id(ids.WORKSPACE, workspace_id)
                action = "workspace.rename" if locale is None else "workspace.change"
                await self._audit.record(actor, action, subject, before, after, tx)
                if self._cache is not None:
                    await self._cache.change(workspace_id, [_TAG], tx)
        return await self.get(workspace_id)

    async def of_user(self, user_id: UUID) -> list[Workspace]:
        """The workspaces that a person belongs to, with the role in each, oldest first."""
        rows = await self._database.fetch(_SQL.workspaces_of_user, user_id)
        return [
            Workspace(
                row["workspace_id"],
                row["name"],
                row["created_at"],
                row["role"],
                row["locale"],
                row["region"] or self._region,
            )
            for row in rows
        ]


def _found(row: asyncpg.Record | None) -> asyncpg.Record:
    if row is None:
        raise NotFound("no such workspace")
    return row
