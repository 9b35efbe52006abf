"""Contacts: the people that a workspace writes to, one for each normalised address."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from mailyard.core.errors import Conflict, InvalidInput, NotFound
from mailyard.core.ids import uuid7
from mailyard.core.limits import API_PAGE_ITEMS
from mailyard.protocol.address import normalise
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

QUERIES = load("contact")

NAME_CHARACTERS = 255
ATTRIBUTES_BYTES = 64 * 1024

Attribute = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Contact:
    """`attributes` are the merge fields that templates name, beside `name` and `address`."""

    id: UUID
    address: str
    name: str
    attributes: dict[str, Attribute]
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ContactRow:
    """A contact on its way in; `address` is normalised already."""

    address: str
    name: str
    attributes: Mapping[str, Attribute]


@dataclass(frozen=True, slots=True)
class ContactColumns:
    """Many contacts, each address once; `attributes` as JSON."""

    ids: list[UUID]
    addresses: list[str]
    names: list[str]
    attributes: list[str]


def contact_of(row: asyncpg.Record) -> Contact:
    """A contact from a row with all its columns."""
    return Contact(
        id=row["id"],
        address=row["address"],
        name=row["name"],
        attributes=msgspec.json.decode(row["attributes"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


class Contacts:
    """Create, find, change and remove contacts."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def create(
        self,
        workspace_id: UUID,
        address: str,
        name: str = "",
        attributes: Mapping[str, Attribute] | None = None,
        *,
        tx: Connection | None = None,
    ) -> Contact:
        """Add one contact. Raises InvalidInput, or Conflict when the address is there already."""
        row = await self._database.fetchrow(
            QUERIES.insert_contact,
            workspace_id,
            uuid7(),
            normalise(address),
            checked_name(name),
            _encoded(attributes or {}),
            tx=tx,
        )
        if row is None:
            raise Conflict("a contact with this address is there already", field="address")
        return contact_of(row)

    async def get(self, workspace_id: UUID, contact_id: UUID) -> Contact:
        """One contact. Raises NotFound."""
        row = await self._database.fetchrow(QUERIES.get_contact, workspace_id, contact_id)
        if row is None:
            raise NotFound("there is no such contact")
        return contact_of(row)

    async def find(
        self,
        workspace_id: UUID,
        *,
        search: str = "",
        after: UUID | None = None,
        limit: int = API_PAGE_ITEMS,
    ) -> list[Contact]:
        """A page, the newest first, behind contact `after`; `search` stands in address or name."""
        rows = await self._database.fetch(
            QUERIES.find_contacts, workspace_id, after, _searchable(search), limit
        )
        return [contact_of(row) for row in rows]

    async def count(self, workspace_id: UUID) -> int:
        """How many contacts there are."""
        return int(await self._database.fetchval(QUERIES.count_contacts, workspace_id))

    async def update(
        self,
        workspace_id: UUID,
        contact_id: UUID,
        *,
        name: str | None = None,
        attributes: Mapping[str, Attribute] | None = None,
        tx: Connection | None = None,
    ) -> Contact:
        """Change what is given; `attributes` replace all that stood. Raises NotFound."""
        row = await self._database.fetchrow(
            QUERIES.update_contact,
            workspace_id,
            contact_id,
            None if name is None else checked_name(name),
            None if attributes is None else _encoded(attributes),
            tx=tx,
        )
        if row is None:
            raise NotFound("there is no such contact")
        return contact_of(row)

    async def delete(
        self, workspace_id: UUID, contact_ids: Sequence[UUID], *, tx: Connection | None = None
    ) -> list[UUID]:
        """Remove contacts from the workspace and all its lists; the ids that were there."""
        rows = await self._database.fetch(
            QUERIES.delete_contacts, workspace_id, list(contact_ids), tx=tx
        )
        return [row["id"] for row in rows]

    async def upsert(
        self,
        workspace_id: UUID,
        columns: ContactColumns,
        *,
        list_id: UUID | None,
        tx: Connection,
    ) -> None:
        """Bring contacts in by address, and into a list. Doing it twice changes nothing twice."""
        if not columns.addresses:
            return
        await self._database.execute(
            QUERIES.upsert_contacts,
            workspace_id,
            columns.ids,
            columns.addresses,
            columns.names,
            columns.attributes,
            tx=tx,
        )
        if list_id is not None:
            await self._database.execute(
                QUERIES.add_members_by_address, workspace_id, list_id, columns.addresses, tx=tx
            )


def checked_name(name: str) -> str:
    """A display name as it may be stored and stand in a header. Raises InvalidInput."""
    stripped = name.strip()
    if len(stripped) > NAME_CHARACTERS:
        raise InvalidInput(f"the name is longer than {NAME_CHARACTERS} characters", field="name")
    if any(character in stripped for character in "\r\n\0"):
        raise InvalidInput("the name contains a line break or NUL", field="name")
    return stripped


def columns(contacts: Sequence[ContactRow]) -> ContactColumns:
    """Contacts as the columns that one statement takes.

    The same address again is merged over the first. Rows are sorted by address, so that two
    imports of the same people never wait for each other in a circle.
    """
    by_address: dict[str, ContactRow] = {}
    for contact in contacts:
        first = by_address.get(contact.address)
        if first is not None:
            contact = ContactRow(
                contact.address,
                contact.name or first.name,
                {**first.attributes, **contact.attributes},
            )
        by_address[contact.address] = contact
    merged = [by_address[address] for address in sorted(by_address)]
    return ContactColumns(
        ids=[uuid7() for _ in merged],
        addresses=[contact.address for contact in merged],
        names=[contact.name for contact in merged],
        attributes=[msgspec.json.encode(contact.attributes).decode() for contact in merged],
    )


def _encoded(attributes: Mapping[str, Attribute]) -> str:
    for key, value in attributes.items():
        if not key or "\0" in key or (isinstance(value, str) and "\0" in value):
            raise InvalidInput("an attribute is empty or contains NUL", field=f"attributes.{key}")
    try:
        text = msgspec.json.encode(attributes).decode()
    except (UnicodeEncodeError, TypeError) as error:
        raise InvalidInput(f"attributes must be plain text: {error}", field="attributes") from error
    if len(text) > ATTRIBUTES_BYTES:
        raise InvalidInput(f"attributes pass {ATTRIBUTES_BYTES:,} bytes", field="attributes")
    return text


def _searchable(search: str) -> str:
    if "\0" in search:
        raise InvalidInput("a search cannot contain NUL", field="search")
    return search
