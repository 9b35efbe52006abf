"""Dot-stuffing, line ends, and finding the end of a message."""

import pytest

from mailyard.protocol.smtp.content import (
    ContentReceiver,
    has_bare_line_end,
    has_line_over,
    stuffed,
    unstuffed,
)


@pytest.mark.parametrize(
    ("plain", "wire"),
    [
        (b"", b""),
        (b"x\r\n", b"x\r\n"),
        (b".\r\n", b"..\r\n"),
        (b"..\r\n.\r\n", b"...\r\n..\r\n"),
        (b"a\r\n.b\r\n", b"a\r\n..b\r\n"),
        (b"a.\r\nb", b"a.\r\nb"),
    ],
)
def test_dots_at_line_starts_are_doubled_and_halved(plain: bytes, wire: bytes) -> None:
    assert stuffed(plain) == wire
    assert unstuffed(wire) == plain


@pytest.mark.parametrize("content", [b"a\nb", b"\n", b"a\rb", b"\r", b"a\r\r\n", b"\n\r", b"a\r"])
def test_a_line_end_that_is_not_crlf_is_found(content: bytes) -> None:
    assert has_bare_line_end(content)
    assert has_bare_line_end(b"x\r\n" + content + b"x\r\n")


@pytest.mark.parametrize("content", [b"", b"a", b"a\r\n", b"\r\n\r\n", b"a\r\nb"])
def test_crlf_alone_is_no_bare_line_end(content: bytes) -> None:
    assert not has_bare_line_end(content)


def test_lines_are_measured_with_their_ends() -> None:
    assert not has_line_over(b"12345678\r\n" * 5, 10)
    assert has_line_over(b"12345678\r\n123456789\r\n1\r\n", 10)
    assert has_line_over(b"x" * 11, 10)
    assert not has_line_over(b"x" * 10, 10)


def test_the_end_may_be_cut_anywhere() -> None:
    wire = b"a\r\n.b\r\n\r\n.\r\nQUIT\r\n"
    for cut in range(len(wire) + 1):
        receiver = ContentReceiver(1000)
        content, at = receiver.feed_data(wire[:cut], 0)
        if content is None:
            assert at == cut
            content, at = receiver.feed_data(wire[cut:], 0)
            at += cut
        assert content == b"a\r\nb\r\n\r\n"
        assert wire[at:] == b"QUIT\r\n"


@pytest.mark.parametrize(
    ("wire", "content"),
    [
        (b".\r\n", b""),
        (b"\r\n.\r\n", b"\r\n"),
        (b"a\r\n.\r\n", b"a\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b"..a\r\n..\r\n..b\r\nc\r\n.\r\n", b".a\r\n.\r\n.b\r\nc\r\n"),
    ],
)
def test_content_comes_without_its_stuffing_whole_or_in_pieces(wire: bytes, content: bytes) -> None:
    assert ContentReceiver(1000).feed_data(b"DATA\r\n" + wire + b"QUIT", 6) == (
        content,
        6 + len(wire),
    )
    receiver = ContentReceiver(1000)
    *fed, last = (receiver.feed_data(wire[at : at + 1], 0) for at in range(len(wire)))
    assert fed == [(None, 1)] * (len(wire) - 1)
    assert last == (content, 1)


def test_what_goes_beyond_the_limit_is_counted_and_not_held() -> None:
    receiver = ContentReceiver(100)
    for _ in range(1000):
        assert receiver.feed_data(b"x" * 50, 0)[0] is None
    assert receiver.dropped_bytes >= 50_000 - 150
    content, at = receiver.feed_data(b"\r\n.\r\nQUIT", 0)
    assert content is not None
    assert at == 5
