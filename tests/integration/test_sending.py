"""Transactional mail from the request to its rows, with real jobs and a transport with books."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sending_world import ACCEPTED, Answer, Ledger, LedgerTransport, Process, World

from mailyard.access.idempotency import Idempotency as Routes
from mailyard.access.idempotency import IdempotencyInProgress
from mailyard.core import ids
from mailyard.core.errors import Conflict, IdempotencyMismatch, InvalidInput, NotFound
from mailyard.queue.batch import Batch
from mailyard.queue.job import EMAIL_SEND
from mailyard.queue.settle import Settler
from mailyard.sending.answer import Accepted, Idempotency
from mailyard.sending.answer import Answer as Answered
from mailyard.sending.delivery import Deliveries
from mailyard.sending.request import EmailRequest
from mailyard.sending.states import State
from mailyard.sending.suppress import Suppressions
from mailyard.sending.transport import Outcome
from mailyard.storage.database import Database


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    world = World(database)
    await world.open()
    yield world
    await world.bus.close()


def request(*to: str, **more: object) -> EmailRequest:
    values: dict[str, object] = {"subject": "Hello", "text": "Hi there"}
    values.update(more)
    return EmailRequest(
        sender="App <app@example.org>", to=list(to) or ["ada@example.com"], **values
    )


async def settled(world: World, email_id: UUID, *waiting: str) -> dict[str, str]:
    """The email's recipients and states, once none is in one of the `waiting` states."""
    async with asyncio.timeout(20):
        while True:
            states = await world.states("email_id = $1", email_id)
            if not set(states.values()) & {"queued", "handed_off", *waiting}:
                return states
            await asyncio.sleep(0.02)


async def accept(world: World, wanted: EmailRequest) -> Accepted:
    return (await world.emails.accept(world.workspace_id, wanted)).emails[0]


async def test_an_accepted_email_reaches_every_recipient_in_one_mail(world: World) -> None:
    made = await accept(
        world,
        request(
            "Ada <ada@example.com>",
            "bob@example.com",
            cc=["cc@example.com"],
            bcc=["hidden@example.com", "ADA@example.com"],
        ),
    )
    assert [one.recipient for one in made.recipients] == [
        "ada@example.com",
        "bob@example.com",
        "cc@example.com",
        "hidden@example.com",
    ]
    async with world.workers():
        states = await settled(world, made.id)
    assert set(states.values()) == {"accepted"} and len(states) == 4
    (mail,) = world.ledger.mails
    assert len(mail.recipients) == 4
    assert b"hidden" not in mail.content
    assert ids.type_id(ids.EMAIL, made.id).encode() in mail.content


async def test_a_suppressed_recipient_gets_a_row_and_no_mail(world: World) -> None:
    suppressions = Suppressions(database=world.database)
    await suppressions.add(world.workspace_id, "Bob@Example.com", evidence="asked us")
    made = await accept(world, request("ada@example.com", "bob@example.com"))
    assert [one.state for one in made.recipients] == [State.QUEUED, State.SUPPRESSED]
    async with world.workers():
        states = await settled(world, made.id)
    assert states == {"ada@example.com": "accepted", "bob@example.com": "suppressed"}
    assert world.ledger.left == {"ada@example.com": 1}


async def test_the_same_key_gets_the_first_answer_and_sends_once(world: World) -> None:
    key = Idempotency("order-17", b"hash of the body")
    first, *others = await asyncio.gather(
        *(world.emails.accept(world.workspace_id, request(), key) for _ in range(5))
    )
    later = await world.emails.accept(world.workspace_id, request(), key)
    assert {answer.emails[0].id for answer in [first, *others, later]} == {first.emails[0].id}
    assert later.replayed
    with pytest.raises(IdempotencyMismatch):
        await world.emails.accept(world.workspace_id, request(), Idempotency("order-17", b"other"))
    assert len(await world.emails.page(world.workspace_id)) == 1


async def test_callers_at_once_with_one_key_and_other_bodies_get_one_answer_and_refusals(
    world: World,
) -> None:
    bodies = [b"one", b"two", b"one", b"three"]
    answers = await asyncio.gather(
        *(
            world.emails.accept(world.workspace_id, request(), Idempotency("order-18", body))
            for body in bodies
        ),
        return_exceptions=True,
    )
    taken = [
        (body, one) for body, one in zip(bodies, answers, strict=True) if isinstance(one, Answered)
    ]
    (body,) = {body for body, _ in taken}  # whose turn came first is nobody's to say
    assert len(taken) == bodies.count(body)
    assert sum(not answer.replayed for _, answer in taken) == 1
    assert len({answer.emails[0].id for _, answer in taken}) == 1
    refused = [one for one in answers if isinstance(one, BaseException)]
    assert {type(one) for one in refused} == {IdempotencyMismatch}
    assert len(refused) == len(bodies) - len(taken)


