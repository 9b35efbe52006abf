"""Outbound over transports that answer as they are told: who gets a mail, and who never does."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from uuid import UUID, uuid4

import pytest

from mailyard.core.backoff import Backoff
from mailyard.core.clock import ManualClock
from mailyard.core.errors import ConfigurationError
from mailyard.sending.outbound import Outbound
from mailyard.sending.provider import RELAY
from mailyard.sending.route.breaker import BreakerOptions, Position
from mailyard.sending.route.plan import Listed, Plan, View
from mailyard.sending.route.routes import Leg, Route, Routes, When
from mailyard.sending.transport import (
    CAMPAIGN,
    TRANSACTIONAL,
    Handoff,
    Outcome,
    Outgoing,
    Recipient,
    Transport,
)

ME = UUID(int=7)
Answer = tuple[Outcome, bool]  # and whether it is the route's fault
TAKEN: Answer = (Outcome.ACCEPTED, False)
OUT_OF_ORDER: Answer = (Outcome.LATER, True)
TOO_LARGE_HERE: Answer = (Outcome.NEVER, True)
LOST: Answer = (Outcome.UNKNOWN, False)
NO_MAILBOX: Answer = (Outcome.NEVER, False)
FULL: Answer = (Outcome.LATER, False)
OPTIONS = BreakerOptions(in_a_row=5, least=5, open_for=Backoff(first_s=20.0, cap_s=20.0))


class Fake:
    """A transport whose answer is `says`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.says = TAKEN
        self.tried = True
        self.had: list[str] = []
        self.closed = False

    def submit(self, mail: Outgoing, done: Callable[[Handoff], None]) -> None:
        outcome, fault = self.says
        for one in mail.recipients:
            self.had.append(one.address)
            handoff = Handoff(
                one.delivery_id, outcome, None, f"{self.name} says", self.name, fault,
                tried=self.tried,
            )  # fmt: skip
            asyncio.get_running_loop().call_soon(done, handoff)

    async def close(self, drain_s: float) -> None:
        self.closed = True


class World:
    """An Outbound over fakes a, b and the relay."""

    def __init__(self, *routes: Route) -> None:
        self.fakes = {name: Fake(name) for name in ("a", "b", RELAY)}
        self.made: list[Fake] = []
        self.clock = ManualClock(datetime(2026, 5, 1, tzinfo=UTC))
        self.out = Outbound(
            relay=self.fakes[RELAY],
            make=self.make,
            clock=self.clock,
            random=Random(1),
            options=OPTIONS,
        )
        self.keys = {"a": "key-a", "b": "key-b", RELAY: RELAY}
        self.listed = {
            key: Listed(key, name, True, 1) for name, key in self.keys.items() if name != RELAY
        }
        self.follow(*routes)

    def make(self, key: str) -> Transport:
        fake = self.fakes[key.removeprefix("key-")]
        if fake.closed:
            fake = self.fakes[fake.name] = Fake(fake.name)
        self.made.append(fake)
        return fake

    def follow(self, *routes: Route) -> None:
        view = View(Routes(routes, self.keys.values()) if routes else None, self.keys)
        self.out.follow(Plan(self.listed, {ME: view}, View(None, {RELAY: RELAY})))

    def mail(self, *addresses: str, **more: object) -> Outgoing:
        recipients = tuple(Recipient(uuid4(), one) for one in addresses or ("x@example.com",))
        values: dict[str, object] = {"workspace_id": ME, "stream": CAMPAIGN, "tag": "news"}
        return Outgoing("s@example.org", recipients, b"x\r\n", False, False, **(values | more))  # type: ignore[arg-type]

    async def send(self, mail: Outgoing | None = None) -> list[Handoff]:
        """The answers, one a recipient."""
        mail = mail or self.mail()
        answers: list[Handoff] = []
        inside = True

        def done(handoff: Handoff) -> None:
            assert not inside, "never from inside submit"
            answers.append(handoff)

        self.out.submit(mail, done)
        inside = False
        async with asyncio.timeout(10):
            while len(answers) < len(mail.recipients):
                await asyncio.sleep(0)
        return answers

    def had(self) -> dict[str, int]:
        return {name: len(fake.had) for name, fake in self.fakes.items()}


def both(*, weights: Iterable[int] = (1, 1), orders: Iterable[int] = (0, 0)) -> Route:
    legs = zip(("key-a", "key-b"), weights, orders, strict=True)
    return Route("all", tuple(Leg(*leg) for leg in legs))


FIRST_A = both(orders=(0, 1))


async def test_without_routes_the_relay_gets_the_mail_as_it_is() -> None:
    world = World()
    mail = world.mail("x@example.com", "y@example.com")
    answers = await world.send(mail)
    assert [one.transport for one in answers] == [RELAY, RELAY]
    assert world.had() == {"a": 0, "b": 0, RELAY: 2}
    assert world.out.choose(ME, TRANSACTIONAL, "code", "x@example.com", ()) == RELAY


