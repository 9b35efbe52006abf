"""Fuzzes both SMTP sessions: they never raise, and cutting the bytes changes nothing.

python tests/fuzz/fuzz_smtp.py -runs=20000
"""

import sys
from contextlib import suppress
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent.parent))

with atheris.instrument_imports(include=["mailyard"]):
    from smtp_sessions import Driver, one_by_one

    from mailyard.core.errors import InvalidInput
    from mailyard.protocol.address import parse_mailbox_list
    from mailyard.protocol.smtp.client import ClientSession
    from mailyard.protocol.smtp.client_mail import (
        ClientMail,
        Fate,
        MailDone,
        MailReturned,
        TlsWanted,
    )
    from mailyard.protocol.smtp.session import SessionConfig

TIGHT = SessionConfig("mx.example", message_bytes=500, line_bytes=200, command_line_bytes=120)
OPENING = b"EHLO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"


def fuzz_server(data: bytes) -> None:
    whole, dripped = Driver(config=TIGHT), Driver(config=TIGHT)
    assert whole.feed(OPENING + data) == dripped.feed(*one_by_one(OPENING + data))
    assert whole.stored == dripped.stored
    for envelope, content in whole.stored:
        assert envelope.recipients
        assert b"\n" not in content.replace(b"\r\n", b"")
        assert b"\r" not in content.replace(b"\r\n", b"")


def fuzz_client(data: bytes, pipeline: int = 0) -> None:
    recipients = ["c@d.example", "e@f.example"]
    queue = [ClientMail("a@b.example", recipients, b"x\r\n", False, False, n) for n in range(3)]
    session = ClientSession("me.example", lambda: queue.pop() if queue else None, pipeline=pipeline)
    answered: list[object] = []
    for at in range(0, len(data), 7):
        session.receive(data[at : at + 7])
        session.take_output()
        for event in session.take_events():
            note(session, event, answered)
    session.lost("the end")
    for event in session.take_events():
        note(session, event, answered)
    assert sorted([*answered, *(mail.token for mail in queue)]) == [0, 1, 2]


def note(session: ClientSession, event: object, answered: list[object]) -> None:
    if isinstance(event, MailDone):
        assert len(event.verdicts) == 2
        assert all(isinstance(verdict.fate, Fate) for verdict in event.verdicts)
        answered.append(event.mail.token)
    elif isinstance(event, MailReturned):
        answered.append(event.mail.token)
    elif isinstance(event, TlsWanted):
        session.tls_started()


def fuzz(data: bytes) -> None:
    fuzz_server(data)
    fuzz_client(b"220 x\r\n250-x\r\n250 PIPELINING\r\n" + data)
    fuzz_client(b"220 x\r\n250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n" + data, pipeline=2)
    fuzz_client(data)
    with suppress(InvalidInput):
        parse_mailbox_list(data.decode("latin-1"))


if __name__ == "__main__":
    atheris.Setup(sys.argv, fuzz)
    atheris.Fuzz()