async def test_a_replayed_answer_says_who_was_suppressed_at_first(world: World) -> None:
    suppressions = Suppressions(database=world.database)
    entry = await suppressions.add(world.workspace_id, "bob@example.com", evidence="asked us")
    key, sent = Idempotency("order-19", b"body"), request("ada@example.com", "bob@example.com")
    first = await world.emails.accept(world.workspace_id, sent, key)
    assert [one.state for one in first.emails[0].recipients] == [State.QUEUED, State.SUPPRESSED]
    await suppressions.remove(world.workspace_id, entry.id)
    again = await world.emails.accept(world.workspace_id, sent, key)
    assert again.replayed and again.emails == first.emails


async def test_a_key_that_another_route_is_using_is_in_progress(world: World) -> None:
    routes = Routes(database=world.database)
    assert await routes.begin(world.workspace_id, "order-20", b"body") is None
    with pytest.raises(IdempotencyInProgress):
        await world.emails.accept(world.workspace_id, request(), Idempotency("order-20", b"body"))
    assert await world.emails.page(world.workspace_id) == []


async def test_a_mail_whose_recipients_are_all_suppressed_has_no_job(world: World) -> None:
    suppressions = Suppressions(database=world.database)
    await suppressions.add(world.workspace_id, "bob@example.com", evidence="asked us")
    made = await accept(world, request("bob@example.com"))
    assert [one.state for one in made.recipients] == [State.SUPPRESSED]
    (depth,) = await world.engine.depth([EMAIL_SEND])
    assert depth.ready == 0


async def test_a_batch_stands_or_falls_together(world: World) -> None:
    batch = [request(f"p{number}@example.com") for number in range(1000)]
    answer = await world.emails.accept_many(world.workspace_id, batch)
    assert len(answer.emails) == 1000
    with pytest.raises(InvalidInput) as refused:
        await world.emails.accept_many(
            world.workspace_id, [request(), request("not an address"), request()]
        )
    assert refused.value.field == "emails.1.to.0"
    (depth,) = await world.engine.depth([EMAIL_SEND])
    assert depth.ready == 1000


async def test_concurrent_callers_are_all_durable_when_answered(world: World) -> None:
    answers = await asyncio.gather(
        *(accept(world, request(f"p{number}@example.com")) for number in range(300))
    )
    assert len({answer.id for answer in answers}) == 300
    states = await world.states("workspace_id = $1", world.workspace_id)
    assert len(states) == 300


async def test_a_deferred_recipient_is_tried_again_and_told_so(world: World) -> None:
    answers: list[Answer] = [(Outcome.LATER, 451, "4.3.0 not now"), ACCEPTED]
    made = await accept(world, request())
    delivery_id = made.recipients[0].delivery_id
    async with world.workers(answers=lambda address: answers.pop(0)):
        states = await settled(world, made.id)
        assert states == {"ada@example.com": "deferred"}
        world.clock.advance(31)
        states = await settled(world, made.id, "deferred")
    assert states == {"ada@example.com": "accepted"}
    deliveries = Deliveries(database=world.database)
    delivery, story = await deliveries.get(world.workspace_id, delivery_id)
    assert delivery.attempts == 2
    assert [event.state.value for event in story] == [
        "queued",
        "deferred",
        "handed_off",
        "accepted",
    ]
    assert story[1].detail == "4.3.0 not now" and story[1].reply_code == 451


async def test_a_refused_recipient_has_bounced_and_its_neighbour_has_not(world: World) -> None:
    made = await accept(world, request("gone@example.com", "ada@example.com"))

    def answer(address: str) -> Answer:
        gone = address.startswith("gone")
        return (Outcome.NEVER, 550, "5.1.1 no such user") if gone else ACCEPTED

    async with world.workers(answers=answer):
        states = await settled(world, made.id)
    assert states == {"gone@example.com": "bounced", "ada@example.com": "accepted"}


async def test_after_the_last_attempt_it_has_failed_and_can_be_redriven(world: World) -> None:
    made = await accept(world, request())
    async with world.database.connection() as connection:
        await connection.execute("UPDATE job SET max_attempts = 1")
    answers: list[Answer] = [(Outcome.LATER, 451, "4.3.0 not now"), ACCEPTED]
    async with world.workers(answers=lambda address: answers.pop(0)):
        states = await settled(world, made.id)
        assert states == {"ada@example.com": "failed"}
        (depth,) = await world.engine.depth([EMAIL_SEND])
        assert depth.dead == 1


async def test_what_is_scheduled_waits_and_can_be_cancelled(world: World) -> None:
    at = world.clock.now() + timedelta(hours=1)
    first = await accept(world, request("ada@example.com", send_at=at))
    second = await accept(world, request("bob@example.com", send_at=at))
    async with world.workers():
        await asyncio.sleep(0.3)
        assert not world.ledger.mails
        assert await world.emails.cancel(world.workspace_id, first.id) == ["ada@example.com"]
        world.clock.advance(3601)
        states = await settled(world, second.id)
    assert states == {"bob@example.com": "accepted"}
    assert world.ledger.left == {"bob@example.com": 1}
    with pytest.raises(Conflict):
        await world.emails.cancel(world.workspace_id, second.id)
    with pytest.raises(NotFound):
        await world.emails.cancel(ids.uuid7(), second.id)


