"""Many sites in one process: they take turns, and one that cannot go costs the others nothing."""

from collections import Counter
from collections.abc import Iterable
from random import Random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from shape_world import accepted, book, later, never, unknown

from mailyard.sending.shape import dispatch as module
from mailyard.sending.shape import site as machine
from mailyard.sending.shape.answer import Answer
from mailyard.sending.shape.dispatch import LINE_MAX, TURN_MAILS, Dispatch, Taken, Wanted
from mailyard.sending.shape.receiver import Place
from mailyard.sending.shape.site import HELD_PER_CONNECTION, PROBE_AFTER, Decision, Mode, News, Site

NOW = 1_800_000_000.0
ANSWERS = [
    accepted(),
    accepted(),
    later(),
    later("421 limit"),
    later("421 blocked"),
    never(),
    unknown(),
]
FREE = book('[receiver.free]\nmx = ["free.example"]\nconnections = 100\nrate = "1000/s"\n')


def place(number: int) -> Place:
    return FREE.place(f"mx.site{number}.free.example", "a.example")


class Process:
    """A dispatch whose bucket always says yes, and that counts what it does."""

    def __init__(self) -> None:
        self.dispatch = Dispatch[tuple[str, int]](random=Random(7))
        self.now_s = NOW
        self.went: list[tuple[str, int]] = []
        self.back: list[tuple[str, int, float]] = []

    def offer(self, number: int, mail: int) -> None:
        where = place(number)
        back = self.dispatch.offer(self.now_s, where.name, where, (where.name, mail))
        if back is not None:
            self.back += [(back.key, one[1], back.until_s) for one in back.mails]

    def take(self, room: int) -> list[tuple[str, int]]:
        went: list[tuple[str, int]] = []
        while len(went) < room:
            taken = self.dispatch.take(self.now_s, room - len(went))
            went += [mail for turn in taken.turns for mail in turn.mails]
            for one in taken.back:
                self.back += [(one.key, mail[1], one.until_s) for mail in one.mails]
            for wanted in taken.draws:
                self.dispatch.drawn(wanted, 0.0)
            if not taken.draws:
                break
        self.went += went
        return went


def test_mails_of_one_site_keep_their_order_and_sites_take_turns() -> None:
    process = Process()
    for number in (1, 2):
        for mail in range(50):
            process.offer(number, mail)
    went = process.take(100)
    names = [place(1).name, place(2).name]
    assert [name for name, _ in went[: 2 * TURN_MAILS]] == [names[0]] * 20 + [names[1]] * 20
    for name in names:
        assert [mail for one, mail in went if one == name] == list(range(50))


def test_no_more_than_the_room_is_taken_and_the_rest_follows() -> None:
    process = Process()
    for mail in range(30):
        process.offer(1, mail)
    assert len(process.take(7)) == 7
    assert process.dispatch.waiting == 23
    assert [mail for _, mail in process.take(100)] == list(range(7, 30))
    assert process.dispatch.waiting == 0


def test_a_site_that_carries_no_more_goes_on_when_it_answers() -> None:
    process = Process()
    where = book().place("mx.small.example", "a.example")
    for mail in range(50):
        process.dispatch.offer(NOW, "small", where, ("small", mail))
    carried = where.receiver.limits.connections * HELD_PER_CONNECTION
    assert len(process.take(100)) == carried
    assert process.take(100) == []
    assert process.dispatch.next_at_s() is None
    process.dispatch.observe(NOW, "small", accepted())
    assert [mail for _, mail in process.take(100)] == [carried]
    process.dispatch.released("small", 2)
    assert len(process.take(100)) == 2


def test_fewer_leased_connections_carry_fewer_mails() -> None:
    process = Process()
    for mail in range(100):
        process.offer(1, mail)
    process.dispatch.leased(NOW, place(1).name, 2)
    assert len(process.take(100)) == 2 * HELD_PER_CONNECTION
    process.dispatch.leased(NOW, place(1).name, 3)
    assert len(process.take(100)) == HELD_PER_CONNECTION


