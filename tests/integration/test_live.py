"""Live events: a reader that follows the stream never misses nor repeats one."""

import asyncio
from random import Random
from uuid import uuid4

import pytest

from mailyard.bus.adapters.memory import MemoryBus
from mailyard.bus.live import START, Cursor, LiveEvent, LiveEvents, StoredEvent
from mailyard.core.errors import InvalidInput
from mailyard.storage.database import Database


@pytest.fixture
def live(database: Database) -> LiveEvents:
    return LiveEvents(database=database, bus=MemoryBus())


def event(number: int, kind: str = "message.received") -> LiveEvent:
    return LiveEvent(uuid4(), kind, {"number": number})


def numbers(events: list[StoredEvent]) -> list[int]:
    return [each.item["number"] for each in events]


async def settled(live: LiveEvents, cursor: Cursor) -> list[StoredEvent]:
    """What stands behind `cursor` once other tests' transactions on the server have passed by."""
    for _ in range(400):
        if events := await live.read_after(cursor):
            return events
        await asyncio.sleep(0.02)
    return []


async def test_events_come_back_as_they_were_published(live: LiveEvents) -> None:
    workspace_id = uuid4()
    item = {"message_id": "msg_1", "subject": 'Grüße \u2028 "quoted"', "at": None, "size": 3}
    await live.publish([LiveEvent(workspace_id, "message.received", item)])
    (found,) = await settled(live, START)
    assert (found.workspace_id, found.kind, found.item) == (workspace_id, "message.received", item)


async def test_a_batch_of_one_workspace_and_kind_is_one_row(
    live: LiveEvents, database: Database
) -> None:
    workspace_id = uuid4()
    await live.publish([LiveEvent(workspace_id, "queue.depth", {"n": n}) for n in range(100)])
    events = await settled(live, START)
    assert [each.item["n"] for each in events] == list(range(100))
    assert len({(each.cursor.xid, each.cursor.id) for each in events}) == 1


async def test_reading_goes_on_inside_a_row(live: LiveEvents) -> None:
    workspace_id = uuid4()
    await live.publish([LiveEvent(workspace_id, "demo.progress", {"number": n}) for n in range(5)])
    events = await settled(live, START)
    for position, each in enumerate(events):
        assert numbers(await live.read_after(each.cursor)) == list(range(position + 1, 5))


async def test_nothing_is_read_before_its_commit(live: LiveEvents, database: Database) -> None:
    async with database.transaction() as tx:
        await live.publish([event(1)], tx)
        assert await live.read_after(START) == []
    assert numbers(await settled(live, START)) == [1]


async def test_a_rollback_leaves_nothing(live: LiveEvents, database: Database) -> None:
    with pytest.raises(RuntimeError):
        async with database.transaction() as tx:
            await live.publish([event(1)], tx)
            raise RuntimeError
    await live.publish([event(2)])
    assert numbers(await settled(live, START)) == [2]


async def test_a_late_commit_is_not_passed_over(live: LiveEvents, database: Database) -> None:
    async with database.transaction() as early:
        await live.publish([event(1)], early)
        await live.publish([event(2)])
        # What began later has committed, but an older transaction may still come before it.
        assert await live.read_after(START) == []
    assert sorted(numbers(await settled(live, START))) == [1, 2]


async def test_newest_is_the_end_and_oldest_the_beginning(live: LiveEvents) -> None:
    assert await live.newest() == START
    await live.publish([event(n) for n in range(3)])
    events = await settled(live, START)
    assert await live.read_after(await live.newest()) == []
    assert numbers(await live.read_after(await live.oldest())) == numbers(events)


async def test_a_process_of_the_version_before_can_ask_how_many_events_a_row_has(
    live: LiveEvents, database: Database
) -> None:
    await live.publish([event(n) for n in range(3)])
    async with database.connection() as connection:
        counted = await connection.fetch("SELECT jsonb_array_length(items) AS n FROM live_event")
    assert sum(row["n"] for row in counted) == 3


async def test_publishing_wakes_the_readers(live: LiveEvents, database: Database) -> None:
    subscription = live.subscribe()
    await live.publish([event(1)])
    assert await subscription.wait(5.0)
    async with database.transaction() as tx:
        await live.publish([event(2)], tx)
    assert not await subscription.wait(0.01)
    live.announced()
    assert await subscription.wait(5.0)


async def test_publishing_nothing_writes_nothing(live: LiveEvents) -> None:
    await live.publish([])
    assert await live.read_after(START) == []


def test_a_cursor_survives_its_text_form() -> None:
    cursor = Cursor(2**40, 17, 3)
    assert Cursor.decode(cursor.encode()) == cursor
    assert cursor.encode() == f"{2**40}-17-3"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1-2",
        "1-2-3-4",
        "a-b-c",
        "1--2",
        "-1-2-3",
        "1-2-٣",
        "99999999999999999999-0-0",
        "9999999999999999999-0-0",
    ],
)
def test_a_cursor_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Cursor.decode(text, "last_event_id")
    assert caught.value.field == "last_event_id"


async def test_a_follower_sees_every_event_once_whatever_the_writers_do(
    live: LiveEvents, database: Database
) -> None:
    """Eight writers with transactions of varying length, some rolled back; one follower."""
    random = Random(7)
    committed: set[int] = set()
    counter = iter(range(1_000_000))
    done = asyncio.Event()

    async def write() -> None:
        for _ in range(25):
            written: list[int] = []
            try:
                async with database.transaction() as tx:
                    for _ in range(random.randint(1, 3)):
                        batch = [next(counter) for _ in range(random.randint(1, 4))]
                        await live.publish([event(n) for n in batch], tx)
                        written += batch
                        await asyncio.sleep(random.choice([0, 0, 0.001, 0.02]))
                    if random.random() < 0.2:
                        raise RuntimeError
            except RuntimeError:
                continue
            committed.update(written)

    seen: list[int] = []

    async def follow() -> None:
        cursor = START
        while True:
            finished = done.is_set()
            events = await live.read_after(cursor, random.randint(1, 5))
            for each in events:
                assert each.cursor > cursor
                cursor = each.cursor
                # A listener may reconnect at any event, with the id as text.
                assert Cursor.decode(cursor.encode()) == cursor
            seen.extend(numbers(events))
            if finished and not events and len(seen) >= len(committed):
                return
            await asyncio.sleep(0)

    follower = asyncio.create_task(follow())
    await asyncio.gather(*(write() for _ in range(6)))
    done.set()
    await asyncio.wait_for(follower, 60)
    assert len(seen) == len(set(seen))
    assert set(seen) == committed
