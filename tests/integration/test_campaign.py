"""A campaign from its start to its end, with real jobs and rows and a transport with books."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import UUID

import pytest
from sending_world import ACCEPTED, Answer, Ledger, LedgerTransport, Process, World

from mailyard.cache.adapters.memory import MemoryCache
from mailyard.campaigns import plan
from mailyard.campaigns.personal import CachedPersonal
from mailyard.campaigns.states import State
from mailyard.campaigns.topic import Topics
from mailyard.core.errors import Conflict, InvalidInput
from mailyard.core.ids import deterministic_uuid7
from mailyard.queue.batch import Batch
from mailyard.queue.job import EMAIL_BULK
from mailyard.queue.settle import Settler
from mailyard.sending.delivery import Deliveries, unix_ms
from mailyard.sending.suppress import Suppressions
from mailyard.sending.transport import Outcome
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
    page = await Deliveries(database=world.database).page_of_campaign(
        world.workspace_id,
        campaign_id,
        (await world.campaigns.get(world.workspace_id, campaign_id)).first_started_at,  # type: ignore[arg-type]
        limit=500,
    )
    assert len(page.items) == 500
    assert world.ledger.most_outstanding <= 40, "two processes, twenty places each"
    content = world.ledger.mails[0].content
    assert b"Person in Turin" in content and b"List-Unsubscribe: <https://example.org/u/" in content


async def test_mails_know_what_their_readers_want_and_keep_the_version_of_the_start(
    world: World,
) -> None:
    world.templates.personal = CachedPersonal(database=world.database, cache=MemoryCache())
    first, *_ = await world.add_contacts(3, '{"city": "Turin", "locale": "it"}')
    topics = Topics(database=world.database)
    news = await topics.create(world.workspace_id, "News")
    await topics.create(world.workspace_id, "Sales", on_request=True)
    async with world.database.transaction() as tx:
        await topics.choose(world.workspace_id, first, {news.id: False}, tx)
    template_id = await world.template()
    campaign_id = await world.campaign(template_id)
    subject = (
        '{{ contact.city }} {{ 1.5|number }}{% if preferences["News"] %} news{% endif %}'
        '{% if preferences["Sales"] %} sales{% endif %}'
    )
    service, workspace_id = world.templates, world.workspace_id
    await service.publish(workspace_id, template_id, await service.prove(subject, "h", "t"))
    await world.campaigns.start(workspace_id, campaign_id)
    assert (await world.campaigns.get(workspace_id, campaign_id)).template_version == 2
    await service.publish(workspace_id, template_id, await service.prove("too late", "h", "t"))
    await service.close()
    async with world.workers(1):
        await world.until(campaign_id, State.FINISHED)
    subjects = Counter(
        line
        for mail in world.ledger.mails
        for line in mail.content.split(b"\r\n")
        if line.startswith(b"Subject: ")
    )
    assert subjects == {b"Subject: Turin 1,5": 1, b"Subject: Turin 1,5 news": 2}


async def test_the_rows_of_a_chunk_stand_together(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "CAMPAIGN_CHUNK_RECIPIENTS", 50)
    await world.add_contacts(300)
    campaign_id = await world.campaign()
    async with world.workers(2):
        await world.campaigns.start(world.workspace_id, campaign_id)
        await world.until(campaign_id, State.FINISHED)
    rows = await world.database.fetch(
        "SELECT contact_id FROM delivery WHERE campaign_id = $1 ORDER BY id", campaign_id
    )
    contacts = [row["contact_id"] for row in rows]
    in_order = sorted(contacts)
    for first in range(0, 300, 50):
        assert set(contacts[first : first + 50]) == set(in_order[first : first + 50])


async def test_a_campaign_from_before_ids_had_groups_keeps_its_ids(world: World) -> None:
    """What an older version recorded must not stand a second time under another id."""
    addresses = await world.add_contacts(60)
    campaign_id = await world.campaign()
    await world.database.execute(
        "UPDATE campaign SET ids_by_chunk = false WHERE id = $1", campaign_id
    )
    async with world.workers():
        await world.campaigns.start(world.workspace_id, campaign_id)
        await world.until(campaign_id, State.FINISHED)
    campaign = await world.campaigns.get(world.workspace_id, campaign_id)
    assert campaign.first_started_at is not None
    rows = await world.database.fetch("SELECT id FROM delivery WHERE campaign_id = $1", campaign_id)
    assert {row["id"] for row in rows} == {
        deterministic_uuid7(unix_ms(campaign.first_started_at), campaign_id.bytes, address.encode())
        for address in addresses
    }


async def test_pause_and_resume_miss_nobody_and_repeat_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "CAMPAIGN_CHUNK_RECIPIENTS", 50)
    addresses = await world.add_contacts(600)
    campaign_id = await world.campaign()
    me = world.workspace_id
    async with world.workers(2):
        await world.campaigns.start(me, campaign_id)
        for _ in range(6):
            await asyncio.sleep(0.05)
            try:
                await world.campaigns.pause(me, campaign_id)
            except Conflict:
                break  # it was faster
            await asyncio.sleep(0.03)
            await world.campaigns.resume(me, campaign_id)
        progress = await world.until(campaign_id, State.FINISHED)
    assert world.ledger.left == dict.fromkeys(addresses, 1)
    assert progress.counts["accepted"] == 600 and progress.counts["unknown"] == 0


async def test_a_paused_campaign_stands_still(world: World) -> None:
    await world.add_contacts(300)
    campaign_id = await world.campaign()
    me = world.workspace_id
    async with world.workers() as (process,):
        process.transport.stuck = True
        await world.campaigns.start(me, campaign_id)
        async with asyncio.timeout(20):
            while not process.transport.kept:
                await asyncio.sleep(0.01)
        await world.campaigns.pause(me, campaign_id)
        process.transport.let_go()
        async with asyncio.timeout(20):
            while world.ledger.outstanding or (await world.engine.depth([EMAIL_BULK]))[0].leased:
                await asyncio.sleep(0.02)
        left = sum(world.ledger.left.values())
        assert 0 < left <= 20
        progress = await world.progress(campaign_id)
        assert (progress.counts["accepted"], progress.waiting) == (left, 300 - left)
        await world.campaigns.resume(me, campaign_id)
        await world.until(campaign_id, State.FINISHED)
    assert len(world.ledger.left) == 300 and max(world.ledger.left.values()) == 1


async def test_resume_goes_on_with_chunks_whose_job_was_buried(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "CAMPAIGN_CHUNK_RECIPIENTS", 50)
    addresses = await world.add_contacts(150)
    campaign_id = await world.campaign()
    me = world.workspace_id
    planner = plan.Planner(database=world.database, engine=world.engine, clock=world.clock)
    await world.campaigns.start(me, campaign_id)
    while (await world.engine.depth([EMAIL_BULK]))[0].dead < 3:
        for job in await world.engine.lease([EMAIL_BULK], 10, 1.0, "doomed"):
            if job.kind == plan.PLAN:
                await planner.handle(Batch([job], Settler(world.engine), asyncio.Event()))
                continue
            async with world.database.connection() as connection:
                await connection.execute(
                    "UPDATE campaign_chunk SET state = 'running', fence = $2"
                    " WHERE campaign_id = $1 AND number = $3",
                    campaign_id,
                    job.token,
                    int.from_bytes(job.payload[16:20], "big"),
                )
            await world.engine.bury([job], "its worker died three times")
    async with world.workers(2):
        await world.campaigns.pause(me, campaign_id)
        await world.campaigns.resume(me, campaign_id)
        await world.until(campaign_id, State.FINISHED)
    assert world.ledger.left == dict.fromkeys(addresses, 1)


async def test_a_cancelled_campaign_writes_to_nobody_more(world: World) -> None:
    await world.add_contacts(300)
    campaign_id = await world.campaign()
    me = world.workspace_id
    async with world.workers() as (process,):
        process.transport.stuck = True
        await world.campaigns.start(me, campaign_id)
        async with asyncio.timeout(20):
            while not process.transport.kept:
                await asyncio.sleep(0.01)
        await world.campaigns.cancel(me, campaign_id)
        process.transport.let_go()
    assert sum(world.ledger.left.values()) <= 20
    states = await world.states("campaign_id = $1", campaign_id)
    assert set(states) == set(world.ledger.left), "what had left is recorded"
    with pytest.raises(Conflict):
        await world.campaigns.resume(me, campaign_id)


async def test_the_suppressed_and_the_incomplete_get_a_row_and_no_mail(world: World) -> None:
    addresses = await world.add_contacts(200)
    await world.add_contacts(3, attributes='{"city": "Turin"}', first=1000)
    await Suppressions(database=world.database).add_many(
        world.workspace_id, addresses[:10], stream="campaign"
    )
    campaign_id = await world.campaign()
    async with world.workers():
        await world.campaigns.start(world.workspace_id, campaign_id)
        progress = await world.until(campaign_id, State.FINISHED)
    assert progress.counts["suppressed"] == 10
    assert progress.counts["failed"] == 3
    assert progress.counts["accepted"] == 190
    assert set(world.ledger.left) == set(addresses[10:])


async def named_by_a_worker(world: World) -> tuple[LedgerTransport, asyncio.Task[None]]:
    """A worker in the middle of a chunk: five recipients are named, no answer has come."""
    process = Process(world, LedgerTransport(Ledger()), places=5)
    process.transport.stuck = True
    task = asyncio.create_task(process.worker.run())
    async with asyncio.timeout(20):
        while len(process.transport.kept) < 5:
            await asyncio.sleep(0.01)
    return process.transport, task


async def set_attributes(world: World, address: str, attributes: str) -> None:
    async with world.database.connection() as connection:
        await connection.execute(
            "UPDATE contact SET attributes = $1::jsonb WHERE address = $2", attributes, address
        )


async def test_who_is_no_longer_suppressed_at_the_resume_is_written_to_and_counted(
    world: World,
) -> None:
    addresses = await world.add_contacts(20)
    me, suppressions = world.workspace_id, Suppressions(database=world.database)
    suppressed = await suppressions.add_many(me, addresses[6:9], stream="campaign")
    campaign_id = await world.campaign()
    await world.campaigns.start(me, campaign_id)
    await set_attributes(world, addresses[9], "{}")
    transport, working = await named_by_a_worker(world)
    await world.campaigns.pause(me, campaign_id)
    transport.let_go()
    async with asyncio.timeout(20):
        while (await world.engine.depth([EMAIL_BULK]))[0].leased:
            await asyncio.sleep(0.02)
    working.cancel()
    await asyncio.wait([working])
    assert len(await world.states("campaign_id = $1", campaign_id)) == 5, "nobody else was passed"

    for entry in suppressed:
        await suppressions.remove(me, entry.id)
    await set_attributes(world, addresses[9], '{"city": "Turin", "plan": "gold"}')
    await world.campaigns.resume(me, campaign_id)
    async with world.workers():
        progress = await world.until(campaign_id, State.FINISHED)
    assert progress.counts["accepted"] == 20 and progress.waiting == 0
    states = await world.states("campaign_id = $1", campaign_id)
    assert states == dict.fromkeys(addresses, "accepted")


async def test_a_contact_deleted_after_it_was_named_is_counted_unknown(world: World) -> None:
    addresses = await world.add_contacts(20)
    campaign_id = await world.campaign()
    await world.campaigns.start(world.workspace_id, campaign_id)
    transport, dying = await named_by_a_worker(world)
    dying.cancel()
    await asyncio.wait([dying])
    gone = [next(iter(transport.ledger.left)), addresses[-1]]  # one was named, one not yet
    async with world.database.connection() as connection:
        await connection.execute(
            "WITH left_list AS (DELETE FROM list_member USING contact"
            " WHERE contact.id = contact_id AND address = ANY ($1))"
            " DELETE FROM contact WHERE address = ANY ($1)",
            gone,
        )
    await world.next_lease()
    async with world.workers():
        progress = await world.until(campaign_id, State.FINISHED)
    assert (progress.counts["unknown"], progress.counts["accepted"]) == (5, 14)
    states = await world.states("campaign_id = $1", campaign_id)
    assert Counter(states.values()) == {"unknown": 4, "accepted": 14}
    assert not set(gone) & set(states), "who is deleted has no row, only a place in the counts"


async def test_a_template_that_the_list_cannot_fill_stops_the_start(world: World) -> None:
    await world.add_contacts(3, attributes="{}")
    campaign_id = await world.campaign()
    with pytest.raises(InvalidInput, match="city"):
        await world.campaigns.start(world.workspace_id, campaign_id)
    assert (await world.progress(campaign_id)).state is State.DRAFT


async def test_deferred_recipients_are_tried_again_and_end_it(world: World) -> None:
    await world.add_contacts(100)
    campaign_id = await world.campaign()
    asked: Counter[str] = Counter()

    def answer(address: str) -> Answer:
        asked[address] += 1
        if address < "person3":
            return (Outcome.LATER, 450, "4.2.1 later") if asked[address] < 3 else ACCEPTED
        return (Outcome.NEVER, 550, "5.1.1 no") if address.startswith("person9") else ACCEPTED

    async with world.workers(answers=answer):
        await world.campaigns.start(world.workspace_id, campaign_id)
        async with asyncio.timeout(30):
            while (await world.progress(campaign_id)).state is not State.FINISHED:
                await asyncio.sleep(0.02)
                if not (await world.engine.depth([EMAIL_BULK]))[0].leased:
                    world.clock.advance(30)
    progress = await world.progress(campaign_id)
    assert progress.counts == {
        "accepted": 89, "deferred": 0, "bounced": 11, "failed": 0, "suppressed": 0, "unknown": 0,
        "cancelled": 0,
    }  # fmt: skip
    assert max(world.ledger.left.values()) == 1


LATER: Answer = (Outcome.LATER, 450, "4.2.1 later")


async def deferred_campaign(world: World, recipients: int) -> UUID:
    """A campaign of which everybody is deferred, and its retry is due."""
    await world.add_contacts(recipients)
    campaign_id = await world.campaign()
    async with world.workers(answers=lambda address: LATER):
        await world.campaigns.start(world.workspace_id, campaign_id)
        async with asyncio.timeout(20):
            while (await world.progress(campaign_id)).counts["deferred"] < recipients:
                await asyncio.sleep(0.02)
    world.clock.advance(300)
    return campaign_id


async def retrying(world: World, answer: Answer) -> tuple[LedgerTransport, asyncio.Task[None]]:
    """A worker in the middle of a retry: five of its recipients are named, no answer has come."""
    transport = LedgerTransport(Ledger(), lambda address: answer)
    transport.stuck = True
    process = Process(world, transport, places=5)
    (job,) = await world.engine.lease([EMAIL_BULK], 1, 5.0, "test")
    batch = Batch([job], Settler(world.engine), asyncio.Event())
    task = asyncio.create_task(process.retries.handle(batch))
    async with asyncio.timeout(20):
        while len(transport.kept) < 5:
            await asyncio.sleep(0.01)
    return transport, task


async def finished(world: World, campaign_id: UUID) -> Mapping[str, int]:
    async with world.workers():
        async with asyncio.timeout(20):
            while (await world.progress(campaign_id)).state is not State.FINISHED:
                await asyncio.sleep(0.02)
                if not (await world.engine.depth([EMAIL_BULK]))[0].leased:
                    world.clock.advance(30)
    return (await world.progress(campaign_id)).counts


async def test_a_stalled_retry_that_wakes_takes_nobody_from_its_successor(world: World) -> None:
    campaign_id = await deferred_campaign(world, 20)
    stalled, waking = await retrying(world, LATER)
    await world.next_lease()
    successor, running = await retrying(world, ACCEPTED)
    stalled.let_go()
    async with asyncio.timeout(20):
        await waking
    assert len(stalled.ledger.mails) == 5, "whoever lost the lease names nobody more"
    successor.let_go()
    async with asyncio.timeout(20):
        await running
    counts = await finished(world, campaign_id)
    assert (counts["unknown"], counts["accepted"], counts["deferred"]) == (5, 15, 0)


async def test_cancelling_accounts_for_a_retry_whose_worker_died(world: World) -> None:
    campaign_id = await deferred_campaign(world, 20)
    _, dying = await retrying(world, ACCEPTED)
    dying.cancel()
    await asyncio.wait([dying])
    await world.campaigns.cancel(world.workspace_id, campaign_id)
    await world.next_lease()
    async with world.workers():
        async with asyncio.timeout(20):
            while (await world.progress(campaign_id)).counts["deferred"]:
                await asyncio.sleep(0.02)
    counts = (await world.progress(campaign_id)).counts
    assert (counts["unknown"], counts["cancelled"]) == (5, 15)


async def test_answers_of_a_retry_outlast_a_break_of_the_database(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign_id = await deferred_campaign(world, 20)
    transport, running = await retrying(world, ACCEPTED)
    fetch = world.database.fetch
    breaks = iter(range(2))

    async def broken(query: Any, *rest: Any, **more: Any) -> Any:
        found = await fetch(query, *rest, **more)
        if "recorded AS (" in query and next(breaks, None) is not None:
            raise ConnectionResetError("the server was restarted")
        return found

    monkeypatch.setattr(world.database, "fetch", broken)
    transport.let_go()
    async with asyncio.timeout(20):
        await running
    counts = await finished(world, campaign_id)
    assert (counts["unknown"], counts["accepted"]) == (0, 20)


async def test_a_campaign_with_a_rate_keeps_to_it_and_ends(world: World) -> None:
    await world.add_contacts(60)
    campaign_id = await world.campaign(rate=100.0)
    loop = asyncio.get_running_loop()
    async with world.workers():
        started = loop.time()
        await world.campaigns.start(world.workspace_id, campaign_id)
        await world.until(campaign_id, State.FINISHED)
        # A quarter of a second's worth may go at once, then a hundred a second.
        assert loop.time() - started >= (60 - 25) / 100 - 0.1
    assert len(world.ledger.left) == 60


async def test_a_contact_added_while_it_runs_is_not_in_it(world: World) -> None:
    await world.add_contacts(50)
    campaign_id = await world.campaign()
    await world.campaigns.start(world.workspace_id, campaign_id)
    await asyncio.sleep(0.01)
    await world.add_contacts(5, first=500)
    async with world.workers():
        progress = await world.until(campaign_id, State.FINISHED)
    assert progress.recipients == 50 and len(world.ledger.left) == 50


async def test_a_drain_in_the_middle_of_planning_leaves_nobody_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "CAMPAIGN_CHUNK_RECIPIENTS", 10)
    addresses = await world.add_contacts(100)
    campaign_id = await world.campaign()
    await world.campaigns.start(world.workspace_id, campaign_id)
    process = Process(world, LedgerTransport(world.ledger))
    (job,) = await world.engine.lease([EMAIL_BULK], 1, 0.0, "drained")
    draining = asyncio.Event()
    draining.set()
    batch = Batch([job], Settler(world.engine), draining)
    await process.planner.handle(batch)
    assert not batch.unsettled, "the job of the first step ended with it"
    world.clock.advance(5)
    async with world.workers():
        progress = await world.until(campaign_id, State.FINISHED, timeout_s=10)
    assert progress.recipients == 100
    assert world.ledger.left == dict.fromkeys(addresses, 1)


async def test_an_empty_list_finishes_at_once(world: World) -> None:
    campaign_id = await world.campaign()
    async with world.workers():
        await world.campaigns.start(world.workspace_id, campaign_id)
        progress = await world.until(campaign_id, State.FINISHED)
    assert progress.recipients == 0
