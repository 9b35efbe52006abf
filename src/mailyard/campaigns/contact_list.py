"""Lists: named sets of contacts, which campaigns are sent to."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from mailyard.campaigns.contact import Contact, contact_of
from mailyard.core.errors import Conflict, InvalidInput, NotFound
from mailyard.core.ids import uuid7
from mailyard.core.limits import API_PAGE_ITEMS
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

QUERIES = load("contact")

LIST_NAME_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class ContactList:
    """`members` is counted when the list is read."""

    id: UUID
    name: str
    members: int


class Lists:
    """Create, find, rename and remove lists, and change who is in them."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def create(
        self, workspace_id: UUID, name: str, *, tx: Connection | None = None
    ) -> ContactList:
        """Add an empty list. Raises InvalidInput, or Conflict when the name is taken."""
        name = _checked(name)
        list_id = await self._database.fetchval(
            QUERIES.insert_list, workspace_id, uuid7(), name, tx=tx
        )
        if list_id is None:
            raise Conflict("a list with this name is there already", field="name")
        return ContactList(list_id, name, 0)

    async def find(self, workspace_id: UUID, name: str) -> UUID | None:
        """The list of this name. Raises InvalidInput for what is no name."""
        found: UUID | None = await self._database.fetchval(
            QUERIES.find_list_by_name, workspace_id, _checked(name)
        )
        return found

    async def get(
        self, workspace_id: UUID, list_id: UUID, *, tx: Connection | None = None
    ) -> ContactList:
        """One list. Raises NotFound."""
        row = await self._database.fetchrow(QUERIES.get_list, workspace_id, list_id, tx=tx)
        if row is None:
            raise NotFound("there is no such list")
        return ContactList(row["id"], row["name"], row["members"])

    async def page(
        self, workspace_id: UUID, *, after: UUID | None = None, limit: int = API_PAGE_ITEMS
    ) -> list[ContactList]:
        """A page of lists, the newest first, behind list `after`."""
        rows = await self._database.fetch(QUERIES.page_lists, workspace_id, after, limit)
        return [ContactList(row["id"], row["name"], row["members"]) for row in rows]

    async def rename(
        self, workspace_id: UUID, list_id: UUID, name: str, *, tx: Connection | None = None
    ) -> None:
        """Give a list another name. Raises NotFound, or Conflict when the name is taken."""
        name = _checked(name)
        other = await self._database.fetchval(QUERIES.find_list_by_name, workspace_id, name, tx=tx)
        if other is not None and other != list_id:
            raise Conflict("a list with this name is there already", field="name")
        try:
            renamed = await self._database.fetch(
                QUERIES.rename_list, workspace_id, list_id, name, tx=tx
            )
        except asyncpg.UniqueViolationError as error:  # another one was just named so
            raise Conflict("a list with this name is there already", field="name") from error
        if not renamed:
            raise NotFound("there is no such list")

    async def delete(
        self, workspace_id: UUID, list_id: UUID, *, tx: Connection | None = None
    ) -> None:
        """Remove a list; its contacts stay. Raises NotFound."""
        if not await self._database.fetch(QUERIES.delete_list, workspace_id, list_id, tx=tx):
            raise NotFound("there is no such list")

    async def add(
        self,
        workspace_id: UUID,
        list_id: UUID,
        contact_ids: Sequence[UUID],
        *,
        tx: Connection | None = None,
    ) -> int:
        """Put contacts into a list; how many were not in it yet. Raises NotFound."""
        await self.get(workspace_id, list_id, tx=tx)
        added = await self._database.fetchval(
            QUERIES.add_members, workspace_id, list_id, list(contact_ids), tx=tx
        )
        return int(added)

    async def remove(
        self,
        workspace_id: UUID,
        list_id: UUID,
        contact_ids: Sequence[UUID],
        *,
        tx: Connection | None = None,
    ) -> int:
        """Take contacts out of a list; how many were in it."""
        removed = await self._database.fetchval(
            QUERIES.remove_members, workspace_id, list_id, list(contact_ids), tx=tx
        )
        return int(removed)

    async def members(
        self,
        workspace_id: UUID,
        list_id: UUID,
        *,
        after: UUID | None = None,
        limit: int = API_PAGE_ITEMS,
    ) -> list[Contact]:
        """A page of the list's contacts, in the order of their ids, behind contact `after`."""
        rows = await self._database.fetch(QUERIES.page_members, workspace_id, list_id, after, limit)
        return [contact_of(row) for row in rows]


def _checked(name: str) -> str:
    stripped = name.strip()
    if not 1 <= len(stripped) <= LIST_NAME_CHARACTERS or "\0" in stripped:
        raise InvalidInput(
            f"a list's name has 1 to {LIST_NAME_CHARACTERS} characters", field="name"
        )
    return stripped
