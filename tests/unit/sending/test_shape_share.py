"""The limits hold over all workers, whatever they do and in whatever order, also when one dies."""

import asyncio
from random import Random
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from shape_world import accepted, book, later

from mailyard.core.clock import ManualClock
from mailyard.ratelimit.adapters.memory import MemoryRateLimit
from mailyard.ratelimit.adapters.memory_leases import MemoryLeases
from mailyard.ratelimit.lease import LEASE_TTL_S, Claim, Lease, Part, part_of
from mailyard.sending.shape.dispatch import Dispatch
from mailyard.sending.shape.share import VOID_MARGIN_S, Holding, claim, holding, taking
from mailyard.sending.shape.site import BURST_S, HELD_PER_CONNECTION, PERMIT_S, PRISTINE

PLACE = book().place("mx.slow.example", "slow.example")
WIDE = '[receiver.fast]\nmx = ["fast.example"]\nrate = "20/s"\nconnections = 20\n'
FAST = book(WIDE).place("mx.fast.example", "fast.example")
KEY = PLACE.key("192.0.2.1")


class Workers:
    """Workers with a bucket for all of them and a clock that is moved by hand."""

    def __init__(self, count: int) -> None:
        self.clock = ManualClock()
        self.bucket = MemoryRateLimit(clock=self.clock)
        self.random = Random(5)
        self.workers = [Dispatch[int](random=self.random) for _ in range(count)]
        self.sent: list[float] = []

    @property
    def now_s(self) -> float:
        return self.clock.now().timestamp()

    def step(self, number: int, room: int) -> int:
        """One worker takes what it may; the number of mails that went."""
        worker, went = self.workers[number], 0
        for _ in range(3):
            taken = worker.take(self.now_s, room - went)
            for turn in taken.turns:
                went += len(turn.mails)
                self.sent += [self.now_s] * len(turn.mails)
            if not taken.draws:
                break
            answers = asyncio.run(self.bucket.draw_many([taking(one) for one in taken.draws]))
            for wanted, answer in zip(taken.draws, answers, strict=True):
                worker.drawn(wanted, answer.wait_s)
        return went


