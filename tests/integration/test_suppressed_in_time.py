"""Whom nobody writes to any more: learnt from refusals, asked again just before the hand-over."""

import asyncio
from collections.abc import AsyncIterator, Callable
from uuid import UUID

import pytest
from sending_world import ACCEPTED, Answer, LedgerTransport, Process, World, addresses_of

from mailyard.queue.batch import Batch
from mailyard.queue.job import EMAIL_SEND
from mailyard.queue.settle import Settler
from mailyard.sending.request import EmailRequest
from mailyard.sending.suppress import ASK_AGAIN_S, Suppressions
from mailyard.sending.transport import Outcome
from mailyard.storage.database import Database

ANSWERS: dict[str, Answer] = {
    "nobody": (Outcome.NEVER, 550, "5.1.1 <{}>: Recipient address rejected: User unknown"),
    "full": (Outcome.NEVER, 552, "5.2.2 <{}>: mailbox is full"),
    "policy": (Outcome.NEVER, 550, "5.7.1 <{}>: rejected by policy"),
    "words": (Outcome.NEVER, 550, "5.7.1 <{}>: User unknown"),  # 5.7 decides, not the words
    "good": ACCEPTED,
}


def answer(address: str) -> Answer:
    outcome, code, text = ANSWERS.get(address.partition("@")[0], ACCEPTED)
    return outcome, code, text.format(address)


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    world = World(database)
    await world.open()
    yield world
    await world.bus.close()


async def accept(world: World, *to: str) -> UUID:
    request = EmailRequest(sender="App <app@example.org>", to=list(to), subject="Hi", text="Hi")
    return (await world.emails.accept(world.workspace_id, request)).emails[0].id


async def deliver(world: World, process: Process) -> None:
    jobs = await world.engine.lease([EMAIL_SEND], 100, 0.0, "test")
    await process.deliverer.handle(Batch(jobs, Settler(world.engine), asyncio.Event()))


async def suppressed(world: World) -> list[tuple[str, str, str, str]]:
    listed = await Suppressions(database=world.database).page(world.workspace_id)
    return [(one.address, one.stream, one.reason, one.source) for one in listed]


async def reasons(world: World) -> dict[str, str]:
    async with world.database.connection() as connection:
        rows = await connection.fetch("SELECT recipient, reason FROM delivery")
    return {row["recipient"]: row["reason"] for row in rows}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_refusal_at_hand_over_is_judged_as_a_bounce_is(world: World) -> None:
    await accept(world, *(f"{name}@example.com" for name in ANSWERS))
    await deliver(world, Process(world, LedgerTransport(world.ledger, answer)))
    assert await suppressed(world) == [("nobody@example.com", "all", "hard_bounce", "ledger")]
    assert await reasons(world) == {
        "nobody@example.com": "user_unknown",
        "full@example.com": "mailbox_full",
        "policy@example.com": "policy",
        "words@example.com": "user_unknown",
        "good@example.com": "",
    }
    again = await accept(world, "nobody@example.com")
    assert await world.states("email_id = $1", again) == {"nobody@example.com": "suppressed"}


async def test_a_campaigns_refusal_stops_all_mail_to_a_recipient_who_is_unknown(
    world: World,
) -> None:
    await world.add_contacts(3)
    campaign_id = await world.campaign()
    await world.campaigns.start(world.workspace_id, campaign_id)
    refused = (Outcome.NEVER, 550, "5.1.1 User unknown")
    async with world.workers(
        answers=lambda address: refused if address.startswith("person1@") else ACCEPTED
    ):
        async with asyncio.timeout(20):
            while len(await world.states("campaign_id = $1", campaign_id)) < 3:
                await asyncio.sleep(0.02)
    assert await suppressed(world) == [("person1@example.com", "all", "hard_bounce", "ledger")]
    assert (await reasons(world))["person1@example.com"] == "user_unknown"


async def test_who_is_suppressed_while_he_waits_for_his_turn_gets_no_transactional_mail(
    world: World,
) -> None:
    """Accepted, loaded by a worker, and stopped before the window had a place."""
    transport = LedgerTransport(world.ledger)
    transport.stuck = True
    process = Process(world, transport, places=1)
    to = ("ada@example.com", "bob@example.com", "käthe@bücher.example")
    email_id = await accept(world, *to)
    running = asyncio.create_task(deliver(world, process))
    await until(lambda: world.ledger.outstanding == 1)
    (first,) = addresses_of(world.ledger.mails)
    others = [address for address in to if address != first]
    await Suppressions(database=world.database).add_many(world.workspace_id, others)
    world.clock.advance(ASK_AGAIN_S + 0.1)
    transport.let_go()
    await running
    assert await world.states("email_id = $1", email_id) == {
        first: "accepted",
        **dict.fromkeys(others, "suppressed"),
    }
    assert world.ledger.left == {first: 1}


async def test_who_unsubscribes_while_his_chunk_is_under_way_gets_no_campaign_mail(
    world: World,
) -> None:
    await world.add_contacts(4)
    campaign_id = await world.campaign()
    await world.campaigns.start(world.workspace_id, campaign_id)
    transport = LedgerTransport(world.ledger)
    transport.stuck = True
    process = Process(world, transport, places=2)
    running = asyncio.create_task(process.worker.run())
    await until(lambda: world.ledger.outstanding == 2)
    await Suppressions(database=world.database).add_many(
        world.workspace_id, ["person3@example.com"], "campaign", "unsubscribed"
    )
    world.clock.advance(ASK_AGAIN_S + 0.1)
    transport.let_go()
    async with asyncio.timeout(20):
        while len(states := await world.states("campaign_id = $1", campaign_id)) < 4:
            await asyncio.sleep(0.02)
    process.worker.drain()
    await running
    assert states["person3@example.com"] == "suppressed"
    assert sorted(world.ledger.left) == [f"person{n}@example.com" for n in range(3)]
