"""AUTH on a submission server: when it is there, what it takes, and what it costs to fail."""

from base64 import b64encode

import pytest
from smtp_sessions import CONFIG, STORED, TAKEN, codes_of, one_by_one

from mailyard.protocol.smtp.authentication import Credentials
from mailyard.protocol.smtp.reply import Reply
from mailyard.protocol.smtp.server import ServerSession
from mailyard.protocol.smtp.session import (
    LoginAsked,
    MessageReceived,
    RecipientAsked,
    SessionConfig,
)
from mailyard.protocol.smtp.states import State

SUBMISSION = SessionConfig("mx.example", tls_offered=True, submission=True)
HELLO = b"EHLO client.example\r\n"
MAIL = b"MAIL FROM:<a@b.example>\r\n"
GOOD = Reply(235, "2.7.0", "Authentication successful")
BAD = Reply(535, "5.7.8", "No")


def coded(text: bytes) -> bytes:
    return b64encode(text)


class Server:
    """A session whose logins are good with the password `good`."""

    def __init__(self, config: SessionConfig = SUBMISSION, *, encrypted: bool = True) -> None:
        self.session = ServerSession(config, "192.0.2.1", 4711, encrypted=encrypted)
        self.session.take_output()
        self.logins: list[Credentials] = []
        self.users: list[object] = []

    def feed(self, *pieces: bytes) -> bytes:
        said = b""
        for piece in pieces:
            self.session.receive(piece)
            while (event := self.session.next_event()) is not None:
                if isinstance(event, LoginAsked):
                    self.logins.append(event.credentials)
                    good = event.credentials.password == "good"
                    event.user = event.credentials.name if good else None
                    self.session.answer(event, GOOD if good else BAD)
                elif isinstance(event, RecipientAsked):
                    self.session.answer(event, TAKEN)
                elif isinstance(event, MessageReceived):
                    self.users.append(event.envelope.peer.user)
                    self.session.answer(event, STORED)
                else:
                    said += self.session.take_output()
                    self.session.tls_started()
            said += self.session.take_output()
        return said

    def codes(self, *pieces: bytes) -> list[int]:
        return codes_of(self.feed(*pieces))


PLAIN = b"AUTH PLAIN " + coded(b"\0ann\0good") + b"\r\n"


def test_nothing_is_offered_or_taken_before_tls() -> None:
    server = Server(encrypted=False)
    assert b"AUTH" not in server.feed(HELLO)
    assert server.codes(PLAIN) == [538]
    assert server.codes(MAIL) == [530]
    assert server.codes(b"STARTTLS\r\n") == [220]
    assert b"AUTH PLAIN LOGIN" in server.feed(HELLO)
    assert server.codes(MAIL) == [530]
    assert server.codes(PLAIN, MAIL) == [235, 250]


def test_a_server_that_takes_mail_from_all_has_no_auth() -> None:
    server = Server(CONFIG)
    assert b"AUTH" not in server.feed(HELLO)
    assert server.codes(PLAIN) == [502]
    assert server.codes(b"MAIL FROM:<a@b.example> AUTH=<>\r\n") == [555]


@pytest.mark.parametrize(
    ("pieces", "codes"),
    [
        ([PLAIN], [235]),
        ([b"AUTH plain\r\n", coded(b"ann\0ann\0good") + b"\r\n"], [334, 235]),
        ([b"AUTH LOGIN\r\n", coded(b"ann") + b"\r\n", coded(b"good") + b"\r\n"], [334, 334, 235]),
        ([b"AUTH LOGIN " + coded(b"ann") + b"\r\n", coded(b"good") + b"\r\n"], [334, 235]),
        ([b"AUTH LOGIN =\r\n", coded(b"good") + b"\r\n"], [334, 235]),
    ],
    ids=["plain", "plain later", "login", "login with name", "login without name"],
)
def test_each_way_to_sign_in_brings_name_and_password(
    pieces: list[bytes], codes: list[int]
) -> None:
    for feeding in (lambda data: [data], one_by_one):
        server = Server()
        server.feed(HELLO)
        said = b"".join(server.feed(*feeding(piece)) for piece in pieces)
        assert codes_of(said) == codes
        (seen,) = server.logins
        assert seen.password == "good" and seen.name in ("ann", "")
        assert "good" not in repr(seen)