class TheRate(RuleBasedStateMachine):
    """Three workers, one site of 20/s: no window of time has more than its rate allows."""

    @initialize()
    def start(self) -> None:
        self.yard = Workers(3)
        self.key = FAST.key("192.0.2.1")
        self.held = [0, 0, 0]

    @rule(worker=st.integers(0, 2), mails=st.integers(1, 60))
    def mails_come(self, worker: int, mails: int) -> None:
        for mail in range(mails):
            self.yard.workers[worker].offer(self.yard.now_s, self.key, FAST, mail)

    @rule(worker=st.integers(0, 2), room=st.integers(1, 100))
    def a_worker_sends(self, worker: int, room: int) -> None:
        went = self.yard.step(worker, room)
        assert went <= room
        self.held[worker] += went

    @rule(
        worker=st.integers(0, 2),
        answer=st.sampled_from([accepted(), accepted(), later("421 limit")]),
    )
    def answers_come(self, worker: int, answer: object) -> None:
        for _ in range(self.held[worker]):
            self.yard.workers[worker].observe(self.yard.now_s, self.key, answer)  # type: ignore[arg-type]
        self.held[worker] = 0

    @rule(worker=st.integers(0, 2))
    def a_worker_is_killed_and_replaced(self, worker: int) -> None:
        self.yard.workers[worker] = Dispatch(random=self.yard.random)
        self.held[worker] = 0

    @rule(seconds=st.sampled_from([0.01, 0.1, 0.5, 1.0, 2.5, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.yard.clock.advance(seconds)

    @invariant()
    def no_window_has_too_many(self) -> None:
        sent, per_s = self.yard.sent, FAST.receiver.limits.rate.per_s
        burst = max(1.0, per_s * BURST_S)
        for first in range(0, len(sent), 7):
            span_s = sent[-1] - sent[first]
            assert len(sent) - first <= burst + (span_s + PERMIT_S) * per_s + 1e-6

    @invariant()
    def no_worker_holds_more_than_its_connections_carry(self) -> None:
        assert max(self.held) <= FAST.receiver.limits.connections * HELD_PER_CONNECTION


TheRate.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestTheRate = TheRate.TestCase


def test_two_workers_together_keep_a_low_rate() -> None:
    yard = Workers(2)
    for worker in yard.workers:
        for mail in range(60):
            worker.offer(yard.now_s, KEY, PLACE, mail)
    for _ in range(600):
        for number in (0, 1):
            for _ in range(yard.step(number, 10)):
                yard.workers[number].observe(yard.now_s, KEY, accepted())
        yard.clock.advance(1.0)
    assert 58 <= len(yard.sent) <= 61  # 6 a minute for ten minutes


def test_the_share_of_a_killed_worker_comes_back() -> None:
    clock = ManualClock()
    leases = MemoryLeases(clock=clock)
    dead, alive = UUID(int=1), UUID(int=2)

    async def story() -> None:
        [one] = await leases.hold(dead, [Claim(KEY, 0, 4, 4)], LEASE_TTL_S)
        [two] = await leases.hold(alive, [Claim(KEY, 0, 4, 4)], LEASE_TTL_S)
        assert (one.held, two.held) == (4, 0)
        clock.advance(LEASE_TTL_S)
        [two] = await leases.hold(alive, [Claim(KEY, 0, 4, 4)], LEASE_TTL_S)
        assert two.held == 4

    asyncio.run(story())


def test_a_holder_finds_its_lease_void_before_anybody_else_does() -> None:
    held = holding(100.0, Lease(4, 3), LEASE_TTL_S)
    assert held.usable(100.0) == 3
    assert held.usable(100.0 + LEASE_TTL_S - VOID_MARGIN_S) == 0
    assert Holding().usable(0.0) == 0


def test_what_is_claimed_follows_what_waits_and_what_the_site_allows_now() -> None:
    limits = book().receivers["default"].limits
    assert claim(0.0, "k", PRISTINE, limits, 0, 5) == Claim("k", 0, 1, 4)
    assert claim(0.0, "k", PRISTINE, limits, 2, 500) == Claim("k", 2, 4, 4)
    assert claim(0.0, "k", PRISTINE, limits, 2, 0) == Claim("k", 2, 0, 4)


@pytest.mark.parametrize(
    ("mine", "others", "lease"),
    [
        (Claim("k", 0, 3, 10), [], Lease(3, 3)),
        (Claim("k", 0, 30, 10), [], Lease(10, 10)),
        (Claim("k", 10, 10, 10), [Part(0, 10)], Lease(10, 5)),  # somebody is hungry: shrink
        (Claim("k", 5, 10, 10), [Part(5, 10)], Lease(5, 5)),
        (Claim("k", 0, 10, 10), [Part(10, 10)], Lease(0, 5)),  # wait for it
        (Claim("k", 2, 10, 10), [Part(3, 3)], Lease(7, 7)),  # who wants little leaves the rest
        (Claim("k", 5, 5, 2), [Part(5, 5)], Lease(5, 1)),  # the limit has been lowered
        (Claim("k", 0, 1, 2), [Part(1, 1), Part(1, 1)], Lease(0, 1)),  # more holders than places
        (Claim("k", 3, 0, 10), [], Lease(3, 0)),
    ],
)
def test_who_gets_how_many(mine: Claim, others: list[Part], lease: Lease) -> None:
    assert part_of(mine, others) == lease


class TheLeases(RuleBasedStateMachine):
    """Four holders of one key: never are more open than the limit, and everybody gets a turn."""

    LIMIT = 6

    @initialize()
    def start(self) -> None:
        self.clock = ManualClock()
        self.leases = MemoryLeases(clock=self.clock)
        self.open = [0, 0, 0, 0]
        self.holdings = [Holding()] * 4

    def renew(self, worker: int, wanted: int) -> None:
        now_s = self.clock.monotonic()
        # What is void is closed before the call, as a holder must.
        self.open[worker] = min(self.open[worker], self.holdings[worker].usable(now_s))
        claimed = Claim(KEY, self.open[worker], wanted, self.LIMIT)
        [lease] = asyncio.run(self.leases.hold(UUID(int=worker), [claimed], LEASE_TTL_S))
        self.holdings[worker] = holding(now_s, lease, LEASE_TTL_S)
        self.open[worker] = min(self.open[worker], lease.target)

    @rule(worker=st.integers(0, 3), wanted=st.integers(0, 8))
    def a_worker_renews(self, worker: int, wanted: int) -> None:
        self.renew(worker, wanted)

    @rule(worker=st.integers(0, 3))
    def a_worker_opens_all_it_may(self, worker: int) -> None:
        usable = self.holdings[worker].usable(self.clock.monotonic())
        self.open[worker] = max(self.open[worker], usable) if usable else 0

    @rule(worker=st.integers(0, 3))
    def a_worker_is_killed(self, worker: int) -> None:
        self.open[worker], self.holdings[worker] = 0, Holding()

    @rule(worker=st.integers(0, 3), wanted=st.integers(1, 8))
    def a_worker_renews_and_opens(self, worker: int, wanted: int) -> None:
        self.renew(worker, wanted)
        self.a_worker_opens_all_it_may(worker)

    @rule(seconds=st.sampled_from([0.5, 10.0, LEASE_TTL_S - VOID_MARGIN_S, LEASE_TTL_S]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        now_s = self.clock.monotonic()
        self.open = [
            min(count, held.usable(now_s))
            for count, held in zip(self.open, self.holdings, strict=True)
        ]

    @invariant()
    def never_more_than_the_limit(self) -> None:
        assert sum(self.open) <= self.LIMIT

    @rule()
    def when_all_want_many_all_have_a_fair_part(self) -> None:
        for _ in range(4):
            self.time_passes(10.0)
            for worker in range(4):
                self.a_worker_renews_and_opens(worker, 8)
                self.never_more_than_the_limit()
        assert min(self.open) >= self.LIMIT // 4
        assert sum(self.open) >= self.LIMIT - 3


TheLeases.TestCase.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)
TestTheLeases = TheLeases.TestCase


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 10),
    st.integers(0, 10),
    st.integers(0, 10),
    st.lists(st.builds(Part, st.integers(0, 5), st.integers(0, 10)), max_size=5),
)
def test_a_part_never_grows_beyond_what_is_free(
    open_now: int, wanted: int, limit: int, others: list[Part]
) -> None:
    lease = part_of(Claim("k", open_now, wanted, limit), others)
    taken = sum(part.held for part in others)
    assert lease.held >= open_now
    assert lease.held == open_now or lease.held + taken <= limit
    assert lease.target <= wanted
