"""A mail as it was submitted: what goes out of it, what it asks for, what is refused."""

from datetime import UTC, datetime

import pytest

from mailyard.core.errors import InvalidInput, MailyardError, TooLarge
from mailyard.core.limits import MIME_HEADER_BYTES
from mailyard.sending.content import WholeMail, decode_content, encode_content
from mailyard.sending.request import EmailContent
from mailyard.sending.submitted import moment, read_submitted, template_data

HEAD = b"From: Ann <ann@shop.example>\r\nTo: bob@example.com\r\nSubject: Hi\r\n"
BODY = b"\xe9 .dots..\r\n.\r\n\r\n-- \r\nFrom here on \x80\xff\r\n"


def test_nothing_is_changed_but_blind_copies_and_orders_taken_out() -> None:
    whole = (
        b"Received: from a\r\n\tby b\r\n"
        + HEAD
        + b"bcc: secret@example.com,\r\n other@example.com\r\n"
        b"Resent-Bcc: third@example.com\r\nX-Mailyard-Tag:  code\r\n"
        b"X-Odd :  kept\r\n  as\tit is\r\nnot a header\r\nMessage-ID: <1@shop.example>\r\n"
        b"Date: Mon, 1 Jan 2029 10:00:00 +0100\r\n"
    )
    mail = read_submitted(whole + b"\r\n" + BODY)
    assert mail.mail == (
        b"Received: from a\r\n\tby b\r\n"
        + HEAD
        + b"X-Odd :  kept\r\n  as\tit is\r\nnot a header\r\nMessage-ID: <1@shop.example>\r\n"
        b"Date: Mon, 1 Jan 2029 10:00:00 +0100\r\n\r\n" + BODY
    )
    assert mail.orders == {"Tag": "code"}
    assert (mail.message_id, mail.missing) == ("1@shop.example", ())
    assert b"secret" not in mail.unchanging and b"by b" not in mail.unchanging


@pytest.mark.parametrize(
    ("content", "mail"),
    [
        (HEAD, HEAD + b"\r\n"),
        (HEAD[:-2], HEAD + b"\r\n"),
        (HEAD + b"\r\n", HEAD + b"\r\n"),
        (HEAD + b"\r\nno end", HEAD + b"\r\nno end\r\n"),
    ],
)
def test_a_mail_without_body_or_last_line_end_is_ended(content: bytes, mail: bytes) -> None:
    read = read_submitted(content)
    assert read.mail == mail
    assert read.missing == ("Date", "Message-ID")


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"\r\nbody", "From"),
        (b"To: bob@example.com\r\n\r\n", "From"),
        (b"From: nobody\r\n\r\n", "From"),
        (b"From: a@b.example\r\nFrom: c@d.example\r\n\r\n", "From"),
        (b"From: a@@b.example\r\n\r\n", "From"),
        (HEAD + b"X-Mailyard-Templte: x\r\n\r\n", "X-Mailyard-Templte"),
        (HEAD + b"X-Mailyard-Tag: a\r\nx-mailyard-tag: b\r\n\r\n", "x-mailyard-tag"),
        (b"Received: x\r\n" * 101 + HEAD + b"\r\n", None),
    ],
)
def test_what_cannot_be_sent_is_refused_by_its_header(content: bytes, field: str | None) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_submitted(content)
    assert caught.value.field == field


def test_headers_are_bounded_and_cost_no_more_than_their_length() -> None:
    folds = b"X: y\r\n" + b" z\r\n" * (MIME_HEADER_BYTES // 5)
    assert folds in read_submitted(HEAD + folds + b"\r\n").mail
    with pytest.raises(TooLarge):
        read_submitted(HEAD + b"X: " + b"y" * MIME_HEADER_BYTES + b"\r\n\r\n")


@pytest.mark.parametrize(
    "text", ['{"n": {"é": [1]}}', "eyJuIjogeyLDqSI6IFsxXX19", "eyJuIjogey\t LDqSI6IFsxXX19"]
)
def test_data_is_json_or_base64_of_it(text: str) -> None:
    assert template_data(text) == {"n": {"é": [1]}}


@pytest.mark.parametrize("text", ["[1]", "é", "{", "e30=x", "W10="])
def test_data_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        template_data(text)


def test_a_moment_is_written_as_programs_or_as_mails_do() -> None:
    wanted = datetime(2029, 1, 1, 9, 0, tzinfo=UTC)
    for text in (
        "2029-01-01T09:00:00Z",
        " 2029-01-01T10:00:00+01:00",
        "Mon, 1 Jan 2029 10:00:00 +0100",
    ):
        assert moment(text, "X") == wanted
    for text in ("tomorrow", "2029-01-01T09:00:00", ""):
        with pytest.raises(InvalidInput):
            moment(text, "X")


def test_what_is_stored_is_read_back_byte_for_byte() -> None:
    whole = WholeMail("Ann <a@b.example>", "a@b.example", "", "Hé", True, ("Date",), HEAD + BODY)
    assert decode_content(encode_content(whole)) == whole
    parts = EmailContent("a@b.example", ["c@d.example"], [], [], "s", "", "t", {}, [])
    assert decode_content(encode_content(parts)) == parts
    for broken in (b"", b"\0", b"\0\0\0\0\x09{}", b"{", b"\0\xff\xff\xff\xff"):
        with pytest.raises(MailyardError):
            decode_content(broken)
