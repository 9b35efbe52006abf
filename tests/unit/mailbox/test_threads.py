"""Threads: what ties mails to one another, and that their order of arrival ties nothing else."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailyard.mailbox.strand import Strand, base_subject, strand_of
from mailyard.mailbox.weave import Found, NewMail, weave
from mailyard.protocol.mime.summary import Summary

MONDAY = datetime(2026, 11, 23, 12, tzinfo=UTC)


def mail(
    own: str = "",
    *references: str,
    subject: str = "Lunch",
    sender: str = "ada@peer.test",
    answers: str = "",
    sent_at: datetime | None = MONDAY,
) -> Summary:
    return Summary("", sender, subject, "", sent_at, own, 0, answers, references)


class Shelf:
    """Ties and threads as the database keeps them, in dictionaries."""

    def __init__(self) -> None:
        self.thread: dict[UUID, UUID] = {}
        self.strand: dict[UUID, Strand] = {}
        self.key: dict[int, UUID] = {}

    def behind(self, mails: Sequence[NewMail]) -> dict[int, list[Found]]:
        found: dict[int, list[Found]] = {}
        for _, strand in mails:
            own = () if strand.own is None else (strand.own,)
            for tie in {*own, *strand.named, *strand.answers, strand.subject} - {None}:
                assert tie is not None
                behind = [Found(self.key[tie], False, True)] if tie in self.key else []
                for message_id, other in self.strand.items():
                    by_id = tie in (*own, *strand.named) and other.own == tie
                    if by_id or (tie in strand.answers and other.subject == tie):
                        behind.append(Found(self.thread[message_id], False, False))
                if behind:
                    found[tie] = behind
        return found

    def take(self, mails: Sequence[NewMail]) -> None:
        woven = weave(mails, self.behind(mails))
        for new, thread_id in zip(mails, woven.threads, strict=True):
            self.thread[new.message_id], self.strand[new.message_id] = thread_id, new.strand
        for tie, thread_id, _ in woven.ties:
            assert tie not in self.key
            self.key[tie] = thread_id
        for threads, _ in woven.joined:
            self.thread = {
                one: min(threads) if at in threads else at for one, at in self.thread.items()
            }
            self.key = {tie: min(threads) if at in threads else at for tie, at in self.key.items()}

    def sets(self) -> set[frozenset[UUID]]:
        return {
            frozenset(one for one, at in self.thread.items() if at == thread_id)
            for thread_id in self.thread.values()
        }


def chains(mails: Iterable[NewMail]) -> set[frozenset[UUID]]:
    """The connected sets, found the slow way."""
    mails = list(mails)
    sought = {tie for _, strand in mails for tie in strand.answers}

    def ties(strand: Strand) -> set[int]:
        held = {*strand.named, *strand.answers}
        if strand.own is not None:
            held.add(strand.own)
        if strand.subject in sought and strand.subject is not None:
            held.add(strand.subject)
        return held

    sets = [({one.message_id}, ties(one.strand)) for one in mails]
    joined = True
    while joined:
        joined = False
        for place, (members, held) in enumerate(sets):
            for other in range(place + 1, len(sets)):
                if held & sets[other][1]:
                    members |= sets[other][0]
                    held |= sets[other][1]
                    del sets[other]
                    joined = True
                    break
            if joined:
                break
    return {frozenset(members) for members, _ in sets}


IDS = st.sampled_from([1, 2, 3, 4, 5, 6])
SUBJECTS = st.sampled_from([-1, -2, -3])


def _some(ties: st.SearchStrategy[int], most: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.sets(ties, min_size=1, max_size=most).map(lambda some: tuple(sorted(some)))


STRANDS = st.one_of(
    st.builds(Strand, st.none() | IDS, _some(IDS, 3), st.none(), st.just(())),
    st.builds(Strand, st.none() | IDS, st.just(()), st.none() | SUBJECTS, st.just(())),
    st.builds(Strand, st.none() | IDS, st.just(()), st.none(), _some(SUBJECTS, 2)),
)


@given(st.lists(STRANDS, max_size=8), st.data())
def test_threads_are_the_same_in_any_order_and_in_batches_of_any_size(
    strands: list[Strand], data: st.DataObject
) -> None:
    mails = [NewMail(UUID(int=n), strand) for n, strand in enumerate(strands, 1)]
    waiting = data.draw(st.permutations(mails))
    shelf = Shelf()
    while waiting:
        size = data.draw(st.integers(1, len(waiting)))
        shelf.take(waiting[:size])
        waiting = waiting[size:]
    assert shelf.sets() == chains(mails)


def woven(*summaries: Summary) -> list[int]:
    """The threads of mails that came in this order, one by one: 0 for the first, and so on."""
    shelf = Shelf()
    for n, summary in enumerate(summaries, 1):
        shelf.take([NewMail(UUID(int=n), strand_of(summary))])
    threads = [shelf.thread[UUID(int=n)] for n in range(1, len(summaries) + 1)]
    return [list(dict.fromkeys(threads)).index(thread) for thread in threads]


def test_a_mail_is_of_the_thread_of_every_mail_that_it_names() -> None:
    assert woven(mail("a"), mail("b", "a"), mail("c", "a", "b"), mail("x")) == [0, 0, 0, 1]
    assert woven(mail("a"), mail("b", answers="a", subject="Re: Lunch")) == [0, 0]
    assert woven(mail("b", "a"), mail("c", "a")) == [0, 0]  # whatever it was that both answer
    assert woven(mail("a"), mail("b"), mail("c", "a", "b")) == [0, 0, 0]
    assert woven(mail("a"), mail("a")) == [0, 0]  # a copy through a list


def test_an_answer_that_names_nothing_is_found_by_its_subject() -> None:
    question, answer = mail("a", subject="Lunch?"), mail("b", subject="RE:  AW[2]: lunch?")
    assert woven(question, answer) == woven(answer, question) == [0, 0]
    later = mail("c", subject="Re: Lunch?", sent_at=MONDAY + timedelta(days=40))
    assert woven(question, later) == [0, 0]


@pytest.mark.parametrize(
    "other",
    [
        mail("b", subject="Your order"),  # no answer: another order
        mail("b", subject="Fwd: Your order"),
        mail("b", subject="Re: Your order", sender="bob@peer.test"),
        mail("b", subject="Re: Your order", sent_at=MONDAY + timedelta(days=200)),
        mail("b", "elsewhere", subject="Re: Your order"),  # it says what it answers
        mail("b", subject="Re:"),
    ],
)
def test_mails_that_only_look_alike_are_threads_of_their_own(other: Summary) -> None:
    assert woven(mail("a", subject="Your order"), other) == [0, 1]


def test_what_we_wrote_is_found_by_the_answer_of_whom_we_wrote_to() -> None:
    ours = strand_of(mail("a", subject="Offer", sender="us@inbox.test"), "Ada@peer.test")
    answer = strand_of(mail("b", subject="Re: Offer"))
    assert ours.subject in answer.answers


@pytest.mark.parametrize(
    ("subject", "base", "is_answer"),
    [
        ("Re: Re: Hello  there", "hello there", True),
        ("[list] Re: Hello", "hello", True),
        ("Antw: Hello", "hello", True),
        ("Fwd: Hello", "hello", False),
        ("回复：你好", "你好", True),
        ("Report: done", "report: done", False),
        ("Re", "re", False),
        ("", "", False),
        ("Re: " * 400, "", True),
    ],
)
def test_a_subject_without_what_clients_put_before_it(
    subject: str, base: str, is_answer: bool
) -> None:
    assert base_subject(subject) == (base, is_answer)
