"""Signing: what is signed, how the field looks, and that any change is found."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.core import limits
from mailyard.core.errors import InvalidInput, TooLarge
from mailyard.protocol.dkim import (
    Mail,
    Signer,
    Status,
    generate_ed25519,
    generate_rsa,
    record_text,
    sign_all,
    signatures,
    verify,
)
from mailyard.protocol.dkim import canonical as canonical_module
from mailyard.protocol.dkim import sign as sign_module
from mailyard.protocol.dkim.sign import Series

NOW_S = 1_700_000_000.9
RSA, ED25519 = generate_rsa(), generate_ed25519()
RECORDS = {
    "r1._domainkey.example.org": record_text(RSA.public()).encode(),
    "e1._domainkey.example.org": record_text(ED25519.public()).encode(),
}
SIGNER = Signer("example.org", "e1", ED25519)
MAIL = (
    b"Received: from here\r\n"
    b"Date: Fri, 11 Jul 2003 21:00:37 -0700\r\n"
    b"From: Ada <ada@example.org>\r\n"
    b"To: Bob <bob@example.net>,\r\n\tEve <eve@example.net>\r\n"
    b"Subject: A  longer\r\n subject\r\n"
    b"Message-ID: <1@example.org>\r\n"
    b"List-Unsubscribe: <https://example.org/u/1>\r\n"
    b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
    b"Feedback-ID: 1:2:3:example\r\n"
    b"MIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n"
    b"\r\n"
    b"Hello \r\n\r\n  caf\xc3\xa9\r\n"
)


def statuses(content: bytes) -> list[Status]:
    mail = Mail(content)
    return [
        verify(mail, signature, [RECORDS[signature.key_name]], NOW_S).status
        for signature in signatures(mail)
    ]


def names_of(field: bytes) -> list[str]:
    (signature,) = signatures(Mail(field + b"\r\n"))
    return [name.decode() for name in signature.names]


def tags_of(field: bytes) -> dict[str, str]:
    value = re.sub(r"\s+", "", field.decode().partition(":")[2])
    return dict(tag.split("=", 1) for tag in value.split(";"))


@pytest.mark.parametrize("header_kind", ["simple", "relaxed"])
@pytest.mark.parametrize("body_kind", ["simple", "relaxed"])
@pytest.mark.parametrize(("selector", "key"), [("r1", RSA), ("e1", ED25519)])
@pytest.mark.parametrize(
    "content",
    [
        MAIL,
        MAIL.partition(b"\r\n\r\n")[0] + b"\r\n",
        MAIL.partition(b"\r\n\r\n")[0],
        b"From: a@example.org\r\n\r\n",
        b"From: a@example.org\r\n\r\n\r\n\r\n",
        b"From: a@example.org\r\n\r\nno line end",
        b"From: a@example.org\r\n\r\n" + b"x" * 100_000 + b"\r\n",
        b"From: a@example.org\r\nSubject: " + b"x" * 5000 + b"\r\n\r\n\xff\xfe\0\r\n",
        b"From:\r\n\ta@example.org\r\nTo:\r\n\r\nbare\rreturns\nand feeds\r\n",
        b"From : a@example.org\r\nFROM: b@example.org\r\nSubject:\xc3\xa9\r\n\r\n.\r\n..\r\n",
    ],
)
def test_what_is_signed_verifies(
    header_kind: str, body_kind: str, selector: str, key: object, content: bytes
) -> None:
    signer = Signer("example.org", selector, key, kinds=(header_kind, body_kind))  # type: ignore[arg-type]
    field = signer.sign(content, NOW_S)
    assert statuses(field + content) == [Status.PASS]


def test_the_field_says_who_when_and_how() -> None:
    tags = tags_of(SIGNER.sign(MAIL, NOW_S))
    assert tags.pop("h").startswith("from:from:")
    assert len(tags.pop("b")) == 88
    assert len(tags.pop("bh")) == 44
    assert tags == {
        "v": "1",
        "a": "ed25519-sha256",
        "c": "relaxed/simple",
        "d": "example.org",
        "s": "e1",
        "t": "1700000000",
    }
    assert SIGNER.key_name == "e1._domainkey.example.org"


def test_identity_and_lifetime_are_said_when_wanted() -> None:
    signer = Signer(
        "Example.org", "e1", ED25519, identity="a;b=ü c@News.example.org", lifetime_s=3600
    )
    field = signer.sign(MAIL, NOW_S)
    tags = tags_of(field)
    assert tags["i"] == "a=3Bb=3D=C3=BC=20c@news.example.org"
    assert int(tags["x"]) - int(tags["t"]) == 3600
    (signature,) = signatures(Mail(field + MAIL))
    assert signature.identity == "a;b=ü c@news.example.org"
    assert statuses(field + MAIL) == [Status.PASS]


@pytest.mark.parametrize("name", ["from", "to", "cc", "subject", "reply-to"])
def test_who_and_what_are_sealed_even_when_absent(name: str) -> None:
    bare = names_of(SIGNER.sign(b"From: a@example.org\r\n\r\n", NOW_S))
    assert bare.count(name) == (2 if name == "from" else 1)


@pytest.mark.parametrize(
    "name",
    ["date", "message-id", "list-unsubscribe", "list-unsubscribe-post", "feedback-id",
     "mime-version", "content-type", "to", "subject"],
)  # fmt: skip
def test_what_is_there_is_signed_and_no_second_one_can_be_added(name: str) -> None:
    field = SIGNER.sign(MAIL, NOW_S)
    assert names_of(field).count(name) == 2
    assert statuses(name.encode() + b": x\r\n" + field + MAIL) == [Status.FAIL]


def test_what_the_way_adds_is_not_signed() -> None:
    field = SIGNER.sign(MAIL, NOW_S)
    assert not {"received", "return-path", "dkim-signature"} & set(names_of(field))
    added = b"Return-Path: <x@y.z>\r\nReceived: from there\r\nX-Spam: no\r\nList-Id: <a.b>\r\n"
    assert statuses(added + field + MAIL) == [Status.PASS]


def test_every_instance_of_a_repeated_field_is_signed() -> None:
    content = b"To: 1\r\nFrom: a@example.org\r\nTo: 2\r\nTo: 3\r\n\r\n"
    field = SIGNER.sign(content, NOW_S)
    assert names_of(field).count("to") == 4
    for digit in b"123":
        changed = content.replace(b"To: %c" % digit, b"To: x")
        assert statuses(field + changed) == [Status.FAIL]


def test_any_number_of_repeated_fields_is_signed() -> None:
    content = b"From: a@example.org\r\n" + b"To: x\r\n" * 1000 + b"\r\n"
    field = SIGNER.sign(content, NOW_S)
    assert names_of(field).count("to") == 1001
    assert max(map(len, field.split(b"\r\n"))) <= limits.HEADER_FOLD_BYTES
    assert statuses(field + content) == [Status.PASS]


def test_lines_are_folded_within_78_octets() -> None:
    for signer in (SIGNER, Signer("example.org", "r1", RSA, identity="@a.example.org")):
        field = signer.sign(MAIL, NOW_S)
        assert field.endswith(b"\r\n")
        lines = field.removesuffix(b"\r\n").split(b"\r\n")
        assert max(map(len, lines)) <= limits.HEADER_FOLD_BYTES
        assert all(line.startswith(b" ") and line.strip() for line in lines[1:])


def test_several_keys_sign_with_one_look_at_the_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[bytes] = []

    def counted(kind: str, body: bytes) -> bytes:
        hashed.append(body)
        return canonical_module.canonical_body(kind, body)

    monkeypatch.setattr(sign_module, "canonical_body", counted)
    both = sign_all((Signer("example.org", "r1", RSA), SIGNER), MAIL, NOW_S)
    assert len(hashed) == 1
    assert statuses(both + MAIL) == [Status.PASS, Status.PASS]
    assert [s.algorithm for s in signatures(Mail(both + MAIL))] == ["rsa-sha256", "ed25519-sha256"]


def test_the_same_mail_at_the_same_time_gives_the_same_field() -> None:
    assert SIGNER.sign(MAIL, NOW_S) == SIGNER.sign(MAIL, NOW_S)


@pytest.mark.parametrize(
    "content", [b"", b"\r\nFrom: a@b.c\r\n", b"To: a@b.c\r\n\r\nFrom: a@b.c\r\n"]
)
def test_a_mail_without_from_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidInput, match="From"):
        SIGNER.sign(content, NOW_S)


def test_a_header_beyond_its_limit_is_refused() -> None:
    with pytest.raises(TooLarge):
        SIGNER.sign(b"From: a@b.c\r\n" + b"X: y\r\n" * 200_000, NOW_S)


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("domain", lambda: Signer("localhost", "s", ED25519)),
        ("domain", lambda: Signer("a b.org", "s", ED25519)),
        ("domain", lambda: Signer("", "s", ED25519)),
        ("selector", lambda: Signer("a.org", "", ED25519)),
        ("selector", lambda: Signer("a.org", "x;y", ED25519)),
        ("selector", lambda: Signer("a.org", ".".join(["x" * 60] * 4), ED25519)),
        ("kinds", lambda: Signer("a.org", "s", ED25519, kinds=("relaxed", "nofws"))),
        ("identity", lambda: Signer("a.org", "s", ED25519, identity="@b.org")),
        ("identity", lambda: Signer("a.org", "s", ED25519, identity="a.org")),
        ("identity", lambda: Signer("a.org", "s", ED25519, identity="x" * 65 + "@a.org")),
        ("lifetime_s", lambda: Signer("a.org", "s", ED25519, lifetime_s=0)),
    ],
)
def test_a_signer_that_cannot_work_is_refused(field: str, make: Callable[[], Signer]) -> None:
    with pytest.raises(InvalidInput) as raised:
        make()
    assert raised.value.field == field


def test_an_international_domain_signs_as_its_ascii_name() -> None:
    field = Signer("bücher.example", "e1", ED25519).sign(MAIL, NOW_S)
    assert tags_of(field)["d"] == "xn--bcher-kva.example"


# Any mail -------------------------------------------------------------------------------------

NAMES = st.sampled_from(
    (b"Subject", b"To", b"from", b"X-Other", b"List-Id", b"MIME-Version", b"Cc ")
)
WORDS = st.sampled_from(
    (b"word", b" ", b"\t", b"\r\n ", b"  ", b";", b"=", b":", b"\xc3\xa9", b"\xff")
)
FIELDS = st.lists(
    st.tuples(NAMES, st.lists(WORDS, max_size=6).map(b"".join)).map(lambda pair: b": ".join(pair)),
    max_size=6,
)
BODIES = st.lists(
    st.sampled_from(
        (b"text", b"\r\n", b"\r\n\r\n", b" ", b"\t ", b".", b"\r", b"\n", b"\0", b"\xe9")
    ),
    max_size=12,
).map(b"".join)
KINDS = st.tuples(*[st.sampled_from(("simple", "relaxed"))] * 2)


def mail_of(fields: list[bytes], body: bytes) -> bytes:
    return b"\r\n".join([b"From: a@example.org", *fields, b"", body])


@settings(deadline=None)
@given(FIELDS, BODIES, KINDS)
def test_any_mail_verifies_after_signing(
    fields: list[bytes], body: bytes, kinds: tuple[str, str]
) -> None:
    content = mail_of(fields, body)
    field = Signer("example.org", "e1", ED25519, kinds=kinds).sign(content, NOW_S)
    assert statuses(field + content) == [Status.PASS]


@settings(deadline=None)
@given(st.lists(st.tuples(FIELDS, BODIES), min_size=2, max_size=5), st.lists(KINDS, max_size=3))
def test_a_mail_in_a_series_is_signed_as_if_it_were_alone(
    mails: list[tuple[list[bytes], bytes]], kinds: list[tuple[str, str]]
) -> None:
    signers = [Signer("example.org", "e1", ED25519, kinds=one) for one in kinds]
    series = Series(signers)
    for fields, body in [*mails, *mails]:
        content = mail_of(fields, body)
        together = b"".join(one.signed() for one in series.prepare(content, NOW_S))
        assert together == b"".join(signer.sign(content, NOW_S) for signer in signers)


def test_a_mail_that_cannot_be_signed_leaves_no_trace_in_its_series() -> None:
    series = Series([SIGNER])
    for content in (b"To: a@b.c\r\nX: 1\r\n\r\n", MAIL[: MAIL.index(b"From")] + b"\r\n"):
        for _ in range(2):
            with pytest.raises(InvalidInput, match="From"):
                series.prepare(content, NOW_S)
    (field,) = series.prepare(MAIL, NOW_S)
    assert field.signed() == SIGNER.sign(MAIL, NOW_S)


@settings(max_examples=200, deadline=None)
@given(FIELDS, BODIES, KINDS, st.data())
def test_a_changed_octet_of_body_or_signed_field_fails(
    fields: list[bytes], body: bytes, kinds: tuple[str, str], data: st.DataObject
) -> None:
    content = mail_of(fields, body)
    field = Signer("example.org", "e1", ED25519, kinds=kinds).sign(content, NOW_S)
    signed = [at for at, (name, _, _) in enumerate(Mail(content).fields) if name != b"x-other"]
    at = data.draw(st.sampled_from([*signed, -1]))
    mark = b"#"  # in no word above: never the same in any canonical form
    if at < 0:
        spot = data.draw(st.integers(0, len(body)))
        changed = mail_of(fields, body[:spot] + mark + body[spot:])
    else:
        lines = [b"From: a@example.org", *fields]
        colon = lines[at].index(b":") + 1
        # At the start of a line a mark would not change the field but end it.
        line = lines[at]
        spots = [spot for spot in range(colon, len(line) + 1) if line[spot - 1] != 10]
        spot = data.draw(st.sampled_from(spots))
        lines[at] = lines[at][:spot] + mark + lines[at][spot:]
        changed = b"\r\n".join([*lines, b"", body])
    assert statuses(field + changed) == [Status.FAIL]


@settings(deadline=None)
@given(FIELDS, st.integers(0, 3), st.booleans())
def test_relaxed_forms_survive_refolding_and_spaces_at_line_ends(
    fields: list[bytes], blank_lines: int, tabs: bool
) -> None:
    content = mail_of(fields, b"one two\r\nthree\r\n")
    field = Signer("example.org", "e1", ED25519, kinds=("relaxed", "relaxed")).sign(content, NOW_S)
    white = b"\t" if tabs else b"\r\n  "
    moved = []
    for line in fields:
        name, colon, value = line.partition(b":")
        moved.append(name + colon + re.sub(rb"(?<!\n) ", lambda _: white, value) + b"  ")
    body = b"one \t two \r\nthree\t\r\n" + b"\r\n" * blank_lines
    changed = b"\r\n".join([b"FROM :  a@example.org ", *moved, b"", body])
    assert statuses(field + changed) == [Status.PASS]


def test_what_a_provider_writes_anew_is_left_out_by_who_spares_it() -> None:
    signer = Signer("example.org", "e1", ED25519, sparing=True)
    field = sign_all((signer, SIGNER), MAIL, NOW_S)
    rewritten = MAIL.replace(b"<1@example.org>", b"<0100@email.amazonses.com>").replace(
        b"Fri, 11 Jul 2003", b"Sat, 12 Jul 2003"
    )
    assert rewritten != MAIL
    assert statuses(field + rewritten) == [Status.PASS, Status.PASS]
    assert statuses(SIGNER.sign(MAIL, NOW_S) + rewritten) == [Status.FAIL]
    assert statuses(field + MAIL.replace(b"Bob", b"Rob")) == [Status.FAIL, Status.FAIL]
