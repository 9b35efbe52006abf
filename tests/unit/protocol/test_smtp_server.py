"""The server session as RFC 5321 and its extensions have it."""

import pytest
from smtp_sessions import CONFIG, STORED, TAKEN, UNKNOWN_USER, Driver, codes_of, greeted

from mailyard.protocol.smtp.reply import Reply
from mailyard.protocol.smtp.server import ServerSession
from mailyard.protocol.smtp.session import MessageReceived, RecipientAsked, SessionConfig

ENVELOPE = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"


def test_the_greeting_comes_first_and_names_the_host() -> None:
    assert Driver().said == b"220 mx.example ESMTP Mailyard\r\n"


def test_ehlo_announces_what_is_there() -> None:
    said = Driver().feed(b"EHLO client.example\r\n").decode()
    assert [line[4:] for line in said.splitlines()] == [
        "mx.example",
        "PIPELINING",
        "SIZE 26214400",
        "8BITMIME",
        "SMTPUTF8",
        "ENHANCEDSTATUSCODES",
        "CHUNKING",
        "STARTTLS",
        "HELP",
    ]


def test_a_message_arrives_with_its_envelope() -> None:
    driver = greeted()
    assert driver.codes(
        b"MAIL FROM:<a@b.example> SIZE=20 BODY=8BITMIME\r\n",
        b"RCPT TO:<C@d.example>\r\n",
        b"RCPT TO:<nobody@d.example>\r\n",
        b"RCPT TO:<e@d.example>\r\n",
        b"DATA\r\n",
        b"Subject: x\r\n\r\n..dot\r\n.\r\n",
    ) == [250, 250, 550, 250, 354, 250]
    [(envelope, content)] = driver.stored
    assert envelope.reverse_path == "a@b.example"
    assert envelope.recipients == ("C@d.example", "e@d.example")
    assert envelope.declared_bytes == 20
    assert envelope.eight_bit
    assert not envelope.smtp_utf8
    assert (envelope.peer.address, envelope.peer.hello) == ("192.0.2.1", "client.example")
    assert content == b"Subject: x\r\n\r\n.dot\r\n"


def test_a_message_for_twenty_recipients_is_one_message() -> None:
    driver = greeted()
    recipients = b"".join(b"RCPT TO:<r%d@d.example>\r\n" % n for n in range(20))
    driver.feed(b"MAIL FROM:<>\r\n" + recipients + b"DATA\r\n", b"x\r\n.\r\n")
    [(envelope, _)] = driver.stored
    assert len(envelope.recipients) == 20
    assert envelope.reverse_path == ""


def test_many_messages_on_one_connection() -> None:
    driver = greeted()
    for n in range(3):
        driver.feed(ENVELOPE + b"DATA\r\n")
        driver.feed(b"message %d\r\n.\r\n" % n)
    assert [content for _, content in driver.stored] == [b"message %d\r\n" % n for n in range(3)]


def test_an_empty_message_is_a_message() -> None:
    driver = greeted()
    assert driver.codes(ENVELOPE + b"DATA\r\n", b".\r\n") == [250, 250, 354, 250]
    assert driver.stored[0][1] == b""


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (b"MAIL FROM:a@b.example", 501),
        (b"MAIL TO:<a@b.example>", 501),
        (b"MAIL FROM:<a@b.example", 501),
        (b"MAIL FROM:<a b@c.example>", 501),
        (b"MAIL FROM:<a@-b.example>", 553),
        (b"MAIL FROM:<a>", 553),
        (b"MAIL FROM:<a\0b@c.example>", 553),
        (b"MAIL FROM:<a@b.example> SIZE=x", 555),
        (b"MAIL FROM:<a@b.example> SIZE=1 SIZE=2", 555),
        (b"MAIL FROM:<a@b.example> BODY=BINARYMIME", 555),
        (b"MAIL FROM:<a@b.example> FOO=BAR", 555),
        (b"MAIL FROM:<a@b.example> SIZE=99999999999", 552),
        ("MAIL FROM:<ä@b.example>".encode(), 553),
        (b"MAIL FROM:<\xff@b.example>", 501),
        (b"AUTH PLAIN AGEAYg==", 502),
        (b"EXPN list", 502),
        (b"GET / HTTP/1.1", 500),
        (b"", 500),
        (b"EHLO", 501),
        (b"BDAT x", 501),
        (b"RSET now", 501),
    ],
)
def test_what_cannot_be_taken_is_refused_and_the_session_goes_on(command: bytes, code: int) -> None:
    driver = greeted()
    assert driver.codes(command + b"\r\n") == [code]
    assert driver.codes(ENVELOPE) == [250, 250]


