"""A workspace's own limits: counted exactly, answered in time, shown; and what is withdrawn."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from api_platform import Platform, start
from sending_world import LedgerTransport, Process, World

from mailyard.access.authenticate import SESSION_COOKIE
from mailyard.core import ids
from mailyard.core.errors import Conflict, InvalidInput, MailyardError, NotFound, RateLimited
from mailyard.queue.batch import Batch
from mailyard.queue.job import EMAIL_SEND
from mailyard.queue.settle import Settler
from mailyard.sending.accept import Emails
from mailyard.sending.allowance import Allowances, Limits
from mailyard.sending.answer import Idempotency
from mailyard.sending.request import EmailRequest
from mailyard.storage.database import Database


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    world = World(database)
    await world.open()
    yield world
    await world.bus.close()


def process_of(world: World) -> Emails:
    """What another API process has: its own group and its own memory of limits."""
    return Emails(
        database=world.database, engine=world.engine, templates=world.templates, clock=world.clock
    )


def request(recipients: int = 1, **more: object) -> EmailRequest:
    to = [f"person{number}@example.com" for number in range(recipients)]
    return EmailRequest(sender="App <app@example.org>", to=to, subject="Hi", text="x", **more)


async def limit(world: World, **limits: object) -> Allowances:
    allowances = Allowances(database=world.database, clock=world.clock)
    await allowances.write(world.workspace_id, Limits(**limits))
    return allowances


async def rows(world: World, query: str) -> int:
    async with world.database.connection() as connection:
        return int(await connection.fetchval(query))


async def test_a_quota_is_reached_and_never_passed_however_many_accept_at_once(
    world: World,
) -> None:
    allowances = await limit(world, emails_per_day=100)
    processes = [process_of(world) for _ in range(3)]
    sizes = [1, 2, 3] * 30

    async def send(number: int, size: int) -> int:
        key = Idempotency(f"k{number}", b"x")
        try:
            await processes[number % 3].accept(world.workspace_id, request(size), key)
        except RateLimited as error:
            assert 0 < error.retry_after_s <= 86_400
            return 0
        return size

    taken = await asyncio.gather(*(send(number, size) for number, size in enumerate(sizes)))
    assert 98 <= sum(taken) <= 100, "what is left is less than somebody wanted"
    taken += [await send(len(sizes) + number, 1) for number in range(3)]
    assert sum(taken) == 100
    assert await rows(world, "SELECT count(*) FROM delivery") == 100
    assert await rows(world, "SELECT count(*) FROM idempotency_key") == sum(map(bool, taken))
    assert (await allowances.use(world.workspace_id, Limits())).used == 100


async def test_a_refused_request_comes_again_under_its_key_and_a_repeated_one_costs_nothing(
    world: World,
) -> None:
    await limit(world, emails_per_day=2, time_zone="Asia/Kolkata")
    emails = process_of(world)
    key, other = Idempotency("a", b"x"), Idempotency("b", b"y")
    first = await emails.accept(world.workspace_id, request(2), key)
    assert (await emails.accept(world.workspace_id, request(2), key)).emails == first.emails
    for _ in range(2):
        with pytest.raises(RateLimited) as caught:
            await emails.accept(world.workspace_id, request(), other)
    midnight = world.clock.now() + timedelta(seconds=caught.value.retry_after_s)
    assert (midnight + timedelta(hours=5, minutes=30)).strftime("%H:%M:%S") == "00:00:00"
    with pytest.raises(InvalidInput, match="more recipients than the day's quota"):
        await emails.accept(world.workspace_id, request(3))
    world.clock.advance(caught.value.retry_after_s)
    assert not (await emails.accept(world.workspace_id, request(), other)).replayed


async def test_a_rate_lets_a_seconds_worth_through_and_says_when_to_come_back(
    world: World,
) -> None:
    await limit(world, emails_per_s=5.0)
    emails = process_of(world)

    async def send() -> float:
        try:
            await emails.accept(world.workspace_id, request())
        except RateLimited as error:
            return error.retry_after_s
        return 0.0

    waits = await asyncio.gather(*(send() for _ in range(8)))
    assert sorted(waits)[:6] == [0.0] * 5 + [pytest.approx(0.2, abs=0.05)]
    world.clock.advance(max(waits) + 0.001)  # a Retry-After is rounded up
    assert await send() == 0.0


async def test_the_api_answers_429_with_the_wait_and_shows_what_is_used(
    database: Database,
) -> None:
    platform: Platform = await start(database, with_pages=True)
    session = await platform.app.sessions.start(
        platform.first.user_id, platform.workspace_id, "a browser"
    )
    cookie = {"cookie": f"{SESSION_COOKIE}={session.token}"}
    path, mail = "/v1/workspace/limits", {"from": "a@b.example", "to": ["c@d.example"], "text": "x"}
    assert (await platform.call("GET", path)).json["time_zone"] == "UTC"
    body = {"emails_per_day": 1, "quiet_from": "22:00", "quiet_until": "08:00"}
    changed = await platform.call("PATCH", path, json=body)
    assert changed.status == 200, changed.body
    assert (await platform.call("POST", "/v1/emails", json=mail)).status == 202
    refused = await platform.call("POST", "/v1/emails", json=mail)
    assert (refused.status, refused.json["code"]) == (429, "rate_limited")
    assert 0 < int(refused.headers["retry-after"]) <= 86_401
    assert "quota of 1 emails a day" in refused.json["detail"]
    page = (await platform.call("GET", "/limits", key=None, headers=cookie)).body.decode()
    assert "1 of 1 used" in page and 'value="22:00"' in page
    shown = (await platform.call("PATCH", path, json={"emails_per_day": None})).json
    assert (shown["used_today"], shown["quiet_from"], shown["emails_per_day"]) == (1, "22:00", None)
    for wrong, field in (
        ({"time_zone": "Mars"}, "time_zone"),
        ({"quiet_from": None}, "quiet_until"),
        ({"quiet_from": "08:00"}, "quiet_until"),
        ({"quiet_from": "29:00"}, "quiet_from"),
        ({"campaigns_days": 3}, "campaigns_days"),
    ):
        reply = await platform.call("PATCH", path, json=wrong)
        assert (reply.status, reply.json["field"]) == (422, field), wrong
    key = await platform.key_with("emails:read")
    assert (await platform.call("PATCH", path, json={}, key=key)).status == 403
    await platform.close()


async def deliver(world: World, process: Process) -> None:
    jobs = await world.engine.lease([EMAIL_SEND], 50, 0.0, "test")
    await process.deliverer.handle(Batch(jobs, Settler(world.engine), asyncio.Event()))


async def test_a_code_whose_time_runs_out_while_it_waits_for_its_turn_is_not_sent(
    world: World,
) -> None:
    soon = world.clock.now() + timedelta(seconds=30)
    made = await world.emails.accept(world.workspace_id, request(3, expires_at=soon))
    process = Process(world, LedgerTransport(world.ledger), places=1)
    transport = process.transport
    transport.stuck = True
    running = asyncio.create_task(deliver(world, process))
    while not transport.kept:
        await asyncio.sleep(0.01)
    world.clock.advance(31)
    transport.let_go()
    await running
    states = await world.states("email_id = $1", made.emails[0].id)
    assert sorted(states.values()) == ["accepted", "expired", "expired"]
    assert world.ledger.left.total() == 1


async def test_one_recipient_is_withdrawn_and_the_others_get_theirs(world: World) -> None:
    made = (await world.emails.accept(world.workspace_id, request(3))).emails[0]
    gone, *others = made.recipients
    assert await world.emails.cancel_delivery(world.workspace_id, gone.delivery_id) == "queued"
    with pytest.raises(Conflict):
        await world.emails.cancel_delivery(world.workspace_id, gone.delivery_id)
    with pytest.raises(NotFound):
        await world.emails.cancel_delivery(ids.uuid7(), others[0].delivery_id)
    await deliver(world, Process(world, LedgerTransport(world.ledger)))
    assert set(world.ledger.left) == {one.recipient for one in others}
    with pytest.raises(Conflict):
        await world.emails.cancel_delivery(world.workspace_id, others[0].delivery_id)
    states = await world.states("email_id = $1", made.id)
    assert states.pop(gone.recipient) == "cancelled" and set(states.values()) == {"accepted"}


async def test_what_is_urgent_goes_first(world: World) -> None:
    for priority in ("low", "normal", "high"):
        await world.emails.accept(
            world.workspace_id, request(priority=priority, type=f"t-{priority}")
        )
    order = []
    for _ in range(3):
        (job,) = await world.engine.lease([EMAIL_SEND], 1, 0.0, "test")
        order.append(
            await rows(
                world,
                f"SELECT 1 + position(type in 't-high t-normal t-low') "
                f"FROM email WHERE id = '{job.payload.hex()}'",
            )
        )
    assert order == sorted(order)
    with pytest.raises(MailyardError):
        await world.emails.accept(world.workspace_id, request(priority="urgent"))
