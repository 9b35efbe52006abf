"""Never the same mail twice through two providers: another one only after a certain no."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.sending.route.failover import (
    NEXT,
    TRIES_MAX,
    Fault,
    Journey,
    Next,
    answered,
    candidate,
    fault_of,
    handed,
    is_failure,
    settled,
)
from mailyard.sending.shape.answer import Phase, read_answer
from mailyard.sending.transport import Outcome

THREE = ("ses", "sendgrid", "mx")


def test_every_cell_of_the_table_is_said() -> None:
    assert set(NEXT) == set(product(Outcome, Fault))


@pytest.mark.parametrize("fault", Fault)
def test_an_accepted_mail_is_done_and_an_unknown_one_stays_unknown(fault: Fault) -> None:
    assert NEXT[Outcome.ACCEPTED, fault] is Next.DONE
    assert NEXT[Outcome.UNKNOWN, fault] is Next.UNKNOWN


@pytest.mark.parametrize("outcome", [Outcome.LATER, Outcome.NEVER])
def test_only_the_provider_s_own_fault_sends_a_mail_elsewhere(outcome: Outcome) -> None:
    elsewhere = [fault for fault in Fault if NEXT[outcome, fault] is Next.ELSEWHERE]
    assert elsewhere == [Fault.PROVIDER]


def test_a_recipient_that_does_not_exist_does_not_exist_elsewhere_either() -> None:
    journey = answered(handed(Journey(), "ses"), Outcome.NEVER, Fault.RECIPIENT)
    assert settled(journey, THREE) is Next.FAIL
    assert candidate(journey, THREE) is None


def test_a_suspended_account_sends_the_mail_to_the_next_in_order() -> None:
    journey = answered(handed(Journey(), "ses"), Outcome.NEVER, Fault.PROVIDER)
    assert settled(journey, THREE) is None
    assert candidate(journey, THREE) == "sendgrid"


def test_when_nobody_is_left_it_comes_again_later() -> None:
    journey = Journey()
    for provider in THREE:
        assert candidate(journey, THREE) == provider
        journey = answered(handed(journey, provider), Outcome.LATER, Fault.PROVIDER)
    assert settled(journey, THREE) is Next.LATER


def test_a_mail_is_not_carried_around_without_end() -> None:
    many = tuple(f"p{number}" for number in range(10))
    journey = Journey()
    for provider in many[:TRIES_MAX]:
        journey = answered(handed(journey, provider), Outcome.LATER, Fault.PROVIDER)
    assert candidate(journey, many) is None
    assert settled(journey, many) is Next.LATER


def test_while_a_provider_has_not_answered_nobody_else_gets_the_mail() -> None:
    journey = handed(Journey(), "ses")
    assert candidate(journey, THREE) is None
    with pytest.raises(AssertionError):
        handed(journey, "sendgrid")


def test_a_mail_that_somebody_may_have_is_tried_again_there_and_nowhere_else() -> None:
    journey = Journey(only="sendgrid")
    assert candidate(journey, THREE) == "sendgrid"
    with pytest.raises(AssertionError):
        handed(journey, "ses")
    journey = answered(handed(journey, "sendgrid"), Outcome.LATER, Fault.PROVIDER)
    assert candidate(journey, THREE) is None
    assert settled(journey, THREE) is Next.LATER
    assert settled(Journey(only="sendgrid"), ("ses", "mx")) is Next.LATER  # it is away now


@settings(max_examples=300, deadline=None)
@given(
    st.permutations((*THREE, "postmark", "mailgun")),
    st.lists(st.tuples(st.sampled_from(Outcome), st.sampled_from(Fault)), max_size=8),
)
def test_whatever_they_answer_nobody_gets_a_mail_that_somebody_may_have(
    order: list[str], answers: list[tuple[Outcome, Fault]]
) -> None:
    journey, may_have = Journey(), 0
    given_to: list[str] = []
    for outcome, fault in answers:
        provider = candidate(journey, tuple(order))
        if provider is None:
            break
        assert may_have == 0
        given_to.append(provider)
        journey = answered(handed(journey, provider), outcome, fault)
        may_have += outcome in (Outcome.ACCEPTED, Outcome.UNKNOWN)
    assert len(set(given_to)) == len(given_to) <= TRIES_MAX
    assert may_have <= 1


@pytest.mark.parametrize(
    ("outcome", "code", "reply", "phase", "fault"),
    [
        (Outcome.LATER, None, "connection refused", Phase.CONNECT, Fault.PROVIDER),
        (Outcome.LATER, 454, "4.7.0 too many logins", Phase.AUTH, Fault.PROVIDER),
        (Outcome.NEVER, 535, "5.7.8 authentication failed", Phase.AUTH, Fault.PROVIDER),
        (Outcome.NEVER, 530, "5.7.0 authentication required", Phase.RCPT, Fault.PROVIDER),
        (Outcome.NEVER, 554, "5.7.1 sender not verified", Phase.MAIL, Fault.PROVIDER),
        (Outcome.LATER, 421, "4.3.2 closing", Phase.RCPT, Fault.PROVIDER),
        (Outcome.LATER, 451, "4.3.0 try again", Phase.CONTENT, Fault.PROVIDER),
        (Outcome.LATER, None, "connection lost", Phase.RCPT, Fault.PROVIDER),
        (Outcome.LATER, 452, "4.3.1 the disk is full", Phase.RCPT, Fault.PROVIDER),
        (Outcome.NEVER, 550, "5.1.1 no such user", Phase.RCPT, Fault.RECIPIENT),
        (Outcome.LATER, 452, "4.2.2 mailbox full", Phase.RCPT, Fault.RECIPIENT),
        (Outcome.NEVER, 550, "5.1.1 no such user", Phase.CONTENT, Fault.RECIPIENT),
        (Outcome.NEVER, 552, "5.3.4 too large", Phase.CONTENT, Fault.CONTENT),
        (Outcome.NEVER, 400, "something", Phase.HTTP, Fault.UNSURE),
    ],
)
def test_whose_matter_an_answer_of_a_relay_is(
    outcome: Outcome, code: int | None, reply: str, phase: Phase, fault: Fault
) -> None:
    assert fault_of(read_answer(outcome, code, reply, phase)) is fault


def test_what_counts_against_a_provider() -> None:
    counted = [(o.value, f.value) for o, f in product(Outcome, Fault) if is_failure(o, f)]
    assert counted == [
        ("later", "provider"),
        ("never", "provider"),
        *[("unknown", fault.value) for fault in Fault],
    ]
