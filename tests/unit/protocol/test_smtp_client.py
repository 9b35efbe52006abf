"""The client session against scripted servers, without a socket."""

import pytest
from smtp_sessions import ClientDriver

from mailyard.core import limits
from mailyard.protocol.smtp.client_mail import (
    ClientMail,
    Fate,
    MailDone,
    MailReturned,
    SessionEnded,
    Stage,
    StartTls,
    TlsWanted,
    Verdict,
)

FULL = b"250-mx.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 5000\r\n"
PLAIN = b"250 mx.example\r\n"
OK = b"250 2.0.0 OK\r\n"
GO = b"354 go\r\n"


def mail(*recipients: str, content: bytes = b"x\r\n", **changes: bool) -> ClientMail:
    values = {"eight_bit": False, "smtp_utf8": False} | changes
    return ClientMail("a@b.example", recipients or ("c@d.example",), content, token=None, **values)


class Client(ClientDriver):
    def greeted(self, extensions: bytes = FULL) -> bytes:
        assert self.hears(b"220 mx.example ESMTP\r\n") == b"EHLO me.example\r\n"
        return self.hears(extensions)

    def verdict(self) -> Verdict:
        [event] = [event for event in self.events if isinstance(event, MailDone)]
        return event.verdicts[0]

    def ended(self) -> SessionEnded:
        assert isinstance(self.events[-1], SessionEnded)
        return self.events[-1]


def test_one_group_a_round_trip_holds_the_end_of_one_mail_and_the_start_of_the_next() -> None:
    client = Client(mail(content=b"one\r\n"), mail(content=b".two\r\n"))
    assert client.greeted() == (
        b"MAIL FROM:<a@b.example> SIZE=5\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"
    )
    assert client.hears(OK + OK + GO) == (
        b"one\r\n.\r\nMAIL FROM:<a@b.example> SIZE=6\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"
    )
    assert client.fates() == []
    assert client.hears(OK + OK + OK + GO) == b"..two\r\n.\r\n"
    assert client.fates() == [[Fate.ACCEPTED]]
    assert client.hears(OK) == b""
    assert client.fates() == [[Fate.ACCEPTED]] * 2
    assert client.session.idle


def test_without_pipelining_every_command_waits_for_its_reply() -> None:
    client = Client(mail("c@d.example", "e@d.example"), mail())
    assert client.greeted(PLAIN) == b"MAIL FROM:<a@b.example>\r\n"
    assert client.hears(OK) == b"RCPT TO:<c@d.example>\r\n"
    assert client.hears(OK) == b"RCPT TO:<e@d.example>\r\n"
    assert client.hears(b"550 5.1.1 no\r\n") == b"DATA\r\n"
    assert client.hears(GO) == b"x\r\n.\r\n"
    assert client.hears(OK) == b"MAIL FROM:<a@b.example>\r\n"
    assert client.fates() == [[Fate.ACCEPTED, Fate.NEVER]]


def test_without_pipelining_a_refused_sender_or_nobody_accepted_ends_the_mail_early() -> None:
    client = Client(mail(), mail("c@d.example", "e@d.example"), mail())
    client.greeted(PLAIN)
    assert client.hears(b"451 4.7.1 later\r\n") == b"MAIL FROM:<a@b.example>\r\n"
    client.hears(OK)
    client.hears(b"550 no\r\n")
    assert client.hears(b"450 busy\r\n") == b"RSET\r\n"
    assert client.hears(OK) == b"MAIL FROM:<a@b.example>\r\n"
    assert client.fates() == [[Fate.LATER], [Fate.NEVER, Fate.LATER]]


def test_recipients_are_judged_one_by_one() -> None:
    client = Client(mail("a@x.example", "b@x.example", "c@x.example"))
    client.greeted()
    client.hears(OK + OK + b"550 5.1.1 unknown\r\n" + b"452 4.2.2 full\r\n" + GO)
    client.hears(b"250 2.0.0 queued as 77\r\n")
    [done] = [event for event in client.events if isinstance(event, MailDone)]
    assert done.verdicts == [
        Verdict(Fate.ACCEPTED, 250, "2.0.0 queued as 77", Stage.CONTENT),
        Verdict(Fate.NEVER, 550, "5.1.1 unknown", Stage.RCPT),
        Verdict(Fate.LATER, 452, "4.2.2 full", Stage.RCPT),
    ]


