"""Verification: the examples of RFC 6376 and RFC 8463, then rule by rule (section 6, RFC 8301)."""

from base64 import b64decode, b64encode
from functools import cache

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.protocol.dkim import (
    Mail,
    Result,
    Signature,
    Status,
    generate_ed25519,
    generate_rsa,
    record_text,
    signatures,
    verify,
)
from mailyard.protocol.dkim.key import RSA_SHA256, PrivateKey
from mailyard.protocol.dkim.signature import SIGNATURES_PER_MAIL
from mailyard.protocol.dkim.verify import header_hash

NOW_S = 1_700_000_000

# RFC 6376 appendix A.2 with errata 3192 and 4926 (white space); its key from appendix C.
RFC_6376 = b"""\
DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;
      c=simple/simple; q=dns/txt; i=joe@football.example.com;
      h=Received : From : To : Subject : Date : Message-ID;
      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
      b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB
      4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut
      KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV
      4bmp/YzhwvcubU4=;
Received: from client1.football.example.com  [192.0.2.1]
      by submitserver.example.com with SUBMISSION;
      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game. Are you hungry yet?

Joe.
""".replace(b"\n", b"\r\n")
RFC_6376_KEY = (
    b"v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYt"
    b"IxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhi"
    b"tdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB"
)

# RFC 8463 appendix A.3, keys from appendix A.2.
RFC_8463 = b"""\
DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game. Are you hungry yet?

Joe.
""".replace(b"\n", b"\r\n")
RFC_8463_KEYS = {
    "brisbane._domainkey.football.example.com": (
        b"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    ),
    "test._domainkey.football.example.com": (
        b"v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5"
        b"qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4h"
        b"stT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB"
    ),
}
RFC_8463_SECRET = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="


def test_the_example_of_rfc_6376() -> None:
    mail = Mail(RFC_6376)
    (signature,) = signatures(mail)
    assert signature.key_name == "brisbane._domainkey.example.com"
    assert signature.identity == "joe@football.example.com"
    assert verify(mail, signature, [RFC_6376_KEY], NOW_S) == Result(Status.PASS, "")


def test_the_example_of_rfc_8463() -> None:
    mail = Mail(RFC_8463)
    found = signatures(mail)
    assert [signature.algorithm for signature in found] == ["ed25519-sha256", "rsa-sha256"]
    for signature in found:
        key = RFC_8463_KEYS[signature.key_name]
        assert verify(mail, signature, [key], NOW_S).status is Status.PASS
    secret = Ed25519PrivateKey.from_private_bytes(b64decode(RFC_8463_SECRET))
    assert secret.sign(header_hash(mail, found[0])) == found[0].data


# One mail, signed by hand with any tags -----------------------------------------------------------

KEY = generate_ed25519()
RECORD = record_text(KEY.public()).encode()
TAGS = {
    "v": "1",
    "a": "ed25519-sha256",
    "c": "relaxed/relaxed",
    "d": "example.org",
    "s": "s1",
    "h": "from:to:subject",
    "bh": "",
    "b": "",
}
HEAD = b"From: ada@example.org\r\nTo: bob@example.net\r\nSubject: a  b\r\n"
BODY = b"one\r\ntwo  three\r\n"


def signed(
    key: PrivateKey = KEY, head: bytes = HEAD, front: str = "", **changed: str | None
) -> bytes:
    """A mail whose signature has TAGS with some `changed` (None leaves one out), rightly signed.

    The tag `front` stands in front of the others.
    """
    tags = {name: value for name, value in (TAGS | changed).items() if value is not None}
    tags = {name: tags[name] for name in sorted(tags, key=lambda name: name != front)}
    field = "DKIM-Signature: " + "; ".join(f"{name}={value}" for name, value in tags.items())
    rest = b"\r\n" + head + b"\r\n" + BODY
    mail = Mail(field.encode() + rest)
    kinds = tags.get("c", "simple").lower().partition("/")
    length = int(tags["l"]) if tags.get("l", "").isdigit() else None
    if tags.get("bh") == "":
        digest = b64encode(mail.body_hash(kinds[2] or "simple", length)).decode()
        field = field.replace(" bh=", f" bh={digest}", 1)
    if tags.get("b") == "":
        mail = Mail(field.encode() + rest)
        names = tuple(name.strip().lower().encode() for name in tags.get("h", "").split(":"))
        own = Signature(0, header_kind=kinds[0], names=names)
        data = b64encode(key.sign(header_hash(mail, own))).decode()
        field = field.replace(" b=", f" b={data}", 1)
    return field.encode() + rest


def judged(content: bytes, *records: bytes, now_s: float = NOW_S, away: bool = False) -> Result:
    mail = Mail(content)
    (signature,) = signatures(mail)
    return verify(mail, signature, None if away else records or (RECORD,), now_s)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"c": None},
        {"c": "relaxed"},
        {"c": "simple/relaxed"},
        {"c": "relaxed/simple"},
        {"c": "RELAXED/Simple"},
        {"a": "Ed25519-SHA256"},
        {"q": "dns/txt"},
        {"q": "web/new : dns/txt"},
        {"h": "From : TO\r\n\t: Subject"},
        {"h": "to:from:from:cc"},  # what is not there is signed as not there
        {"h": "from:to:"},
        {"i": "@example.org"},
        {"i": "ada=3Bx@News.example.ORG"},
        {"t": "1699999999"},
        {"t": "1699999999", "x": "1700000000"},
        {"x": "1700000001"},
        {"l": "5"},
        {"l": "0"},
        {"z": "From:ada@example.org|To:x"},
        {"unknown": "tag"},
        {"d": "EXAMPLE.org", "s": "2026.news_1"},
    ],
)
def test_signatures_that_pass(changed: dict[str, str | None]) -> None:
    assert judged(signed(**changed)).status is Status.PASS


