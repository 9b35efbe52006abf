"""A campaign to a segment: who matches when his chunk is cut gets one mail, come what may."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from sending_world import Ledger, LedgerTransport, Process, World

from mailyard.campaigns import plan
from mailyard.campaigns.audience import Audiences
from mailyard.campaigns.segment import Segments
from mailyard.campaigns.states import State
from mailyard.core import ids
from mailyard.core.errors import InvalidInput, NotFound
from mailyard.queue.batch import Batch
from mailyard.queue.job import EMAIL_BULK
from mailyard.queue.settle import Settler
from mailyard.storage.database import Database
from mailyard.storage.queries import Query

GOLD, FREE = '{"city": "Turin", "plan": "gold"}', '{"city": "Turin", "plan": "free"}'
EVERYBODY_FREE = Query('UPDATE contact SET attributes = \'{"city": "x", "plan": "free"}\'')


@pytest.fixture
async def world(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """Chunks of 50, and windows that hold few of the segment."""
    monkeypatch.setattr(plan, "CAMPAIGN_CHUNK_RECIPIENTS", 50)
    monkeypatch.setattr(plan, "FIRST_WINDOW", 70)
    monkeypatch.setattr(plan, "WINDOW", 130)
    world = World(database)
    await world.open()
    yield world
    await world.bus.close()


async def segment(world: World, source: str) -> str:
    segments = Segments(database=world.database, audiences=Audiences(database=world.database))
    made = await segments.create(world.workspace_id, source[:100], source)
    return ids.type_id(ids.SEGMENT, made.id)


async def to_segment(world: World, source: str) -> UUID:
    return await world.campaign(list=None, segment=await segment(world, source))


async def test_whoever_matches_gets_one_mail(world: World) -> None:
    """Also where hundreds in a row do not match, and nobody of the last ones does."""
    await world.add_contacts(200, FREE)
    gold = await world.add_contacts(30, GOLD, first=1000)
    await world.add_contacts(500, FREE, first=2000)
    gold += await world.add_contacts(400, GOLD, first=3000)
    await world.add_contacts(300, FREE, first=4000)
    campaign_id = await to_segment(world, 'plan = "gold" and not opened')
    async with world.workers(2):
        await world.campaigns.start(world.workspace_id, campaign_id)
        progress = await world.until(campaign_id, State.FINISHED)
    assert world.ledger.left == dict.fromkeys(gold, 1)
    assert (progress.recipients, progress.counts["accepted"], progress.waiting) == (430, 430, 0)
    states = await world.states("campaign_id = $1", campaign_id)
    assert states == dict.fromkeys(gold, "accepted")


async def test_nobody_matches_and_it_ends(world: World) -> None:
    await world.add_contacts(300, FREE)
    campaign_id = await to_segment(world, 'plan = "gold"')
    async with world.workers():
        await world.campaigns.start(world.workspace_id, campaign_id)
        progress = await world.until(campaign_id, State.FINISHED)
    assert (progress.recipients, world.ledger.left) == (0, {})


async def planned(world: World, campaign_id: UUID) -> None:
    """Cut all chunks, and send nothing."""
    planner = Process(world, LedgerTransport(Ledger())).planner
    (job,) = await world.engine.lease([EMAIL_BULK], 1, 5.0, "test")
    await planner.handle(Batch([job], Settler(world.engine), asyncio.Event()))


async def test_who_was_cut_into_a_chunk_stays_in_it_and_nobody_comes_twice(world: World) -> None:
    """All leave the segment, and it is changed, between planning and sending; a worker dies with
    a chunk half sent, and its successor finds the same people."""
    gold = await world.add_contacts(120, GOLD)
    campaign_id = await to_segment(world, 'plan = "gold"')
    await world.campaigns.start(world.workspace_id, campaign_id)
    await planned(world, campaign_id)
    assert (await world.progress(campaign_id)).recipients == 120
    await world.add_contacts(80, GOLD, first=1000)  # they come too late
    await world.database.execute(EVERYBODY_FREE)
    await world.database.execute(Query("UPDATE segment SET filter = 'opened'"))
    transport = LedgerTransport(world.ledger)
    transport.stuck = True
    process = Process(world, transport, places=5)
    (job,) = await world.engine.lease([EMAIL_BULK], 1, 5.0, "test")
    dying = asyncio.create_task(
        process.chunks.handle(Batch([job], Settler(world.engine), asyncio.Event()))
    )
    async with asyncio.timeout(20):
        while len(transport.kept) < 5:
            await asyncio.sleep(0.01)
    dying.cancel()
    await asyncio.wait([dying])
    await world.next_lease()
    async with world.workers(2):
        progress = await world.until(campaign_id, State.FINISHED)
    assert world.ledger.left == dict.fromkeys(gold, 1)
    assert (progress.counts["accepted"], progress.counts["unknown"]) == (115, 5)
    states = await world.states("campaign_id = $1", campaign_id)
    assert set(states) == set(gold)


async def test_what_a_segment_means_is_pinned_at_the_first_start(world: World) -> None:
    gold = await world.add_contacts(60, GOLD)
    await world.add_contacts(60, FREE, first=1000)
    campaign_id = await to_segment(world, 'list "All" and plan = "gold"')
    await world.campaigns.start(world.workspace_id, campaign_id)
    await world.campaigns.pause(world.workspace_id, campaign_id)
    await world.database.execute(Query("UPDATE segment SET filter = 'plan = \"free\"'"))
    await world.database.execute(Query("UPDATE contact_list SET name = 'Everybody'"))
    await world.campaigns.resume(world.workspace_id, campaign_id)
    async with world.workers():
        await world.until(campaign_id, State.FINISHED)
    assert set(world.ledger.left) == set(gold)


async def test_a_campaign_has_a_list_or_a_segment(world: World) -> None:
    await world.add_contacts(1, FREE)
    readers = await segment(world, 'list "All"')
    for wrong in ({"segment": readers}, {"list": None}):
        with pytest.raises(InvalidInput, match="list or to a segment"):
            await world.campaign(**wrong)
    with pytest.raises(NotFound, match="no such segment"):
        await world.campaign(list=None, segment=ids.type_id(ids.SEGMENT, ids.uuid7()))
    campaign_id = await world.campaign(list=None, segment=readers)
    await world.database.execute(Query("DELETE FROM contact_list"))
    with pytest.raises(InvalidInput, match="there is no list named 'All'"):
        await world.campaigns.start(world.workspace_id, campaign_id)
    lacking = await world.template(text="{{ nothing_has_this }}")
    first = await world.campaign(lacking, list=None, segment=await segment(world, "city exists"))
    with pytest.raises(InvalidInput, match="cannot be written"):
        await world.campaigns.start(world.workspace_id, first)
