"""The parser's work is bounded whatever the bytes say. Work is counted in bytes looked at."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.core import limits
from mailyard.protocol.mime import Message, parse, parse_summary


def read_all(raw: bytes) -> Message:
    """Ask for everything that a message can say."""
    message = parse(raw)
    _ = (message.headers, message.subject, message.from_, message.to, message.cc, message.reply_to)
    _ = (message.date, message.message_id, message.in_reply_to, message.references)
    _ = (message.text, message.html, message.attachments)
    parse_summary(raw)
    return message


def multipart(boundary: bytes, body: bytes) -> bytes:
    return b'Content-Type: multipart/mixed; boundary="%s"\r\n\r\n' % boundary + body


def nested(levels: int) -> bytes:
    return b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (level, level)
        for level in range(levels)
    )


SIBLINGS = b"".join(
    b"--a\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n" % number + b"y\n" * 100
    for number in range(1_500)
)

LIKE_IT = multipart(b"a", b"--a\n\n" + b"--ab\n" * 60_000)
INSIDE = multipart(b"a", b"--a\n\n" + b"x--a" * 60_000)
SAME = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" * 5_000

# name, bytes, how many times each byte may be looked at
BOMBS = [
    ("many parts", multipart(b"a", b"--a\r\n\r\nx\r\n" * 50_000), 4, "too_many_parts"),
    ("many multiparts", multipart(b"a", SIBLINGS), 5, "too_many_parts"),
    ("lines like the boundary", LIKE_IT, 4, "too_many_false_delimiters"),
    ("boundaries inside lines", INSIDE, 4, "too_many_false_delimiters"),
    ("deep multiparts", nested(200) + b"z\n" * 50_000, limits.MIME_DEPTH + 2, "too_deep"),
    ("deep messages", b"Content-Type: message/rfc822\r\n\r\n" * 5_000, 4, "too_deep"),
    ("one boundary at every level", SAME, limits.MIME_DEPTH + 2, "too_deep"),
    ("headers without end", b"X: y\r\n" * 50_000, 3, "too_many_headers"),
    ("one endless header", b"Subject: " + b"x" * 500_000, 3, "header_too_large"),
    ("a million folds", b"Subject: a\r\n" + b" x\r\n" * 100_000, 3, "header_too_large"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "times", "defect"), [bomb[1:] for bomb in BOMBS], ids=[bomb[0] for bomb in BOMBS]
)
def test_a_bomb_costs_no_more_than_its_size(raw: bytes, times: int, defect: str) -> None:
    message = read_all(raw)
    assert defect in message.defects
    assert message.work_units <= times * len(raw) + 20_000


def test_depth_parts_and_headers_stop_at_their_limits() -> None:
    deep = parse(nested(100) + b"end")
    part, depth = deep.root, 1
    while part.children:
        part, depth = part.children[0], depth + 1
    assert depth == limits.MIME_DEPTH
    wide = parse(multipart(b"a", b"--a\n\nx\n" * 3_000))
    assert len(list(wide.root.leaves())) == limits.MIME_PARTS - 1
    tall = parse(b"X: y\n" * 5_000 + b"\nbody")
    assert len(tall.headers) == limits.MIME_HEADERS
    assert tall.text == "body"
    large = parse(b"X: " + b"y" * (2 * limits.MIME_HEADER_BYTES) + b"\n\nbody")
    assert len(large.headers[0][1]) < limits.MIME_HEADER_BYTES
    assert large.text == "body"


def test_a_part_after_the_header_budget_is_read_without_headers() -> None:
    first = b"--a\nX: " + b"y" * limits.MIME_HEADER_BYTES + b"\n\none\n"
    message = parse(multipart(b"a", first + b"--a\nContent-Type: image/png\n\ntwo\n--a--"))
    assert "header_too_large" in message.defects
    assert message.text == "one\ntwo"


PIECES = st.sampled_from(
    [
        b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b"=", b'"', b"'", b"<", b">", b"(",
        b")", b",", b"\\", b"--a", b"--a--", b"--b\r\n", b"=?utf-8?B?", b"=?x?Q?", b"?=", b"=C3",
        b"\xc3", b"\xff", b"\x1b$B", b"Content-Type: ", b"multipart/mixed; boundary=a",
        b"text/html",
        b"multipart/alternative; boundary=b", b"message/rfc822", b"; charset=", b"utf-8", b"utf-7",
        b"utf-16", b"iso-2022-jp", b"Content-Transfer-Encoding: ", b"base64", b"quoted-printable",
        b"uuencode", b"begin 644 x\n", b"From: ", b"Subject: ", b"Date: ", b"a@b.c", b"+2AA-",
        b"Content-Disposition: attachment; filename*0*=", b"''", b"%C3%A9", b"References: ", b"x",
    ]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=60).map(b"".join))
def test_no_bytes_raise_and_all_that_comes_out_can_be_stored(raw: bytes) -> None:
    message = read_all(raw)
    texts = [*parse_summary(raw), message.text, message.html, message.message_id]
    texts += [value for field in message.headers for value in field]
    texts += [text for box in message.from_ for text in (box.name, box.address)]
    texts += [text for file in message.attachments for text in (file.filename, file.content_type)]
    for text in texts:
        if isinstance(text, str):
            text.encode()
            assert "\0" not in text
    assert message.work_units <= (limits.MIME_DEPTH + 4) * len(raw) + 100


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400))
def test_arbitrary_bytes_never_raise(raw: bytes) -> None:
    read_all(raw)
