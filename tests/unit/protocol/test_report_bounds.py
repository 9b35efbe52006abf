"""Any bytes are read without an exception, and what is kept of them is bounded."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.protocol.report import Kind, read_report
from mailyard.protocol.report.delivery_status import RECIPIENTS
from mailyard.protocol.report.parts import NOTICE_CHARACTERS, READ_BYTES, take_apart

SNIPPETS = [
    b"From: MAILER-DAEMON@x\n", b"Return-Path: <>\n", b"\n", b"--b\n", b"--b--\n", b"\r",
    b"Content-Type: multipart/report;\n boundary=b\n", b"Content-Type: message/rfc822\n",
    b"Content-Type: message/delivery-status\n", b"Content-Type: message/feedback-report\n",
    b"Final-Recipient: rfc822; a@b.c\n", b"Action: failed\n", b"Status: 5.1.1\n", b"\0\xff",
    b"<a@b.example>: 550 unknown\n", b">>> RCPT TO:<a@b.c>\n", b"Received: from x\n",
    b'{"notificationType": [', b"=?x?q?", b"Subject: failure\n",
]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(SNIPPETS) | st.binary(max_size=30), max_size=30))
def test_no_mixture_of_reports_raises(pieces: list[bytes]) -> None:
    assert read_report(b"".join(pieces)).kind in Kind


HEAD = b"From: MAILER-DAEMON@example.net\nSubject: failure notice\n"


@pytest.mark.parametrize(
    "repeated",
    [
        b"<a@b.example>: 550 user unknown\n", b"<", b"@", b"a@", b"550 ", b"5.1.1 ", b"user ",
        b"<style>", b"account ", b"- " * 10, b"Received: x\n", b"(" * 30 + b"\n", b">>> RCPT TO:",
        b"Final-Recipient: rfc822; a@b.example\nAction: failed\n", b"&lt;" * 10, b"\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [b"text/plain", b"text/html", b"message/delivery-status"])
def test_a_million_of_anything_is_read(repeated: bytes, kind: bytes) -> None:
    raw = HEAD + b"Content-Type: " + kind + b"\n\n" + repeated * (READ_BYTES // len(repeated))
    report = read_report(raw)
    assert len(report.notice) <= NOTICE_CHARACTERS
    assert len(report.recipients) <= RECIPIENTS


def test_a_report_with_thousands_of_recipients_names_as_many_as_are_read() -> None:
    status = "".join(
        f"Final-Recipient: rfc822; user-{number}@example.org\nAction: failed\nStatus: 5.1.1\n\n"
        for number in range(3_000)
    )
    raw = HEAD + b"Content-Type: message/delivery-status\n\n" + status.encode()
    assert len(read_report(raw).recipients) == RECIPIENTS


def test_what_lies_behind_the_first_mebibyte_is_not_read() -> None:
    raw = HEAD + b"\n" + b"x" * READ_BYTES + b"\n<a@b.example>: 550 user unknown\n"
    assert "a@b.example" not in take_apart(raw).notice
