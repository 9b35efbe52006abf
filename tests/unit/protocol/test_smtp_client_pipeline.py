"""The client's whole transactions behind one another (RFC 2920 with RFC 3030 section 4.2)."""

from hypothesis import given, settings
from hypothesis import strategies as st
from smtp_sessions import ClientDriver, Driver

from mailyard.protocol.smtp.client_mail import (
    ClientMail,
    Fate,
    MailDone,
    MailReturned,
    SessionEnded,
    Verdict,
)
from mailyard.protocol.smtp.session import SessionConfig

OFFERS = b"250-mx.example\r\n250-PIPELINING\r\n250 CHUNKING\r\n"
OK = b"250 2.0.0 OK\r\n"
NO = b"550 5.1.1 no\r\n"
NOBODY = b"503 5.5.1 nobody\r\n"
LONG = b"y" * 900 + b"\r\n"


def mail(to: str = "c@d.example", content: bytes = b"x\r\n", sender: str = "a@b.c") -> ClientMail:
    return ClientMail(sender, to.split(), content, eight_bit=False, smtp_utf8=False, token=to)


class Client(ClientDriver):
    """Greeted from the start. What a long content holds back leaves with it."""

    def __init__(self, *mails: ClientMail, pipeline: int = 4, offers: bytes = OFFERS) -> None:
        super().__init__(*mails, pipeline=pipeline)
        self.hears(b"220 mx.example\r\n")
        self.wrote = self.hears(offers)

    def written(self) -> bytes:
        output = super().written()
        if self.session.holds_end:
            self.session.content_flushed()
            output += super().written()
        return output

    def returned(self) -> list[str]:
        return [str(event.mail.token) for event in self.events if isinstance(event, MailReturned)]


def test_mails_are_written_whole_and_behind_one_another() -> None:
    client = Client(mail("one@d.example"), mail("two@d.example", b"two"), mail("three@d.example"))
    assert client.wrote == (
        b"MAIL FROM:<a@b.c>\r\nRCPT TO:<one@d.example>\r\nBDAT 3 LAST\r\nx\r\n"
        b"RSET\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<two@d.example>\r\nBDAT 5 LAST\r\ntwo\r\n"
        b"RSET\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<three@d.example>\r\nBDAT 3 LAST\r\nx\r\n"
    )
    client.hears(OK * 3 + OK * 4 + OK * 4)
    assert client.fates() == [[Fate.ACCEPTED]] * 3
    assert client.session.idle


def test_so_many_as_the_pipeline_holds_and_the_next_with_each_answer() -> None:
    client = Client(*[mail() for _ in range(6)])
    assert client.wrote.count(b"BDAT") == 4
    assert not client.session.takes_mail
    assert client.hears(OK * 3).count(b"BDAT") == 1
    assert client.hears(OK * 4 * 2).count(b"BDAT") == 1
    client.hears(OK * 4 * 3)
    assert client.fates() == [[Fate.ACCEPTED]] * 6


def test_without_chunking_or_without_pipelining_mails_go_by_data() -> None:
    for offers in (b"250-mx\r\n250 PIPELINING\r\n", b"250-mx\r\n250 CHUNKING\r\n"):
        assert b"BDAT" not in Client(mail(), mail(), offers=offers).wrote
    assert b"BDAT" not in Client(mail(), pipeline=0).wrote


def test_each_mail_has_the_verdict_of_its_own_replies() -> None:
    client = Client(mail("a@d b@d"), mail("c@d"), mail("e@d f@d"), mail("g@d"))
    client.hears(OK + OK + NO + OK)
    client.hears(OK + OK + NO + NOBODY)
    client.hears(OK + b"450 4.7.1 not you\r\n" + NOBODY * 3)
    client.hears(OK * 3 + b"452 4.2.2 full\r\n")
    assert client.fates() == [
        [Fate.ACCEPTED, Fate.NEVER],
        [Fate.NEVER],
        [Fate.LATER, Fate.LATER],
        [Fate.LATER],
    ]


def test_a_failed_transaction_is_reset_before_the_next_mail() -> None:
    client = Client(mail())
    client.hears(OK + NO + NOBODY)
    client.queue.append(mail())
    client.session.poke()
    assert client.written().startswith(b"RSET\r\nMAIL FROM")


def test_a_lost_connection_leaves_unknown_what_was_not_refused() -> None:
    client = Client(mail("a@d b@d"), mail("c@d"), mail("e@d"), mail("g@d"))
    client.hears(OK + OK + NO + OK)
    client.hears(OK + NO)
    client.session.lost("reset by peer")
    client.written()
    assert client.fates() == [
        [Fate.ACCEPTED, Fate.NEVER],
        [Fate.NEVER],
        [Fate.UNKNOWN],
        [Fate.UNKNOWN],
    ]
    assert isinstance(client.events[-1], SessionEnded)


