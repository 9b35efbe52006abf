"""A circuit breaker: it opens, tries carefully, and closes again when the provider is well."""

from random import Random
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from mailyard.core.backoff import Backoff
from mailyard.sending.route.breaker import (
    CLOSED,
    RETRY_AFTER_S_MAX,
    Breaker,
    BreakerEvent,
    BreakerOptions,
    Position,
    admit,
    admits,
    record,
    trip,
)
from mailyard.sending.route.failover import Fault
from mailyard.sending.route.providers import Providers
from mailyard.sending.route.routes import Envelope, Leg, Route, Routes
from mailyard.sending.transport import Outcome

OPTIONS = BreakerOptions()
NOW = 1_800_000_000.0


class Provider:
    """A provider behind a breaker, with a clock."""

    def __init__(self) -> None:
        self.state = CLOSED
        self.random = Random(9)
        self.now_s = NOW
        self.events: list[BreakerEvent] = []

    def mail(self, failure: str = "") -> bool:
        """One mail that is answered at once; whether it was let through."""
        self.state, ticket, events = admit(self.now_s, self.state, OPTIONS, self.random)
        self.events += events
        if ticket is None:
            return False
        self.state, events = record(self.now_s, self.state, OPTIONS, ticket, failure, self.random)
        self.events += events
        return True

    def fail_until_open(self) -> None:
        while self.state.position is not Position.OPEN:
            self.mail("500 internal error")


def test_a_few_failures_among_many_mails_change_nothing() -> None:
    provider = Provider()
    for number in range(1_000):
        assert provider.mail("500" if number % 3 == 0 else "")
    assert provider.state.position is Position.CLOSED


def test_a_few_mails_are_too_few_to_judge() -> None:
    provider = Provider()
    for _ in range(OPTIONS.least - 1):
        provider.mail("500")
    assert provider.state.position is Position.CLOSED
    provider.mail("500")
    assert provider.state.position is Position.OPEN


def test_the_event_says_what_changed_and_why() -> None:
    provider = Provider()
    provider.fail_until_open()
    [event] = provider.events
    assert event.position is Position.OPEN
    assert "20 of 20 mails failed" in event.why and "500 internal error" in event.why
    assert event.until_s is not None and NOW + 5.0 <= event.until_s <= NOW + 10.0


def test_failures_of_long_ago_do_not_count() -> None:
    provider = Provider()
    for _ in range(OPTIONS.least - 1):
        provider.mail("500")
    provider.now_s += OPTIONS.window_s + 10.0
    provider.mail("500")
    assert provider.state.position is Position.CLOSED


def test_open_lets_nothing_through_until_its_time_is_over() -> None:
    provider = Provider()
    provider.fail_until_open()
    assert not provider.mail()
    provider.now_s = provider.state.open_until_s
    assert provider.mail()
    assert provider.state.position is Position.HALF_OPEN


def test_probes_go_one_after_another_and_enough_good_ones_close_it() -> None:
    provider = Provider()
    provider.fail_until_open()
    provider.now_s = provider.state.open_until_s
    state, ticket, _ = admit(provider.now_s, provider.state, OPTIONS, provider.random)
    assert ticket is not None
    assert admit(provider.now_s, state, OPTIONS, provider.random)[1] is None
    provider.state, _ = record(provider.now_s, state, OPTIONS, ticket, "", provider.random)
    assert provider.state.position is Position.HALF_OPEN
    provider.mail()
    provider.mail()
    assert provider.state.position is Position.CLOSED
    assert [event.position for event in provider.events][-1] is Position.CLOSED
    assert provider.state.slices == ()  # the past is forgotten


def test_it_stays_open_longer_each_time_that_probing_fails() -> None:
    provider, waits = Provider(), []
    provider.fail_until_open()
    for _ in range(8):
        waits.append(provider.state.open_until_s - provider.now_s)
        provider.now_s = provider.state.open_until_s
        assert provider.mail("500")
    assert waits[0] <= 10.0 < waits[2] < waits[4]
    assert max(waits) <= 300.0