def test_a_refused_sender_speaks_for_every_recipient() -> None:
    client = Client(mail("a@x.example", "b@x.example"), mail())
    client.greeted()
    no = b"503 5.5.1 no\r\n"
    assert client.hears(b"550 5.7.1 not you\r\n" + no + no + no).startswith(b"MAIL FROM")
    [done] = [event for event in client.events if isinstance(event, MailDone)]
    assert done.verdicts == [Verdict(Fate.NEVER, 550, "5.7.1 not you", Stage.MAIL)] * 2


def test_a_refused_data_is_followed_by_rset_in_the_next_group() -> None:
    client = Client(mail(), mail())
    client.greeted()
    written = client.hears(OK + OK + b"451 4.3.0 not now\r\n")
    assert written.startswith(b"RSET\r\nMAIL FROM:")
    assert client.fates() == [[Fate.LATER]]


def test_a_354_that_nobody_earned_gets_an_empty_message() -> None:
    client = Client(mail(), mail())
    client.greeted()
    assert client.hears(OK + b"550 no\r\n" + GO) == b".\r\n"
    assert client.fates() == [[Fate.NEVER]]
    assert client.hears(b"554 no recipients\r\n").startswith(b"MAIL FROM:")


@pytest.mark.parametrize(
    ("reply", "fate"),
    [(b"250 ok", Fate.ACCEPTED), (b"452 full", Fate.LATER), (b"554 spam", Fate.NEVER)],
)
def test_the_reply_to_the_content_decides(reply: bytes, fate: Fate) -> None:
    client = Client(mail())
    client.greeted()
    client.hears(OK + OK + GO)
    client.hears(reply + b"\r\n")
    assert client.fates() == [[fate]]


def lose(client: Client) -> None:
    client.session.lost("connection reset")
    client.written()


def test_lost_before_the_final_dot_gives_the_mail_back() -> None:
    client = Client(mail())
    client.greeted()
    client.hears(OK + OK)
    lose(client)
    [returned] = [event for event in client.events if isinstance(event, MailReturned)]
    assert returned.verdict.fate is Fate.LATER
    assert client.fates() == []


def test_lost_after_the_final_dot_is_unknown_and_the_next_mail_is_given_back() -> None:
    client = Client(mail("a@x.example", "b@x.example"), mail())
    client.greeted()
    client.hears(OK + OK + b"550 no\r\n" + GO)
    lose(client)
    assert client.fates() == [[Fate.UNKNOWN, Fate.NEVER]]
    assert sum(isinstance(event, MailReturned) for event in client.events) == 1


def test_the_final_dot_of_a_long_content_waits_until_the_content_is_gone() -> None:
    content = b"x" * 300_000 + b"\r\n"
    client = Client(mail(content=content), mail(content=content))
    client.greeted(b"250-mx\r\n250 PIPELINING\r\n")
    assert client.hears(OK + OK + GO) == content
    assert client.session.holds_end
    client.session.content_flushed()
    assert client.written().startswith(b".\r\nMAIL FROM:")
    client.hears(OK + OK + OK + GO)
    lose(client)
    assert client.fates() == [[Fate.ACCEPTED], [Fate.LATER]]


def test_421_after_the_content_is_later_and_ends_the_session() -> None:
    client = Client(mail(), mail())
    client.greeted()
    client.hears(OK + OK + GO)
    client.hears(b"421 4.3.2 going down\r\n")
    assert client.fates() == [[Fate.LATER]]
    assert isinstance(client.events[-2], MailReturned)
    assert client.ended().reason == "421 4.3.2 going down"


def test_421_while_idle_is_a_clean_end() -> None:
    client = Client()
    client.greeted()
    client.hears(b"421 4.4.2 idle too long\r\n")
    assert client.ended().clean


@pytest.mark.parametrize(
    ("extensions", "changes", "text"),
    [
        (b"250-mx\r\n250 PIPELINING\r\n", {"eight_bit": True}, "5.6.3"),
        (b"250-mx\r\n250 8BITMIME\r\n", {"smtp_utf8": True}, "5.6.7"),
        (b"250-mx\r\n250 SIZE 2\r\n", {}, "5.3.4"),
    ],
)
def test_what_the_peer_cannot_take_is_never_sent(
    extensions: bytes, changes: dict[str, bool], text: str
) -> None:
    client = Client(mail(**changes))
    assert client.greeted(extensions) == b""
    verdict = client.verdict()
    assert (verdict.fate, verdict.code) == (Fate.NEVER, None)
    assert verdict.text.startswith(text)


