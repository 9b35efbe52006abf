"""Any mail and any answers of DNS: a verdict within bounds, and nothing raised."""

import gzip
from contextlib import suppress
from io import BytesIO
from ipaddress import ip_address
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.protocol.authentication import Inquiry, Standing, Verdict, author_alone
from mailyard.protocol.authentication_results import field_value
from mailyard.protocol.dkim import Mail, Signer, generate_ed25519, record_text
from mailyard.protocol.dns_answer import (
    Answer,
    Ask,
    MxRecord,
    NoName,
    NoRecords,
    Question,
    Result,
    TemporaryFailure,
    Trouble,
)
from mailyard.protocol.spf import Sender
from mailyard.protocol.unpack import NotUnpackable, unpack

NOW_S = 1_700_000_000
CLIENT = ip_address("192.0.2.1")
KEY = generate_ed25519()
QUESTIONS_MAX = 250  # ten terms of ten hosts each, four authors, eight signatures, fifty sealers

names = st.sampled_from(["a.org", "b.a.org", "c.org", "x.test", "%{i}.a.org", "%{p}.c.org"])
terms = st.one_of(
    st.builds("{}{}:{}".format, st.sampled_from("+-~?"),
              st.sampled_from(["a", "mx", "include", "exists", "ptr"]), names),
    st.sampled_from(["all", "-all", "mx", "a", "ip4:192.0.2.0/24", "ip6:::1", "redirect=c.org",
                     "exp=a.org", "bogus", "a:%{l}.%{d2r}"]),
    st.text(max_size=12),
)  # fmt: skip
texts = st.one_of(
    st.builds("v=spf1 {}".format, st.lists(terms, max_size=14).map(" ".join)),
    st.builds("v=DMARC1; p={}; sp={}; psd={}".format,
              st.sampled_from(["none", "reject", "quarantine", "x"]),
              st.sampled_from(["none", "reject", ""]), st.sampled_from("ynu")),
    st.just(record_text(KEY.public())),
    st.text(max_size=40),
)  # fmt: skip
nothing: st.SearchStrategy[Result[Any]] = st.sampled_from(
    [NoName(1, False), NoRecords(1, False), TemporaryFailure(Trouble.TIMEOUT, "")]
)


def answer(data: st.DataObject, question: Question) -> Result[Any]:
    if data.draw(st.integers(0, 3)) == 0:
        return data.draw(nothing)
    values: st.SearchStrategy[Any] = {
        Ask.TXT: texts,
        Ask.MX: st.builds(MxRecord, st.just(1), st.sampled_from(["a.org", ".", "b.a.org"])),
        Ask.PTR: names,
    }.get(question.ask, st.just(CLIENT))
    return Answer(tuple(data.draw(st.lists(values, min_size=1, max_size=3))), 1, False, "")


def judged(raw: bytes, sender: Sender | None, data: st.DataObject) -> tuple[Verdict, int]:
    inquiry = Inquiry(raw, sender, NOW_S)
    known: dict[Question, Result[Any]] = {}
    while missing := inquiry.step(known.get):
        for question in missing:
            assert question not in known, "nothing is asked twice"
            known[question] = answer(data, question)
        assert len(known) <= QUESTIONS_MAX
    assert inquiry.verdict is not None
    return inquiry.verdict, len(known)