@pytest.mark.parametrize(
    ("path", "address"),
    [
        (b'<"a b"@c.example>', '"a b"@c.example'),
        (b'<"a>b"@c.example>', '"a>b"@c.example'),
        (b"<@relay.example,@two.example:a@c.example>", "a@c.example"),
        (b"<a@[192.0.2.7]>", "a@[192.0.2.7]"),
        (b"<Postmaster>", "Postmaster@mx.example"),
        (b" <a@c.example>", "a@c.example"),
        ("<ä@münchen.example>".encode(), "ä@münchen.example"),
    ],
)
def test_every_form_of_path_is_understood(path: bytes, address: str) -> None:
    driver = greeted()
    driver.feed(b"MAIL FROM:<s@t.example> SMTPUTF8\r\n", b"RCPT TO:" + path + b"\r\nDATA\r\n")
    driver.feed(b"x\r\n.\r\n")
    assert driver.stored[0][0].recipients == (address,)
    assert driver.stored[0][0].smtp_utf8


def test_data_without_an_accepted_recipient_is_out_of_sequence() -> None:
    driver = greeted()
    pipelined = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<nobody@d.example>\r\nDATA\r\nQUIT\r\n"
    assert driver.codes(pipelined) == [250, 550, 503, 221]


def test_a_whole_pipelined_session_is_answered_in_order() -> None:
    said = Driver().codes(
        b"EHLO c.example\r\n" + ENVELOPE + b"DATA\r\nx\r\n.\r\n" + ENVELOPE + b"RSET\r\nQUIT\r\n"
    )
    assert said == [250, 250, 250, 354, 250, 250, 250, 250, 221]


class Asking:
    """A session whose questions are answered by hand."""

    def __init__(self, config: SessionConfig = CONFIG) -> None:
        self.session = ServerSession(config, "192.0.2.1", 1)
        self.session.take_output()
        self.open: list[RecipientAsked | MessageReceived] = []
        self.feed(b"EHLO c.example\r\n")

    def feed(self, data: bytes = b"") -> list[int]:
        if data:
            self.session.receive(data)
        while (event := self.session.next_event()) is not None:
            assert isinstance(event, RecipientAsked | MessageReceived)
            self.open.append(event)
        return codes_of(self.session.take_output())

    def answer(self, index: int, reply: Reply) -> list[int]:
        self.session.answer(self.open.pop(index), reply)
        return self.feed()


def test_pipelined_recipients_are_asked_together_and_answered_in_order() -> None:
    asking = Asking()
    three = b"".join(b"RCPT TO:<r%d@d.example>\r\n" % n for n in range(3))
    assert asking.feed(b"MAIL FROM:<a@b.example>\r\n" + three + b"DATA\r\n") == [250]
    assert len(asking.open) == 3
    assert asking.answer(2, TAKEN) == []
    assert asking.answer(1, UNKNOWN_USER) == []
    assert asking.answer(0, UNKNOWN_USER) == [550, 550, 250, 354]


def test_the_next_envelope_is_looked_at_while_a_message_is_stored() -> None:
    asking = Asking()
    asking.feed(ENVELOPE)
    asking.answer(0, TAKEN)
    assert asking.feed(b"DATA\r\n") == [354]
    assert asking.feed(b"x\r\n.\r\n" + ENVELOPE + b"DATA\r\n") == []
    assert [type(question) for question in asking.open] == [MessageReceived, RecipientAsked]
    assert asking.answer(1, TAKEN) == []
    assert asking.answer(0, STORED) == [250, 250, 250, 354]


