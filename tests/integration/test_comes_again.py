"""What a transport says about coming again: when, whether it was an attempt, and who said so."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import cast

import pytest
from sending_world import LedgerTransport, Process, World, told, until_told

from mailyard.campaigns.states import State as CampaignState
from mailyard.sending.request import EmailRequest
from mailyard.sending.states import State
from mailyard.sending.transport import Handoff, Outcome, Outgoing, Recipient
from mailyard.storage.database import Database

Answers = Callable[[Recipient], Handoff]


class Saying:
    """Answers as it is told."""

    name = "saying"

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def submit(self, mail: Outgoing, done: Callable[[Handoff], None]) -> None:
        for recipient in mail.recipients:
            self.asked.append(recipient.address)
            asyncio.get_running_loop().call_soon(done, self.answers(recipient))

    async def close(self, drain_s: float) -> None:
        pass


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    world = World(database)
    await world.open()
    yield world
    await world.bus.close()


def taken(recipient: Recipient, by: str = "two") -> Handoff:
    return Handoff(recipient.delivery_id, Outcome.ACCEPTED, 250, "2.0.0 Ok", by)


def handed_back(recipient: Recipient, until: datetime) -> Handoff:
    return Handoff(
        recipient.delivery_id,
        Outcome.LATER,
        None,
        "no place before noon",
        "one",
        retry_at=until,
        tried=False,
    )


def refused(recipient: Recipient, by: str = "one") -> Handoff:
    return Handoff(recipient.delivery_id, Outcome.LATER, 451, "4.3.0 come back", by)


class Working:
    """One worker over `answers`, for as long as the block lasts."""

    def __init__(self, world: World, answers: Answers) -> None:
        self.transport = Saying(answers)
        process = Process(world, cast("LedgerTransport", self.transport))
        self._worker = process.worker

    async def __aenter__(self) -> Saying:
        self._task = asyncio.create_task(self._worker.run())
        return self.transport

    async def __aexit__(self, *_: object) -> None:
        self._worker.drain()
        await self._task


async def test_what_is_handed_back_untried_comes_at_its_time_with_all_its_attempts(
    world: World,
) -> None:
    noon = world.clock.now() + timedelta(seconds=600)

    def answers(recipient: Recipient) -> Handoff:
        early = world.clock.now() < noon
        return handed_back(recipient, noon) if early else taken(recipient)

    await world.emails.accept(
        world.workspace_id,
        EmailRequest(sender="a@example.org", to=["ada@example.com"], subject="x", text="y"),
    )
    async with Working(world, answers) as transport:
        (waiting,) = await until_told(world, lambda found: found[0].state is State.DEFERRED)
        assert waiting.attempts == 0 and waiting.next_attempt_at == noon
        assert waiting.reply == "no place before noon"
        await world.next_lease(300.0)  # longer than any first backoff
        await world.next_lease(301.0)
        (done,) = await until_told(world, lambda found: found[0].state is State.ACCEPTED)
    assert transport.asked == ["ada@example.com"] * 2, "not before its time"
    assert (done.attempts, done.transport) == (1, "two")
    ((_, story),) = await told(world)
    assert [event.state for event in story] == [State.QUEUED, State.HANDED_OFF, State.ACCEPTED]
    job = await world.database.fetchrow("SELECT attempts FROM job WHERE kind = 'deliver'")
    assert job is None


async def test_who_waits_longer_is_not_asked_when_another_recipients_turn_has_come(
    world: World,
) -> None:
    now = world.clock.now()
    times = {"ada@example.com": now + timedelta(60), "bob@example.com": now + timedelta(seconds=60)}

    def answers(recipient: Recipient) -> Handoff:
        at = times[recipient.address]
        return taken(recipient) if world.clock.now() >= at else handed_back(recipient, at)

    await world.emails.accept(
        world.workspace_id,
        EmailRequest(sender="a@example.org", to=list(times), subject="x", text="y"),
    )
    async with Working(world, answers) as transport:
        await until_told(world, lambda found: all(one.state is State.DEFERRED for one in found))
        await world.next_lease(61.0)
        await until_told(world, lambda found: any(one.state is State.ACCEPTED for one in found))
        await world.next_lease(60 * 86_400.0)
        await until_told(world, lambda found: all(one.state is State.ACCEPTED for one in found))
    assert sorted(transport.asked) == ["ada@example.com"] * 2 + ["bob@example.com"] * 2


async def test_a_campaign_keeps_who_had_each_mail_in_each_attempt(world: World) -> None:
    addresses = await world.add_contacts(40)
    campaign_id = await world.campaign()
    late = world.clock.now() + timedelta(seconds=3600)
    back, slow = set(addresses[:5]), set(addresses[5:10])
    first: set[str] = set()

    def answers(recipient: Recipient) -> Handoff:
        address = recipient.address
        if address in back and world.clock.now() < late:
            return handed_back(recipient, late)
        if address in slow and address not in first:
            first.add(address)
            return refused(recipient)
        return taken(recipient)

    async with Working(world, answers):
        await world.campaigns.start(world.workspace_id, campaign_id)
        await until_told(
            world, lambda found: sum(one.state is State.DEFERRED for one in found) == 10
            and len(found) == 40
        )  # fmt: skip
        await world.next_lease(100.0)
        await until_told(
            world, lambda found: sum(one.state is State.DEFERRED for one in found) == 5
        )
        await world.next_lease(3600.0)
        progress = await world.until(campaign_id, CampaignState.FINISHED)
    assert progress.counts["accepted"] == 40 and progress.counts["deferred"] == 0
    for delivery, story in await told(world):
        assert delivery.transport == "two"
        had = [(event.state, event.attempt, event.transport) for event in story]
        if delivery.recipient in slow:
            assert had == [
                (State.DEFERRED, 1, "one"),
                (State.HANDED_OFF, 2, "two"),
                (State.ACCEPTED, 2, "two"),
            ]
            assert story[0].reply_code == 451 and story[0].detail == "4.3.0 come back"
        else:
            assert had == [(State.HANDED_OFF, 1, "two"), (State.ACCEPTED, 1, "two")]