async def test_what_is_out_of_time_has_expired(world: World) -> None:
    made = await accept(world, request(expires_at=world.clock.now() + timedelta(minutes=5)))
    world.clock.advance(301)
    async with world.workers():
        states = await settled(world, made.id)
    assert states == {"ada@example.com": "expired"}
    assert not world.ledger.mails


async def test_a_missing_variable_is_an_error_before_anything_is_sent(world: World) -> None:
    template = ids.type_id(ids.TEMPLATE, await world.template())
    wanted = EmailRequest(
        sender="a@example.org",
        to=["ada@example.com"],
        template=template,
        data={"name": "Ada", "city": "Turin"},
    )
    with pytest.raises(InvalidInput, match="plan"):
        await accept(world, wanted)
    assert not await world.emails.page(world.workspace_id)


async def test_the_window_of_transactional_mail_is_kept(world: World) -> None:
    batch = [request(*(f"p{n}-{m}@example.com" for m in range(50))) for n in range(4)]
    answer = await world.emails.accept_many(world.workspace_id, batch)
    async with world.workers():
        for made in answer.emails:
            assert set((await settled(world, made.id)).values()) == {"accepted"}
    assert world.ledger.most_outstanding <= 20
    assert len(world.ledger.left) == 200 and max(world.ledger.left.values()) == 1


async def delivering(world: World) -> tuple[LedgerTransport, asyncio.Task[None]]:
    """A worker in the middle of an email: five recipients are named, no answer has come."""
    transport = LedgerTransport(Ledger())
    transport.stuck = True
    process = Process(world, transport, places=5)
    jobs = await world.engine.lease([EMAIL_SEND], 50, 5.0, "test")
    batch = Batch(jobs, Settler(world.engine), asyncio.Event())
    task = asyncio.create_task(process.deliverer.handle(batch))
    async with asyncio.timeout(20):
        while len(transport.kept) < 5:
            await asyncio.sleep(0.01)
    return transport, task


async def test_a_stalled_worker_that_wakes_names_nobody_of_its_successors(world: World) -> None:
    made = await accept(world, request(*(f"p{number}@example.com" for number in range(20))))
    stalled, waking = await delivering(world)
    await world.next_lease()
    successor, running = await delivering(world)
    stalled.let_go()
    async with asyncio.timeout(20):
        await asyncio.wait([waking])
    assert len(stalled.ledger.left) == 5, "whoever lost the lease names nobody more"
    successor.let_go()
    async with asyncio.timeout(20):
        await running
    assert await settled(world, made.id) == {
        f"p{number}@example.com": "accepted" for number in range(20)
    }
    assert len(successor.ledger.left) == 20 and max(successor.ledger.left.values()) == 1
    async with world.database.connection() as connection:
        told = await connection.fetch(
            "SELECT d.recipient, d.attempts FROM delivery_event e"
            " JOIN delivery d ON d.id = e.delivery_id"
            " WHERE e.workspace_id = $1 AND e.state = 'unknown'",
            world.workspace_id,
        )
    assert {row["recipient"]: row["attempts"] for row in told} == dict.fromkeys(
        stalled.ledger.left, 2
    )


async def test_history_is_read_by_each_index_and_by_nobody_else(world: World) -> None:
    made = await accept(world, request("Ada@example.com", "bob@example.com", type="receipt"))
    await accept(world, request("ada@example.com", type="welcome"))
    deliveries = Deliveries(database=world.database)
    me = world.workspace_id
    assert len((await deliveries.page(me, recipient="ADA@Example.com")).items) == 2
    assert len((await deliveries.page(me, recipient="ada@example.com", type="welcome")).items) == 1
    assert len((await deliveries.page(me, type="receipt")).items) == 2
    assert len((await deliveries.page(me, state=State.QUEUED)).items) == 3
    assert len((await deliveries.page(me, state=State.QUEUED, type="receipt")).items) == 2
    assert len((await deliveries.page_of_email(me, made.id)).items) == 2
    assert not (await deliveries.page(ids.uuid7(), recipient="ada@example.com")).items
    assert not (
        await deliveries.page(
            me, until=datetime(2026, 1, 2, tzinfo=UTC), since=datetime(2026, 1, 1, tzinfo=UTC)
        )
    ).items
    first = await deliveries.page(me, limit=2)
    rest = await deliveries.page(me, limit=2, before=first.before)
    assert len(first.items) == 2 and len(rest.items) == 1 and rest.before is None
    with pytest.raises(NotFound):
        await deliveries.get(ids.uuid7(), made.recipients[0].delivery_id)