def test_nothing_that_depends_on_an_open_answer_is_carried_out() -> None:
    asking = Asking()
    asking.feed(ENVELOPE)
    assert asking.feed(b"RSET\r\nMAIL FROM:<x@y.example>\r\nQUIT\r\n") == []
    assert asking.answer(0, TAKEN) == [250, 250, 250, 221]
    assert asking.session.closed


def test_the_session_tells_when_too_much_is_unread() -> None:
    asking = Asking()
    asking.feed(ENVELOPE)
    asking.feed(b"NOOP\r\n" * 50_000)
    assert not asking.session.wants_input
    said = asking.answer(0, TAKEN)
    assert said == [250] * 50_001
    assert asking.session.wants_input


def test_a_drain_lets_the_message_under_way_finish() -> None:
    asking = Asking()
    asking.feed(ENVELOPE)
    asking.answer(0, TAKEN)
    asking.feed(b"DATA\r\n")
    asking.session.drain(Reply(421, "4.3.2", "Shutting down"))
    assert asking.feed(b"x\r\n.\r\n" + ENVELOPE) == []
    assert asking.answer(0, STORED) == [250, 421]
    assert asking.session.closed


def test_a_drain_ends_an_idle_session_at_once() -> None:
    asking = Asking()
    asking.session.drain(Reply(421, "4.3.2", "Shutting down"))
    assert asking.feed() == [421]
    assert asking.session.closed


def test_chunks_make_a_message() -> None:
    driver = greeted()
    assert driver.codes(
        ENVELOPE + b"BDAT 7\r\n.abc\r\n.", b"BDAT 6 LAST\r\n.\r\nx\r\n", b"NOOP\r\n"
    ) == [250, 250, 250, 250, 250]
    assert driver.stored[0][1] == b".abc\r\n..\r\nx\r\n"


def test_chunks_that_are_refused_are_still_passed_over() -> None:
    driver = greeted()
    assert driver.codes(b"BDAT 6\r\nQUIT\r\nNOOP\r\n") == [503, 250]


def test_data_between_chunks_is_out_of_sequence() -> None:
    driver = greeted()
    assert driver.codes(ENVELOPE + b"BDAT 1\r\nxDATA\r\n") == [250, 250, 250, 503]


def small(**changes: int) -> Driver:
    return greeted(config=SessionConfig("mx.example", **changes))  # type: ignore[arg-type]


def test_a_message_over_the_size_is_read_to_its_end_and_refused() -> None:
    driver = small(message_bytes=1000)
    assert driver.codes(ENVELOPE + b"DATA\r\n", b"x" * 600, b"x" * 600, b"\r\n.\r\nNOOP\r\n") == [
        *(250, 250, 354, 552, 250)
    ]
    assert not driver.stored


def test_stuffed_dots_do_not_count_for_the_size() -> None:
    driver = small(message_bytes=1000)
    content = b".\r\n" * 333
    stuffed = content.replace(b".", b"..")
    assert len(stuffed) > 1000 > len(content)
    assert driver.codes(ENVELOPE + b"DATA\r\n", stuffed + b".\r\n")[-1] == 250
    assert driver.stored[0][1] == content


def test_a_message_without_end_is_cut() -> None:
    driver = small(message_bytes=1000)
    said = driver.codes(ENVELOPE + b"DATA\r\n", *[b"x" * 100] * 50)
    assert said == [250, 250, 354, 552]
    assert driver.session.closed


def test_chunks_over_the_size_are_refused() -> None:
    driver = small(message_bytes=1000)
    chunk = b"BDAT 600\r\n" + b"x" * 600
    assert driver.codes(ENVELOPE + chunk + chunk + chunk) == [250, 250, 250, 552, 503]
    assert not driver.stored