@pytest.mark.parametrize(
    "bad",
    [
        mail("c@d.example>\r\nRCPT TO:<x@y.example"),
        mail("c@d\0.example"),
        mail("ä@d.example"),
        mail(content=b"a\n.\nMAIL FROM:<x@y.example>\r\n"),
        mail(content=b"a\r.\r\n"),
    ],
)
def test_nothing_that_could_smuggle_a_command_is_written(bad: ClientMail) -> None:
    client = Client(bad)
    assert client.greeted() == b""
    assert client.fates() == [[Fate.NEVER]]


def test_parameters_follow_what_is_needed_and_offered() -> None:
    client = Client(mail("ü@d.example", eight_bit=True, smtp_utf8=True))
    written = client.greeted()
    assert written.startswith(b"MAIL FROM:<a@b.example> SIZE=3 BODY=8BITMIME SMTPUTF8\r\n")
    assert "RCPT TO:<ü@d.example>".encode() in written


def test_helo_is_said_where_ehlo_is_not_known() -> None:
    client = Client(mail())
    client.hears(b"220 old\r\n")
    assert client.hears(b"502 what\r\n") == b"HELO me.example\r\n"
    assert client.hears(b"250 old\r\n") == b"MAIL FROM:<a@b.example>\r\n"


TLS = b"250-mx\r\n250 STARTTLS\r\n"


def test_tls_starts_before_any_mail_and_the_greeting_is_repeated() -> None:
    client = Client(mail(), starttls=StartTls.OPPORTUNISTIC)
    assert client.greeted(TLS) == b"STARTTLS\r\n"
    client.hears(b"220 go\r\n")
    assert isinstance(client.events[-1], TlsWanted)
    client.session.tls_started()
    assert client.written() == b"EHLO me.example\r\n"
    assert client.hears(TLS).startswith(b"MAIL FROM")


def test_replies_injected_before_the_handshake_end_the_session() -> None:
    for injected in (b"220 go\r\n250 injected\r\n", b"220 go\r\n250 inj"):
        client = Client(mail(), starttls=StartTls.OPPORTUNISTIC)
        client.greeted(TLS)
        assert client.hears(injected) == b""
        assert not client.ended().clean


def test_required_tls_sends_nothing_in_the_clear() -> None:
    for extensions, then in ((PLAIN, b""), (TLS, b"454 4.7.0 not now\r\n")):
        client = Client(mail(), starttls=StartTls.REQUIRED)
        client.greeted(extensions)
        assert b"MAIL" not in client.hears(then)
        assert not client.ended().clean
        assert len(client.queue) == 1


def test_opportunistic_tls_goes_on_without_when_refused() -> None:
    client = Client(mail(), starttls=StartTls.OPPORTUNISTIC)
    client.greeted(TLS)
    assert client.hears(b"454 4.7.0 not now\r\n").startswith(b"MAIL FROM")


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\r\n",
        b"25\r\n",
        b"250?x\r\n",
        b"999 x\r\n",
        b"\xff\xfe\r\n",
        b"250 " + b"x" * (limits.SMTP_REPLY_LINE_BYTES + 10),
        b"250-x\r\n" * 20_000,
        b"250 nobody asked\r\n" * 9,
    ],
)
def test_broken_replies_end_the_session_and_cost_no_mail(garbage: bytes) -> None:
    client = Client(mail())
    client.greeted()
    client.hears(garbage)
    assert not client.ended().clean
    assert [Fate.ACCEPTED] not in client.fates()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 40])
def test_replies_may_be_cut_anywhere(size: int) -> None:
    client = Client(mail())
    script = b"220-mx\r\n220 mx\r\n" + FULL + OK + OK + GO
    for at in range(0, len(script), size):
        client.hears(script[at : at + size])
    client.hears(b"250 2.0.")
    assert client.fates() == []
    client.hears(b"0 stored\n")
    assert client.verdict() == Verdict(Fate.ACCEPTED, 250, "2.0.0 stored", Stage.CONTENT)


@pytest.mark.parametrize("nonsense", [OK, b"220 x\r\n", b"300 x\r\n"])
def test_a_mail_whose_content_was_not_sent_is_never_taken_for_accepted(nonsense: bytes) -> None:
    client = Client(mail())
    client.greeted()
    client.hears(OK + OK + nonsense)
    assert isinstance(client.events[-2], MailReturned)
    assert not client.ended().clean


def test_quit_waits_for_the_mails_under_way() -> None:
    client = Client(mail(), mail())
    client.greeted()
    client.session.quit()
    assert client.hears(OK + OK + GO) == b"x\r\n.\r\n"
    assert client.hears(OK) == b"QUIT\r\n"
    client.hears(b"221 bye\r\n")
    assert client.ended().clean
    assert len(client.queue) == 1
