"""Tag lists and their values (RFC 6376 sections 2.11 and 3.2)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.protocol.dkim.tags import (
    TagError,
    base64_value,
    colon_list,
    domain_value,
    number,
    parse_tags,
    quoted_printable,
    required,
)


def test_a_list_is_read_in_its_order_without_the_white_space_around() -> None:
    tags = parse_tags(b" v=1 ;\r\n\ta = rsa-sha256; b=ab\r\n cd= ;x_1=; note=a b ;")
    assert list(tags.items()) == [
        ("v", "1"),
        ("a", "rsa-sha256"),
        ("b", "ab\r\n cd="),
        ("x_1", ""),
        ("note", "a b"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b";",
        b"v=1; ;a=b",
        b"v=1;;",
        b"v",
        b"=1",
        b"1v=1",
        b"v-1=1",
        b"v v=1",
        b"v=1; v=1",  # section 3.2: a duplicate makes the whole list invalid
        b"v=1; a=\0",
        b"v=1; a=\x7f",
        b"v=\xff",
    ],
)
def test_what_is_no_list_is_refused(text: bytes) -> None:
    with pytest.raises(TagError):
        parse_tags(text)


def test_names_are_case_sensitive() -> None:
    assert parse_tags(b"a=1;A=2") == {"a": "1", "A": "2"}


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_tags_or_a_tag_error(text: bytes) -> None:
    try:
        tags = parse_tags(text)
    except TagError:
        return
    assert tags
    for name, value in tags.items():
        assert name.isascii()
        assert value == value.strip(" \t\r\n")


@settings(deadline=None)
@given(st.text(max_size=100))
def test_any_value_gives_a_value_or_a_tag_error(text: str) -> None:
    for read in (base64_value, domain_value, quoted_printable):
        try:
            read(text, "x")  # type: ignore[operator]
        except TagError as error:
            assert error.field == "x"


def test_values() -> None:
    assert required({"a": "b"}, "a") == "b"
    with pytest.raises(TagError, match="missing"):
        required({}, "a")
    with pytest.raises(TagError, match="empty"):
        required({"a": ""}, "a")
    assert colon_list("From : to\r\n :X") == ["from", "to", "x"]
    assert base64_value("aGVs\r\n bG8=", "b") == b"hello"
    for wrong in ("aGVsbG8", "aGVsbG8=x", "aGV$bG8=", "é"):
        with pytest.raises(TagError, match="base64"):
            base64_value(wrong, "b")
    assert number({}, "t") is None
    assert number({"t": "007"}, "t") == 7
    for wrong in ("", "-1", "1.5", "9" * 77, "٣", "1 2"):
        with pytest.raises(TagError, match="number"):
            number({"t": wrong}, "t")


def test_domains() -> None:
    assert domain_value("Example.ORG", "d") == "example.org"
    assert domain_value("bücher.example", "d") == "xn--bcher-kva.example"  # RFC 8616
    assert domain_value("s_1", "s", labels=1) == "s_1"
    bad = (
        "",
        "org",
        ".org",
        "a..b",
        "a.b.",
        "a b.c",
        "-a.b",
        "a" * 64 + ".b",
        "a." * 127 + "b",
        "é" * 999,
    )
    for wrong in bad:
        with pytest.raises(TagError, match="domain"):
            domain_value(wrong, "d")


def test_quoted_printable() -> None:
    assert quoted_printable("a=3Bb =20\r\n c@d", "i") == "a;b c@d"
    for wrong in ("a=", "a=3", "a=3b", "==20"):
        with pytest.raises(TagError, match="quoted-printable"):
            quoted_printable(wrong, "i")
