"""DMARC records and alignment (RFC 7489)."""

import pytest

from mailyard.core.errors import InvalidInput
from mailyard.protocol.dns_answer import Answer, NoName, Result, TemporaryFailure, Trouble
from mailyard.protocol.dns_dmarc import (
    DmarcAbsent,
    DmarcFound,
    DmarcRecord,
    DmarcUnknown,
    aligned,
    dmarc_of,
    parse_dmarc,
    record_name,
)

ABSENT = NoName(300, False)


def organisation(domain: str) -> str:
    """Under .example every second label is somebody's, as a public suffix list would say."""
    return ".".join(domain.split(".")[-2:])


def txt(*texts: str) -> Answer[str]:
    return Answer(texts, 300, False, "_dmarc.example.org")


def test_where_the_record_stands() -> None:
    assert record_name("example.org") == "_dmarc.example.org"


@pytest.mark.parametrize(
    ("text", "record"),
    [
        ("v=DMARC1; p=none", DmarcRecord("none", "none", False, False, 100, ())),
        (
            "v=DMARC1;p=reject;sp=quarantine;adkim=s;aspf=s;pct=20;"
            "rua=mailto:a@example.org!10m,https://x.example/r;fo=1;future=x;",
            DmarcRecord(
                "reject",
                "quarantine",
                True,
                True,
                20,
                ("mailto:a@example.org!10m", "https://x.example/r"),
            ),
        ),
        ("v = DMARC1 ; P=Reject ;", DmarcRecord("reject", "reject", False, False, 100, ())),
    ],
)
def test_a_record(text: str, record: DmarcRecord) -> None:
    assert parse_dmarc(text) == record


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("p=none; v=DMARC1", "begins with v=DMARC1"),
        ("v=DMARC2; p=none", "begins with v=DMARC1"),
        ("v=DMARC1 p=none", "begins with v=DMARC1"),
        ("v=DMARC1;", "p is missing"),
        ("v=DMARC1; p=monitor", "p=monitor"),
        ("v=DMARC1; p=none; sp=x", "sp=x"),
        ("v=DMARC1; p=none; p=reject", "twice"),
        ("v=DMARC1; p=none, rua=mailto:a@example.org", "p=none"),
        ("v=DMARC1; p=none; rua=a@example.org", "mailto:"),
        ("v=DMARC1; p=none; pct=101", "pct"),
        ("v=DMARC1; p=none; adkim=strict", "adkim"),
        ("v=DMARC1; p=none; rubbish", "rubbish"),
        ("v=DMARC1; p=none;" + " " * 5000, "begins"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        parse_dmarc(text)


def found(domain: str, own: Result[str], organisations: Result[str]) -> object:
    return dmarc_of(domain, own, organisation(domain), organisations)


def test_the_domains_own_record_counts_before_the_organisations() -> None:
    result = found("news.a.example", txt("v=DMARC1; p=none"), txt("v=DMARC1; p=reject"))
    assert isinstance(result, DmarcFound)
    assert (result.at, result.policy) == ("news.a.example", "none")


def test_the_organisations_record_counts_by_its_policy_for_subdomains() -> None:
    result = found("news.a.example", ABSENT, txt("v=DMARC1; p=none; sp=reject", "other"))
    assert isinstance(result, DmarcFound)
    assert (result.at, result.policy) == ("a.example", "reject")


@pytest.mark.parametrize(
    ("own", "why"),
    [
        (ABSENT, ""),
        (txt("v=spf1 -all"), ""),
        (txt("v=DMARC1; p=none", "v=DMARC1; p=none"), "2 DMARC records"),
        (txt("v=DMARC1; p=what"), "p=what"),
    ],
)
def test_no_record_counts(own: Result[str], why: str) -> None:
    result = found("a.example", own, own)
    assert isinstance(result, DmarcAbsent)
    assert why in result.why


def test_dns_that_cannot_say_leaves_it_open() -> None:
    failure = TemporaryFailure(Trouble.TIMEOUT, "")
    assert isinstance(found("a.example", failure, ABSENT), DmarcUnknown)
    assert isinstance(found("n.a.example", ABSENT, failure), DmarcUnknown)


@pytest.mark.parametrize(
    ("identifier", "sender", "strict", "expected"),
    [
        ("a.example", "a.example", True, True),
        ("A.example.", "a.EXAMPLE", True, True),
        ("bounce.a.example", "a.example", False, True),
        ("bounce.a.example", "a.example", True, False),
        ("a.example", "news.a.example", False, True),
        ("b.example", "a.example", False, False),
        ("xa.example", "a.example", False, False),
    ],
)
def test_alignment(identifier: str, sender: str, strict: bool, expected: bool) -> None:
    assert aligned(identifier, sender, strict, organisation) is expected