async def test_what_one_certainly_did_not_take_the_next_one_has_at_once() -> None:
    world = World(FIRST_A)
    for refusal in (OUT_OF_ORDER, TOO_LARGE_HERE):
        world.fakes["a"].says = refusal
        (answer,) = await world.send()
        assert (answer.outcome, answer.transport) == (Outcome.ACCEPTED, "b")
        assert [(one.transport, one.reply) for one in answer.passed] == [("a", "a says")]


@pytest.mark.parametrize("says", [TAKEN, LOST, NO_MAILBOX, FULL])
async def test_any_other_answer_is_the_end_and_nobody_else_is_asked(says: Answer) -> None:
    world = World(FIRST_A)
    world.fakes["a"].says = says
    (answer,) = await world.send()
    assert (answer.outcome, answer.transport, answer.passed) == (says[0], "a", ())
    assert world.had() == {"a": 1, "b": 0, RELAY: 0}


async def test_the_last_refusal_stands_when_everybody_was_asked() -> None:
    world = World(FIRST_A)
    world.fakes["a"].says = world.fakes["b"].says = TOO_LARGE_HERE
    (answer,) = await world.send()
    assert (answer.outcome, answer.transport) == (Outcome.NEVER, "b")
    assert [one.transport for one in answer.passed] == ["a"]


async def test_a_mail_that_one_cannot_carry_waits_for_the_one_who_can() -> None:
    """The first is out of order, the second can never carry it: nobody has said no to the mail."""
    world = World(FIRST_A)
    world.fakes["a"].says, world.fakes["b"].says = OUT_OF_ORDER, TOO_LARGE_HERE
    for _ in range(OPTIONS.in_a_row + 1):  # and so it is once the first is left alone
        (answer,) = await world.send()
        assert answer.outcome is Outcome.LATER, world.out.news()
    assert len(world.fakes["a"].had) == OPTIONS.in_a_row
    asked = (ME, TRANSACTIONAL, "code", "x@example.com")
    assert world.out.may_take_it_later(*asked, ("b",))
    assert not world.out.may_take_it_later(*asked, ("a", "b"))


async def test_an_outage_is_noticed_and_its_end_too() -> None:
    world = World(FIRST_A)
    world.fakes["a"].says = OUT_OF_ORDER
    for _ in range(20):
        (answer,) = await world.send()
        assert answer.transport == "b", "nobody waits"
    assert len(world.fakes["a"].had) == OPTIONS.in_a_row, "then it is left alone"
    world.fakes["a"].says = TAKEN
    world.clock.advance(21.0)
    for _ in range(20):
        await world.send()
    assert len(world.fakes["a"].had) == OPTIONS.in_a_row + 20, "and back by itself"
    positions = [one.event.position for one in world.out.news()]
    assert positions == [Position.OPEN, Position.HALF_OPEN, Position.CLOSED]
    standing = next(one for one in world.out.standings() if one.key == "key-a")
    assert (standing.counts.accepted, standing.counts.passed_on) == (20, 5)


async def test_one_mail_that_a_provider_cannot_carry_says_nothing_about_it() -> None:
    world = World(FIRST_A)
    world.fakes["a"].says = TOO_LARGE_HERE
    for _ in range(2 * OPTIONS.in_a_row):
        await world.send()
    assert world.out.news() == []


async def test_when_nobody_can_have_it_it_comes_back_untried_with_a_time() -> None:
    world = World(FIRST_A)
    world.fakes["a"].says = world.fakes["b"].says = OUT_OF_ORDER
    for _ in range(OPTIONS.in_a_row):
        (answer,) = await world.send()
        assert answer.outcome is Outcome.LATER and len(answer.passed) == 1
    before = world.had()
    (answer,) = await world.send()
    assert world.had() == before
    assert answer.outcome is Outcome.LATER and not answer.tried and answer.route_fault
    assert answer.retry_at is not None and "a says" in answer.reply
    assert 9.0 < (answer.retry_at - world.clock.now()).total_seconds() < 26.0


async def test_what_waits_for_a_probe_is_held_and_goes_with_the_good_news() -> None:
    world = World(Route("all", (Leg("key-a"),)))
    world.fakes["a"].says = OUT_OF_ORDER
    for _ in range(OPTIONS.in_a_row):
        await world.send()
    world.fakes["a"].says = TAKEN
    world.clock.advance(21.0)
    answers = await asyncio.gather(*(world.send() for _ in range(10)))
    assert {one.outcome for (one,) in answers} == {Outcome.ACCEPTED}


async def test_a_mail_that_is_bound_stays_where_it_may_be() -> None:
    world = World(FIRST_A)
    world.fakes["b"].says = OUT_OF_ORDER
    (answer,) = await world.send(world.mail(only="b", stream=TRANSACTIONAL))
    assert (answer.outcome, answer.transport) == (Outcome.LATER, "b")
    world.listed["key-b"] = replace(world.listed["key-b"], enabled=False)
    world.follow(FIRST_A)
    (answer,) = await world.send(world.mail(only="b", stream=TRANSACTIONAL))
    assert answer.outcome is Outcome.LATER and not answer.tried
    (answer,) = await world.send(world.mail(only="gone", stream=TRANSACTIONAL))
    assert answer.outcome is Outcome.UNKNOWN and "gone" in answer.reply
    assert world.had()["a"] == 0


