"""Whole transactions behind one another, as PIPELINING and CHUNKING allow together."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from smtp_sessions import STORED, TAKEN, UNKNOWN_USER, Driver, codes_of, greeted

from mailyard.core import limits
from mailyard.protocol.smtp.reply import Reply
from mailyard.protocol.smtp.server import ServerSession
from mailyard.protocol.smtp.session import MessageReceived, RecipientAsked, SessionConfig

GOING = Reply(421, "4.3.2", "Shutting down")
CONFIG = SessionConfig("mx.example")
PATIENT = SessionConfig(
    "mx.example", message_bytes=300, line_bytes=120, recipients_per_message=3, errors_per_session=99
)


def transaction(to: str = "r@d.example", content: bytes = b"x\r\n", sender: str = "a@b.c") -> bytes:
    envelope = f"RSET\r\nMAIL FROM:<{sender}>\r\nRCPT TO:<{to}>\r\n"
    return f"{envelope}BDAT {len(content)} LAST\r\n".encode() + content


class Slow:
    """A session whose questions stay open until somebody answers them."""

    def __init__(self, config: SessionConfig = CONFIG) -> None:
        self.session = ServerSession(config, "192.0.2.1", 1)
        self.open: list[RecipientAsked | MessageReceived] = []
        self.stored: list[tuple[str, list[str], bytes]] = []
        self.said = self.session.take_output()

    def feed(self, data: bytes = b"") -> list[int]:
        before = len(self.said)
        if data:
            self.session.receive(data)
        while (event := self.session.next_event()) is not None:
            assert isinstance(event, RecipientAsked | MessageReceived)
            self.open.append(event)
        self.said += self.session.take_output()
        return codes_of(self.said[before:])

    def answer(self, index: int, reply: Reply) -> list[int]:
        question = self.open.pop(index)
        if isinstance(question, MessageReceived):
            envelope = question.envelope
            self.stored.append(
                (envelope.reverse_path, sorted(envelope.recipients), question.content)
            )
        self.session.answer(question, reply)
        return self.feed()

    def answer_as_usual(self, index: int) -> None:
        question = self.open[index]
        refused = isinstance(question, RecipientAsked) and question.address.startswith("no")
        taken = TAKEN if isinstance(question, RecipientAsked) else STORED
        self.answer(index, UNKNOWN_USER if refused else taken)


def slow() -> Slow:
    session = Slow()
    session.feed(b"EHLO c.example\r\n")
    return session


def test_messages_that_come_together_are_asked_about_and_stored_together() -> None:
    session = slow()
    sent = b"".join(transaction(f"r{n}@d.example", b"%d\r\n" % n) for n in range(3))
    assert session.feed(sent) == [250, 250]  # to RSET and MAIL; the rest waits for its turn
    assert [type(question) for question in session.open] == [RecipientAsked] * 3
    session.answer(0, TAKEN)
    session.answer(0, TAKEN)
    session.answer(0, TAKEN)
    assert [type(question) for question in session.open] == [MessageReceived] * 3
    assert session.answer(2, STORED) == []
    assert session.answer(1, STORED) == []
    assert session.answer(0, STORED) == [250] + [250] * 4 + [250] * 4
    assert [content for _, _, content in session.stored] == [b"2\r\n", b"1\r\n", b"0\r\n"]


def test_a_message_for_nobody_is_refused_and_its_neighbours_are_stored() -> None:
    session = slow()
    session.feed(transaction("a@d.example") + transaction("b@d.example") + b"QUIT\r\n")
    session.answer(0, UNKNOWN_USER)
    session.answer(0, TAKEN)
    [question] = session.open
    assert isinstance(question, MessageReceived)
    assert question.envelope.recipients == ("b@d.example",)
    session.answer(0, STORED)
    assert codes_of(session.said)[2:] == [250, 250, 550, 503, 250, 250, 250, 250, 221]
    assert session.session.closed


def test_a_recipient_never_gets_into_the_transaction_before_it() -> None:
    driver = greeted()
    driver.feed(transaction("no@d.example", sender="one@b.c") + transaction(sender="two@b.c"))
    [(envelope, _)] = driver.stored
    assert (envelope.reverse_path, envelope.recipients) == ("two@b.c", ("r@d.example",))


def test_a_fault_in_the_content_is_told_whatever_the_recipients_are_answered() -> None:
    session = slow()
    long_line = b"y" * (limits.SMTP_TEXT_LINE_BYTES + 1) + b"\r\n"
    session.feed(transaction(content=long_line) + transaction())
    session.answer(0, TAKEN)
    session.answer(0, TAKEN)
    session.answer(0, STORED)
    assert codes_of(session.said)[4:] == [250, 550, 250, 250, 250, 250]
    assert len(session.stored) == 1


def test_what_smells_of_smuggling_ends_the_session_behind_the_messages_before_it() -> None:
    session = slow()
    session.feed(transaction() + transaction(content=b"x\n\r\n") + transaction())
    for _ in range(3):
        session.answer_as_usual(0)
    assert codes_of(session.said)[-1] == 550
    assert session.session.closed
    assert len(session.stored) == 1


def test_chunks_that_are_not_the_last_wait_for_the_recipients() -> None:
    session = slow()
    session.feed(b"MAIL FROM:<a@b.c>\r\nRCPT TO:<r@d.example>\r\nBDAT 3\r\nabcBDAT 2 LAST\r\n\r\n")
    assert len(session.open) == 1
    assert session.answer(0, TAKEN) == [250, 250]
    session.answer(0, STORED)
    assert session.stored == [("a@b.c", ["r@d.example"], b"abc\r\n")]


def test_one_session_has_a_bounded_number_of_messages_open() -> None:
    session = slow()
    session.feed(transaction() * 60)
    while any(isinstance(question, RecipientAsked) for question in session.open):
        session.answer_as_usual(0)
        waiting = sum(isinstance(question, MessageReceived) for question in session.open)
        assert waiting <= 32
        if waiting == 32:
            break
    while session.open:
        session.answer_as_usual(0)
    assert len(session.stored) == 60


def test_content_ahead_of_its_recipients_is_bounded() -> None:
    session = slow()
    session.feed(transaction(content=b"z" * 990 + b"\r\n") * 2)
    large = (b"z" * 990 + b"\r\n") * 250
    session.feed(transaction(content=large) * 4)
    assert not session.session.wants_input
    while session.open:
        session.answer_as_usual(0)
    assert len(session.stored) == 6


def test_a_drain_answers_what_came_whole_and_begins_nothing_more() -> None:
    session = slow()
    session.feed(transaction() * 2)
    session.session.drain(GOING)
    assert session.feed(transaction() * 5) == []
    while session.open:
        session.answer_as_usual(0)
    assert len(session.stored) == 2
    assert codes_of(session.said)[-1] == 421
    assert session.session.closed


def test_a_closed_session_stores_nothing_that_it_can_no_longer_answer() -> None:
    session = slow()
    session.feed(transaction())
    session.session.close(GOING)
    assert session.answer(0, TAKEN) == [421]
    assert session.open == []


@pytest.mark.parametrize("argument", ["\u0665", "3 LA\u017fT"])
def test_only_ascii_is_a_number_or_a_keyword(argument: str) -> None:
    session = slow()
    session.feed(b"MAIL FROM:<a@b.c>\r\nRCPT TO:<r@d.example>\r\n")
    session.feed(f"BDAT {argument}\r\nNOOP\r\n".encode())
    session.answer(0, TAKEN)
    assert codes_of(session.said)[2:] == [250, 250, 501, 250]


def test_while_one_message_waits_no_large_one_is_read_behind_it() -> None:
    session = slow()
    session.feed(transaction())
    session.answer(0, TAKEN)
    large = (b"z" * 990 + b"\r\n") * 300
    for _ in range(5):
        session.feed(transaction(content=large))
    assert not session.session.wants_input
    while any(isinstance(question, RecipientAsked) for question in session.open):
        session.answer(1, TAKEN)
    assert len(session.open) == 1
    while session.open:
        session.answer_as_usual(0)
    assert len(session.stored) == 6


def test_a_message_that_is_answered_is_not_held_until_its_turn() -> None:
    session = slow()
    session.feed(transaction() + transaction(content=b"2\r\n"))
    session.answer(0, TAKEN)
    session.answer(0, TAKEN)
    _, second = session.open
    assert session.answer(1, Reply(451, "4.3.1", "Busy")) == []
    assert isinstance(second, MessageReceived) and second.content == b""


def test_commands_that_cost_nothing_do_not_pile_up_behind_a_question() -> None:
    session = slow()
    session.feed(b"MAIL FROM:<a@b.c>\r\nRCPT TO:<r@d.example>\r\n" + b"RSET\r\n" * 100_000)
    assert not session.session.wants_input
    assert session.answer(0, TAKEN) == [250] * 100_001


def test_a_drain_waits_for_the_answer_that_waits_behind_another() -> None:
    session = slow()
    session.feed(b"MAIL FROM:<a@b.c>\r\nRCPT TO:<slow@d.example>\r\n" + transaction())
    session.answer(1, TAKEN)
    session.answer(1, STORED)
    session.session.drain(GOING)
    assert session.feed() == []
    assert session.answer(0, TAKEN) == [250] * 5 + [421]


lines = st.sampled_from(
    [
        *(transaction(), transaction("no@d.example"), transaction(content=b"x" * 310)),
        *(transaction(content=b"x\ny\r\n"), transaction(content=b"l" * 130 + b"\r\n")),
        *(b"RSET\r\n", b"NOOP\r\n", b"EHLO d.example\r\n", b"MAIL FROM:<>\r\n", b"QUIT\r\n"),
        *(b"RCPT TO:<r@d.example>\r\n", b"RCPT TO:<no@d.example>\r\n", b"DATA\r\nx\r\n.\r\n"),
        *(b"BDAT 4\r\nabcd", b"BDAT 3 LAST\r\nz\r\n", b"BDAT 0 LAST\r\n", b"BDAT x\r\n"),
        b"BDAT 700\r\n",
    ]
)


@settings(max_examples=600, deadline=None)
@given(st.lists(lines, max_size=14), st.lists(st.integers(0, 9), max_size=60))
@example([transaction("no@d.example"), b"BDAT 3 LAST\r\nz\r\n"], [])
def test_late_answers_in_any_order_change_nothing(sent: list[bytes], choices: list[int]) -> None:
    """What is said and stored is what a session says whose questions are answered at once."""
    data = b"EHLO c.example\r\n" + b"".join(sent)
    prompt = Driver(config=PATIENT)
    prompt.feed(data)
    late = Slow(PATIENT)
    late.feed(data)
    for choice in choices:
        if late.open:
            late.answer_as_usual(choice % len(late.open))
    while late.open:
        late.answer_as_usual(0)
    assert late.said == prompt.said
    assert sorted(late.stored) == sorted(
        (envelope.reverse_path, sorted(envelope.recipients), content)
        for envelope, content in prompt.stored
    )
    assert late.session.state is prompt.session.state