@pytest.mark.parametrize(
    ("changed", "status", "reason"),
    [
        ({"v": "2"}, Status.NEUTRAL, "v= is not 1"),
        ({"v": None}, Status.NEUTRAL, "v= is missing"),
        ({"v": "1.0"}, Status.NEUTRAL, "v= is not 1"),
        ({"a": None}, Status.NEUTRAL, "a= is missing"),
        ({"a": "rsa-sha1"}, Status.POLICY, "rsa-sha1"),  # RFC 8301 section 3.1
        ({"a": "rsa-md5"}, Status.NEUTRAL, "a= is not known"),
        ({"a": "ed25519-sha512"}, Status.NEUTRAL, "a= is not known"),
        ({"c": "nofws"}, Status.NEUTRAL, "c= is not known"),
        ({"c": "relaxed/nofws"}, Status.NEUTRAL, "c= is not known"),
        ({"d": None}, Status.NEUTRAL, "d= is missing"),
        ({"d": "org"}, Status.NEUTRAL, "d= is not a domain"),
        ({"d": "example..org"}, Status.NEUTRAL, "d= is not a domain"),
        ({"s": ""}, Status.NEUTRAL, "s= is empty"),
        ({"s": "a b"}, Status.NEUTRAL, "s= is not a domain"),
        ({"s": ".".join(["a" * 60] * 4)}, Status.NEUTRAL, "s= is not a domain"),  # name too long
        ({"h": None}, Status.NEUTRAL, "h= is missing"),
        ({"h": ""}, Status.NEUTRAL, "h= is empty"),
        ({"h": "to:subject"}, Status.PERMERROR, "From"),
        ({"q": "dns/other"}, Status.NEUTRAL, "q="),
        ({"i": "ada@example.net"}, Status.PERMERROR, "i= is not of the domain"),
        ({"i": "ada@notexample.org"}, Status.PERMERROR, "i= is not of the domain"),
        ({"i": "ada"}, Status.NEUTRAL, "i= has no @"),
        ({"i": "a=zz@example.org"}, Status.NEUTRAL, "i= is not quoted-printable"),
        ({"t": "soon"}, Status.NEUTRAL, "t= is not a number"),
        ({"x": "-1"}, Status.NEUTRAL, "x= is not a number"),
        ({"t": "1700000000", "x": "1700000000"}, Status.NEUTRAL, "x= is not after t="),
        ({"x": "1699999999"}, Status.POLICY, "expired"),
        ({"l": "-1"}, Status.NEUTRAL, "l= is not a number"),
        ({"l": "17"}, Status.FAIL, "shorter than what was signed"),
        ({"l": "9" * 76}, Status.FAIL, "shorter than what was signed"),
        ({"bh": None}, Status.NEUTRAL, "bh= is missing"),
        ({"bh": "%"}, Status.NEUTRAL, "bh= is not base64"),
        ({"bh": "AAAA"}, Status.FAIL, "body"),
        ({"b": None}, Status.NEUTRAL, "b= is missing"),
        ({"b": "AAA"}, Status.NEUTRAL, "b= is not base64"),
        ({"b": "AAAA"}, Status.FAIL, "not of this header"),
        ({"d ": "example.org"}, Status.NEUTRAL, "twice"),
        ({"x" * 33: "1"}, Status.NEUTRAL, "name=value"),
        ({"x-y": "1"}, Status.NEUTRAL, "name=value"),
    ],
)  # fmt: skip
def test_signatures_that_do_not(
    changed: dict[str, str | None], status: Status, reason: str
) -> None:
    result = judged(signed(**changed))
    assert result.status is status
    assert reason in result.reason


