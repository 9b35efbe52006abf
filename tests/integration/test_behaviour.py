"""What contacts did: recorded once however often it is said, for whom it is, whenever it was."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from mailyard.campaigns.behaviour import (
    OPENED,
    Behaviour,
    ContactEvent,
    NewEvent,
    event_id,
)
from mailyard.campaigns.contact import Contacts
from mailyard.core.errors import InvalidInput, NotFound, Unavailable
from mailyard.core.ids import uuid7
from mailyard.storage.database import Database
from mailyard.storage.partitions import Keep, drop_expired
from mailyard.storage.queries import Query

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
async def workspace(database: Database) -> UUID:
    workspace_id = uuid7()
    await database.execute(
        Query("INSERT INTO workspace (id, name) VALUES ($1, 'test')"), workspace_id
    )
    return workspace_id


async def test_an_event_said_twice_counts_once(database: Database, workspace: UUID) -> None:
    ada = await Contacts(database=database).create(workspace, "ada@example.org")
    behaviour = Behaviour(database=database)
    bought = NewEvent("bought", NOW, address="Ada@Example.ORG", key="order-1")
    batch = [
        bought,
        NewEvent("bought", NOW, contact_id=ada.id, key="order-2", properties={"total": 79.9}),
        NewEvent("bought", NOW, address="nobody@example.org"),
        NewEvent("signed_up", contact_id=uuid7()),
    ]
    for expected in ((2, 0), (0, 2)):
        async with database.transaction() as tx:
            done = await behaviour.record(workspace, batch, tx)
        assert (done.new, done.repeated) == expected
        assert done.unknown == (2, 3) and done.kinds == {"bought": 2}
    events = await behaviour.page(workspace, ada.id)
    assert {(event.kind, event.at) for event in events} == {("bought", NOW)}
    assert {tuple((event.properties or {}).items()) for event in events} == {(), (("total", 79.9),)}


async def test_the_same_batches_in_another_order_at_once_wait_for_nobody_in_a_circle(
    database: Database, workspace: UUID
) -> None:
    contacts = Contacts(database=database)
    people = [await contacts.create(workspace, f"p{number}@example.org") for number in range(40)]
    events = [
        ContactEvent(event_id(workspace, one.id, OPENED, NOW, "x"), workspace, one.id, OPENED)
        for one in people
    ]
    behaviour = Behaviour(database=database)

    async def record(order: list[ContactEvent]) -> int:
        async with database.transaction() as tx:
            return await behaviour.record_many(order, tx)

    done = await asyncio.gather(
        *(record(events[turn:] + events[:turn]) for turn in range(0, 40, 5))
    )
    assert sum(done) == 40


async def test_years_old_events_find_room_and_leave_with_their_month(
    database: Database, workspace: UUID
) -> None:
    ada = await Contacts(database=database).create(workspace, "ada@example.org")
    times = [NOW - timedelta(days=days) for days in (0, 40, 400, 3_600)]
    behaviour = Behaviour(database=database)
    said = [NewEvent("bought", at, contact_id=ada.id, key="same") for at in times]
    with pytest.raises(Unavailable):
        async with database.transaction() as tx:
            await behaviour.record(workspace, said, tx)
    await behaviour.make_room(times)
    async with database.transaction() as tx:
        assert (await behaviour.record(workspace, said, tx)).new == 4
    page = await behaviour.page(workspace, ada.id, limit=3)
    assert [event.at for event in page] == times[:3]
    rest = await behaviour.page(workspace, ada.id, before=page[-1].id, limit=3)
    assert [event.at for event in rest] == times[3:]
    await drop_expired(database, NOW, Keep(history_months=12))
    assert [event.at for event in await behaviour.page(workspace, ada.id)] == times[:2]


async def test_what_a_deleted_contact_did_is_gone_with_it(
    database: Database, workspace: UUID
) -> None:
    contacts, behaviour = Contacts(database=database), Behaviour(database=database)
    ada = await contacts.create(workspace, "ada@example.org")
    event = ContactEvent(uuid7(), workspace, ada.id, OPENED)
    stranger = ContactEvent(uuid7(), uuid7(), ada.id, OPENED)
    async with database.transaction() as tx:
        assert await behaviour.record_many([event, stranger], tx) == 1, "another workspace's"
    await contacts.delete(workspace, [ada.id])
    async with database.transaction() as tx:
        assert await behaviour.record_many([event], tx) == 0
    assert await database.fetchval(Query("SELECT count(*) FROM contact_event")) == 0
    with pytest.raises(NotFound):
        await behaviour.page(workspace, ada.id)


WRONG = (
    (NewEvent("bought"), "contact"),
    (NewEvent("Bought!", address="a@b.example"), "kind"),
    (NewEvent("bought", address="no address"), "address"),
    (NewEvent("bought", NOW + timedelta(days=1), address="a@b.example"), "at"),
    (NewEvent("bought", NOW - timedelta(days=4_000), address="a@b.example"), "at"),
    (NewEvent("bought", address="a@b.example", key="k"), "at"),
    (NewEvent("bought", address="a@b.example", properties={"x": "y" * 5_000}), "properties"),
)


async def test_a_wrong_event_is_named_and_its_batch_is_not_written(
    database: Database, workspace: UUID
) -> None:
    ada = await Contacts(database=database).create(workspace, "ada@example.org")
    behaviour = Behaviour(database=database)
    for event, field in WRONG:
        with pytest.raises(InvalidInput) as refused:
            async with database.transaction() as tx:
                batch = [NewEvent("bought", contact_id=ada.id), event]
                await behaviour.record(workspace, batch, tx)
        assert refused.value.field == f"events.1.{field}"
    assert await behaviour.page(workspace, ada.id) == []