def test_jitter_keeps_workers_from_probing_in_one_instant() -> None:
    until = set()
    for seed in range(20):
        state, _ = trip(NOW, CLOSED, OPTIONS, "away", Random(seed))
        until.add(state.open_until_s)
    assert len(until) == 20


def test_answers_to_mails_of_before_say_nothing_about_now() -> None:
    provider = Provider()
    _, old, _ = admit(NOW, provider.state, OPTIONS, provider.random)
    assert old is not None
    provider.fail_until_open()
    provider.now_s = provider.state.open_until_s
    half, probe, _ = admit(provider.now_s, provider.state, OPTIONS, provider.random)
    assert probe is not None
    for failure in ("", "500"):
        assert record(provider.now_s, half, OPTIONS, old, failure, provider.random)[0] == half


def test_a_probe_that_is_never_answered_opens_it_again() -> None:
    provider = Provider()
    provider.fail_until_open()
    provider.now_s = provider.state.open_until_s
    state, _, _ = admit(provider.now_s, provider.state, OPTIONS, provider.random)
    later_s = provider.now_s + OPTIONS.probe_lost_s
    state, ticket, events = admit(later_s, state, OPTIONS, provider.random)
    assert ticket is None and state.position is Position.OPEN
    assert [event.why for event in events] == ["a probe was not answered"]


def test_retry_after_is_kept_and_bounded() -> None:
    state, [event] = trip(NOW, CLOSED, OPTIONS, "429", Random(1), retry_after_s=120.0)
    assert state.open_until_s == event.until_s == NOW + 120.0
    state, _ = trip(NOW, CLOSED, OPTIONS, "429", Random(1), retry_after_s=1e12)
    assert state.open_until_s == NOW + RETRY_AFTER_S_MAX
    again, events = trip(NOW, state, OPTIONS, "429", Random(1), retry_after_s=5.0)
    assert (again, events) == (state, ())


class AnyProvider(RuleBasedStateMachine):
    """Whatever a provider does, when it is well again all its mail flows within bounded time."""

    @initialize()
    def start(self) -> None:
        self.provider = Provider()
        self.tickets: list = []  # type: ignore[type-arg]

    @rule(failure=st.sampled_from(["", "500", "timeout"]), count=st.integers(1, 30))
    def mails(self, failure: str, count: int) -> None:
        for _ in range(count):
            self.provider.mail(failure)

    @rule()
    def a_mail_leaves(self) -> None:
        one = self.provider
        one.state, ticket, _ = admit(one.now_s, one.state, OPTIONS, one.random)
        if ticket:
            self.tickets.append(ticket)

    @rule(failure=st.sampled_from(["", "500"]))
    def its_answer_comes(self, failure: str) -> None:
        one = self.provider
        if self.tickets:
            ticket = self.tickets.pop(0)
            one.state, _ = record(one.now_s, one.state, OPTIONS, ticket, failure, one.random)

    @rule(after_s=st.sampled_from([0.0, 30.0, 1e9]))
    def it_is_tripped(self, after_s: float) -> None:
        one = self.provider
        one.state, _ = trip(one.now_s, one.state, OPTIONS, "suspended", one.random, after_s)

    @rule(seconds=st.floats(0.0, 400.0))
    def time_passes(self, seconds: float) -> None:
        self.provider.now_s += seconds

    @rule()
    def it_is_well_again(self) -> None:
        one, started_s = self.provider, self.provider.now_s
        while one.state.position is not Position.CLOSED:
            one.mail()
            one.now_s += 1.0
            longest_s = RETRY_AFTER_S_MAX + OPTIONS.probe_lost_s + OPTIONS.open_for.cap_s
            assert one.now_s - started_s <= longest_s + OPTIONS.probes + 2
        assert all(one.mail() for _ in range(100))

    def teardown(self) -> None:
        if hasattr(self, "provider"):
            self.it_is_well_again()


AnyProvider.TestCase.settings = settings(max_examples=50, stateful_step_count=25, deadline=None)
TestAnyProvider = AnyProvider.TestCase


