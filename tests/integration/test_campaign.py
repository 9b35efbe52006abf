"""A campaign from its start to its end, with real jobs and rows and a transport that keeps books."""

from collections.abc import AsyncIterator

import pytest
from sending_world import World

from mailyard.campaigns.states import State
from mailyard.storage.database import Database


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    world = World(database)
    await world.open()
    yield world
    await world.bus.close()


async def test_every_member_gets_one_mail_and_one_row(world: World) -> None:
    addresses = await world.add_contacts(2500)
    campaign_id = await world.campaign()
    async with world.workers(2):
        await world.campaigns.start(world.workspace_id, campaign_id)
        progress = await world.until(campaign_id, State.FINISHED)
    assert world.ledger.left == dict.fromkeys(addresses, 1)
    assert progress.counts["accepted"] == progress.recipients == 2500
    assert progress.waiting == 0
    states = await world.states("campaign_id = $1", campaign_id)
    assert states == dict.fromkeys(addresses, "accepted")