def test_421_gives_back_the_mails_that_the_peer_has_not_come_to() -> None:
    client = Client(mail("a@d"), mail("b@d"), mail("c@d"))
    client.hears(OK * 3 + b"421 4.3.2 going down\r\n")
    assert client.fates() == [[Fate.ACCEPTED]]
    assert client.returned() == ["b@d", "c@d"]
    client = Client(mail("a@d"), mail("b@d"))
    client.hears(OK * 2 + b"421 4.3.2 going down\r\n")
    assert client.fates() == [[Fate.LATER]]
    assert client.returned() == ["b@d"]


def test_a_peer_that_takes_a_mail_for_nobody_is_out_of_step() -> None:
    client = Client(mail("a@d"), mail("b@d"))
    client.hears(OK + NO + OK)
    assert client.fates() == [[Fate.NEVER], [Fate.UNKNOWN]]
    assert isinstance(client.events[-1], SessionEnded)


def test_a_long_content_goes_alone_by_data() -> None:
    content = LONG * 300
    client = Client(mail("a@d"), mail("b@d", content), mail("c@d"))
    assert client.wrote.count(b"BDAT") == 1
    assert b"DATA" not in client.wrote
    assert client.hears(OK * 3) == b"MAIL FROM:<a@b.c>\r\nRCPT TO:<b@d>\r\nDATA\r\n"
    written = client.hears(OK * 2 + b"354 go\r\n")
    assert written.startswith(content + b".\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<c@d>\r\nBDAT 3 LAST")
    client.hears(OK + OK * 3)
    assert client.fates() == [[Fate.ACCEPTED]] * 3


def test_a_long_mail_that_waits_its_turn_is_given_back_when_the_connection_is_lost() -> None:
    client = Client(mail("a@d"), mail("b@d", LONG * 300))
    client.session.lost("reset by peer")
    client.written()
    assert client.fates() == [[Fate.UNKNOWN]]
    assert client.returned() == ["b@d"]


def test_nothing_is_written_into_a_content_whose_end_is_held_back() -> None:
    client = Client(pipeline=0)
    client.queue.append(mail("a@d", LONG * 300))
    client.session.poke()
    client.session.take_output()
    client.session.receive(OK * 2 + b"354 go\r\n")
    assert client.session.take_output() == LONG * 300
    client.queue.append(mail("b@d"))
    client.session.poke()
    assert client.session.take_output() == b""
    client.session.content_flushed()
    assert client.session.take_output() == b".\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<b@d>\r\nDATA\r\n"


def test_quit_is_said_when_all_are_answered() -> None:
    client = Client(mail(), mail())
    client.session.quit()
    assert client.written() == b""
    assert client.hears(OK * 3 + OK * 4) == b"QUIT\r\n"


recipients = st.lists(st.sampled_from(["r@d.example", "no@d.example"]), min_size=1, max_size=3)
contents = st.sampled_from([b"x\r\n", b".\r\n..\r\n", b"z" * 310 + b"\r\n", b"", b"end"])
mails = st.builds(
    lambda to, content: mail(" ".join(to), content), recipients, contents | st.just(LONG[:150])
)


def conversation(
    sent: list[ClientMail], pipeline: int, cut: int
) -> tuple[list[list[Verdict]], list[object]]:
    """What a client and a server of ours make of `sent`, bytes going over in pieces of `cut`."""
    config = SessionConfig("mx.example", message_bytes=300, errors_per_session=99)
    server = Driver(config=config)
    client = ClientDriver(*sent, pipeline=pipeline)
    said = server.said
    for _ in range(2000):
        written = b"".join(client.hears(said[at : at + cut]) for at in range(0, len(said), cut))
        if not written:
            break
        said = server.feed(*(written[at : at + cut] for at in range(0, len(written), cut)))
    done = {
        id(event.mail): event.verdicts for event in client.events if isinstance(event, MailDone)
    }
    return [done[id(one)] for one in sent], [
        (envelope.recipients, content) for envelope, content in server.stored
    ]


@settings(max_examples=200, deadline=None)
@given(st.lists(mails, max_size=8), st.integers(1, 5), st.integers(1, 200))
def test_both_ways_deliver_the_same_with_the_same_fates(
    sent: list[ClientMail], pipeline: int, cut: int
) -> None:
    chunked, stored = conversation(sent, pipeline, cut)
    by_data, stored_by_data = conversation(sent, 0, cut)
    assert stored == stored_by_data
    for one, other in zip(chunked, by_data, strict=True):
        assert [verdict.fate for verdict in one] == [verdict.fate for verdict in other]
