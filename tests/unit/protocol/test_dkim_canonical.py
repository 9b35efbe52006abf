"""Canonical forms (RFC 6376 section 3.4) against its examples and a slow reading line by line."""

import re
from base64 import b64encode
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.protocol.dkim.canonical import (
    RELAXED,
    SIMPLE,
    canonical_body,
    relaxed_body,
    relaxed_field,
    simple_body,
)
from mailyard.protocol.dkim.mail import Mail


def signed_fields(mail: Mail, kind: str, *names: bytes, besides: int = -1) -> bytes:
    return mail.canonical_fields(kind, mail.chosen(names, besides))


# Section 3.4.5.
EXAMPLE = b"A: X\r\nB : Y\t\r\n\tZ  \r\n\r\n C \r\nD \t E\r\n\r\n\r\n"

PIECES = st.sampled_from(
    (b"\r\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b"  ", b"word", b"\r", b"\n", b"\xc3\xa9", b"\0")
)
BODIES = st.lists(PIECES, max_size=30).map(b"".join)


def slow_lines(body: bytes) -> list[bytes]:
    """The lines of `body`, the last with or without its CRLF."""
    return body.removesuffix(b"\r\n").split(b"\r\n") if body else []


def slow_simple(body: bytes) -> bytes:
    lines = slow_lines(body)
    while lines and not lines[-1]:
        lines.pop()
    return b"".join(line + b"\r\n" for line in lines) or b"\r\n"


def slow_relaxed(body: bytes) -> bytes:
    lines = [re.sub(rb"[ \t]+", b" ", line).removesuffix(b" ") for line in slow_lines(body)]
    while lines and not lines[-1]:
        lines.pop()
    return b"".join(line + b"\r\n" for line in lines)


def test_the_example_of_the_standard() -> None:
    mail = Mail(EXAMPLE)
    assert signed_fields(mail, RELAXED, b"a", b"b") == b"a:X\r\nb:Y Z\r\n"
    assert mail.canonical_body(RELAXED) == b" C\r\nD E\r\n"
    assert signed_fields(mail, SIMPLE, b"a", b"b") == b"A: X\r\nB : Y\t\r\n\tZ  \r\n"
    assert mail.canonical_body(SIMPLE) == b" C \r\nD \t E\r\n"


@pytest.mark.parametrize(
    ("kind", "digest"),
    [
        (SIMPLE, b"frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY="),  # section 3.4.3
        (RELAXED, b"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="),  # section 3.4.4
    ],
)
@pytest.mark.parametrize("content", [b"From: a@b.c\r\n\r\n", b"From: a@b.c\r\n", b"From: a@b.c"])
def test_the_hash_of_an_empty_body(kind: str, digest: bytes, content: bytes) -> None:
    assert b64encode(Mail(content).body_hash(kind)) == digest


@settings(deadline=None)
@given(BODIES)
def test_a_body_is_as_read_line_by_line(body: bytes) -> None:
    assert simple_body(body) == slow_simple(body)
    assert relaxed_body(body) == slow_relaxed(body)


@settings(deadline=None)
@given(BODIES)
def test_a_canonical_body_stays_as_it_is(body: bytes) -> None:
    for kind in (SIMPLE, RELAXED):
        once = canonical_body(kind, body)
        assert canonical_body(kind, once) == once


@pytest.mark.parametrize(
    "end", [b"\r\r\n", b"\n\r\n", b"\n\n\r\n\r\n", b"\r\n\n", b"\r\n\r", b"\n"]
)
def test_bare_line_ends_at_the_end_stay(end: bytes) -> None:
    assert simple_body(b"x" + end) == slow_simple(b"x" + end)
    assert simple_body(end) == slow_simple(end)


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [
        (b"SUBJect:  a \t b  ", b"subject:a b"),
        (b"Subject \t:\r\n a\r\n\tb", b"subject:a b"),
        (b"Subject:", b"subject:"),
        (b"Subject: \r\n ", b"subject:"),
        (b"Subject: a:b", b"subject:a:b"),
        (b"Subject: caf\xe9 \xff", b"subject:caf\xe9 \xff"),
        (b"Subject: \ra\x0b \n", b"subject:\ra\x0b \n"),
    ],
)
def test_a_relaxed_field(raw: bytes, canonical: bytes) -> None:
    ((name, value, kept),) = Mail(raw).fields
    assert kept == raw
    assert relaxed_field(name, value) == canonical


@settings(deadline=None)
@given(st.lists(st.sampled_from((b" ", b"\t", b"\r\n ", b"\r\n\t")), min_size=1, max_size=6))
def test_relaxed_fields_do_not_mind_how_they_are_folded(white: list[bytes]) -> None:
    folded = Mail(b"".join([b"Subject", b":", *white, b"one", *white, b"two", b"\r\n\r\n"]))
    assert signed_fields(folded, RELAXED, b"subject") == b"subject:one two\r\n"


def test_fields_are_chosen_from_the_bottom_and_a_missing_one_is_nothing() -> None:
    mail = Mail(b"X: 1\r\nY: 2\r\nno field\r\nX: 3\r\n: 4\r\n\r\n")
    assert signed_fields(mail, SIMPLE, b"x", b"", b"z", b"x", b"x", b"y") == (
        b"X: 3\r\nX: 1\r\nY: 2\r\n"
    )
    assert signed_fields(mail, SIMPLE, b"x", b"x", besides=3) == b"X: 1\r\n"


def test_a_hash_of_a_part_of_the_body() -> None:
    mail = Mail(b"From: a@b.c\r\n\r\none \r\ntwo\r\n")
    assert mail.body_hash(RELAXED, 3) == sha256(b"one").digest()
    assert mail.body_hash(SIMPLE, 3) == sha256(b"one").digest()
    assert mail.body_hash(RELAXED, 10**30) == sha256(b"one\r\ntwo\r\n").digest()


def test_a_header_beyond_its_limit_has_no_fields() -> None:
    mail = Mail(b"From: a@b.c\r\n" + b"X: y\r\n" * 200_000 + b"\r\nbody")
    assert mail.oversized
    assert mail.fields == []
    assert mail.body == b"body"


@pytest.mark.parametrize("piece", [b" ", b"\t", b"\r\n", b"\n", b"\r", b"a ", b" \r\n", b"\r\n\n"])
def test_a_megabyte_of_the_same_is_read_like_any_body(piece: bytes) -> None:
    body = piece * (1_000_000 // len(piece))
    assert simple_body(body) == slow_simple(body)
    assert relaxed_body(body) == slow_relaxed(body)
