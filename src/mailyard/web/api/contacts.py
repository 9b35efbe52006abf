"""Contacts: the people that a workspace writes to."""

# ruff: noqa: RUF012 (msgspec copies a default that is a list or an object)

from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.campaigns.contact import Contact
from mailyard.core import ids
from mailyard.core.errors import NotFound
from mailyard.web.api.page import (
    ContactId,
    Input,
    Moment,
    NextCursor,
    Output,
    PageQuery,
    page_of,
    read_cursor,
)
from mailyard.web.api.route import Answer, Call, Route

TAG = "Contacts"
_Attributes = Annotated[
    dict[Annotated[str, Meta(min_length=1, max_length=200)], str | int | float | bool | None],
    Meta(
        max_length=256,
        description="Merge fields: plain values that templates name.",
        examples=[{"city": "London", "orders": 3}],
    ),
]
_Name = Annotated[str, Meta(max_length=255)]


class NewContact(Input):
    """A contact to add."""

    address: Annotated[str, Meta(min_length=3, max_length=320, examples=["ada@example.org"])]
    name: _Name = ""
    attributes: _Attributes = {}


class ContactChange(Input):
    """What to change. What is left out stays; attributes replace all that stood."""

    name: _Name | UnsetType = UNSET
    attributes: _Attributes | UnsetType = UNSET


class ContactItem(Output):
    """A contact."""

    id: ContactId
    address: str
    name: str
    attributes: dict[str, str | int | float | bool | None]
    created_at: Moment
    updated_at: Moment


class ContactPage(Output):
    """Contacts."""

    items: list[ContactItem]
    next_cursor: NextCursor


class ContactsQuery(PageQuery):
    """Which contacts to list."""

    search: Annotated[
        str, Meta(max_length=200, description="Stands somewhere in the address or name.")
    ] = ""


def contact_item(contact: Contact) -> ContactItem:
    """A contact as the API shows it."""
    return ContactItem(
        id=ids.type_id(ids.CONTACT, contact.id),
        address=contact.address,
        name=contact.name,
        attributes=contact.attributes,
        created_at=contact.created_at,
        updated_at=contact.updated_at,
    )


def _told(contact: Contact) -> dict[str, Any]:
    return {
        "address": contact.address,
        "name": contact.name,
        "attributes": contact.attributes,
    }


async def create_contact(call: Call[NewContact, None]) -> Answer:
    body = call.body
    async with call.app.database.transaction() as tx:
        contact = await call.app.contacts.create(
            call.workspace_id, body.address, body.name, body.attributes, tx=tx
        )
        subject = ids.type_id(ids.CONTACT, contact.id)
        made = Change("contact.create", subject, None, _told(contact))
        return await call.done(tx, contact_item(contact), made)


async def list_contacts(call: Call[None, ContactsQuery]) -> ContactPage:
    query = call.query
    found = await call.app.contacts.find(
        call.workspace_id,
        search=query.search,
        after=read_cursor(query.cursor),
        limit=query.limit,
    )
    return page_of(ContactPage, found, contact_item, query.limit)


async def get_contact(call: Call[None, None]) -> ContactItem:
    return contact_item(await call.app.contacts.get(call.workspace_id, call.ids["contact_id"]))


async def change_contact(call: Call[ContactChange, None]) -> Answer:
    body, contact_id = call.body, call.ids["contact_id"]
    before = await call.app.contacts.get(call.workspace_id, contact_id)
    async with call.app.database.transaction() as tx:
        after = await call.app.contacts.update(
            call.workspace_id,
            contact_id,
            name=None if isinstance(body.name, UnsetType) else body.name,
            attributes=None if isinstance(body.attributes, UnsetType) else body.attributes,
            tx=tx,
        )
        subject = ids.type_id(ids.CONTACT, contact_id)
        changed = Change("contact.change", subject, _told(before), _told(after))
        return await call.done(tx, contact_item(after), changed)


async def delete_contact(call: Call[None, None]) -> Answer:
    contact_id = call.ids["contact_id"]
    before = await call.app.contacts.get(call.workspace_id, contact_id)
    async with call.app.database.transaction() as tx:
        if not await call.app.contacts.delete(call.workspace_id, [contact_id], tx=tx):
            raise NotFound("there is no such contact")
        subject = ids.type_id(ids.CONTACT, contact_id)
        return await call.done(tx, None, Change("contact.delete", subject, _told(before), None))


ROUTES = (
    Route(
        "POST",
        "/v1/contacts",
        create_contact,
        "createContact",
        TAG,
        "Add a contact",
        scope.CONTACTS_WRITE,
        status=201,
        answer=ContactItem,
        body=NewContact,
    ),
    Route(
        "GET",
        "/v1/contacts",
        list_contacts,
        "listContacts",
        TAG,
        "Find contacts",
        scope.CONTACTS_READ,
        answer=ContactPage,
        query=ContactsQuery,
    ),
    Route(
        "GET",
        "/v1/contacts/{contact_id:con}",
        get_contact,
        "getContact",
        TAG,
        "Read a contact",
        scope.CONTACTS_READ,
        answer=ContactItem,
    ),
    Route(
        "PATCH",
        "/v1/contacts/{contact_id:con}",
        change_contact,
        "changeContact",
        TAG,
        "Change a contact",
        scope.CONTACTS_WRITE,
        answer=ContactItem,
        body=ContactChange,
    ),
    Route(
        "DELETE",
        "/v1/contacts/{contact_id:con}",
        delete_contact,
        "deleteContact",
        TAG,
        "Remove a contact from the workspace and its lists",
        scope.CONTACTS_WRITE,
        status=204,
    ),
)
