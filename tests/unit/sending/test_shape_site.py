"""One site as a state machine: slower, paused, probing, and back by itself."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from shape_world import accepted, book, later, never, unknown

from mailyard.sending.shape.answer import Answer, Phase, read_answer
from mailyard.sending.shape.rule import Verdict
from mailyard.sending.shape.site import (
    HELD_PER_CONNECTION,
    PRISTINE,
    PROBE_AFTER,
    PROBE_EVERY,
    SETTLE_S,
    SHARE_AFTER_PROBING,
    SHARE_MIN,
    Decision,
    EventKind,
    Mode,
    News,
    Reaction,
    Site,
    connections_at,
    decide,
    drawn,
    informed,
    mode_at,
    news_of,
    observe,
    per_s_at,
    released,
    resumed,
    share_at,
    standing,
)
from mailyard.sending.transport import Outcome

RECEIVER = book().receivers["default"]
LIMITS = RECEIVER.limits
NOW = 1_800_000_000.0


def go(site: Site, now_s: float, wanted: int) -> tuple[Site, Decision]:
    """Decide, with a bucket that always says yes."""
    site, decision = decide(now_s, site, LIMITS, wanted)
    if decision.draw is not None:
        site, decision = decide(now_s, drawn(now_s, site, decision.draw, 0.0), LIMITS, wanted)
    return site, decision


def seen(site: Site, now_s: float, *answers: Answer) -> tuple[Site, Reaction]:
    reaction = None
    for answer in answers:
        site, reaction = observe(now_s, replace(site, held=1), RECEIVER, answer, Random(1))
    assert reaction is not None
    return site, reaction


def test_a_fresh_site_asks_for_permits_and_then_lets_mails_go() -> None:
    site, decision = decide(NOW, PRISTINE, LIMITS, 10)
    assert decision.allowed == 0 and decision.draw is not None
    assert (decision.draw.amount, decision.draw.per_s, decision.draw.burst) == (10, 100.0, 100.0)
    site, decision = decide(NOW, drawn(NOW, site, decision.draw, 0.0), LIMITS, 10)
    assert (decision.allowed, site.held, site.permits) == (10, 10, 0)


def test_an_empty_bucket_makes_it_wait_as_long_as_it_was_told() -> None:
    site, decision = decide(NOW, PRISTINE, LIMITS, 10)
    assert decision.draw is not None
    site = drawn(NOW, site, decision.draw, 0.4)
    site, decision = decide(NOW, site, LIMITS, 10)
    assert (decision.allowed, decision.draw, decision.until_s) == (0, None, NOW + 0.4)
    _, decision = decide(NOW + 0.4, site, LIMITS, 10)
    assert decision.draw is not None


def test_permits_that_were_not_used_in_time_are_void() -> None:
    site, decision = decide(NOW, PRISTINE, LIMITS, 10)
    assert decision.draw is not None
    site = drawn(NOW, site, decision.draw, 0.0)
    _, decision = decide(NOW + 3.0, site, LIMITS, 10)
    assert decision.allowed == 0 and decision.draw is not None


def test_a_process_holds_no_more_than_its_connections_can_carry() -> None:
    site, decision = go(PRISTINE, NOW, 1_000)
    assert decision.allowed == LIMITS.connections * HELD_PER_CONNECTION
    site, decision = go(site, NOW, 1)
    assert decision.allowed == 0
    site, decision = go(released(site, 3), NOW, 1_000)
    assert decision.allowed == 3


def test_a_slow_rule_halves_and_the_share_comes_back_by_the_clock_alone() -> None:
    site, reaction = seen(PRISTINE, NOW, later("421 rate limit"))
    assert reaction.ruling.verdict is Verdict.RETRY
    assert mode_at(NOW, site, LIMITS) is Mode.SLOWER
    assert per_s_at(NOW, site, LIMITS) == pytest.approx(50.0)
    assert connections_at(NOW, site, LIMITS) == 2
    assert per_s_at(NOW + 59.9, site, LIMITS) == pytest.approx(50.0)
    assert per_s_at(NOW + 60.0, site, LIMITS) == pytest.approx(60.0)
    assert per_s_at(NOW + 300.0, site, LIMITS) == pytest.approx(100.0)
    assert mode_at(NOW + 300.0, site, LIMITS) is Mode.OPEN
    assert per_s_at(NOW + 1e9, site, LIMITS) == 100.0


def test_answers_to_what_was_on_its_way_halve_it_only_once() -> None:
    site, _ = seen(PRISTINE, NOW, later("450 limit"), later("450 limit"))
    assert site.share == 0.5
    site, _ = seen(site, NOW + SETTLE_S, later("450 limit"))
    assert site.share == 0.5  # the third within a minute: another rule paused it instead
    assert mode_at(NOW + SETTLE_S, site, LIMITS) is Mode.PAUSED


def test_slowing_never_ends_at_nothing() -> None:
    site, now_s = PRISTINE, NOW
    for _ in range(50):
        now_s += SETTLE_S
        site, _ = seen(replace(site, hits=(), paused_until_s=0.0), now_s, later("450 limit"))
    assert SHARE_MIN <= site.share < 0.1
    assert connections_at(now_s, replace(site, refusals=0), LIMITS) == 1


def test_a_threshold_counts_within_its_window_and_starts_anew() -> None:
    site, reaction = seen(PRISTINE, NOW, later("450 limit"), later("450 limit"))
    assert [event.rule for event in reaction.events] == []
    assert site.paused_until_s == 0.0
    late, _ = seen(site, NOW + 61.0, later("450 limit"))
    assert late.paused_until_s == 0.0  # the two are forgotten
    site, reaction = seen(site, NOW + 59.0, later("450 limit"))
    assert site.paused_until_s == NOW + 59.0 + 1800.0
    assert [event.kind for event in reaction.events] == [EventKind.PAUSED, EventKind.ALERT]
    assert site.hits == ()


def test_a_paused_site_says_why_and_until_when() -> None:
    site, reaction = seen(PRISTINE, NOW, later("421 4.7.0 you are blocked"))
    _, decision = decide(NOW + 1.0, site, LIMITS, 5)
    assert (decision.allowed, decision.until_s) == (0, NOW + 600.0)
    assert decision.why == "block: 421 4.7.0 you are blocked"
    assert connections_at(NOW + 1.0, site, LIMITS) == 0
    kinds = {event.kind: event for event in reaction.events}
    assert kinds[EventKind.PAUSED].until_s == NOW + 600.0
    assert kinds[EventKind.ALERT].text == "we are blocked"
    _, decision = go(site, NOW + 600.0, 5)
    assert decision.allowed == 5


def test_eighty_answers_that_were_on_their_way_pause_and_alert_once() -> None:
    site, events = PRISTINE, []
    for number in range(80):
        site, reaction = observe(
            NOW + number / 100, replace(site, held=1), RECEIVER, later("421 blocked"), Random(1)
        )
        events += [event.kind for event in reaction.events if event.kind is not EventKind.PROBING]
    assert events == [EventKind.PAUSED, EventKind.ALERT]


def test_the_page_is_told_how_a_site_stands() -> None:
    open_now = standing(NOW, PRISTINE, LIMITS)
    assert (open_now.mode, open_now.per_s, open_now.connections) == (Mode.OPEN, 100.0, 4)
    slower, _ = seen(PRISTINE, NOW, later("421 limit"))
    assert (standing(NOW, slower, LIMITS).per_s, standing(NOW, slower, LIMITS).until_s) == (
        50,
        None,
    )
    paused, _ = seen(slower, NOW, later("421 blocked"))
    stands = standing(NOW, paused, LIMITS)
    assert (stands.mode, stands.per_s, stands.connections) == (Mode.PAUSED, 0.0, 0)
    assert (stands.until_s, stands.why) == (NOW + 600.0, "block: 421 blocked")
    probing, _ = refused_until_probing()
    stands = standing(NOW, probing, LIMITS)
    assert (stands.mode, stands.connections) == (Mode.PROBING, 1)
    assert stands.until_s == probing.probe_at_s and "not now" in stands.why


def test_a_person_may_end_a_pause() -> None:
    site, _ = seen(PRISTINE, NOW, later("421 blocked"))
    assert mode_at(NOW, resumed(site), LIMITS) is Mode.OPEN


@pytest.mark.parametrize(
    ("answer", "verdict", "retry_s"),
    [
        (later(), Verdict.RETRY, None),
        (later("452 4.2.2 full"), Verdict.RETRY, 7200.0),
        (never(), Verdict.FAIL, None),
        (never("554 listed"), Verdict.RETRY, 14_400.0),
        (never("550 5.1.1 policy"), Verdict.SUPPRESS, None),
        (never("550 5.7.1 policy"), Verdict.FAIL, None),
        (unknown(), None, None),
        (accepted(), None, None),
    ],
)
def test_what_becomes_of_the_mail(
    answer: Answer, verdict: Verdict | None, retry_s: float | None
) -> None:
    _, reaction = seen(PRISTINE, NOW, answer)
    assert (reaction.ruling.verdict, reaction.ruling.retry_s) == (verdict, retry_s)


def test_no_rule_decides_about_a_mail_that_may_have_arrived() -> None:
    lost = read_answer(Outcome.UNKNOWN, 550, "5.1.1 policy, listed, limit", Phase.CONTENT)
    _, reaction = seen(PRISTINE, NOW, lost)
    assert reaction.ruling.verdict is None and reaction.ruling.retry_s is None


def refused_until_probing(now_s: float = NOW) -> tuple[Site, Reaction]:
    return seen(PRISTINE, now_s, *[later() for _ in range(PROBE_AFTER)])


def test_a_site_with_nothing_but_refusals_is_only_probed() -> None:
    site, reaction = refused_until_probing()
    assert mode_at(NOW, site, LIMITS) is Mode.PROBING
    [event] = reaction.events
    assert event.kind is EventKind.PROBING and "not now" in event.text
    _, decision = go(site, NOW, 100)
    assert decision.allowed == 0
    assert NOW + 15.0 <= decision.until_s <= NOW + 30.0
    site, decision = go(site, decision.until_s, 100)
    assert decision.allowed == 1
    _, decision = go(site, NOW + 1e6, 100)
    assert decision.allowed == 0  # one at a time, however long it takes


def test_probes_become_rarer_up_to_half_an_hour() -> None:
    site, _ = refused_until_probing()
    now_s, waits = NOW, []
    for _ in range(12):
        site, decision = go(site, site.probe_at_s, 1)
        assert decision.allowed == 1
        now_s = site.probe_at_s
        site, _ = observe(now_s, site, RECEIVER, later(), Random(1))
        waits.append(site.probe_at_s - now_s)
    assert waits[0] < 60.0 < waits[3]
    assert PROBE_EVERY.cap_s / 2 <= waits[-1] <= PROBE_EVERY.cap_s


def test_one_acceptance_ends_probing_and_it_starts_slowly() -> None:
    site, _ = refused_until_probing()
    site, reaction = seen(site, NOW + 100.0, accepted())
    assert [event.kind for event in reaction.events] == [EventKind.BACK]
    assert share_at(NOW + 100.0, site, LIMITS) == SHARE_AFTER_PROBING
    assert mode_at(NOW + 100.0, site, LIMITS) is Mode.SLOWER
    assert share_at(NOW + 100.0 + 9 * 60.0, site, LIMITS) == pytest.approx(1.0)


def test_full_mailboxes_and_unknown_users_do_not_make_a_site_suspicious() -> None:
    site, _ = seen(PRISTINE, NOW, *[later("452 4.2.2 full")] * 50, *[never()] * 50)
    assert mode_at(NOW, site, LIMITS) is Mode.OPEN


def test_a_worker_that_hears_of_a_pause_keeps_it() -> None:
    paused, reaction = seen(PRISTINE, NOW, later("421 blocked"))
    assert reaction.news == news_of(paused)
    other = informed(PRISTINE, news_of(paused), LIMITS)
    assert mode_at(NOW, other, LIMITS) is Mode.PAUSED
    assert other.why == paused.why


NEWS = st.builds(
    News,
    st.floats(SHARE_MIN, 1.0),
    st.floats(NOW, NOW + 3600.0),
    st.floats(NOW, NOW + 3600.0),
    st.sampled_from(["a", "b"]),
)


@settings(max_examples=200, deadline=None)
@given(NEWS, NEWS)
def test_news_may_come_twice_and_in_any_order(one: News, two: News) -> None:
    once = informed(informed(PRISTINE, one, LIMITS), two, LIMITS)
    assert informed(once, two, LIMITS) == once
    other = informed(informed(PRISTINE, two, LIMITS), one, LIMITS)
    assert once.paused_until_s == other.paused_until_s
    at_s = NOW + 3600.0
    difference = share_at(at_s, once, LIMITS) - share_at(at_s, other, LIMITS)
    assert abs(difference) <= LIMITS.recover_step + 1e-9


@settings(max_examples=200, deadline=None)
@given(NEWS)
def test_news_never_makes_a_site_faster(news: News) -> None:
    site, _ = seen(PRISTINE, NOW, later("421 limit"))
    after = informed(site, news, LIMITS)
    for at_s in (NOW + 3600.0, NOW + 4000.0):
        assert share_at(at_s, after, LIMITS) <= share_at(at_s, site, LIMITS) + LIMITS.recover_step


ANSWERS = st.sampled_from(
    [accepted(), later(), later("421 limit"), later("421 blocked"), never(), unknown()]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.floats(0.0, 120.0), ANSWERS), max_size=60))
def test_after_whatever_happened_a_site_that_accepts_is_back_at_its_ceiling(
    story: list[tuple[float, Answer]],
) -> None:
    now_s, site, random = NOW, PRISTINE, Random(3)
    for pause_s, answer in story:
        now_s += pause_s
        site, _ = observe(now_s, replace(site, held=1), RECEIVER, answer, random)
        assert SHARE_MIN <= site.share <= 1.0
        assert len(site.hits) <= len(RECEIVER.rules)
    site = replace(site, held=0)
    for _ in range(50):  # every wait is followed; a mail that goes is accepted
        site, decision = go(site, now_s, 1)
        if decision.allowed:
            site, _ = observe(now_s, site, RECEIVER, accepted(), random)
            now_s += 60.0
        else:
            now_s = max(now_s, decision.until_s)
    assert mode_at(now_s, site, LIMITS) is Mode.OPEN
    assert per_s_at(now_s, site, LIMITS) == LIMITS.rate.per_s