def test_a_site_without_a_lease_asks_for_one_and_waits_for_it() -> None:
    process = Process()
    process.dispatch = Dispatch(random=Random(1), leased=0)
    process.offer(1, 0)
    assert process.dispatch.take(NOW, 10).leases == [place(1).name]
    assert process.dispatch.take(NOW, 10).leases == []
    assert process.dispatch.leased(NOW, place(1).name, 1) is None
    assert len(process.take(10)) == 1


def test_where_other_workers_have_all_connections_the_mails_go_back_to_the_queue() -> None:
    process = Process()
    process.dispatch = Dispatch(random=Random(1), leased=0)
    for mail in range(3):
        process.offer(1, mail)
    process.take(10)
    back = process.dispatch.leased(NOW, place(1).name, 0)
    assert back is not None and "other workers" in back.why
    assert [mail for _, mail in back.mails] == [0, 1, 2] and back.until_s > NOW
    assert process.dispatch.waiting == 0
    process.offer(1, 3)
    assert process.dispatch.take(NOW, 10).leases == [place(1).name]


def test_a_site_without_permits_sleeps_until_the_bucket_has_some() -> None:
    process = Process()
    process.offer(1, 0)
    taken = process.dispatch.take(NOW, 10)
    [wanted] = taken.draws
    process.dispatch.drawn(wanted, 3.0)
    assert process.take(10) == []
    assert process.dispatch.next_at_s() == NOW + 3.0
    process.now_s += 3.0
    assert len(process.take(10)) == 1


def test_a_pause_gives_the_line_back_with_an_instant_and_a_reason() -> None:
    process = Process()
    for mail in range(30):
        process.offer(1, mail)
    process.take(5)
    reaction = process.dispatch.observe(NOW, place(1).name, later("421 blocked"))
    assert reaction.news is not None
    assert process.take(10) == []
    assert [mail for _, mail, _ in process.back] == list(range(5, 30))
    assert all(NOW + 600.0 <= until_s <= NOW + 720.0 for _, _, until_s in process.back)
    assert process.dispatch.waiting == 0
    process.offer(1, 99)  # who comes meanwhile is not even taken in
    assert process.back[-1][1] == 99
    process.now_s += 600.0
    process.offer(1, 100)
    assert process.take(10) == [(place(1).name, 100)]


def test_a_person_s_resume_lets_a_paused_site_go_on() -> None:
    process = Process()
    process.offer(1, 0)
    process.take(1)
    process.dispatch.observe(NOW, place(1).name, later("421 blocked"))
    process.dispatch.resumed(place(1).name)
    process.offer(1, 1)
    assert len(process.take(1)) == 1


def test_what_another_worker_saw_stops_a_site_here_too() -> None:
    one, two = Process(), Process()
    two.offer(1, 0)
    one.offer(1, 0)
    one.take(1)
    reaction = one.dispatch.observe(NOW, place(1).name, later("421 blocked"))
    assert reaction.news is not None
    two.dispatch.informed(NOW, place(1).name, place(1), reaction.news)
    assert two.take(1) == []
    assert len(two.back) == 1


def test_a_line_is_short_and_what_does_not_fit_comes_again_soon() -> None:
    process = Process()
    for mail in range(LINE_MAX + 10):
        process.offer(1, mail)
    assert process.dispatch.waiting == LINE_MAX
    assert [mail for _, mail, _ in process.back] == list(range(LINE_MAX, LINE_MAX + 10))


def test_a_site_that_only_refuses_keeps_nobody_waiting_and_gets_one_probe_when_it_is_time() -> None:
    process = Process()
    for mail in range(200):
        process.offer(1, mail)
    process.take(100)
    for _ in range(100):
        process.dispatch.observe(NOW, place(1).name, later())
    assert process.take(100) == []
    process.offer(1, 300)
    assert process.dispatch.waiting == 0
    assert len(process.back) == 101
    process.now_s = process.dispatch.state(place(1).name).probe_at_s
    for mail in (301, 302, 303):
        process.offer(1, mail)
    assert [mail for _, mail in process.take(100)] == [301]
    assert [mail for _, mail, _ in process.back[101:]] == [302, 303]


