"""Lists: named sets of contacts, which campaigns are sent to."""

from typing import Annotated

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.campaigns.contact_list import ContactList
from mailyard.core import ids
from mailyard.web.api.contacts import ContactPage, contact_item
from mailyard.web.api.page import (
    ContactId,
    Input,
    ListId,
    NextCursor,
    Output,
    PageQuery,
    page_of,
    read_cursor,
)
from mailyard.web.api.route import Answer, Call, Route

TAG = "Lists"
MEMBERS_PER_CALL = 1_000
_Name = Annotated[str, Meta(min_length=1, max_length=200)]


class NewList(Input):
    """A list to make."""

    name: _Name


class ListMembers(Input):
    """Contacts to put into a list, or take out of it."""

    contact_ids: Annotated[list[ContactId], Meta(min_length=1, max_length=MEMBERS_PER_CALL)]


class ListItem(Output):
    """A list of contacts."""

    id: ListId
    name: str
    members: int


class ListPage(Output):
    """Lists, newest first."""

    items: list[ListItem]
    next_cursor: NextCursor


class MembersChanged(Output):
    """How many contacts that was news for."""

    changed: int


def _item(one: ContactList) -> ListItem:
    return ListItem(id=ids.type_id(ids.LIST, one.id), name=one.name, members=one.members)


async def create_list(call: Call[NewList, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        one = await call.app.lists.create(call.workspace_id, call.body.name, tx=tx)
        subject = ids.type_id(ids.LIST, one.id)
        made = Change("list.create", subject, None, {"name": one.name})
        return await call.done(tx, _item(one), made)


async def list_lists(call: Call[None, PageQuery]) -> ListPage:
    found = await call.app.lists.page(
        call.workspace_id, after=read_cursor(call.query.cursor), limit=call.query.limit
    )
    return page_of(ListPage, found, _item, call.query.limit)


async def get_list(call: Call[None, None]) -> ListItem:
    return _item(await call.app.lists.get(call.workspace_id, call.ids["list_id"]))


async def rename_list(call: Call[NewList, None]) -> Answer:
    list_id = call.ids["list_id"]
    before = await call.app.lists.get(call.workspace_id, list_id)
    async with call.app.database.transaction() as tx:
        await call.app.lists.rename(call.workspace_id, list_id, call.body.name, tx=tx)
        after = await call.app.lists.get(call.workspace_id, list_id, tx=tx)
        subject = ids.type_id(ids.LIST, list_id)
        renamed = Change("list.rename", subject, {"name": before.name}, {"name": after.name})
        return await call.done(tx, _item(after), renamed)


async def delete_list(call: Call[None, None]) -> Answer:
    list_id = call.ids["list_id"]
    before = await call.app.lists.get(call.workspace_id, list_id)
    async with call.app.database.transaction() as tx:
        await call.app.lists.delete(call.workspace_id, list_id, tx=tx)
        told = {"name": before.name, "members": before.members}
        subject = ids.type_id(ids.LIST, list_id)
        return await call.done(tx, None, Change("list.delete", subject, told, None))


async def list_members(call: Call[None, PageQuery]) -> ContactPage:
    list_id = call.ids["list_id"]
    await call.app.lists.get(call.workspace_id, list_id)
    found = await call.app.lists.members(
        call.workspace_id,
        list_id,
        after=read_cursor(call.query.cursor),
        limit=call.query.limit,
    )
    return page_of(ContactPage, found, contact_item, call.query.limit)


async def add_members(call: Call[ListMembers, None]) -> Answer:
    return await _change_members(call, adding=True)


async def remove_members(call: Call[ListMembers, None]) -> Answer:
    return await _change_members(call, adding=False)


async def _change_members(call: Call[ListMembers, None], *, adding: bool) -> Answer:
    list_id, texts = call.ids["list_id"], call.body.contact_ids
    contacts = [
        ids.parse_type_id(ids.CONTACT, text, f"contact_ids.{place}")
        for place, text in enumerate(texts)
    ]
    await call.app.lists.get(call.workspace_id, list_id)
    change = call.app.lists.add if adding else call.app.lists.remove
    async with call.app.database.transaction() as tx:
        changed = await change(call.workspace_id, list_id, contacts, tx=tx)
        action = "list.add_members" if adding else "list.remove_members"
        told = {"contacts": texts, "changed": changed}
        before, after = (None, told) if adding else (told, None)
        return await call.done(
            tx,
            MembersChanged(changed=changed),
            Change(action, ids.type_id(ids.LIST, list_id), before, after),
        )


ROUTES = (
    Route(
        "POST",
        "/v1/lists",
        create_list,
        "createList",
        TAG,
        "Make a list",
        scope.CONTACTS_WRITE,
        status=201,
        answer=ListItem,
        body=NewList,
    ),
    Route(
        "GET",
        "/v1/lists",
        list_lists,
        "listLists",
        TAG,
        "List the lists",
        scope.CONTACTS_READ,
        answer=ListPage,
        query=PageQuery,
    ),
    Route(
        "GET",
        "/v1/lists/{list_id:lst}",
        get_list,
        "getList",
        TAG,
        "Read a list",
        scope.CONTACTS_READ,
        answer=ListItem,
    ),
    Route(
        "PATCH",
        "/v1/lists/{list_id:lst}",
        rename_list,
        "renameList",
        TAG,
        "Rename a list",
        scope.CONTACTS_WRITE,
        answer=ListItem,
        body=NewList,
        errors=(409,),
    ),
    Route(
        "DELETE",
        "/v1/lists/{list_id:lst}",
        delete_list,
        "deleteList",
        TAG,
        "Remove a list; its contacts stay",
        scope.CONTACTS_WRITE,
        status=204,
        errors=(409,),
    ),
    Route(
        "GET",
        "/v1/lists/{list_id:lst}/contacts",
        list_members,
        "listListContacts",
        TAG,
        "List the contacts in a list",
        scope.CONTACTS_READ,
        answer=ContactPage,
        query=PageQuery,
    ),
    Route(
        "POST",
        "/v1/lists/{list_id:lst}/contacts",
        add_members,
        "addListContacts",
        TAG,
        "Put contacts into a list",
        scope.CONTACTS_WRITE,
        answer=MembersChanged,
        body=ListMembers,
    ),
    Route(
        "POST",
        "/v1/lists/{list_id:lst}/contacts/remove",
        remove_members,
        "removeListContacts",
        TAG,
        "Take contacts out of a list",
        scope.CONTACTS_WRITE,
        answer=MembersChanged,
        body=ListMembers,
    ),
)