@pytest.mark.parametrize(
    ("pieces", "codes"),
    [
        ([b"AUTH CRAM-MD5\r\n"], [504]),
        ([b"AUTH\r\n"], [504]),
        ([b"AUTH PLAIN !!!\r\n"], [501]),
        ([b"AUTH PLAIN " + coded(b"ann\0good") + b"\r\n"], [501]),
        ([b"AUTH PLAIN " + coded(b"eve\0ann\0good") + b"\r\n"], [535]),
        ([b"AUTH PLAIN\r\n", b"*\r\n"], [334, 501]),
        ([b"AUTH LOGIN\r\n", b"\xff\r\n"], [334, 501]),
        ([b"AUTH LOGIN\r\n", coded(b"\xff\xfe") + b"\r\n"], [334, 501]),
    ],
)
def test_what_is_no_login_is_refused_and_the_session_goes_on(
    pieces: list[bytes], codes: list[int]
) -> None:
    server = Server()
    server.feed(HELLO)
    assert server.codes(*pieces) == codes
    assert not server.logins
    assert server.session.state is State.READY
    assert server.codes(MAIL) == [530]
    assert server.codes(PLAIN) == [235]


@pytest.mark.parametrize(
    "line", [b"x" * 13_000, b"eA==\n", b"e\rA==\r\n"], ids=["too long", "bare LF", "bare CR"]
)
def test_a_line_of_the_exchange_that_is_no_line_ends_the_session(line: bytes) -> None:
    server = Server()
    server.feed(HELLO, b"AUTH LOGIN\r\n")
    assert server.codes(line) == [500]
    assert server.session.closed


def test_who_signed_in_stands_with_every_mail_and_cannot_sign_in_again() -> None:
    server = Server()
    server.feed(HELLO, PLAIN)
    mail = MAIL + b"RCPT TO:<c@d.example>\r\nDATA\r\n"
    assert server.codes(mail, b"x\r\n.\r\n") == [250, 250, 354, 250]
    assert server.codes(PLAIN) == [503]
    assert server.codes(b"RSET\r\n", HELLO, mail, b"x\r\n.\r\n") == [250, 250, 250, 250, 354, 250]
    assert server.users == ["ann", "ann"]


def test_the_third_failed_login_ends_the_session() -> None:
    server = Server()
    server.feed(HELLO)
    wrong = b"AUTH PLAIN " + coded(b"\0ann\0bad") + b"\r\n"
    assert server.codes(wrong) == [535]
    assert server.codes(wrong) == [535]
    assert server.codes(wrong + PLAIN) == [535, 421]
    assert server.session.closed
    assert len(server.logins) == 3


def test_what_is_pipelined_behind_a_login_waits_for_its_answer() -> None:
    server = Server()
    server.feed(HELLO)
    assert server.codes(PLAIN + MAIL + b"RCPT TO:<c@d.example>\r\nDATA\r\n") == [235, 250, 250, 354]


@pytest.mark.parametrize("where", [b"", MAIL, MAIL + b"RCPT TO:<c@d.example>\r\n"])
def test_auth_is_out_of_place_before_ehlo_and_in_a_transaction(where: bytes) -> None:
    server = Server()
    assert server.codes(PLAIN) == [503]
    server.feed(HELLO, PLAIN)
    server.feed(where)
    assert server.codes(PLAIN) == [503]


@pytest.mark.parametrize(
    ("parameter", "code"),
    [(b"AUTH=<>", 250), (b"AUTH=a+3Db@c.example", 250), (b"AUTH=a=b", 555), (b"AUTH=+zz", 555)],
)
def test_the_auth_parameter_of_mail_is_taken_and_not_believed(parameter: bytes, code: int) -> None:
    server = Server()
    server.feed(HELLO, PLAIN)
    assert server.codes(b"MAIL FROM:<a@b.example> " + parameter + b"\r\n") == [code]