def test_a_chunk_that_cannot_fit_ends_the_session() -> None:
    driver = greeted()
    assert driver.codes(ENVELOPE + b"BDAT 99999999999999999999\r\n") == [250, 250, 552]
    assert driver.session.closed


def test_recipients_are_limited_and_the_accepted_ones_stand() -> None:
    driver = small(recipients_per_message=3)
    five = b"".join(b"RCPT TO:<r%d@d.example>\r\n" % n for n in range(5))
    assert driver.codes(b"MAIL FROM:<>\r\n" + five + b"DATA\r\n", b"x\r\n.\r\n") == [
        *(250, 250, 250, 250, 452, 452, 354, 250)
    ]
    assert len(driver.stored[0][0].recipients) == 3


def test_too_many_errors_end_the_session() -> None:
    driver = greeted()
    assert driver.codes(b"NONSENSE\r\n" * 30) == [500] * 20 + [421]
    assert driver.session.closed


def test_guessing_recipients_ends_the_session() -> None:
    driver = small(errors_per_session=5)
    guesses = b"".join(b"RCPT TO:<no%d@d.example>\r\n" % n for n in range(9))
    assert driver.codes(b"MAIL FROM:<>\r\n", guesses) == [250] + [550] * 5 + [421]
    assert driver.session.closed


def test_guesses_that_were_asked_together_are_answered_and_end_the_session() -> None:
    asking = Asking(SessionConfig("mx.example", errors_per_session=2))
    five = b"".join(b"RCPT TO:<no%d@d.example>\r\n" % n for n in range(5))
    asking.feed(b"MAIL FROM:<>\r\n" + five)
    assert asking.answer(0, UNKNOWN_USER) == [550]
    assert asking.answer(0, UNKNOWN_USER) == [550]
    assert not asking.session.closed
    assert asking.answer(2, UNKNOWN_USER) == []
    assert asking.answer(0, UNKNOWN_USER) == [550]
    assert asking.answer(0, TAKEN) == [250, 550, 421]
    assert asking.session.closed


def test_what_is_refused_for_now_is_no_error_of_the_peer() -> None:
    driver = small(errors_per_session=2)
    driver.decide = lambda _: Reply(451, "4.3.0", "Try again later")
    assert driver.codes(b"MAIL FROM:<>\r\n", b"RCPT TO:<a@d.example>\r\n" * 9) == [250] + [451] * 9


def test_a_message_that_is_taken_pays_for_the_errors_before_it() -> None:
    driver = small(errors_per_session=2)
    for _ in range(5):
        said = driver.codes(ENVELOPE + b"RCPT TO:<nobody@d.example>\r\nDATA\r\n", b"x\r\n.\r\n")
        assert said == [250, 250, 550, 354, 250]
    driver.store_reply = Reply(451, "4.3.0", "Try again later")
    unpaid = ENVELOPE + b"RCPT TO:<nobody@d.example>\r\nDATA\r\nx\r\n.\r\n"
    assert driver.codes(unpaid, unpaid) == [250, 250, 550, 354, 451, 250, 250, 550, 421]


def test_too_many_commands_end_the_session() -> None:
    driver = small(commands_per_session=10)
    assert driver.codes(b"NOOP\r\n" * 30) == [250] * 9 + [421]
    assert driver.session.closed


def test_a_text_line_over_a_megabyte_is_refused() -> None:
    driver = greeted()
    line = b"x" * (1024 * 1024) + b"\r\n"
    assert driver.codes(ENVELOPE + b"DATA\r\n", line + b".\r\nNOOP\r\n") == [
        *(250, 250, 354, 550, 250)
    ]
    assert driver.codes(ENVELOPE + b"DATA\r\n", line[3:] + b".\r\n")[-1] == 250


def test_a_reply_cannot_be_forged_by_what_a_peer_wrote() -> None:
    reply = Reply(550, "5.1.1", "No\r250 OK\x00é")
    assert reply.encode() == b"550 5.1.1 No?250 OK??\r\n"
    assert Reply(250, "", "one\ntwo").encode() == b"250-one\r\n250 two\r\n"