def test_states_are_forgotten_idle_ones_first_and_never_those_with_mails() -> None:
    process = Process()
    process.dispatch = Dispatch(random=Random(1), sites_max=50)
    for number in range(10):
        process.offer(number, 0)
    process.take(100)  # these are never answered
    for number in range(1_000, 1_500):
        process.offer(number, 0)
        for name, _ in process.take(100):
            process.dispatch.observe(NOW, name, accepted())
    remembered = {key for key, *_ in process.dispatch.states()}
    assert len(remembered) <= 60
    assert remembered >= {place(number).name for number in range(10)}


def test_of_idle_sites_a_paused_one_is_remembered_longer_than_an_open_one() -> None:
    process = Process()
    process.dispatch = Dispatch(random=Random(1), sites_max=4)
    for number in range(4):
        process.offer(number, 0)
    for name, _ in process.take(10):
        blocked = name == place(0).name
        process.dispatch.observe(NOW, name, later("421 blocked") if blocked else accepted())
    for number in range(4, 7):
        process.offer(number, 0)
    assert process.dispatch.state(place(0).name).paused_until_s > NOW


class AnyProcess(RuleBasedStateMachine):
    """Whatever happens to three sites, no mail is lost, doubled or forgotten in a line."""

    SITES = ("fast", "slow", "other")

    @initialize()
    def start(self) -> None:
        self.dispatch = Dispatch[int](random=Random(2), leased=0, sites_max=2)
        self.now_s, self.next = NOW, 0
        self.places = {name: book().place(f"mx.{name}.example", "a.example") for name in self.SITES}
        self.away: list[tuple[str, int]] = []
        self.draws: list[Wanted] = []
        self.settled: set[int] = set()

    def settle(self, mails: Iterable[int]) -> None:
        for mail in mails:
            assert mail not in self.settled
            self.settled.add(mail)

    def took(self, taken: Taken[int]) -> None:
        for turn in taken.turns:
            self.away += [(turn.key, mail) for mail in turn.mails]
        for back in taken.back:
            self.settle(back.mails)
        self.draws += taken.draws

    @rule(name=st.sampled_from(SITES), count=st.integers(1, 40))
    def mails_come(self, name: str, count: int) -> None:
        for _ in range(count):
            back = self.dispatch.offer(self.now_s, name, self.places[name], self.next)
            if back is not None:
                self.settle(back.mails)
            self.next += 1

    @rule(room=st.integers(0, 50))
    def it_takes(self, room: int) -> None:
        taken = self.dispatch.take(self.now_s, room)
        assert sum(len(turn.mails) for turn in taken.turns) <= room
        self.took(taken)

    @rule(wait_s=st.sampled_from([0.0, 0.0, 0.5, 20.0]))
    def the_bucket_speaks(self, wait_s: float) -> None:
        for wanted in self.draws:
            self.dispatch.drawn(wanted, wait_s)
        self.draws = []

    @rule(count=st.integers(1, 30), answer=st.sampled_from(ANSWERS))
    def answers_come(self, count: int, answer: Answer) -> None:
        for _ in range(min(count, len(self.away))):
            name, mail = self.away.pop(0)
            self.dispatch.observe(self.now_s, name, answer)
            self.settle([mail])

    @rule()
    def a_mail_does_not_go_after_all(self) -> None:
        if self.away:
            name, mail = self.away.pop()
            self.dispatch.released(name, 1)
            self.settle([mail])

    @rule(name=st.sampled_from(SITES), connections=st.integers(0, 3))
    def a_lease_changes(self, name: str, connections: int) -> None:
        back = self.dispatch.leased(self.now_s, name, connections)
        if back is not None:
            self.settle(back.mails)

    @rule(name=st.sampled_from(SITES), seconds=st.floats(1.0, 900.0))
    def another_worker_saw_a_pause(self, name: str, seconds: float) -> None:
        news = News(0.5, self.now_s, self.now_s + seconds, "elsewhere")
        self.dispatch.informed(self.now_s, name, self.places[name], news)

    @rule(name=st.sampled_from(SITES))
    def a_person_resumes_it(self, name: str) -> None:
        self.dispatch.resumed(name)

    @rule(seconds=st.floats(0.01, 1_000.0))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @invariant()
    def every_mail_is_in_one_place(self) -> None:
        assert self.next == self.dispatch.waiting + len(self.away) + len(self.settled)
        held = sum(site.held for _, _, site, _ in self.dispatch.states())
        assert held == len(self.away)

    def teardown(self) -> None:
        """Once sites accept, leases are given and buckets full, every line empties by itself."""
        if not hasattr(self, "dispatch"):
            return
        for _ in range(400):
            for name in self.SITES:
                self.a_lease_changes(name, 2)
            self.it_takes(50)
            self.the_bucket_speaks(0.0)
            self.answers_come(50, accepted())
            self.every_mail_is_in_one_place()
            at_s = self.dispatch.next_at_s()
            self.now_s = max(self.now_s, at_s or 0.0) + 1.0
        assert self.dispatch.waiting == 0
        assert not self.away