def test_admits_says_what_admit_would_do() -> None:
    states = [
        CLOSED,
        Breaker(Position.OPEN, 1, open_until_s=NOW + 1.0),
        Breaker(Position.OPEN, 1, open_until_s=NOW),
        Breaker(Position.HALF_OPEN, 2),
        Breaker(Position.HALF_OPEN, 2, probe_since_s=NOW),
    ]
    for state in states:
        given = admit(NOW, state, OPTIONS, Random(1))[1] is not None
        assert admits(NOW, state, OPTIONS) is given


ROUTES = Routes([Route("all", (Leg("a", 1), Leg("b", 1)))], ["a", "b"])
MAIL = Envelope(UUID(int=1), frozenset(), "example.com", "", "email-bulk")


def test_an_outage_in_mid_campaign_costs_little_and_the_provider_comes_back_by_itself() -> None:
    """10,000 mails, one each 10 ms; provider a is away from the 2,000th to the 6,000th."""
    options = BreakerOptions(open_for=Backoff(first_s=2.0, cap_s=8.0))
    providers = Providers(random=Random(4), options=options)
    took = {"a": 0, "b": 0}
    wasted = last_third_of_a = 0
    for number in range(10_000):
        now_s = NOW + number * 0.01
        away = 2_000 <= number < 6_000
        for provider in providers.choose(now_s, ROUTES, MAIL).candidates:
            ticket = providers.admit(now_s, provider)
            if ticket is None:
                continue
            if provider == "a" and away:
                wasted += 1
                fault = Fault.PROVIDER
                providers.record(now_s, "a", ticket, Outcome.LATER, fault, "503")
                continue
            providers.record(now_s, provider, ticket, Outcome.ACCEPTED, Fault.UNSURE)
            took[provider] += 1
            last_third_of_a += provider == "a" and number >= 7_000
            break
    assert took["a"] + took["b"] == 10_000  # nobody missed: the others had room
    assert wasted < 0.1 * 4_000
    assert last_third_of_a == pytest.approx(1_500, abs=200)
    positions = [one.event.position for one in providers.events()]
    assert positions[0] is Position.OPEN and positions[-1] is Position.CLOSED
    assert not list(providers.events())


def test_a_suspended_account_opens_at_once_and_recipients_that_do_not_exist_never_do() -> None:
    providers = Providers(random=Random(4))
    for _ in range(100):
        ticket = providers.admit(NOW, "a")
        assert ticket is not None
        providers.record(NOW, "a", ticket, Outcome.NEVER, Fault.RECIPIENT, "550 5.1.1")
    ticket = providers.admit(NOW, "a")
    assert ticket is not None
    providers.record(NOW, "a", ticket, Outcome.NEVER, Fault.PROVIDER, "account suspended")
    health = providers.health(NOW, "a")
    assert not health.ready and health.why == "account suspended" and health.until_s > NOW
    assert providers.choose(NOW, ROUTES, MAIL).candidates == ("b",)


def test_what_was_sent_before_it_opened_does_not_open_it_further() -> None:
    providers = Providers(random=Random(4))
    tickets = [providers.admit(NOW, "a") for _ in range(50)]
    for ticket in tickets:
        assert ticket is not None
        providers.record(NOW, "a", ticket, Outcome.NEVER, Fault.PROVIDER, "suspended")
    assert len(list(providers.events())) == 1
    assert providers.breaker("a").opened == 1


def test_a_late_refusal_does_not_trip_a_breaker_that_has_closed_since() -> None:
    providers = Providers(random=Random(4))
    late = providers.admit(NOW, "a")
    assert late is not None
    providers.pause(NOW, "a", 0.0, "503")
    now_s = providers.health(NOW, "a").until_s
    for _ in range(OPTIONS.probes):
        ticket = providers.admit(now_s, "a")
        assert ticket is not None
        providers.record(now_s, "a", ticket, Outcome.ACCEPTED, Fault.UNSURE)
    providers.record(now_s, "a", late, Outcome.NEVER, Fault.PROVIDER, "was suspended")
    assert providers.health(now_s, "a").ready
