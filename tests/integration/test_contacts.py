"""Contacts and lists of a workspace, and that no workspace sees another's."""

import asyncio
from uuid import UUID

import pytest

from mailyard.campaigns.contact import Contacts
from mailyard.campaigns.contact_list import Lists
from mailyard.core.errors import Conflict, InvalidInput, NotFound
from mailyard.core.ids import uuid7
from mailyard.storage.database import Database
from mailyard.storage.queries import Query

ADD_WORKSPACE = Query("INSERT INTO workspace (id, name) VALUES ($1, 'test')")


@pytest.fixture
async def workspace(database: Database) -> UUID:
    return await new_workspace(database)


async def new_workspace(database: Database) -> UUID:
    workspace_id = uuid7()
    await database.execute(ADD_WORKSPACE, workspace_id)
    return workspace_id


async def test_an_address_is_one_contact_however_it_is_written(
    database: Database, workspace: UUID
) -> None:
    contacts = Contacts(database=database)
    ada = await contacts.create(workspace, "Ada@Example.ORG", "Ada", {"city": "London", "n": 3})
    assert ada.address == "ada@example.org"
    assert ada.attributes == {"city": "London", "n": 3}
    with pytest.raises(Conflict):
        await contacts.create(workspace, "ada@example.org")
    assert await contacts.get(workspace, ada.id) == ada
    assert await contacts.count(workspace) == 1


async def test_contacts_are_found_by_page_and_by_words(database: Database, workspace: UUID) -> None:
    contacts = Contacts(database=database)
    made = [
        await contacts.create(workspace, f"user{number}@example.org", f"User {number}")
        for number in range(5)
    ]
    page = await contacts.find(workspace, limit=3)
    rest = await contacts.find(workspace, after=page[-1].id, limit=3)
    assert [contact.id for contact in page + rest] == [
        contact.id for contact in sorted(made, key=lambda contact: contact.id, reverse=True)
    ]
    assert [c.address for c in await contacts.find(workspace, search="USER3@")] == [
        "user3@example.org"
    ]
    assert [c.address for c in await contacts.find(workspace, search="user 4")] == [
        "user4@example.org"
    ]
    assert await contacts.find(workspace, search="%") == []


async def test_a_change_touches_only_what_is_given(database: Database, workspace: UUID) -> None:
    contacts = Contacts(database=database)
    ada = await contacts.create(workspace, "ada@example.org", "Ada", {"city": "London"})
    renamed = await contacts.update(workspace, ada.id, name="Ada L.")
    assert (renamed.name, renamed.attributes) == ("Ada L.", {"city": "London"})
    moved = await contacts.update(workspace, ada.id, attributes={"town": "Ware"})
    assert (moved.name, moved.attributes) == ("Ada L.", {"town": "Ware"})
    with pytest.raises(NotFound):
        await contacts.update(workspace, uuid7(), name="x")


@pytest.mark.parametrize("name", ["a\r\nBcc: b@c.de", "a\nb", "a\0b", "x" * 256])
async def test_a_name_that_cannot_stand_in_a_header_is_refused(
    database: Database, workspace: UUID, name: str
) -> None:
    with pytest.raises(InvalidInput):
        await Contacts(database=database).create(workspace, "ada@example.org", name)


async def test_lists_have_members_and_a_contact_deleted_leaves_them(
    database: Database, workspace: UUID
) -> None:
    contacts, lists = Contacts(database=database), Lists(database=database)
    readers = await lists.create(workspace, "readers")
    people = [await contacts.create(workspace, f"user{number}@example.org") for number in range(4)]
    ids = [person.id for person in people]
    assert await lists.add(workspace, readers.id, ids) == 4
    assert await lists.add(workspace, readers.id, ids[:2]) == 0
    assert await lists.remove(workspace, readers.id, ids[:1]) == 1
    assert await contacts.delete(workspace, ids[1:2]) == ids[1:2]
    assert (await lists.get(workspace, readers.id)).members == 2
    members = await lists.members(workspace, readers.id, limit=1)
    members += await lists.members(workspace, readers.id, after=members[0].id)
    assert members == people[2:]
    await lists.delete(workspace, readers.id)
    assert await contacts.count(workspace) == 3
    with pytest.raises(NotFound):
        await lists.get(workspace, readers.id)


async def test_a_list_name_is_taken_once(database: Database, workspace: UUID) -> None:
    lists = Lists(database=database)
    first = await lists.create(workspace, "readers")
    second = await lists.create(workspace, "writers")
    with pytest.raises(Conflict):
        await lists.create(workspace, " readers ")
    with pytest.raises(Conflict):
        await lists.rename(workspace, second.id, "readers")
    await lists.rename(workspace, first.id, "subscribers")
    assert [one.name for one in await lists.page(workspace)] == ["writers", "subscribers"]
    assert await lists.find(workspace, "writers") == second.id
    with pytest.raises(InvalidInput):
        await lists.create(workspace, " ")


async def test_of_two_lists_that_want_one_name_at_once_one_gets_it(
    database: Database, workspace: UUID
) -> None:
    lists = Lists(database=database)
    for number in range(5):
        made = [await lists.create(workspace, f"{word} {number}") for word in ("a", "b", "c")]
        ends = await asyncio.gather(
            *(lists.rename(workspace, one.id, f"wanted {number}") for one in made),
            return_exceptions=True,
        )
        assert sorted(type(end).__name__ for end in ends) == ["Conflict", "Conflict", "NoneType"]


async def test_another_workspace_sees_and_changes_nothing(
    database: Database, workspace: UUID
) -> None:
    contacts, lists = Contacts(database=database), Lists(database=database)
    other = await new_workspace(database)
    ada = await contacts.create(workspace, "ada@example.org", "Ada")
    readers = await lists.create(workspace, "readers")
    await lists.add(workspace, readers.id, [ada.id])
    theirs = await lists.create(other, "readers")
    assert await lists.add(other, theirs.id, [ada.id]) == 0
    assert await lists.remove(other, readers.id, [ada.id]) == 0
    assert await contacts.delete(other, [ada.id]) == []
    assert await contacts.find(other) == []
    assert await lists.members(other, readers.id) == []
    for attempt in (
        contacts.get(other, ada.id),
        contacts.update(other, ada.id, name="x"),
        lists.get(other, readers.id),
        lists.delete(other, readers.id),
        lists.rename(other, readers.id, "x"),
        lists.add(other, readers.id, [ada.id]),
    ):
        with pytest.raises(NotFound):
            await attempt
    assert await contacts.get(workspace, ada.id) == ada