AnyProcess.TestCase.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
TestAnyProcess = AnyProcess.TestCase

SITES = 5_000
BAD = 17  # answers nothing but 4xx
MAILS_EACH = 12
ROOM = 100  # what the hand-off window of a process has


def test_one_site_of_five_thousand_that_only_refuses_harms_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The queue brings a hundred mails at a time, each to another site; time passes by the work."""
    decisions, real = Counter[str](), machine.decide

    def counted(*args: Any) -> tuple[Site, Decision]:
        decisions["all"] += 1
        return real(*args)

    monkeypatch.setattr(module.machine, "decide", counted)
    numbers = list(range(SITES))
    Random(11).shuffle(numbers)
    queue = [(number, mail) for mail in range(MAILS_EACH) for number in numbers]
    process, bad_name = Process(), place(BAD).name
    in_hand = tries = 0
    for start in range(0, len(queue), ROOM):
        for number, mail in queue[start : start + ROOM]:
            process.offer(number, mail)
        in_hand = max(in_hand, process.dispatch.waiting)
        for name, _ in process.take(ROOM):
            tries += name == bad_name
            answer = later() if name == bad_name else accepted()
            process.dispatch.observe(process.now_s, name, answer)
        process.now_s += 0.01

    # Everybody else got everything, in the order of the queue, as if the bad site were not there.
    others = [item for item in process.went if item[0] != bad_name]
    assert others == [(place(number).name, mail) for number, mail in queue if number != BAD]

    # Bounded work: a draw and a turn for each mail at most, and a few looks at the bad site.
    assert decisions["all"] <= 2 * len(queue) + 50

    # The bad site was tried until it was clear, then left alone; its mails went back to the queue.
    assert tries == PROBE_AFTER
    state = process.dispatch.state(bad_name)
    mode = machine.mode_at(process.now_s, state, place(BAD).receiver.limits)
    assert mode is Mode.PROBING
    back = [(key, mail) for key, mail, _ in process.back]
    assert back == [(bad_name, mail) for mail in range(PROBE_AFTER, MAILS_EACH)]

    # Flat memory: never more in hand than what one round brought, and one state a site.
    assert in_hand <= ROOM + 1
    assert len(list(process.dispatch.states())) == SITES


def test_ten_thousand_mails_for_a_refusing_site_are_handed_back_at_the_door(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process = Process()
    for mail in range(PROBE_AFTER):
        process.offer(BAD, mail)
    for name, _ in process.take(ROOM):
        process.dispatch.observe(NOW, name, later())
    calls = Counter[str]()
    monkeypatch.setattr(module.machine, "decide", lambda *_: calls.update(["decide"]))
    for mail in range(10_000):
        process.offer(BAD, mail)
    assert calls["decide"] == 0
    assert process.dispatch.waiting == 0
    assert len(process.back) == 10_000
    # They do not all come again in one instant.
    assert len({round(until_s, 3) for _, _, until_s in process.back}) > 1_000
