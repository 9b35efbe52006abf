"""The rules of receivers as functions of facts: what passes, what warns, what blocks."""

from dataclasses import replace
from datetime import timedelta

import pytest

from mailyard.campaigns.link_check import links_of
from mailyard.campaigns.list_check import trap_words
from mailyard.campaigns.preflight import (
    CampaignFacts,
    DomainFacts,
    Item,
    Lack,
    Level,
    LinkFacts,
    ListFacts,
    MailFacts,
    RateFacts,
    blocking,
    judge_campaign,
    judge_domain,
)
from mailyard.protocol.dns_records import Purpose, State, Verdict

PASS, WARN, BLOCK = Level.PASS, Level.WARN, Level.BLOCK
WRONG, MISSING = State.WRONG, State.MISSING
LACK = Lack("city", 3, "a@b.example", "missing")
LINK = "https://x.example/"


def found(purpose: Purpose, state: State = State.GOOD) -> Verdict:
    return Verdict(purpose, "shop.example", "TXT", state, "" if state is State.GOOD else "not so")


GOOD_DOMAIN = DomainFacts(
    "shop.example",
    known=True,
    signs=True,
    verdicts=tuple(
        found(purpose)
        for purpose in (
            Purpose.ALIGNMENT, Purpose.DMARC, Purpose.SPF, Purpose.ADDRESS_NAME, Purpose.TLS,
        )
    ),
    checked_ago=timedelta(hours=1),
)  # fmt: skip
GOOD_MAIL = MailFacts(
    unsubscribe="<https://yard.example/u/x>",
    one_click=True,
    signed=frozenset(["from", "list-unsubscribe", "list-unsubscribe-post"]),
    html_bytes=20_000,
    has_html=True,
    has_text=True,
    physical_address="1 Long Road",
    shows_address=True,
)
GOOD = CampaignFacts(
    outside=True,
    domain=GOOD_DOMAIN,
    rates=RateFacts(sent=10_000, bounced=40, complained=2),
    mail=GOOD_MAIL,
    links=LinkFacts(tried=3),
    list=ListFacts(members=20_000),
)


def levels(facts: CampaignFacts) -> dict[str, Level]:
    return {item.key: item.level for item in judge_campaign(facts) if item.level is not PASS}


def verdicts(*others: Verdict) -> DomainFacts:
    kept = [one for one in GOOD_DOMAIN.verdicts if one.purpose not in {o.purpose for o in others}]
    return replace(GOOD_DOMAIN, verdicts=(*kept, *others))


