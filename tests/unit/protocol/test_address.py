"""Addresses of the envelope and the headers, and the one spelling under which they are kept."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.core import limits
from mailyard.core.errors import InvalidInput
from mailyard.protocol.address import (
    Mailbox,
    domain_of,
    normalise,
    parse_mailbox,
    parse_mailbox_list,
    split_address,
)


@pytest.mark.parametrize(
    ("address", "normal"),
    [
        ("Ada@Example.COM", "ada@example.com"),
        ("a.b+tag@example.com", "a.b+tag@example.com"),
        ('"ada"@example.com', "ada@example.com"),
        ('"a\\da"@example.com', "ada@example.com"),
        ('"a b"@example.com', '"a b"@example.com'),
        ('"a\\"b"@example.com', '"a\\"b"@example.com'),
        ('""@example.com', '""@example.com'),
        ("ada@MÜNCHEN.example", "ada@xn--mnchen-3ya.example"),
        ("ada@xn--mnchen-3ya.example", "ada@xn--mnchen-3ya.example"),
        ("ada@faß.example", "ada@xn--fa-hia.example"),
        ("ÄDA@example.com", "äda@example.com"),
        ("a\u0308da@example.com", "äda@example.com"),
        ("ada@[192.0.2.1]", "ada@[192.0.2.1]"),
        ("ada@[IPv6:2001:DB8:0:0::1]", "ada@[ipv6:2001:db8::1]"),
        ("ada@localhost", "ada@localhost"),
    ],
)
def test_one_spelling_for_one_address(address: str, normal: str) -> None:
    assert normalise(address) == normal
    assert normalise(normal) == normal


@pytest.mark.parametrize(
    "address",
    [
        *("", "@", "a", "a@", "@b.example", "a@b@c.example", ".a@b.example", "a.@b.example"),
        *("a..b@c.example", "a b@c.example", '"a@b.example', '"a"b@c.example', "a\\b@c.example"),
        *("a@b..example", "a@.example", "a@b.example.", "a@-b.example", "a@b-.example"),
        *("a@b_c.example", "a@b c.example", "a@[1.2.3]", "a@[1.2.3.256]", "a@[x]", "a@[IPv6:g::]"),
        *("a@[fe80::1]", "a@[IPv6:fe80::1%eth0]", "a@[1.2.3.4", "a@[1.2.3.4]x", "<a@b.example>"),
        *(
            "a\r@b.example",
            "a@b.example\n",
            "a\0@b.example",
            '"a\nb"@c.example',
            "a@b.example\u2028",
        ),
        *("a@" + "x" * 64 + ".example", "x" * 65 + "@b.example", "a@" + "x." * 140 + "example"),
        *("ü" * 33 + "@b.example", "a@\u200b.example", "a@xn--ü.example", "a@é\u0301\u0300.-.x"),
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidInput):
        normalise(address)
    with pytest.raises(InvalidInput):
        split_address(address)


def test_the_domain_is_given_in_its_ascii_form() -> None:
    assert domain_of("a@MÜNCHEN.example") == "xn--mnchen-3ya.example"
    assert split_address("a@MÜNCHEN.example") == ("a", "MÜNCHEN.example")


@pytest.mark.parametrize(
    ("text", "name", "address"),
    [
        ("ada@example.com", "", "ada@example.com"),
        ("<ada@example.com>", "", "ada@example.com"),
        ("Ada <ada@example.com>", "Ada", "ada@example.com"),
        ("Ada  King Lovelace\t<Ada@Example.com>", "Ada King Lovelace", "Ada@Example.com"),
        ('"Lovelace, Ada" <ada@example.com>', "Lovelace, Ada", "ada@example.com"),
        ('"Ada \\"Countess\\" L." <ada@example.com>', 'Ada "Countess" L.', "ada@example.com"),
        ("Ada K. Lovelace <ada@example.com>", "Ada K. Lovelace", "ada@example.com"),
        ("=?utf-8?Q?=C3=84da?= <ada@example.com>", "=?utf-8?Q?=C3=84da?=", "ada@example.com"),
        ("Äda <ada@example.com>", "Äda", "ada@example.com"),
        ("ada@example.com (Ada (the) Countess)", "", "ada@example.com"),
        ("(x\\)y) Ada (z) <ada@example.com> (w)", "Ada", "ada@example.com"),
        ("<@relay.example,@b.example:ada@example.com>", "", "ada@example.com"),
        ('"a b"@example.com', "", '"a b"@example.com'),
        ("ada@[192.0.2.1]", "", "ada@[192.0.2.1]"),
    ],
)
def test_a_mailbox_is_a_name_and_an_address(text: str, name: str, address: str) -> None:
    assert parse_mailbox(text) == Mailbox(name, address)
    assert parse_mailbox_list(text) == [Mailbox(name, address)]


@pytest.mark.parametrize(
    "text",
    [
        *("", "Ada", "Ada <ada@example.com", "Ada <>", "Ada <ada>", "a@b.example c@d.example"),
        *(
            "a@b.example,",
            "Ada ada@example.com",
            "Ada, <a@b.example>",
            "(a@b.example",
            '"Ada <a@b.c>',
        ),
        *("Ada\r\nBcc: x@y.z <a@b.example>", "Ada\0 <a@b.example>", "a @b.example", "a@ b.example"),
        *("a@b.example)", "<<a@b.example>>", "group: a@b.example;", "a@(c)b.example"),
    ],
)
def test_what_is_no_mailbox_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_mailbox(text)


def test_lists_and_groups_are_read_in_order() -> None:
    text = (
        'a@x.example, "B, b" <b@x.example>,, Team: c@x.example, D <d@x.example>;, nobody:;, e@x.y'
    )
    assert [mailbox.address for mailbox in parse_mailbox_list(text)] == [
        *("a@x.example", "b@x.example", "c@x.example", "d@x.example", "e@x.y")
    ]
    for broken in ("a@x.example b@x.example", "Team: a@x.example", "a@x.example; b@x.example"):
        with pytest.raises(InvalidInput):
            parse_mailbox_list(broken)


hostile = st.text(st.sampled_from('aB.@<>()[]:;,"\\ \tü-\0\r\n0'), max_size=60)


@settings(max_examples=500, deadline=None)
@given(hostile)
def test_any_text_is_an_address_or_invalid_input(text: str) -> None:
    try:
        mailbox = parse_mailbox(text)
    except InvalidInput:
        return
    normal = normalise(mailbox.address)
    assert normalise(normal) == normal
    assert mailbox.address.isprintable()
    assert not set(mailbox.name) & set("\r\n\0")


@pytest.mark.timeout(20)  # a guard: quadratic work on these takes minutes
@pytest.mark.parametrize(
    "unit", ["(", ",(", '"', ',"', "a@", "a,", "<", "a:", ";", "\\", "=?", "a."]
)
def test_work_is_linear_in_hostile_headers(unit: str) -> None:
    text = unit * (limits.MIME_HEADER_BYTES // len(unit))
    with pytest.raises(InvalidInput):
        parse_mailbox_list(text + ("x" if unit != ";" else ""))
    with pytest.raises(InvalidInput):
        parse_mailbox_list(text * 2)
