"""SPF records as their owners must get them right (RFC 7208)."""

import itertools
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.core.errors import InvalidInput
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
from mailyard.protocol.dns_spf import (
    QUESTIONS,
    SpfReport,
    spf_walk,
)
from mailyard.protocol.dns_spf_record import merged, parse_spf

Zone = dict[str, str | list[str] | Result[Any]]


def answer_to(question: Question, zone: Zone) -> Result[Any]:
    """`zone`: SPF records by name; every other name has an address and one MX."""
    held = zone.get(question.name)
    if question.ask is Ask.TXT:
        if isinstance(held, str | list):
            texts = [held] if isinstance(held, str) else held
            return Answer(tuple(texts), 300, False, question.name)
        return held if held is not None else NoRecords(300, False)
    if held is not None and not isinstance(held, str | list):
        return held
    if question.ask is Ask.MX:
        return Answer((MxRecord(10, "mx.example"),), 300, False, question.name)
    return Answer((ip_address("192.0.2.1"),), 300, False, question.name)


def walk(zone: Zone, domain: str = "example.org") -> SpfReport:
    steps = spf_walk(domain)
    question = next(steps)
    for _ in range(QUESTIONS + 2):
        try:
            question = steps.send(answer_to(question, zone))
        except StopIteration as end:
            assert isinstance(end.value, SpfReport)
            return end.value
    raise AssertionError("it asks without end")


# Grammar.


