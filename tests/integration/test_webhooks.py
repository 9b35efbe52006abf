"""Webhooks: every event told, signed, again until it is taken; nobody holds up another."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from mortal import Killed, MortalDatabase
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError
from webhook_world import Asked, World, days, webhook_world

from mailyard.access.audit import Actor, Audit
from mailyard.access.user import Users
from mailyard.core import ids
from mailyard.core.errors import Conflict, InvalidInput
from mailyard.observe.metrics import WEBHOOK_EVENTS_LOST
from mailyard.queue.worker import Worker
from mailyard.storage.database import Database
from mailyard.storage.partitions import drop_expired, ensure_partitions
from mailyard.webhooks import replay
from mailyard.webhooks.fan_out import SLOW_PLACES
from mailyard.webhooks.gap import Gaps
from mailyard.webhooks.notice import Notices
from mailyard.webhooks.policy import ATTEMPTS, LONGEST_REST_S, RETRY_AFTER_S, Outcome, judge


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with webhook_world(database) as world:
        yield world


async def test_an_event_is_told_as_standard_webhooks_says_and_any_library_verifies_it(
    world: World,
) -> None:
    endpoint = await world.endpoint()
    webhook, secret = await world.tell(endpoint.url)
    await world.happens(1)
    await world.deal(1)
    await world.work()
    (asked,) = endpoint.asked
    assert Verifier(secret).verify(asked.body, asked.headers) == asked.json
    with pytest.raises(WebhookVerificationError):
        Verifier(secret).verify(asked.body + b" ", asked.headers)
    assert asked.json["type"] == "delivery.changed"
    assert asked.json["data"] == {"n": 1}
    (told,) = await world.events("delivery.changed")
    assert asked.headers["webhook-id"] == told.cursor.encode(), "one event, one id, everywhere"
    assert await world.states(webhook) == ["delivered"]


async def test_a_secret_is_replaced_while_receivers_check_with_the_old_one(world: World) -> None:
    endpoint = await world.endpoint()
    webhook, old = await world.tell(endpoint.url)
    async with world.database.transaction() as tx:
        _, new = await world.webhooks.rotate(webhook.workspace_id, webhook.id, 3600, tx)
    await world.happens(1)
    await world.deal(1)
    await world.work()
    for secret in (old, new):
        Verifier(secret).verify(endpoint.asked[0].body, endpoint.asked[0].headers)
    await world.later(3601)
    await world.webhooks.sweep()
    await world.happens(2)
    await world.deal(1)
    await world.work()
    # The library looks at the real clock, so only who signed is asked here.
    signed = endpoint.asked[1].headers["webhook-signature"].split()
    assert len(signed) == 1
    assert len(await world.webhooks.secrets(webhook.workspace_id, webhook.id)) == 1


async def test_by_value_the_mail_comes_along_and_by_reference_where_it_is(world: World) -> None:
    whole, pointing = await world.endpoint(), await world.endpoint()
    kinds = ["message.received"]
    await world.tell(whole.url, kinds=kinds)
    await world.tell(pointing.url, kinds=kinds, payload="reference")
    message = ids.type_id(ids.MESSAGE, ids.uuid7())
    inbox = ids.type_id(ids.INBOX, ids.uuid7())
    item = {"message_id": message, "inbox_id": inbox, "subject": "Your code"}
    await world.happens(1, kind="message.received", **item)
    await world.deal(2)
    await world.work()
    data = whole.asked[0].json["data"]
    assert (data["subject"], data["message"]) == ("Your code", {"text": "Your code is 4711"})
    assert pointing.asked[0].json["data"] == {
        "message_id": message,
        "inbox_id": inbox,
        "url": f"https://mail.example.org/v1/messages/{message}",
    }
    world.mail = None  # it has ended meanwhile
    await world.happens(2, kind="message.received", **item)
    await world.deal(2)
    await world.work()
    assert whole.asked[1].json["data"]["message"] is None


async def test_an_endpoint_is_told_of_what_it_wants_of_its_workspace_from_its_making_on(
    world: World,
) -> None:
    endpoint = await world.endpoint()
    await world.happens(0)
    await world.tell(endpoint.url, where={"state": ["bounced", "FAIL*"]})
    other = ids.uuid7()
    await world.happens(1, state="bounced")
    await world.happens(2, state="accepted")
    await world.happens(3, state="failed")
    await world.happens(4, state="bounced", kind="queue.depth")
    await world.happens(5, state="bounced", workspace_id=other)
    await world.deal(2)
    await world.work()
    assert sorted(endpoint.numbers) == [1, 3]


async def test_what_deals_dies_at_any_statement_and_each_event_is_in_each_line_once(
    world: World, database: Database
) -> None:
    first, second = await world.endpoint(), await world.endpoint()
    hooks = [(await world.tell(one.url))[0] for one in (first, second)]
    numbers = list(range(40))
    died = 0
    for at in range(1, 9):
        for after in (False, True):
            await world.happens(*(numbers.pop(0) for _ in range(2)))
            mortal = world.fan_out_on(MortalDatabase(database, at, after=after))
            try:
                await mortal.look()
            except Killed:
                died += 1
    assert died >= 10
    await world.happens(*numbers)
    for _ in range(2):
        await world.deal(0)
    async with asyncio.timeout(60):
        while await world.total() < 80:
            await world.deal()
    await world.work()
    for hook, endpoint in zip(hooks, (first, second), strict=True):
        assert sorted(endpoint.numbers) == list(range(40))
        assert await world.states(hook) == ["delivered"] * 40


async def test_what_tells_dies_at_any_statement_and_every_event_is_taken_in_the_end(
    world: World, database: Database
) -> None:
    endpoint = await world.endpoint()
    webhook, _ = await world.tell(endpoint.url, ordered=True)
    number, died = 0, 0
    for at in range(1, 13):
        for after in (False, True):
            await world.happens(number, number + 1)
            await world.deal(2)
            number += 2
            mortal = MortalDatabase(database, at, after=after)
            teller = world.teller_on(mortal)
            teller._webhooks = type(world.webhooks)(
                database=mortal, vault=world.webhooks._vault, bus=world.bus, clock=world.clock
            )
            teller._recorder._database = mortal
            try:
                await world.work(teller)
            except Killed:
                died += 1
                world.clock.advance(60)  # its lease runs out
                await world.engine.rescue()
                await world.work()
    assert died >= 10
    await world.later(60)
    assert await world.states(webhook) == ["delivered"] * number
    seen = list(dict.fromkeys(endpoint.numbers))
    assert seen == list(range(number)), "in order, and what is told twice has its id twice"
    assert len({asked.headers["webhook-id"] for asked in endpoint.asked}) == number


async def test_a_delivery_that_is_refused_is_tried_for_days_then_dead_then_put_back(
    world: World,
) -> None:
    def answer(asked: Asked) -> int:
        return 500 if asked.json["data"]["n"] == 1 and not repaired else 200

    repaired: list[bool] = []
    endpoint = await world.endpoint(answer=answer)
    webhook, _ = await world.tell(endpoint.url)
    await world.happens(1, 2)
    await world.deal(2)
    await world.work()
    assert sorted(endpoint.numbers) == [1, 2], "one that is refused holds up no other"
    for wait_s in RETRY_AFTER_S:
        assert await world.later(wait_s * 0.8) == 0, "not before its time"
        assert await world.later(wait_s * 0.4) == 1
    assert endpoint.numbers.count(1) == ATTEMPTS
    assert sum(RETRY_AFTER_S) > days(3)
    (dead,) = await world.deliveries(webhook, "dead")
    assert (dead.attempts, dead.status, dead.why) == (ATTEMPTS, 500, "answered 500")
    story = await world.log.story(webhook.workspace_id, dead.id)
    assert [one.number for one in story.attempts] == list(range(1, ATTEMPTS + 1))
    assert story.attempts[0].answer_body == "ok"
    assert json.loads(story.attempts[0].request_body)["data"] == {"n": 1}
    assert await world.later(days(3)) == 0

    repaired.append(True)
    async with world.database.transaction() as tx:
        back = await world.log.redrive(webhook.workspace_id, webhook.id, None, tx)
    assert back == [dead.id]
    assert await world.later(1) == 1
    assert await world.states(webhook) == ["delivered", "delivered"]
    story = await world.log.story(webhook.workspace_id, dead.id)
    assert story.attempts[-1].number == ATTEMPTS + 1


async def test_an_endpoint_that_is_away_rests_and_one_request_at_a_time_asks_for_it(
    world: World,
) -> None:
    endpoint = await world.endpoint(answer=lambda asked: None)
    webhook, _ = await world.tell(endpoint.url, concurrency=3)
    await world.happens(*range(50))
    await world.deal(50)
    await world.work()
    assert len(endpoint.asked) <= 3
    asked = len(endpoint.asked)
    await world.happens(50)
    await world.deal(1)
    assert await world.work() == 0, "it rests, whatever happens meanwhile"
    for _ in range(5):
        assert await world.later(5000) == 1
        asked += 1
        assert len(endpoint.asked) == asked
    endpoint.answer = lambda asked: 200
    while await world.later(5000):
        pass
    assert await world.states(webhook) == ["delivered"] * 51
    assert set(endpoint.numbers) == set(range(51))
    fares = await world.again(webhook)
    assert (fares.failures, fares.failing_since, fares.rests_until) == (0, None, None)


async def test_what_waited_for_days_behind_an_endpoint_that_is_away_is_dead_and_kept(
    world: World,
) -> None:
    endpoint = await world.endpoint(
        answer=lambda asked: b"HTTP/1.1 503 X\r\nretry-after: 1800\r\ncontent-length: 0\r\n\r\n"
    )
    webhook, _ = await world.tell(endpoint.url, concurrency=1)
    await world.happens(*range(5))
    await world.deal(5)
    await world.work()
    assert len(endpoint.asked) == 1
    assert await world.later(1700) == 0, "it asked to be left alone"
    assert await world.later(200) == 1
    await world.later(days(4))
    assert await world.states(webhook) == ["dead"] * 5
    whys = {one.why for one in await world.deliveries(webhook)}
    assert any(why == "the endpoint took nothing for 4 days" for why in whys)


async def test_in_order_all_wait_while_the_first_is_tried_again(world: World) -> None:
    fails = [1, 3]

    def answer(asked: Asked) -> int:
        number = asked.json["data"]["n"]
        if number in fails:
            fails.remove(number)
            return 500
        return 200

    endpoint = await world.endpoint(answer=answer)
    webhook, _ = await world.tell(endpoint.url, ordered=True, concurrency=5)
    await world.happens(*range(6))
    await world.deal(6)
    await world.work()
    assert endpoint.numbers == [0, 1]
    await world.happens(6)
    await world.deal(1)
    await world.work()
    assert endpoint.numbers == [0, 1], "what is new waits too"
    while await world.later(6):
        pass
    assert endpoint.numbers == [0, 1, 1, 2, 3, 3, 4, 5, 6]
    assert endpoint.most_at_once == 1
    assert set(await world.states(webhook)) == {"delivered"}


async def test_requests_at_once_are_as_many_as_the_endpoint_allows(world: World) -> None:
    endpoint = await world.endpoint()
    endpoint.goes.clear()
    await world.tell(endpoint.url, concurrency=4)
    await world.happens(*range(20))
    await world.deal(20)
    working = asyncio.create_task(world.work())
    async with asyncio.timeout(30):
        while endpoint.at_once < 4:
            await asyncio.sleep(0.005)
    endpoint.goes.set()
    await working
    assert endpoint.most_at_once == 4
    assert sorted(endpoint.numbers) == list(range(20))


async def test_endpoints_that_hang_hold_up_nobody_else(world: World) -> None:
    """More of them than the lane has places: once they are known, they share a part of it."""
    hanging, healthy = await world.endpoint(answer=lambda asked: None), await world.endpoint()
    for _ in range(SLOW_PLACES + 10):
        await world.tell(hanging.url, concurrency=1)
    await world.happens(1)
    await world.deal(SLOW_PLACES + 10)
    await world.work()
    hanging.goes.clear()  # from now on they do not even hang up
    await world.tell(healthy.url)
    world.clock.advance(60)
    await world.happens(2)
    await world.deal(SLOW_PLACES + 11)
    worker = Worker(engine=world.engine, handlers=[world.teller.handler()], name="test")
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(60):
        while hanging.at_once < SLOW_PLACES:
            await asyncio.sleep(0.01)
            await world.fan_out.look()
        await world.happens(3)
        while healthy.numbers != [2, 3]:
            await asyncio.sleep(0.01)
            await world.fan_out.look()
    assert hanging.at_once == SLOW_PLACES
    hanging.goes.set()
    worker.drain()
    await running


async def test_an_endpoint_that_failed_for_days_is_disabled_and_its_owners_are_told(
    world: World, database: Database
) -> None:
    endpoint = await world.endpoint(answer=lambda asked: 500)
    webhook, _ = await world.tell(endpoint.url)
    for day in range(7):
        await world.happens(day)
        await world.deal(1 if day < 6 else None)
        await world.work()
        if not (await world.again(webhook)).enabled:
            break
        await world.later(days(1))
    disabled = await world.again(webhook)
    assert not disabled.enabled
    assert disabled.disabled_why.startswith("it has failed since ")
    assert "waiting" not in await world.states(webhook)
    told = await world.events("webhook.disabled")
    assert [one.item["name"] for one in told] == ["a hook"]

    users = Users(database=database, audit=Audit(database=database))
    actor = Actor("system", "test", world.workspace_id)
    await users.add(world.workspace_id, "owner@example.org", "owner", actor=actor)
    await users.add(world.workspace_id, "viewer@example.org", "viewer", actor=actor)
    sent = []

    class Emails:
        async def accept(self, workspace_id, request, idempotency):  # type: ignore[no-untyped-def]
            sent.append((workspace_id, request, idempotency.key))

    notices = Notices(
        users=users,
        emails=Emails(),  # type: ignore[arg-type]
        sender="Mailyard <postmaster@mail.example.org>",
        page_url="https://mail.example.org",
    )
    for job in world.notices:
        await notices.handle(world.batch([job]))
    ((workspace_id, request, key),) = sent
    assert (workspace_id, request.to) == (world.workspace_id, ["owner@example.org"])
    assert ids.type_id(ids.WEBHOOK, webhook.id) in request.text
    assert str(webhook.id) in key

    # Enabled again it is told of what happens from then on, and its dead letters can be put back.
    endpoint.answer = lambda asked: 200
    endpoint.asked.clear()
    await world.happens(90)
    async with database.transaction() as tx:
        await world.webhooks.enable(world.workspace_id, webhook.id, tx)
        await world.log.redrive(world.workspace_id, webhook.id, None, tx)
    await world.happens(91)
    await world.deal(1)
    await world.work()
    await world.later(10)
    assert 90 not in endpoint.numbers
    assert 91 in endpoint.numbers
    assert set(await world.states(webhook)) == {"delivered"}


async def test_an_endpoint_that_answers_gone_is_disabled_at_once(world: World) -> None:
    endpoint = await world.endpoint(answer=lambda asked: 410)
    webhook, _ = await world.tell(endpoint.url, ordered=True)
    await world.happens(*range(5))
    await world.deal(5)
    await world.work()
    assert len(endpoint.asked) == 1
    assert (await world.again(webhook)).disabled_why == "it answered 410 Gone"
    assert set(await world.states(webhook)) == {"dead"}


async def test_a_span_of_time_is_told_again_under_the_same_ids(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "_ROWS", 10)
    endpoint = await world.endpoint()
    since = world.clock.now() - timedelta(minutes=5)
    for number in range(0, 300, 10):
        await world.happens(*range(number, number + 10))
    webhook, _ = await world.tell(endpoint.url)
    await world.happens(300)
    await world.deal(1)
    await world.work()
    (first,) = endpoint.asked
    world.clock.advance(60)
    async with world.database.transaction() as tx:
        await world.replays.start(world.workspace_id, webhook.id, since, None, tx)
    # Statement by statement it dies, and goes on where it was.
    died = 0
    for at in range(1, 7):
        mortal = MortalDatabase(world.database, at, after=True)
        world.replays._database, real = mortal, world.replays._database
        try:
            await world.work()
        except Killed:
            died += 1
            world.clock.advance(60)
            await world.engine.rescue()
        finally:
            world.replays._database = real
    await world.work()
    assert died
    while await world.later(10):
        pass
    assert sorted(endpoint.numbers) == sorted([300, *range(301)])
    again = [asked for asked in endpoint.asked if asked.json["data"]["n"] == 300]
    assert {asked.headers["webhook-id"] for asked in again} == {first.headers["webhook-id"]}
    (found,) = await world.replays.page(world.workspace_id, webhook.id)
    assert (found.events, found.done_at is None) == (301, False)
    async with world.database.transaction() as tx:
        with pytest.raises(InvalidInput, match="kept"):
            await world.replays.start(
                world.workspace_id, webhook.id, since - timedelta(days=9), None, tx
            )
        await world.webhooks.disable(world.workspace_id, webhook.id, tx)
        with pytest.raises(Conflict):
            await world.replays.start(world.workspace_id, webhook.id, since, None, tx)


async def test_what_nobody_has_dealt_stays_and_what_leaves_at_last_is_told(
    world: World,
) -> None:
    endpoint = await world.endpoint()
    webhook, _ = await world.tell(endpoint.url)
    other, _ = await world.tell(endpoint.url, kinds=["campaign.progress"])
    gaps = Gaps(database=world.database, clock=world.clock)
    today = world.clock.now()

    async def days_later(count: int) -> set[str]:
        """The days of events that are left then."""
        now = today + timedelta(days=count)
        await ensure_partitions(world.database, now)
        await drop_expired(world.database, now, readers=[gaps])
        names = await world.database.pool.fetch(
            "SELECT relname FROM pg_class WHERE relname LIKE 'live_event_2%' AND relkind = 'r'"
        )
        return {row[0] for row in names}

    day = f"live_event_{today:%Y_%m_%d}"
    await world.happens(1)
    assert day in await days_later(10), "no worker has dealt with it"
    await world.deal(1)
    assert day not in await days_later(10)
    await world.work()
    assert endpoint.numbers == [1]

    await ensure_partitions(world.database, today)
    await world.happens(2, 3)
    lost = WEBHOOK_EVENTS_LOST._value.get()
    world.clock.advance(days(15))
    assert day not in await days_later(15)
    (gap,) = await world.deliveries(webhook)  # what was told before has left the log in time
    assert (gap.kind, gap.state) == ("stream.gap", "dead")
    assert gap.why.startswith(f"2 events of {today:%Y-%m-%d} left before")
    assert WEBHOOK_EVENTS_LOST._value.get() == lost + 2
    assert await world.states(other) == [], "it wanted nothing of what is gone"


async def test_a_gap_is_told_once(world: World) -> None:
    endpoint = await world.endpoint()
    webhook, _ = await world.tell(endpoint.url)
    await world.happens(1)
    gaps = Gaps(database=world.database, clock=world.clock)
    since = world.clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
    for _ in range(2):  # the drop behind it may fail, and is tried again
        await gaps.lose(since, since + timedelta(days=1))
    assert await world.states(webhook) == ["dead"]


async def test_events_of_a_running_replay_stay_until_it_is_over(world: World) -> None:
    endpoint = await world.endpoint()
    webhook, _ = await world.tell(endpoint.url)
    await world.happens(1)
    await world.deal(1)
    now = world.clock.now()
    gaps = Gaps(database=world.database, clock=world.clock)
    span = (now - timedelta(hours=1), now + timedelta(hours=1))
    assert not await gaps.needs(*span)
    async with world.database.transaction() as tx:
        await world.replays.start(webhook.workspace_id, webhook.id, span[0], None, tx)
    assert await gaps.needs(*span)
    assert not await gaps.needs(now + timedelta(days=1), now + timedelta(days=2))


async def test_the_button_tells_now_and_shows_request_and_answer(world: World) -> None:
    long = b"y" * 9000
    endpoint = await world.endpoint(
        answer=lambda asked: b"HTTP/1.1 200 X\r\nx-mark: 7\r\ncontent-length: 9000\r\n\r\n" + long
    )
    webhook, secret = await world.tell(endpoint.url)
    trial = await world.log.test(world.workspace_id, webhook.id)
    async with world.database.transaction() as tx:
        story = await world.log.keep(world.workspace_id, trial, tx)
    Verifier(secret).verify(endpoint.asked[0].body, endpoint.asked[0].headers)
    (attempt,) = story.attempts
    assert story.delivery.state == "delivered"
    assert (attempt.status, attempt.answer_headers["x-mark"]) == (200, "7")
    assert attempt.answer_body.startswith("yyy")
    assert attempt.answer_body.endswith("… (9000 bytes)")
    assert attempt.request_headers["webhook-id"] == story.delivery.event
    assert await world.later(60) == 0, "it waits in no line"


async def test_an_endpoint_has_an_address_that_can_be_reached(world: World) -> None:
    for url in ("ftp://a.example/", "http://10.0.0.1/", "http://[::1]/", "https://u:p@a.example/"):
        with pytest.raises(InvalidInput) as caught:
            await world.tell(url)
        assert caught.value.field == "url"
    with pytest.raises(InvalidInput, match=r"mesage\.received"):
        await world.tell("https://a.example/", kinds=["mesage.received"])


@pytest.mark.parametrize(
    ("wish", "rest_s"),
    [
        ("86400", LONGEST_REST_S),
        ("9" * 300, LONGEST_REST_S),
        (f"Mon, 01 Jan {'9' * 20} 00:00:00 GMT", None),
        (f"Mon, 01 Jan 2030 00:00:00 +{'9' * 20}", None),
    ],
)
def test_an_endpoint_that_wants_to_be_left_alone_for_ever_is_asked_again(
    wish: str, rest_s: float | None
) -> None:
    verdict = judge(429, {"retry-after": wish}, datetime.now(UTC))
    assert (verdict.outcome, verdict.rest_s) == (Outcome.AWAY, rest_s)
