"""Mailboxes in one file: what is written is read again, however the file is cut."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.protocol.mbox import MboxMail, MboxReader, mbox_entry

NOW = datetime(2026, 1, 5, 12, 0, 0, tzinfo=UTC)
LINES = st.lists(
    st.sampled_from([b"", b"From me 12:30", b">From me 12:30", b">>From - ", b"text", b"From -"]),
    max_size=6,
)


def read(mailbox: bytes, step: int, most_bytes: int = 10_000) -> list[MboxMail]:
    reader = MboxReader(most_bytes)
    found = []
    for start in range(0, len(mailbox), step):
        found += reader.feed(mailbox[start : start + step])
    return [*found, *reader.close()]


@settings(max_examples=100, deadline=None)
@given(bodies=st.lists(LINES, max_size=4), step=st.sampled_from([1, 7, 64, 100_000]))
def test_what_is_written_is_read_again(bodies: list[list[bytes]], step: int) -> None:
    mails = [b"Subject: x\n\n" + b"".join(line + b"\n" for line in lines) for lines in bodies]
    mailbox = b"".join(mbox_entry(mail, "a@x.example", NOW) for mail in mails)
    assert [mail.raw for mail in read(mailbox, step)] == mails


@pytest.mark.parametrize("step", [1, 5, 10_000])
def test_mailboxes_of_other_programs_are_cut(step: int) -> None:
    mailbox = (
        b"preamble\nFrom - \nSubject: 1\n\nhi\nFrom here on, no mail begins\n"
        b"From 18443@xxx\r\nSubject: 2\r\n\r\n>From 12:30\r\n\r\n"
        b"From a@x.example Mon Jan  5 12:00:00 2026\nSubject: 3\n"
    )
    assert [mail.raw for mail in read(mailbox, step)] == [
        b"Subject: 1\n\nhi\nFrom here on, no mail begins\n",
        b"Subject: 2\r\n\r\nFrom 12:30\r\n",
        b"Subject: 3\n",
    ]


@pytest.mark.parametrize("step", [100, 1_000_000])
def test_a_mail_over_the_limit_is_told_of_and_not_held(step: int) -> None:
    mailbox = b"From -\na\n\nFrom -\n" + b"x" * 500_000 + b"\n\nFrom -\nb\n"
    assert read(mailbox, step, 5_000) == [
        MboxMail(1, b"a\n"), MboxMail(2, None), MboxMail(3, b"b\n"),
    ]  # fmt: skip
    reader = MboxReader(5_000)
    for start in range(0, 300_000, 100):
        list(reader.feed(mailbox[start : start + 100]))
        assert len(reader._held) < 7_000