@pytest.mark.parametrize(
    "text",
    [
        "v=spf1",
        "V=SPF1 -ALL",
        "v=spf1  mx   -all ",
        "v=spf1 +a ?mx ~ptr -exists:%{i}._spf.%{d2} include:_spf.example.com",
        "v=spf1 a/24 a//64 a/24//64 a:host.example/24 mx:example.org//64 mx/0",
        "v=spf1 ip4:192.0.2.1 ip4:192.0.2.0/24 ip6:2001:db8::1 ip6:2001:db8::/32 ip4:192.0.2.7/24",
        "v=spf1 redirect=_spf.example.com exp=explain.%{d} unknown=%{c}!",
        "v=spf1 exists:%{ir}.%{l1r-}.%%%_%-.example.com include:xn--mnchen-3ya.example.",
        "v=spf1 a:host_1.example a:1.example.c-1 a:%{d}",
    ],
)
def test_what_follows_the_grammar(text: str) -> None:
    assert parse_spf(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("v=spf2 -all", "v=spf1"),
        ("v=spf1-all", "v=spf1"),
        ("v=spf1 -all,", "all,"),
        ("v=spf1 all:x", "all takes no value"),
        ("v=spf1 ipv4:192.0.2.1 -all", "write ip4"),
        ("v=spf1 ip4=192.0.2.1 -all", "colon"),
        ("v=spf1 include=a.example", "colon"),
        ("v=spf1 ip4:192.0.2.256", "ip4:192.0.2.0/24"),
        ("v=spf1 ip4:192.0.2.1/33", "ip4:"),
        ("v=spf1 ip4:192.0.2.0/024", "ip4:"),
        ("v=spf1 ip4:192.0.2.0/255.255.255.0", "ip4:"),
        ("v=spf1 ip4:2001:db8::1", "ip4:"),
        ("v=spf1 ip6:192.0.2.1", "ip6:"),
        ("v=spf1 ip6:fe80::1%eth0", "ip6:"),
        ("v=spf1 ip4", "ip4:"),
        ("v=spf1 include", "no domain"),
        ("v=spf1 include:", "no domain"),
        ("v=spf1 include:localhost", "no domain"),
        ("v=spf1 a:192.0.2.1", "no domain"),
        ("v=spf1 a:", "no domain"),
        ("v=spf1 a:example.org:8080", "no domain"),
        ("v=spf1 a/33", "prefix"),
        ("v=spf1 a//129", "prefix"),
        ("v=spf1 mx/", "write m"),
        ("v=spf1 exists:%{x}.example", "macro"),
        ("v=spf1 exists:%{d0}.example", "macro"),
        ("v=spf1 exists:%{c}.example", "macro"),
        ("v=spf1 exists:%.example", "macro"),
        ("v=spf1 include:bär.example", "character"),
        ("v=spf1 redirect=a.example redirect=b.example", "more than once"),
        ("v=spf1 exp=a.example exp=b.example", "more than once"),
        ("v=spf1 +redirect=a.example", "colon"),
        ("v=spf1 v=spf1 -all", "no term"),
        ("v=spf1 -", "no term"),
        ("v=spf1 " + "a " * 400, "terms"),
        ("v=spf1 " + "a" * 5000, "longer"),
    ],
)
def test_what_breaks_the_grammar_is_told(text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        parse_spf(text)


# What it costs.


def test_terms_that_ask_dns_are_counted_through_every_include() -> None:
    zone: Zone = {
        "example.org": "v=spf1 a mx ip4:192.0.2.0/24 include:one.example exists:%{i}.c.d -all",
        "one.example": "v=spf1 include:two.example ptr ip6:2001:db8::/32 ~all",
        "two.example": "v=spf1 a:host.example redirect=three.example",
        "three.example": "v=spf1 mx:other.example -all",
    }
    report = walk(zone)
    assert report.lookups == 9
    assert report.costs[0] == ("include:one.example", 6)
    assert report.problems == ()


def test_redirect_costs_nothing_beside_all_and_nothing_counts_behind_all() -> None:
    report = walk({"example.org": "v=spf1 ~all a mx redirect=absent.example"})
    assert (report.lookups, report.problems) == (0, ())


def test_ten_lookups_are_allowed_and_eleven_are_not() -> None:
    ten = "v=spf1 " + " ".join(f"a:h{n}.example" for n in range(10))
    assert walk({"example.org": f"{ten} -all"}).problems == ()
    report = walk({"example.org": f"{ten} mx -all"})
    assert "11 DNS lookups" in report.problems[0]


def test_more_than_two_terms_that_find_nothing_are_too_many() -> None:
    record = "v=spf1 a:a.example mx:b.example exists:c.example -all"
    two: Zone = {
        "example.org": record,
        "a.example": NoName(1, False),
        "b.example": NoRecords(1, False),
    }
    assert walk(two).problems == ()
    assert walk(two).voids == 2
    report = walk({**two, "c.example": NoName(1, False)})
    assert "3 of its terms find nothing" in report.problems[0]


def test_an_mx_term_with_more_than_ten_hosts() -> None:
    many = Answer(tuple(MxRecord(n, f"mx{n}.example") for n in range(11)), 1, False, "m.example")
    report = walk({"example.org": "v=spf1 mx:m.example -all", "m.example": many})
    assert "11 MX hosts" in report.problems[0]


# What is wrong.


def test_no_record_and_several() -> None:
    assert walk({}).problems == ("example.org has no SPF record",)
    report = walk({"example.org": ["v=spf1 -all", "google-verification=x", "v=spf1 a -all"]})
    assert "2 SPF records" in report.problems[0]
    assert len(report.found) == 2


@pytest.mark.parametrize(
    ("included", "said"),
    [
        (NoName(1, False), "one.example has no SPF record"),
        (["v=spf1 -all", "v=spf1 -all"], "one.example has 2 SPF records"),
        ("v=spf1 ipv4:192.0.2.1", "the SPF record of one.example"),
        ("v=spf1 include:example.org -all", "never ends"),
    ],
)
def test_what_is_wrong_in_an_included_record(included: Any, said: str) -> None:
    report = walk({"example.org": "v=spf1 include:one.example -all", "one.example": included})
    assert said in report.problems[0]


def test_includes_without_end_are_not_followed_without_end() -> None:
    names = (f"n{n}.example" for n in itertools.count(1))

    class Endless(dict[str, Any]):
        def get(self, name: str, default: Any = None) -> str:
            return " ".join(["v=spf1", *(f"include:{next(names)}" for _ in range(3))])

    report = walk(Endless(), "n0.example")
    assert "DNS lookups" in report.problems[0]


def test_what_dns_could_not_say_is_told_apart() -> None:
    failure = TemporaryFailure(Trouble.TIMEOUT, "")
    assert walk({"example.org": failure}).unknown == ("example.org",)
    report = walk(
        {
            "example.org": "v=spf1 include:a.example mx:b.example -all",
            "a.example": failure,
            "b.example": failure,
        }
    )
    assert report.unknown == ("a.example", "b.example")
    assert report.problems == ()


def test_ptr_is_warned_of() -> None:
    assert "ptr" in walk({"example.org": "v=spf1 ptr -all"}).warnings[0]


# What it allows.


def test_what_passes_directly_and_through_includes() -> None:
    zone: Zone = {
        "example.org": "v=spf1 include:One.example ?include:two.test ip4:192.0.2.7/24 -ip4:8.8.8.8",
        "one.example": "v=spf1 include:ours.example ip6:2001:DB8:0::/48 -all",
        "two.test": "v=spf1 ip4:198.51.100.1 -all",
        "ours.example": "v=spf1 ip4:203.0.113.0/24 -all",
    }
    report = walk(zone)
    for term in (
        *("include:one.example", "include:ours.example", "ip4:192.0.2.200", "ip4:203.0.113.0/25"),
        *("ip6:2001:db8::1", "+include:ONE.example"),
    ):
        assert report.allows(term), term
    for term in ("ip4:198.51.100.1", "ip4:8.8.8.8", "ip4:192.0.0.0/16", "ip6:2001:db9::1", "mx"):
        assert not report.allows(term), term


# What to write instead.


@pytest.mark.parametrize(
    ("texts", "instead"),
    [
        ([], "v=spf1 include:ours.example ~all"),
        (["v=spf1 a mx -all"], "v=spf1 a mx include:ours.example -all"),
        (["v=spf1 a ~all", "v=spf1 mx a -all"], "v=spf1 a mx include:ours.example -all"),
        (["v=spf1 +all"], "v=spf1 include:ours.example ~all"),
        (["v=spf1 a"], "v=spf1 a include:ours.example ~all"),
        (["v=spf1 include:Ours.example -all"], "v=spf1 include:Ours.example -all"),
        (["v=spf1 redirect=_spf.example"], "v=spf1 include:ours.example redirect=_spf.example"),
        (["v=spf1 ipv4:192.0.2.1 a -all"], "v=spf1 a include:ours.example -all"),
    ],
)
def test_one_record_in_place_of_those_that_stand(texts: list[str], instead: str) -> None:
    assert merged(texts, ["include:ours.example"]) == instead


@settings(max_examples=200, deadline=None)
@given(st.text("v=spf1 ainclude:mx/%{d}.-~+?4692l", max_size=60))
def test_any_text_is_read_or_refused_and_what_is_written_instead_is_right(noise: str) -> None:
    text = f"v=spf1 {noise}"
    try:
        parse_spf(text)
    except InvalidInput:
        pass
    record = parse_spf(merged([text, text], ["include:ours.example"]))
    assert record.all_qualifier != "+"
    assert any(term.text == "include:ours.example" for term in record.terms)