@pytest.mark.parametrize(
    ("record", "status", "reason"),
    [
        (b"k=ed25519; p=", Status.PERMERROR, "revoked"),
        (b"v=spf1 -all", Status.PERMERROR, "key record"),
        (RFC_6376_KEY, Status.PERMERROR, "algorithm"),
        (RECORD + b"; h=sha1", Status.PERMERROR, "sha256"),
        (RECORD + b"; s=tlsrpt", Status.PERMERROR, "email"),
        (record_text(generate_ed25519().public()).encode(), Status.FAIL, "not of this header"),
    ],
    ids=["revoked", "other record", "algorithm", "hash", "service", "other key"],
)
def test_key_records_that_do_not_verify(record: bytes, status: Status, reason: str) -> None:
    result = judged(signed(), record)
    assert result.status is status
    assert reason in result.reason


def test_without_an_answer_of_dns_there_is_a_second_time_and_without_a_key_there_is_none() -> None:
    assert judged(signed(), away=True).status is Status.TEMPERROR
    mail = Mail(signed())
    (signature,) = signatures(mail)
    assert verify(mail, signature, [], NOW_S).status is Status.PERMERROR


def test_of_several_records_one_that_verifies_is_enough() -> None:
    other = record_text(generate_ed25519().public()).encode()
    assert judged(signed(), b"v=spf1 -all", other, RECORD).status is Status.PASS
    assert judged(signed(), b"v=spf1 -all", other).status is Status.FAIL
    assert judged(signed(), *[other] * 100, RECORD).status is Status.FAIL  # bounded work


def test_a_strict_key_wants_the_domain_itself() -> None:
    strict = RECORD + b"; t=s"
    assert judged(signed(i="ada@example.org"), strict).status is Status.PASS
    assert judged(signed(), strict).status is Status.PASS
    assert judged(signed(i="ada@news.example.org"), strict).status is Status.PERMERROR


def test_a_key_in_testing_never_fails_a_mail() -> None:
    testing = RECORD + b"; t=y"
    good = judged(signed(), testing)
    assert good.status is Status.PASS
    assert good.testing
    bad = judged(signed(b="AAAA"), testing)
    assert bad.status is Status.NEUTRAL
    assert bad.testing


@cache
def rsa_key(bits: int) -> tuple[PrivateKey, bytes]:
    secret = rsa.generate_private_key(65537, bits)
    der = secret.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return PrivateKey(RSA_SHA256, secret), b"p=" + b64encode(der)


def test_rsa_keys_count_from_1024_bits_on() -> None:
    key, record = rsa_key(1024)
    assert judged(signed(key, a="rsa-sha256"), record).status is Status.PASS
    short = (
        b"p=MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBALgSoqXVSEmfcIsOzw7oRuCCOwsmtX/SJnTWxYyj2leFxfS/AVJ+dYfY"
        b"+hXqMsT7l+MZvvh/R1WzN4MO/kI/7XsCAwEAAQ=="
    )
    result = judged(signed(key, a="rsa-sha256"), short)  # RFC 8301 section 3.2
    assert result.status is Status.POLICY
    assert "512" in result.reason


def test_what_was_added_behind_l_is_told() -> None:
    content = signed(l="5")
    assert judged(content).unsigned_bytes == len(b"two three\r\n")
    assert judged(content + b"an advertisement\r\n").unsigned_bytes == 29
    assert judged(content + b"an advertisement\r\n").status is Status.PASS


def test_a_field_added_above_is_caught_when_its_absence_was_signed() -> None:
    loose, sealed = signed(h="from:to:subject"), signed(h="from:from:to:subject")
    forged = b"From: eve@example.org\r\n"
    assert judged(forged + loose).status is Status.PASS
    assert judged(forged + sealed).status is Status.FAIL