@given(
    st.data(),
    st.sampled_from(["ada@a.org", "b@b.a.org", "", "x", "@", "a@[1.2.3.4]", "ä@ä.org", "a@b@c.o"]),
    st.lists(st.sampled_from(["Ada <ada@a.org>", "<b@c.org>, <c@a.org>", "x", "", "a@ä.org"]),
             max_size=2),
    st.booleans(),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_a_verdict_whatever_dns_says(
    data: st.DataObject, mail_from: str, authors: list[str], signed: bool
) -> None:
    raw = "".join(f"From: {one}\r\n" for one in authors).encode() + b"Subject: x\r\n\r\nbody\r\n"
    if signed and authors:
        raw = Signer("a.org", "s1", KEY).sign(raw, NOW_S) + raw
    verdict, _ = judged(raw, Sender(CLIENT, "mx.a.org", mail_from), data)
    assert verdict.standing in Standing
    field = field_value("mx.ours.test", verdict.methods())
    # Whatever a stranger has written, the field is one field of printable lines.
    [only] = Mail(b"Authentication-Results: " + field.encode() + b"\r\n\r\n").fields
    assert only[0] == b"authentication-results"
    assert all(one.isprintable() or one in "\r\n\t" for one in field)
    if verdict.standing is Standing.VERIFIED:
        assert verdict.dmarc.domain
        assert any(one.status == "pass" for one in (*verdict.dkim, verdict.spf))


@given(st.binary(max_size=400), st.data())
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_judged(raw: bytes, data: st.DataObject) -> None:
    judged(raw, None, data)


def test_a_second_author_hides_nobody() -> None:
    raw = b"From: <boss@bank.org>, <eve@a.org>\r\n\r\nhello\r\n"
    raw = Signer("a.org", "s1", KEY).sign(raw, NOW_S) + raw
    zone = {
        "s1._domainkey.a.org": record_text(KEY.public()),
        "_dmarc.a.org": "v=DMARC1; p=reject",
        "_dmarc.bank.org": "v=DMARC1; p=reject",
    }

    def known(question: Question) -> Result[Any]:
        text = zone.get(question.name)
        return Answer((text,), 1, False, "") if text else NoName(1, False)

    inquiry = Inquiry(raw, None, NOW_S)
    assert not inquiry.step(known)
    assert inquiry.verdict is not None
    assert (inquiry.verdict.standing, inquiry.verdict.dmarc.domain) == (Standing.FORGED, "bank.org")


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x1f\x8b\x08", b"PK\x03\x04"]))
@settings(max_examples=150, deadline=None)
def test_what_cannot_be_unpacked_says_so(noise: bytes, magic: bytes) -> None:
    with suppress(NotUnpackable):
        assert len(unpack(magic + noise, 1_000)) <= 1_000


def test_a_bomb_costs_no_more_than_its_bound() -> None:
    zeros = bytes(50_000_000)
    packed = BytesIO()
    with ZipFile(packed, "w", ZIP_DEFLATED) as archive:
        archive.writestr("report.xml", zeros)
    for bomb in (
        gzip.compress(zeros, 1),
        gzip.compress(gzip.compress(zeros, 1)),
        packed.getvalue(),
    ):
        with pytest.raises(NotUnpackable, match="larger"):
            unpack(bomb, 100_000)


lines = st.sampled_from(
    [b"From: a@b.org", b"FROM : x@c.org", b"From: a@b.org,\r\n\tc@d.org", b"From-X: q@r.org",
     b"DKIM-Signature: v=1; d=b.org", b"ARC-Seal: i=1; cv=none", b"Subject: from here", b"", b"x",
     b"To: c@d.org\nFrom: e@f.org", b" folded from: x"],
)  # fmt: skip
mails = st.builds(
    lambda head, body: b"\r\n".join(head) + b"\r\n\r\n" + body,
    st.lists(lines, max_size=6),
    st.sampled_from([b"", b"From: z@z.org\r\n\r\n", b"text"]),
)


@given(mails, mails)
def test_mails_with_one_glance_at_the_author_have_one_author_and_nobody_else(
    one: bytes, other: bytes
) -> None:
    glance = author_alone(one)
    if glance is not None:
        inquiry = Inquiry(one, None, NOW_S)
        assert inquiry.author_alone is not None
        if author_alone(other) == glance:
            assert Inquiry(other, None, NOW_S).author_alone == inquiry.author_alone


def test_a_glance_is_enough_for_a_plain_mail_and_not_for_a_signed_one() -> None:
    plain = b"To: c@d.org\r\nFrom: A\r\n <a@b.org>\r\nSubject: s\r\n\r\nFrom: z@z.org"
    assert author_alone(plain) == b"From: A\r\n <a@b.org>"
    assert author_alone(b"DKIM-Signature: v=1\r\n" + plain) is None
    assert author_alone(b"From: e@f.org\r\n" + plain) is None
