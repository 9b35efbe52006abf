"""Nothing can be smuggled through us: VU#302671 and its kin, as bytes on the wire."""

import pytest
from smtp_sessions import greeted, one_by_one

ENVELOPE = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"
SMUGGLED = b"MAIL FROM:<ceo@b.example>\r\nRCPT TO:<victim@d.example>\r\nDATA\r\nevil\r\n.\r\n"

FALSE_ENDS = [
    *(b"\n.\n", b"\n.\r", b"\r.\n", b"\r.\r", b"\n.\r\n", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r"),
    *(
        b"\r\n.\r\r\n",
        b"\r\r\n.\r\r\n",
        b"\r\n\0.\r\n",
        b"\r\n.\0\r\n",
        b"\r\n .\r\n",
        b"\r\n. \r\n",
    ),
    *(b"\n\n.\n\n", b"\x85.\x85", b"\x0b.\x0b", b"\xe2\x80\xa8.\xe2\x80\xa8", b"\r\n\x1a.\r\n"),
]


@pytest.mark.parametrize("pieces", ["at once", "byte by byte"])
@pytest.mark.parametrize("false_end", FALSE_ENDS, ids=repr)
def test_only_crlf_dot_crlf_ends_a_message(false_end: bytes, pieces: str) -> None:
    driver = greeted()
    driver.feed(ENVELOPE + b"DATA\r\n")
    wire = b"innocent" + false_end + SMUGGLED
    codes = driver.codes(*one_by_one(wire)) if pieces == "byte by byte" else driver.codes(wire)
    assert len(codes) == 1
    assert len(driver.stored) == (codes == [250])
    for envelope, _ in driver.stored:
        assert envelope.recipients == ("c@d.example",)
    if b"\r" in false_end.replace(b"\r\n", b"") or b"\n" in false_end.replace(b"\r\n", b""):
        assert codes == [550]
        assert driver.session.closed


@pytest.mark.parametrize(
    "line",
    [
        b"NOOP\nMAIL FROM:<x@y.example>\r\n",
        b"NOOP\rMAIL FROM:<x@y.example>\r\n",
        b"NOOP\n",
        b"\n",
        b"NOOP\r\r\n",
        b"MAIL FROM:<x@y.example>\r RCPT TO:<c@d.example>\r\n",
    ],
)
def test_a_bare_line_end_in_a_command_ends_the_session(line: bytes) -> None:
    driver = greeted()
    assert driver.codes(line + ENVELOPE + b"DATA\r\n") == [500]
    assert driver.session.closed
    assert driver.feed(b"NOOP\r\n") == b""


def test_pipelined_bytes_behind_a_refused_message_are_never_commands() -> None:
    driver = greeted()
    wire = ENVELOPE + b"DATA\r\nbare\nline\r\n.\r\n" + SMUGGLED
    assert driver.codes(wire) == [250, 250, 354, 550]
    assert not driver.stored


def test_chunks_cannot_carry_what_data_may_not() -> None:
    content = b"innocent\n.\n" + SMUGGLED
    driver = greeted()
    wire = ENVELOPE + b"BDAT %d LAST\r\n" % len(content) + content
    assert driver.codes(wire) == [250, 250, 550]
    assert driver.session.closed
    assert not driver.stored


def test_a_refused_chunk_is_never_read_as_commands() -> None:
    driver = greeted()
    assert driver.codes(b"BDAT %d LAST\r\n" % len(SMUGGLED) + SMUGGLED + b"NOOP\r\n") == [503, 250]
    assert not driver.stored


def test_plaintext_behind_starttls_is_not_carried_into_tls() -> None:
    driver = greeted()
    assert driver.codes(b"STARTTLS\r\n" + ENVELOPE + b"DATA\r\nx\r\n.\r\n") == [220]
    assert driver.codes(b"EHLO c.example\r\nDATA\r\n") == [250, 503]
    assert not driver.stored


@pytest.mark.parametrize(
    "path",
    [
        *(
            b"a@b.example\r",
            b"a\0@b.example",
            b"a@b.example\x1b[0m",
            b"a\x7f@b.example",
            b"a\tb@c.d",
        ),
        *("a@b.example\u2028".encode(), "a@b\u0085.example".encode(), b'"a\0b"@c.example'),
    ],
)
def test_no_control_character_enters_an_envelope(path: bytes) -> None:
    for command in (b"MAIL FROM:<%b> SMTPUTF8\r\n", b"MAIL FROM:<>\r\nRCPT TO:<%b>\r\n"):
        codes = greeted().codes(command % path)
        assert codes[-1] in (500, 501, 553)