def test_a_signature_never_signs_itself() -> None:
    content = signed(h="from:dkim-signature")
    assert judged(content).status is Status.PASS


def test_a_signature_can_sign_another() -> None:
    other = b"DKIM-Signature: v=1; d=example.net\r\n"
    content = signed(h="from:dkim-signature", head=other + HEAD)
    mail = Mail(content)
    assert verify(mail, signatures(mail)[0], [RECORD], NOW_S).status is Status.PASS
    changed = Mail(content.replace(b"example.net\r\n", b"example.com\r\n", 1))
    assert verify(changed, signatures(changed)[0], [RECORD], NOW_S).status is Status.FAIL


def test_b_may_stand_anywhere_and_be_folded_anyhow() -> None:
    for kind in ("simple/simple", "relaxed/relaxed"):
        content = signed(c=kind, front="b")
        assert judged(content).status is Status.PASS
        at = content.index(b" b=") + 3
        folded = content[:at] + b"\r\n\t " + content[at : at + 9] + b"\r\n " + content[at + 9 :]
        assert judged(folded).status is Status.PASS


def test_the_number_of_signatures_is_bounded() -> None:
    mail = Mail(b"DKIM-Signature: v=1\r\n" * 1000 + HEAD + b"\r\n")
    assert len(signatures(mail)) == SIGNATURES_PER_MAIL


def test_a_defect_needs_no_key() -> None:
    (signature,) = signatures(Mail(signed(v="2")))
    assert signature.key_name == ""
    assert signature.domain == "example.org"
    (signature,) = signatures(Mail(signed(v="2", d="<script>")))
    assert signature.domain == ""


def test_a_mail_without_signatures_has_none() -> None:
    for content in (
        b"",
        b"\r\n",
        HEAD,
        b"X\r\nDKIM-Signature v=1\r\n\r\n",
        b"\r\nDKIM-Signature: v=1",
    ):
        assert signatures(Mail(content)) == []


# Any bytes ------------------------------------------------------------------------------------

LINES = st.sampled_from((
    b"DKIM-Signature: v=1; a=ed25519-sha256; d=example.org; s=s1; h=from:from; bh=; b=",
    b"dkim-signature : v=1; a=rsa-sha256; d=a.b; s=s; h=from; bh=AAAA; b=AAAA", b"\tl=1; x=9",
    b" c=relaxed", b"; i=@a.b", b"From: a@b.c", b"", b"=", b";;", b"DKIM-Signature:", b"\xff\0",
    signed().partition(b"\r\n")[0],
))  # fmt: skip
ENDS = st.sampled_from((b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b""))
HOSTILE = st.one_of(
    st.lists(st.tuples(LINES, ENDS), max_size=8).map(
        lambda lines: b"".join(line + end for line, end in lines)
    ),
    st.binary(max_size=200).map(lambda noise: b"DKIM-Signature: " + noise),
)


@settings(max_examples=300, deadline=None)
@given(HOSTILE, st.sampled_from((RECORD, RFC_6376_KEY, b"", b"p=", b"\xff")))
def test_any_bytes_get_a_verdict(content: bytes, record: bytes) -> None:
    mail = Mail(content)
    for signature in signatures(mail):
        assert (signature.defect is None) == bool(signature.key_name)
        result = verify(mail, signature, [record], NOW_S)
        assert (result.status is Status.PASS) == (not result.reason)
        assert result.reason.isascii()
        assert result.reason.isprintable()
        assert len(result.reason) <= 100


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(signed()) - 1), st.binary(min_size=1, max_size=3))
def test_a_changed_mail_does_not_pass_by_another_key_or_reading(at: int, noise: bytes) -> None:
    """Whatever is overwritten: it passes only if the canonical form is still the signed one."""
    good = signed(h="from:from:to:to:subject:subject")
    content = good[:at] + noise + good[at + len(noise) :]
    mail, before = Mail(content), Mail(good)
    for signature in signatures(mail):
        if verify(mail, signature, [RECORD], NOW_S).status is Status.PASS:
            (first,) = signatures(before)
            assert header_hash(mail, signature) == header_hash(before, first)
            assert mail.body_hash("relaxed") == before.body_hash("relaxed")


def test_an_rsa_signature_verifies_with_a_generated_key() -> None:
    key = generate_rsa()
    record = record_text(key.public()).encode()
    assert judged(signed(key, a="rsa-sha256"), record).status is Status.PASS
