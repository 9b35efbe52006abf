"""What a sending domain must set, what is wrong with what it has, and what to write instead."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from mailyard.protocol.dns_answer import (
    Address,
    Answer,
    Ask,
    MxRecord,
    NoName,
    NoRecords,
    Result,
    TemporaryFailure,
    Trouble,
)
from mailyard.protocol.dns_check_hosts import check_address_name, check_alias, check_mx
from mailyard.protocol.dns_check_texts import (
    check_alignment,
    check_dkim,
    check_dmarc,
    check_spf,
)
from mailyard.protocol.dns_dmarc import DmarcAbsent, DmarcFound, DmarcUnknown, dmarc_of
from mailyard.protocol.dns_records import (
    DkimKey,
    Purpose,
    SendingSetup,
    State,
    Verdict,
    WantedRecord,
    doubled_name,
    wanted_records,
)
from mailyard.protocol.dns_spf import SpfReport, spf_walk

KEY = DkimKey("yard1", "rsa", "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A" + "Ab/+" * 90 + "IDAQAB")
SETUP = SendingSetup(
    domain="example.org",
    dkim=(KEY, DkimKey("yard1ed", "ed25519", "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")),
    spf_terms=("include:spf.yard.example",),
    return_path="bounce.example.org",
    return_path_target="return.yard.example",
    tracking="go.example.org",
    tracking_target="track.yard.example",
    receiving=(MxRecord(10, "in1.yard.example"), MxRecord(20, "in2.yard.example")),
    reports_to="dmarc@example.org",
)
TIMEOUT = TemporaryFailure(Trouble.TIMEOUT, "192.0.2.53:53 did not answer")
NO_NAME = NoName(300, False)
NO_RECORDS = NoRecords(300, False)


def found(*records: object) -> Answer[object]:
    return Answer(records, 300, False, "")


def txt(*texts: str) -> Answer[str]:
    return Answer(texts, 300, False, "")


def states(*verdicts: Verdict) -> list[State]:
    return [verdict.state for verdict in verdicts]


# What to set.


def test_every_record_to_set() -> None:
    wanted = {(one.name, one.kind, one.value) for one in wanted_records(SETUP)}
    assert wanted == {
        ("yard1._domainkey.example.org", "TXT", KEY.text),
        ("yard1ed._domainkey.example.org", "TXT", SETUP.dkim[1].text),
        ("bounce.example.org", "CNAME", "return.yard.example"),
        ("example.org", "TXT", "v=spf1 include:spf.yard.example ~all"),
        ("_dmarc.example.org", "TXT", "v=DMARC1; p=none; rua=mailto:dmarc@example.org"),
        ("go.example.org", "CNAME", "track.yard.example"),
        ("example.org", "MX", "10 in1.yard.example"),
        ("example.org", "MX", "20 in2.yard.example"),
    }


def test_a_return_path_without_an_alias_has_mx_and_spf_of_its_own() -> None:
    hosts = (MxRecord(10, "in1.yard.example"),)
    setup = replace(SETUP, return_path_target="", return_path_hosts=hosts)
    records = [one for one in wanted_records(setup) if one.name == "bounce.example.org"]
    assert [(one.kind, one.value) for one in records] == [
        ("MX", "10 in1.yard.example"),
        ("TXT", "v=spf1 include:spf.yard.example ~all"),
    ]


def test_spf_of_the_domain_is_required_when_bounces_come_back_to_it() -> None:
    for return_path, required in (("bounce.example.org", False), ("", True)):
        records = wanted_records(replace(SETUP, return_path=return_path))
        assert next(one.required for one in records if one.purpose is Purpose.SPF) is required


def test_long_texts_are_written_in_strings_and_names_end_with_a_dot() -> None:
    key, *_, mx = wanted_records(SETUP)
    strings = key.zone_value.removeprefix('"').removesuffix('"').split('" "')
    assert "".join(strings) == KEY.text
    assert max(map(len, strings)) == 255
    assert mx.zone_value == "20 in2.yard.example."


# DKIM.


def dkim(result: Result[str], doubled: Result[str] | None = None) -> Verdict:
    return check_dkim(KEY, "example.org", result, doubled)


@pytest.mark.parametrize(
    "text",
    [
        KEY.text,
        f"v=DKIM1; h=sha256:sha1; k=rsa; s=email; t=s; n=note; p={KEY.key[:100]} {KEY.key[100:]};",
        f"k=rsa; p={KEY.key}",
        f"p={KEY.key}",
    ],
)
def test_a_key_that_stands_right(text: str) -> None:
    verdict = dkim(txt(text))
    assert (verdict.state, verdict.problem, verdict.write) == (State.GOOD, "", "")
    assert verdict.name == "yard1._domainkey.example.org"


@pytest.mark.parametrize(
    ("result", "state", "said"),
    [
        (NO_NAME, State.MISSING, "no TXT record"),
        (NO_RECORDS, State.MISSING, "no TXT record"),
        (txt("v=spf1 -all"), State.WRONG, "no p="),
        (txt(KEY.text, KEY.text), State.WRONG, "2 DKIM keys"),
        (txt(f"v=DKIM1; k=rsa; p={KEY.key[:230]}"), State.WRONG, "cut off after 230"),
        (txt("v=DKIM1; k=rsa; p=AAAA"), State.WRONG, "another key"),
        (txt("v=DKIM1; p="), State.WRONG, "revoked"),
        (txt(f'"{KEY.text}"'), State.WRONG, "quotation marks"),
        (txt(KEY.text.replace("; ", "\\; ")), State.WRONG, "backslashes"),
        (txt(f"k=rsa; v=DKIM1; p={KEY.key}"), State.WRONG, "must stand first"),
        (txt(f"v=dkim1; p={KEY.key}"), State.WRONG, "v=DKIM1"),
        (txt(f"v=DKIM1; k=ed25519; p={KEY.key}"), State.WRONG, "k=ed25519"),
        (txt(f"v=DKIM1; h=sha1; p={KEY.key}"), State.WRONG, "sha256"),
        (txt(f"v=DKIM1; s=tlsrpt; p={KEY.key}"), State.WRONG, "email"),
        (txt(f"v=DKIM1; t=y:s; p={KEY.key}"), State.WARNING, "tested"),
    ],
)
def test_what_is_wrong_with_a_key(result: Result[str], state: State, said: str) -> None:
    verdict = dkim(result)
    assert verdict.state is state
    assert said in verdict.problem
    assert verdict.write == KEY.text


def test_a_name_entered_in_full_where_the_domain_is_added_is_recognised() -> None:
    verdict = dkim(NO_NAME, txt(KEY.text))
    assert verdict.state is State.WRONG
    assert "enter only yard1._domainkey as its name" in verdict.problem
    assert doubled_name(verdict.name, "example.org") in verdict.problem


# SPF.


def spf(zone: dict[str, Result[str]], *, required: bool = True) -> Verdict:
    steps = spf_walk("example.org")
    question = next(steps)
    while True:
        known = question.ask is Ask.TXT
        answer: Result[object] = zone.get(question.name, NO_RECORDS) if known else found("x")
        try:
            question = steps.send(answer)
        except StopIteration as end:
            assert isinstance(end.value, SpfReport)
            return check_spf(Purpose.SPF, SETUP.spf_terms, end.value, required=required)


OURS: dict[str, Result[str]] = {"spf.yard.example": txt("v=spf1 ip4:203.0.113.0/24 -all")}


@pytest.mark.parametrize(
    "text", ["v=spf1 include:spf.yard.example -all", "v=spf1 a mx include:SPF.yard.example ~all"]
)
def test_an_spf_record_that_allows_our_servers(text: str) -> None:
    verdict = spf({**OURS, "example.org": txt(text, "other=1")})
    assert (verdict.state, verdict.problem) == (State.GOOD, "")


@pytest.mark.parametrize(
    ("result", "state", "said", "write"),
    [
        (NO_NAME, State.MISSING, "no SPF", "v=spf1 include:spf.yard.example ~all"),
        (
            txt("v=spf1 a -all"),
            State.WRONG,
            "include:spf.yard.example is missing",
            "v=spf1 a include:spf.yard.example -all",
        ),
        (
            txt("v=spf1 a -all", "v=spf1 include:spf.yard.example mx ~all"),
            State.WRONG,
            "2 SPF records",
            "v=spf1 a include:spf.yard.example mx -all",
        ),
        (
            txt("v=spf1 ipv4:192.0.2.1 a include:spf.yard.example -all"),
            State.WRONG,
            "write ip4",
            "v=spf1 a include:spf.yard.example -all",
        ),
        (
            txt("v=spf1 include:spf.yard.example +all"),
            State.WRONG,
            "every server on earth",
            "v=spf1 include:spf.yard.example ~all",
        ),
        (
            txt("v=spf1 include:spf.yard.example ?all"),
            State.WARNING,
            "?all",
            "v=spf1 include:spf.yard.example ~all",
        ),
        (
            txt("v=spf1 include:spf.yard.example"),
            State.WARNING,
            "no all",
            "v=spf1 include:spf.yard.example ~all",
        ),
        (
            txt("v=spf1 -include:spf.yard.example -all"),
            State.WRONG,
            "missing",
            "v=spf1 -include:spf.yard.example include:spf.yard.example -all",
        ),
        (TIMEOUT, State.UNKNOWN, "could not say", ""),
    ],
)
def test_what_is_wrong_with_spf(result: Result[str], state: State, said: str, write: str) -> None:
    verdict = spf({**OURS, "example.org": result})
    assert (verdict.state, verdict.write) == (state, write)
    assert said in verdict.problem


def test_two_spf_records_are_both_to_be_removed() -> None:
    texts = ("v=spf1 a -all", "v=spf1 mx -all")
    assert spf({**OURS, "example.org": txt(*texts)}).remove == texts


def test_too_many_lookups_are_told_with_what_they_cost() -> None:
    text = "v=spf1 " + " ".join(f"a:h{n}.example" for n in range(10))
    verdict = spf({**OURS, "example.org": txt(f"{text} include:spf.yard.example -all")})
    assert verdict.state is State.WRONG
    assert "11 DNS lookups" in verdict.problem


def test_where_spf_is_not_required_it_only_warns() -> None:
    for result in (NO_NAME, txt("v=spf1 -all"), txt("v=spf1 +all")):
        assert spf({**OURS, "example.org": result}, required=False).state is State.WARNING


def test_an_included_record_that_cannot_be_asked_for_now_is_not_called_missing() -> None:
    zone = {"example.org": txt("v=spf1 include:theirs.example -all"), "theirs.example": TIMEOUT}
    assert spf({**OURS, **zone}).state is State.UNKNOWN


# DMARC.


def dmarc(result: Result[str]) -> Verdict:
    return check_dmarc(SETUP, dmarc_of("example.org", result, "example.org", result), result)


@pytest.mark.parametrize(
    ("text", "state", "said"),
    [
        ("v=DMARC1; p=none; rua=mailto:dmarc@example.org", State.GOOD, ""),
        ("v=DMARC1; p=reject", State.GOOD, ""),
        ("v=DMARC1; p=none", State.WARNING, "rua="),
        ("v=DMARC1; p=reject; pct=10", State.WARNING, "pct=10"),
        ("v=DMARC1; p=maybe", State.WRONG, "p=maybe"),
        ("something", State.MISSING, "no DMARC"),
    ],
)
def test_the_dmarc_record(text: str, state: State, said: str) -> None:
    verdict = dmarc(txt(text))
    assert verdict.state is state
    assert said in verdict.problem
    if state in (State.WRONG, State.MISSING):
        assert verdict.write == "v=DMARC1; p=none; rua=mailto:dmarc@example.org"


def test_dmarc_when_dns_cannot_say() -> None:
    assert dmarc(TIMEOUT).state is State.UNKNOWN


@pytest.mark.parametrize(
    ("sender", "record", "state"),
    [
        ("example.org", "v=DMARC1; p=none", State.GOOD),
        ("news.example.org", "v=DMARC1; p=none", State.GOOD),
        ("example.org", "v=DMARC1; p=none; aspf=s", State.WARNING),
        ("news.example.org", "v=DMARC1; p=none; adkim=s", State.WARNING),
        ("news.example.org", "v=DMARC1; p=none; adkim=s; aspf=s", State.WRONG),
        ("other.example", "v=DMARC1; p=none", State.WRONG),
    ],
)
def test_alignment_of_signature_and_return_path(sender: str, record: str, state: State) -> None:
    policy = dmarc_of(sender, txt(record), sender, txt(record))
    assert isinstance(policy, DmarcFound)
    verdict = check_alignment(SETUP, sender, policy, lambda name: ".".join(name.split(".")[-2:]))
    assert verdict.state is state
    assert bool(verdict.problem) is (state is not State.GOOD)


@pytest.mark.parametrize("policy", [DmarcAbsent(""), DmarcUnknown("")])
def test_alignment_without_a_record_is_relaxed(policy: DmarcAbsent | DmarcUnknown) -> None:
    verdict = check_alignment(SETUP, "example.org", policy, lambda name: name[-11:])
    assert verdict.state is State.GOOD


# Aliases.


def alias(result: Result[str], doubled: Result[str] | None = None) -> Verdict:
    return check_alias(
        Purpose.RETURN_PATH,
        "example.org",
        "bounce.example.org",
        "return.yard.example",
        result,
        doubled=doubled,
    )


@pytest.mark.parametrize(
    ("result", "doubled", "state", "said"),
    [
        (txt("return.yard.example"), None, State.GOOD, ""),
        (NO_NAME, None, State.MISSING, "no such name"),
        (NO_NAME, txt("return.yard.example"), State.WRONG, "enter only bounce as its name"),
        (NO_RECORDS, None, State.WRONG, "other records"),
        (txt("elsewhere.example"), None, State.WRONG, "elsewhere.example"),
        (txt("return.yard.example.example.org"), None, State.WRONG, "end the target with a dot"),
        (TIMEOUT, None, State.UNKNOWN, "could not say"),
    ],
)
def test_an_alias(
    result: Result[str], doubled: Result[str] | None, state: State, said: str
) -> None:
    verdict = alias(result, doubled)
    assert verdict.state is state
    assert said in verdict.problem
    wrong = state in (State.MISSING, State.WRONG)
    assert verdict.write == ("return.yard.example" if wrong else "")


# MX.

OUR_MX = SETUP.receiving
THEIRS = MxRecord(15, "mx.theirs.example")


@pytest.mark.parametrize(
    ("records", "state", "removed"),
    [
        (OUR_MX, State.GOOD, 0),
        (OUR_MX[1:], State.GOOD, 0),
        ((*OUR_MX, THEIRS), State.WARNING, 1),
        ((*OUR_MX[1:], THEIRS), State.WRONG, 1),
        ((OUR_MX[0], MxRecord(10, "mx.theirs.example")), State.WRONG, 1),
        ((THEIRS,), State.WRONG, 1),
        ((MxRecord(0, "."),), State.WRONG, 1),
    ],
)
def test_mail_for_the_domain_comes_to_us_first(
    records: tuple[MxRecord, ...], state: State, removed: int
) -> None:
    answer = Answer(records, 300, False, "example.org")
    verdict = check_mx(Purpose.RECEIVING, "example.org", OUR_MX, answer)
    assert verdict.state is state
    assert len(verdict.remove) == removed
    wrong = "10 in1.yard.example, 20 in2.yard.example"
    assert verdict.write == (wrong if state is State.WRONG else "")


@pytest.mark.parametrize(
    ("result", "state"),
    [(NO_NAME, State.MISSING), (NO_RECORDS, State.MISSING), (TIMEOUT, State.UNKNOWN)],
)
def test_mx_that_are_not_there(result: Result[MxRecord], state: State) -> None:
    assert states(check_mx(Purpose.RECEIVING, "example.org", OUR_MX, result)) == [state]


# Names of addresses.

ADDRESS = ip_address("203.0.113.25")
HELLO = "out1.yard.example"


def leads_to(*addresses: str) -> Answer[Address]:
    return Answer(tuple(map(ip_address, addresses)), 300, False, "")


@pytest.mark.parametrize(
    ("result", "forward", "state", "said"),
    [
        (txt(HELLO), {HELLO: leads_to("2001:db8::1", "203.0.113.25")}, State.GOOD, ""),
        (txt("x.example", HELLO), {HELLO: leads_to("203.0.113.25")}, State.GOOD, ""),
        (NO_NAME, {}, State.MISSING, "no name"),
        (txt(HELLO), {HELLO: leads_to("203.0.113.26")}, State.WRONG, "does not lead back"),
        (txt(HELLO), {HELLO: NO_NAME}, State.WRONG, "does not lead back"),
        (txt(HELLO), {}, State.WRONG, "does not lead back"),
        (txt(HELLO), {HELLO: TIMEOUT}, State.UNKNOWN, "could not say"),
        (TIMEOUT, {}, State.UNKNOWN, "could not say"),
        (txt("a.example"), {"a.example": leads_to("203.0.113.25")}, State.WARNING, "EHLO"),
    ],
)
def test_the_name_of_an_address_leads_back_to_it(
    result: Result[str], forward: dict[str, Result[Address]], state: State, said: str
) -> None:
    verdict = check_address_name(ADDRESS, HELLO, result, forward)
    assert verdict.state is state
    assert said in verdict.problem


@pytest.mark.parametrize(
    ("address", "name", "made"),
    [
        ("203.0.113.25", "ip-203-0-113-25.provider.example", True),
        ("203.0.113.25", "25.113.0.203.dyn.provider.example", True),
        ("203.0.113.25", "mail25.yard.example", False),
        ("203.0.113.25", "out-25-0.yard.example", False),
        ("2001:db8::25", "2001-0db8-0000-0000-0000-0000-0000-0025.provider.example", True),
        ("2001:db8::25", "mail.yard.example", False),
    ],
)
def test_a_name_that_a_provider_made_of_the_address_is_warned_of(
    address: str, name: str, made: bool
) -> None:
    verdict = check_address_name(ip_address(address), name, txt(name), {name: leads_to(address)})
    assert verdict.state is (State.WARNING if made else State.GOOD)


def test_a_wanted_record_says_whether_it_must_be_there() -> None:
    assert WantedRecord(Purpose.DKIM, "a.example", "TXT", "x", True).zone_value == '"x"'
