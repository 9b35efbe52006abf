"""Chains that we seal: they verify, and nothing of them can be changed."""

import re
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.core.errors import InvalidInput
from mailyard.protocol.arc import ChainStatus, Sealer, read_chain, verify_chain
from mailyard.protocol.arc.chain import INSTANCES
from mailyard.protocol.arc.verify import ChainResult, Keys
from mailyard.protocol.dkim import (
    Mail,
    PrivateKey,
    generate_ed25519,
    generate_rsa,
    record_text,
)

MAIL = b"From: ann@a.example\r\nTo: list@b.example\r\nSubject: Tea\r\n\r\nAt four.\r\n"
NOW_S = 1_700_000_000
SAID = "spf=pass smtp.mailfrom=a.example; dkim=none"


@cache
def keys() -> dict[str, PrivateKey]:
    return {
        "s1._domainkey.b.example": generate_ed25519(),
        "s1._domainkey.c.example": generate_rsa(),
    }


def zone() -> Keys:
    return {name: [record_text(key.public()).encode()] for name, key in keys().items()}


def sealer(domain: str) -> Sealer:
    return Sealer(domain, "s1", keys()[f"s1._domainkey.{domain}"], f"mx.{domain}")


def judged(content: bytes, answers: Keys | None = None) -> ChainResult:
    mail = Mail(content)
    return verify_chain(mail, read_chain(mail), zone() if answers is None else answers, NOW_S)


def forwarded(content: bytes, domain: str, names: tuple[bytes, ...] = ()) -> bytes:
    mail = Mail(content)
    chain = read_chain(mail)
    status = verify_chain(mail, chain, zone(), NOW_S).status
    return sealer(domain).seal(mail, chain, status, SAID, NOW_S, names) + content


def test_a_mail_without_chain_has_none() -> None:
    assert judged(MAIL).status is ChainStatus.NONE


def test_each_hop_seals_on_top_of_the_last() -> None:
    content = MAIL
    for domain in ("b.example", "c.example", "b.example"):
        content = forwarded(content, domain)
    result = judged(content)
    assert result.status is ChainStatus.PASS
    assert result.sealers == ("b.example", "c.example", "b.example")
    assert result.oldest_pass == 0
    assert all(len(line) < 998 for line in content.splitlines())


def test_a_list_that_changes_the_subject_seals_what_it_sends() -> None:
    once = forwarded(MAIL, "b.example")
    twice = forwarded(once.replace(b"Subject: Tea", b"Subject: [list] Tea"), "c.example")
    assert judged(once.replace(b"Subject: Tea", b"Subject: [list] Tea")).status is ChainStatus.FAIL
    # The list saw a broken chain, said so, and nobody adds to that.
    result = judged(twice)
    assert (result.status, read_chain(Mail(twice)).ended) == (ChainStatus.FAIL, True)
    assert forwarded(twice, "b.example") == twice


def test_who_changes_a_mail_after_checking_it_is_the_oldest_pass() -> None:
    once = forwarded(MAIL, "b.example")
    mail = Mail(once)
    chain = read_chain(mail)
    assert verify_chain(mail, chain, zone(), NOW_S).status is ChainStatus.PASS
    changed = once.replace(b"Subject: Tea", b"Subject: [list] Tea")
    seal = sealer("c.example").seal(Mail(changed), chain, ChainStatus.PASS, SAID, NOW_S)
    result = judged(seal + changed)
    assert (result.status, result.oldest_pass) == (ChainStatus.PASS, 2)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_no_byte_of_what_is_sealed_can_be_changed(data: st.DataObject) -> None:
    """A letter or digit put in place of another, anywhere, breaks the chain or changes nothing
    that it speaks of."""
    content = forwarded(forwarded(MAIL, "b.example"), "c.example")
    # The last character of a base64 text has bits that mean nothing.
    places = [one.start() for one in re.finditer(rb"[A-Za-z0-9](?!={1,2}(?:;|\r))", content)]
    at = data.draw(st.sampled_from(places))
    new = data.draw(st.sampled_from(b"aZ7").map(lambda octet: bytes([octet])))
    changed = content[:at] + new + content[at + 1 :]
    result = judged(changed)
    if result.status is ChainStatus.PASS:
        before, after = Mail(content), Mail(changed)
        same_names = [field[0] for field in before.fields] == [field[0] for field in after.fields]
        assert same_names and before.body == after.body
        lowered = [field[1].lower() for field in before.fields]
        assert lowered == [field[1].lower() for field in after.fields]


@given(st.binary(max_size=300), st.sampled_from([b"ARC-Seal:", b"ARC-Message-Signature:", b"x:"]))
@settings(max_examples=150, deadline=None)
def test_nothing_raises(noise: bytes, name: bytes) -> None:
    judged(name + noise + b"\r\n" + forwarded(MAIL, "b.example"))


def test_a_key_that_dns_owes_is_no_verdict() -> None:
    content = forwarded(MAIL, "b.example")
    assert judged(content, dict.fromkeys(zone())).status is ChainStatus.TEMPERROR
    assert judged(content, {}).status is ChainStatus.FAIL


def test_a_chain_ends_at_its_longest() -> None:
    content = MAIL
    for _ in range(INSTANCES):
        content = forwarded(content, "b.example", (b"from",))
    assert judged(content).status is ChainStatus.PASS
    assert forwarded(content, "b.example") == content
    extra = b"ARC-Seal: i=51; cv=pass; a=rsa-sha256; d=b.example; s=s1; b=AA==\r\n"
    assert "more than" in judged(extra + content).reason


def test_what_was_said_cannot_leave_its_field() -> None:
    mail = Mail(MAIL)
    said = "spf=pass\r\nBcc: eve@e.example\r\n\r\nspf=\x00fail"
    seal = sealer("b.example").seal(mail, read_chain(mail), ChainStatus.NONE, said, NOW_S)
    assert b"bcc" not in Mail(seal + MAIL).places
    assert judged(seal + MAIL).status is ChainStatus.PASS


def test_a_sealer_needs_names() -> None:
    for wrong in (("b", "s1", "mx"), ("b.example", "s 1", "mx"), ("b.example", "s1", "a;b")):
        with pytest.raises(InvalidInput):
            Sealer(wrong[0], wrong[1], keys()["s1._domainkey.b.example"], wrong[2])