async def test_a_transactional_mail_goes_nowhere_without_its_way_being_written_down() -> None:
    world = World(FIRST_A)
    (answer,) = await world.send(world.mail(stream=TRANSACTIONAL))
    assert answer.outcome is Outcome.LATER and not answer.tried
    assert world.had() == {"a": 0, "b": 0, RELAY: 0}
    chosen = world.out.choose(ME, TRANSACTIONAL, "code", "x@example.com", ())
    assert chosen == "a"
    assert world.out.choose(ME, TRANSACTIONAL, "code", "x@example.com", ("a",)) == "b"
    assert world.out.choose(ME, TRANSACTIONAL, "code", "x@example.com", ("a", "b")) == ""


async def test_routes_are_chosen_by_tag_domain_and_stream() -> None:
    to_b = (Leg("key-b"),)
    world = World(
        Route("codes", to_b, When(tags=frozenset({"code"}))),
        Route("there", to_b, When(domains=frozenset({"example.net"}))),
        Route("single", to_b, When(streams=frozenset({TRANSACTIONAL}))),
        Route("rest", (Leg("key-a"), Leg(RELAY, order=1))),
    )
    assert [one.transport for one in await world.send(world.mail(tag="code"))] == ["b"]
    answers = await world.send(world.mail("x@example.com", "y@mail.Example.NET"))
    assert sorted(one.transport for one in answers) == ["a", "b"]
    assert world.out.choose(ME, TRANSACTIONAL, "x", "x@example.com", ()) == "b"
    world.fakes["a"].says = OUT_OF_ORDER
    assert [one.transport for one in await world.send()] == [RELAY]


async def test_weights_share_the_mail() -> None:
    world = World(both(weights=(3, 1)))
    for _ in range(400):
        await world.send()
    assert 250 < world.had()["a"] < 350


async def test_a_changed_provider_is_made_anew_and_the_old_one_finishes() -> None:
    world = World(FIRST_A)
    await world.send()
    old = world.fakes["a"]
    world.listed["key-a"] = replace(world.listed["key-a"], revision=2)
    world.follow(FIRST_A)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert old.closed
    await world.send()
    assert world.fakes["a"] is not old and len(world.fakes["a"].had) == 1


async def test_a_provider_that_cannot_be_made_lets_others_send() -> None:
    world = World(FIRST_A)
    made = world.out._ways._make

    def make(key: str) -> Transport:
        if key == "key-a":
            raise ConfigurationError("its master key is not here")
        return made(key)

    world.out._ways._make = make
    (answer,) = await world.send()
    assert answer.transport == "b"
    assert any("master key" in one.event.why for one in world.out.news())


async def test_what_is_handed_back_untried_is_no_failure() -> None:
    world = World(FIRST_A)
    world.fakes["a"].says, world.fakes["a"].tried = FULL, False
    for _ in range(2 * OPTIONS.in_a_row):
        (answer,) = await world.send()
        assert not answer.tried
    world.fakes["a"].says = OUT_OF_ORDER
    for _ in range(2 * OPTIONS.in_a_row):
        (answer,) = await world.send()
        assert answer.transport == "b", "it overflows to the next"
    assert world.out.news() == []


async def test_another_workers_news_is_believed_until_this_one_knows_better() -> None:
    world = World(FIRST_A)
    now_s = world.clock.now().timestamp()
    world.out.adopt("key-a", now_s + 20.0, "it is down", now_s)
    assert [one.transport for one in await world.send()] == ["b"]
    (standing,) = [one for one in world.out.standings() if one.key == "key-a"]
    assert standing.adopted
    world.clock.advance(25.0)
    for _ in range(4):
        await world.send()
    world.out.adopt("key-a", now_s + 60.0, "it is down", now_s)
    assert [one.transport for one in await world.send()] == ["a"]


async def test_closing_answers_what_is_held_and_closes_all() -> None:
    world = World(Route("all", (Leg("key-a"),)))
    world.fakes["a"].says = OUT_OF_ORDER
    for _ in range(OPTIONS.in_a_row):
        await world.send()
    (standing,) = [one for one in world.out.standings() if one.key == "key-a"]
    left_s = standing.breaker.open_until_s - world.clock.now().timestamp()
    world.clock.advance(left_s - 1.0)
    held = asyncio.create_task(world.send())
    await asyncio.sleep(0.01)
    await world.out.close(1.0)
    (answer,) = await held
    assert answer.outcome is Outcome.LATER and not answer.tried
    assert world.fakes["a"].closed and world.fakes[RELAY].closed