def test_what_keeps_every_rule_passes() -> None:
    items = judge_campaign(GOOD)
    assert {item.level for item in items} == {PASS}
    assert len({item.key for item in items}) == len(items) >= 16
    assert all(item.source.startswith(("https://", "docs/")) and item.message for item in items)


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        (replace(GOOD, domain=DomainFacts("x.example", known=False)), {"authentication": BLOCK}),
        (
            replace(GOOD, domain=replace(GOOD_DOMAIN, signs=False)),
            {"authentication": BLOCK},
        ),
        (
            replace(GOOD, domain=replace(GOOD_DOMAIN, checked_ago=timedelta(days=8))),
            {"records_age": WARN},
        ),
        (
            replace(GOOD, domain=verdicts(found(Purpose.DMARC, MISSING))),
            {"dmarc": BLOCK},
        ),
        (
            replace(
                GOOD,
                domain=verdicts(found(Purpose.DMARC, MISSING)),
                list=ListFacts(members=4_999),
            ),
            {"dmarc": WARN},
        ),
        (replace(GOOD, domain=verdicts(found(Purpose.ALIGNMENT, WRONG))), {"alignment": BLOCK}),
        (replace(GOOD, domain=verdicts(found(Purpose.TLS, WRONG))), {"tls": WARN}),
        (
            replace(GOOD, domain=verdicts(found(Purpose.ADDRESS_NAME, MISSING))),
            {"address_names": BLOCK},
        ),
        (replace(GOOD, mail=replace(GOOD_MAIL, one_click=False)), {"one_click": BLOCK}),
        (
            replace(GOOD, mail=replace(GOOD_MAIL, signed=frozenset(["from", "list-unsubscribe"]))),
            {"one_click_signed": BLOCK},
        ),
        (replace(GOOD, mail=MailFacts(failure="`city` is missing")), {"mail": BLOCK}),
        (replace(GOOD, mail=replace(GOOD_MAIL, html_bytes=102 * 1024)), {}),
        (replace(GOOD, mail=replace(GOOD_MAIL, html_bytes=102 * 1024 + 1)), {"size": WARN}),
        (replace(GOOD, mail=replace(GOOD_MAIL, has_text=False)), {"text_part": WARN}),
        (replace(GOOD, mail=replace(GOOD_MAIL, shows_address=False)), {"physical_address": WARN}),
        (replace(GOOD, links=LinkFacts(broken=((LINK, "404"),))), {"links": BLOCK}),
        (replace(GOOD, links=LinkFacts(doubtful=((LINK, "500"),))), {"links": WARN}),
        (replace(GOOD, links=LinkFacts(foreign=("elsewhere.example",))), {"link_hosts": WARN}),
        (replace(GOOD, links=LinkFacts(hidden=("https://bit.ly/x",))), {"link_hosts": WARN}),
        (
            replace(GOOD, list=ListFacts(9_000, lacks=(LACK,))),
            {"variables": BLOCK},
        ),
        (replace(GOOD, list=ListFacts(9_000, lacks=(Lack("city", 3, "a@b.example", ""),))), {}),
        (replace(GOOD, list=ListFacts(9_000, untried=4)), {"variables": WARN}),
        (replace(GOOD, list=ListFacts(9_000, stale=10)), {"list_age": WARN}),
        (replace(GOOD, list=ListFacts(9_000, stale=10, dead=1)), {"list_age": BLOCK}),
        (replace(GOOD, list=ListFacts(9_000, traps=90)), {"traps": WARN}),
        (replace(GOOD, list=ListFacts(9_000, traps=91)), {"traps": BLOCK}),
        (replace(GOOD, list=ListFacts(whole=False)), {"list": WARN}),
    ],
)  # fmt: skip
def test_what_breaks_a_rule_says_so_and_nothing_else_does(
    facts: CampaignFacts, wanted: dict[str, Level]
) -> None:
    assert levels(facts) == wanted


@pytest.mark.parametrize(
    ("rates", "wanted"),
    [
        (RateFacts(499, 499, 499), {}),  # too few to tell
        (RateFacts(100_000, 0, 99), {}),
        (RateFacts(100_000, 0, 100), {"complaint_rate": WARN}),
        (RateFacts(100_000, 0, 299), {"complaint_rate": WARN}),
        (RateFacts(100_000, 0, 300), {"complaint_rate": BLOCK}),
        (RateFacts(1_000, 50, 0), {"bounce_rate": WARN}),
        (RateFacts(1_000, 100, 0), {"bounce_rate": BLOCK}),
    ],
)
def test_rates_have_two_thresholds(rates: RateFacts, wanted: dict[str, Level]) -> None:
    assert levels(replace(GOOD, rates=rates)) == wanted
    of_domain = judge_domain(GOOD_DOMAIN, rates, outside=True)
    assert {one.key: one.level for one in of_domain if one.level is not PASS} == wanted


def test_where_no_mail_leaves_the_house_only_what_fails_by_itself_blocks() -> None:
    lack = ListFacts(9_000, lacks=(LACK,))
    facts = replace(GOOD, outside=False, domain=DomainFacts("x.example", known=False), list=lack)
    assert levels(facts) == {"authentication": WARN, "variables": BLOCK}
    assert [item.key for item in blocking(judge_campaign(facts))] == ["variables"]
    assert isinstance(judge_campaign(facts)[0], Item)


def test_links_that_are_a_persons_own_are_counted_and_not_followed() -> None:
    html = (
        '<a href="https://shop.example/a?x=1&amp;y=2">a</a> <a href="{{ url }}">b</a>'
        '<a href="mailto:a@shop.example">c</a> <a href="https://shop.example/a?x=1&amp;y=2">d</a>'
    )
    text = "See https://shop.example/b. Or https://shop.example/{{ name }}"
    urls, own = links_of(html, text)
    assert urls == ("https://shop.example/a?x=1&y=2", "https://shop.example/b")
    assert own == 2


def test_the_words_of_traps_are_lower_case_and_each_once() -> None:
    for words in trap_words():
        assert words == [word.lower() for word in words]
        assert len(set(words)) == len(words) > 3
