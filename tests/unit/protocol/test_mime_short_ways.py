"""The short ways through ordinary mail give what the long ones give, whatever the bytes are."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.protocol.mime import encoded_word, parse, parse_summary, structure
from mailyard.protocol.mime.structure import Part

HEADS = st.sampled_from((
    b"From: Ada <ada@example.org>", b"Subject: =?utf-8?B?Wm/DqyA=?= =?utf-8?b?UUI=?=", b"X : y",
    b"Subject: a =?utf-8?q?=C3=A9?= b", b"To: a@b.c,\r\n\t=?UTF-8?B?w6k=?= <d@e.f>", b"stray",
    b"Content-Type: multipart/mixed; boundary=b", b"MIME-Version: 1.0", b"foo\r\n : bar",
    b"Content-Type: text/plain; charset=utf-8", b"Content-Transfer-Encoding: base64", b" folded",
    b"Content-Type: message/rfc822", b"content-type: text/html", b"X:\ry", b"X: \xc3\xa9\xff",
    b"Content-Disposition: attachment; filename=x", b"",
))  # fmt: skip
ENDS = st.sampled_from((b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b""))
LINES = st.sampled_from(
    (b"--b", b"--b", b"--b--", b"--b ", b"--bc", b"x--b", b"", b"text", b"w6k=", b"\xff\xe9", b"\0")
)
BLOCK = st.lists(st.tuples(HEADS, ENDS), max_size=5)
BODY = st.lists(st.tuples(LINES, ENDS), max_size=5)
ENTITY = st.tuples(BLOCK, ENDS, BODY).map(
    lambda entity: b"".join(
        [*(b"".join(line) for line in entity[0]), entity[1], *(b"".join(x) for x in entity[2])]
    )
)
MULTIPART = b"Content-Type: multipart/alternative; boundary=b\r\n"
MAILS = st.one_of(
    ENTITY,
    st.lists(ENTITY, min_size=1, max_size=4).map(
        lambda parts: MULTIPART + b"\r\n--b\r\n" + b"\r\n--b\r\n".join(parts) + b"\r\n--b--\r\n"
    ),
)


def shape(part: Part) -> Any:
    children = [shape(child) for child in part.children]
    kind, place = part.content_type, (part.start, part.body_start, part.end, part.path)
    return place, list(part.fields), kind.value, dict(kind.parameters), part.encoding, children


def everything(raw: bytes) -> Any:
    message = parse(raw)
    read = (message.headers, message.text, message.html, message.attachments, message.defects)
    return read, shape(message.root), message.work_units, message.to, parse_summary(raw)


@settings(max_examples=400, deadline=None)
@given(raw=MAILS)
def test_short_and_long_ways_agree(raw: bytes) -> None:
    short = everything(raw)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(structure, "plain_fields", lambda block: None)
        patched.setattr(structure, "_SMALL_BLOCK_BYTES", -1)
        patched.setattr(structure, "_SMALL_MULTIPART_BYTES", -1)
        patched.setattr(encoded_word, "_plain_words", lambda value: None)
        assert everything(raw) == short


WORDS = st.lists(
    st.sampled_from((
        "=?utf-8?B?w6k=?=", "=?UTF-8?b?w6l4?=", "=?utf-8?B?w6?=", "=?utf-8?Q?=C3?=", " ", "  ", "x",
        "=?utf-8?B??=", "=?latin1?B?6Q==?=", "?", "=", "=?", "?=", "\u00e9", "=?utf-8?B?77u/eA==?=",
    )),
    max_size=8,
).map("".join)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(value=WORDS)
def test_short_and_long_ways_agree_on_encoded_words(value: str) -> None:
    short = encoded_word.decode_words(value)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(encoded_word, "_plain_words", lambda value: None)
        assert encoded_word.decode_words(value) == short
