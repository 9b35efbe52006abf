"""When campaigns go and to whom not: schedules, zones, quiet hours, quotas, frequency caps."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, time, timedelta
from uuid import UUID

import pytest
from sending_world import LedgerTransport, Process, World

from mailyard.campaigns import plan, timing
from mailyard.campaigns.campaign_value import NewCampaign
from mailyard.campaigns.start import Starter
from mailyard.campaigns.states import State
from mailyard.core import ids
from mailyard.core.errors import InvalidInput
from mailyard.queue.batch import Batch
from mailyard.queue.engines.postgres import PostgresEngine
from mailyard.queue.job import EMAIL_BULK
from mailyard.queue.settle import Settler
from mailyard.sending.allowance import Allowances, Limits
from mailyard.sending.local_time import QuietHours
from mailyard.sending.request import EmailRequest
from mailyard.sending.transport import Outcome
from mailyard.storage.database import Database

NOON = datetime(2029, 1, 10, 12, tzinfo=UTC)


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    """It is noon in Greenwich."""
    world = World(database)
    await world.open()
    # Instants of members and starts are the database's: what is due is not.
    yield world
    await world.bus.close()


def next_noon(world: World) -> datetime:
    """Move the clock to the next noon in Greenwich; that instant."""
    now = world.clock.now()
    noon = datetime.combine(now.date() + timedelta(days=1), time(12), UTC)
    world.clock.advance((noon - now).total_seconds())
    return noon


async def people(world: World, first: int, count: int, zone: str = "") -> list[str]:
    attributes = '{"city": "Turin", "plan": "gold"'
    attributes += f', "timezone": "{zone}"}}' if zone else "}"
    return await world.add_contacts(count, attributes, first)


async def limit(world: World, **limits: object) -> None:
    await Allowances(database=world.database).write(world.workspace_id, Limits(**limits))  # type: ignore[arg-type]


async def draft(world: World, **more: object) -> UUID:
    made = await world.campaigns.create(
        world.workspace_id,
        NewCampaign(
            name="Spring",
            list=ids.type_id(ids.LIST, world.list_id),
            template=ids.type_id(ids.TEMPLATE, await world.template()),
            sender="Shop <shop@example.org>",
            **more,  # type: ignore[arg-type]
        ),
    )
    return made.id


async def work(world: World, process: Process) -> None:
    """Do all that is due now."""
    handlers = {
        handler.kind: handler
        for handler in (
            process.planner.handler(),
            process.chunks.handler(),
            process.retries.handler(),
            Starter(campaigns=world.campaigns).handler(),
        )
    }
    engine = PostgresEngine(database=world.database, bus=world.bus, clock=world.clock, upkeep_s=0)
    while jobs := await engine.lease([EMAIL_BULK], 1, 0.0, "test"):
        await handlers[jobs[0].kind].handle(Batch(jobs, Settler(engine), asyncio.Event()))
        await engine.complete(jobs)


def process_of(world: World) -> Process:
    return Process(world, LedgerTransport(world.ledger))


async def start(world: World, campaign_id: UUID) -> None:
    await world.campaigns.start(world.workspace_id, campaign_id)


async def test_a_campaign_begins_at_its_instant_and_only_if_it_is_still_scheduled(
    world: World,
) -> None:
    addresses = await people(world, 0, 3)
    at = world.clock.now() + timedelta(hours=1)
    first, withdrawn = await draft(world, send_at=at), await draft(world, send_at=at)
    for campaign_id in (first, withdrawn):
        await start(world, campaign_id)
        assert (await world.progress(campaign_id)).state is State.SCHEDULED
    await world.campaigns.pause(world.workspace_id, withdrawn)
    process = process_of(world)
    await work(world, process)
    assert not world.ledger.left
    world.clock.advance(3601)
    await work(world, process)
    assert (await world.progress(first)).state is State.FINISHED
    assert (await world.progress(withdrawn)).state is State.DRAFT
    assert world.ledger.left == dict.fromkeys(addresses, 1)
    await start(world, withdrawn)
    assert (await world.progress(withdrawn)).state is State.RUNNING


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"send_at": datetime(2030, 1, 1, tzinfo=UTC), "local_time": "2030-01-01T09:00"}, "local"),
        ({"local_time": "tomorrow"}, "local_time"),
        ({"local_time": "2200-01-01T09:00"}, "local_time"),
        ({"send_at": datetime(2200, 1, 1, tzinfo=UTC)}, "send_at"),
        ({"send_at": datetime(2030, 1, 1)}, "send_at"),
    ],
)
async def test_a_time_that_makes_no_sense_is_refused(
    world: World, more: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await draft(world, **more)
    assert caught.value.field is not None and caught.value.field.startswith(field)


async def test_everybody_gets_it_at_nine_by_his_own_clock(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "CAMPAIGN_CHUNK_RECIPIENTS", 4)
    monkeypatch.setattr(timing, "PLACED_STEP_MEMBERS", 7)
    await limit(world, time_zone="Europe/London")
    noon = next_noon(world)
    tokyo = await people(world, 0, 6, "Asia/Tokyo")
    york = await people(world, 10, 5, "America/New_York")
    nowhere = await people(world, 20, 3, "Middle/Earth") + await people(world, 30, 2)
    tomorrow = noon.date() + timedelta(days=1)
    campaign_id = await draft(world, local_time=f"{tomorrow}T09:00")
    process = process_of(world)
    await start(world, campaign_id)
    reached: list[tuple[int, set[str]]] = []
    for hour in range(27):
        before = set(world.ledger.left)
        await work(world, process)
        fresh = set(world.ledger.left) - before
        if fresh:
            reached.append((hour, fresh))
        world.clock.advance(3600)
    # It is winter: Tokyo is nine hours ahead of Greenwich, New York five behind.
    winter = noon.month in (1, 2, 11, 12)
    assert [people for _, people in reached] == [set(tokyo), set(nowhere), set(york)]
    assert not winter or [hour for hour, _ in reached] == [12, 21, 26]
    assert set(world.ledger.left.values()) == {1}
    assert (await world.progress(campaign_id)).state is State.FINISHED


async def test_who_moves_to_another_zone_meanwhile_gets_it_once(world: World) -> None:
    next_noon(world)
    (address,) = await people(world, 0, 1, "Asia/Tokyo")
    await people(world, 1, 1, "America/New_York")
    tomorrow = world.clock.now().date() + timedelta(days=1)
    campaign_id = await draft(world, local_time=f"{tomorrow}T09:00")
    process = process_of(world)
    await start(world, campaign_id)
    await work(world, process)
    for zone in ("America/New_York", "Asia/Tokyo"):
        async with world.database.connection() as connection:
            await connection.execute(
                "UPDATE contact"
                " SET attributes = attributes || jsonb_build_object('timezone', $1::text)",
                zone,
            )
        world.clock.advance(15 * 3600)
        await work(world, process)
    assert world.ledger.left[address] == 1 and world.ledger.left.total() == 2


async def test_quiet_hours_hold_a_campaign_back_where_it_is_night(world: World) -> None:
    await limit(world, quiet=QuietHours(time(21), time(8)))
    next_noon(world)
    here = await people(world, 0, 3)
    tokyo = await people(world, 10, 2, "Asia/Tokyo")  # it is nine in the evening there
    campaign_id = await draft(world)
    process = process_of(world)
    await start(world, campaign_id)
    await work(world, process)
    assert set(world.ledger.left) == set(here)
    world.clock.advance(11 * 3600 - 60)
    await work(world, process)
    assert set(world.ledger.left) == set(here)
    world.clock.advance(120)
    await work(world, process)
    assert set(world.ledger.left) == {*here, *tokyo}
    assert (await world.progress(campaign_id)).state is State.FINISHED


async def test_a_retry_waits_for_the_end_of_quiet_hours(world: World) -> None:
    await limit(world, quiet=QuietHours(time(12, 0, 30), time(14)))
    (address,) = await people(world, 0, 1)
    next_noon(world)
    tries = Counter[str]()

    def answers(to: str) -> tuple[Outcome, int | None, str]:
        tries[to] += 1
        if tries[to] == 1:
            return Outcome.LATER, 451, "later"
        return Outcome.ACCEPTED, 250, "ok"

    process = Process(world, LedgerTransport(world.ledger, answers))
    campaign_id = await draft(world)
    await start(world, campaign_id)
    await work(world, process)
    for minutes, tried in ((30, 1), (80, 1), (15, 2)):
        world.clock.advance(minutes * 60)
        await work(world, process)
        assert tries[address] == tried, minutes
    assert (await world.progress(campaign_id)).state is State.FINISHED


async def test_a_contact_gets_so_many_campaigns_in_so_many_days_and_no_more(world: World) -> None:
    await limit(world, campaigns_per_contact=2, campaigns_days=7)
    addresses = await people(world, 0, 4)
    process = process_of(world)
    runs = [await draft(world) for _ in range(3)]
    for campaign_id in runs:
        await start(world, campaign_id)
        await work(world, process)
    assert world.ledger.left == dict.fromkeys(addresses, 2)
    last = await world.progress(runs[2])
    assert (last.state, last.counts["suppressed"]) == (State.FINISHED, 4)
    async with world.database.connection() as connection:
        replies = await connection.fetch(
            "SELECT reply FROM delivery WHERE campaign_id = $1", runs[2]
        )
    assert {row["reply"] for row in replies} == {"the recipient has had 2 campaigns in 7 days"}
    world.clock.advance(8 * 86_400)
    again = await draft(world)
    await start(world, again)
    await work(world, process)
    assert world.ledger.left == dict.fromkeys(addresses, 3)


async def test_campaigns_at_the_same_time_share_a_cap_to_the_last_place(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "CAMPAIGN_CHUNK_RECIPIENTS", 25)
    await limit(world, campaigns_per_contact=1, campaigns_days=1)
    addresses = await people(world, 0, 100)
    runs = [await draft(world) for _ in range(4)]
    async with world.workers(3):
        await asyncio.gather(*(start(world, campaign_id) for campaign_id in runs))
        ended = await asyncio.gather(
            *(world.until(campaign_id, State.FINISHED) for campaign_id in runs)
        )
    assert world.ledger.left == dict.fromkeys(addresses, 1)
    assert sum(progress.counts["suppressed"] for progress in ended) == 300


async def test_a_quota_that_is_used_up_holds_a_campaign_until_the_next_day(world: World) -> None:
    await limit(world, emails_per_day=50, time_zone="UTC")
    next_noon(world)
    addresses = await people(world, 0, 80)
    campaign_id = await draft(world)
    process = process_of(world)
    await start(world, campaign_id)
    for _ in range(3):
        await work(world, process)
        world.clock.advance(300)
    assert world.ledger.left.total() == 50
    world.clock.advance(12 * 3600)
    await work(world, process)
    assert world.ledger.left == dict.fromkeys(addresses, 1)
    assert (await world.progress(campaign_id)).state is State.FINISHED
    use = await Allowances(database=world.database, clock=world.clock).use(
        world.workspace_id, Limits()
    )
    assert use.used == 30


async def test_an_email_goes_at_nine_on_its_recipients_clocks(world: World) -> None:
    await limit(world, quiet=QuietHours(time(8), time(10)))
    noon = next_noon(world)
    nine = (noon + timedelta(days=1)).strftime("%Y-%m-%dT09:00")
    (tokyo,) = await people(world, 0, 1, "Asia/Tokyo")
    (utc,) = await people(world, 1, 1)

    async def due(to: list[str], at: str, **more: object) -> datetime | None:
        request = EmailRequest(sender="a@example.org", to=to, text="x", local_time=at, **more)  # type: ignore[arg-type]
        made = await world.emails.accept(world.workspace_id, request)
        return (await world.emails.get(world.workspace_id, made.emails[0].id)).send_at

    assert await due([tokyo], nine) == noon + timedelta(hours=12)
    assert await due([utc], nine) == noon + timedelta(hours=21)
    assert await due([tokyo, utc], nine) == noon + timedelta(hours=21), "nobody gets it before"
    assert await due([tokyo], noon.strftime("%Y-%m-%dT20:00")) is None, "it is nine there now"
    assert await due([utc], nine, quiet_hours=True) == noon + timedelta(hours=22)
    for wrong in ("nine", "2029-13-01T09:00"):
        with pytest.raises(InvalidInput):
            await due([utc], wrong)
    with pytest.raises(InvalidInput, match="send_at or local_time"):
        await due([utc], nine, send_at=noon + timedelta(hours=1))
    with pytest.raises(InvalidInput, match="expired before"):
        await due([utc], nine, expires_at=noon + timedelta(hours=1))


async def test_an_email_that_asks_for_it_waits_for_the_end_of_quiet_hours(world: World) -> None:
    await limit(world, quiet=QuietHours(time(21), time(8)))
    noon = next_noon(world)
    (tokyo,) = await people(world, 0, 1, "Asia/Tokyo")
    (utc,) = await people(world, 1, 1)

    async def due(to: list[str], **more: object) -> datetime | None:
        request = EmailRequest(sender="a@example.org", to=to, text="x", quiet_hours=True, **more)  # type: ignore[arg-type]
        made = await world.emails.accept(world.workspace_id, request)
        return (await world.emails.get(world.workspace_id, made.emails[0].id)).send_at

    assert await due([utc]) is None
    assert await due([tokyo]) == noon + timedelta(hours=11)
    assert await due([tokyo, "stranger@example.com"]) == noon + timedelta(hours=20)
    with pytest.raises(InvalidInput):
        await due([tokyo], expires_at=noon + timedelta(hours=1))
