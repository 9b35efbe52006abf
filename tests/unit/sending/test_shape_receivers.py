"""The shipped receivers read the answers that are seen in the world; others stay out of it."""

import pytest

from mailyard.sending.shape.answer import Phase, read_answer
from mailyard.sending.shape.book import shipped
from mailyard.sending.shape.rule import Rule, Verdict, matching, ruling_of
from mailyard.sending.transport import Outcome

SITES = {
    "google": "gmail-smtp-in.l.google.com",
    "outlook": "outlook-com.olc.protection.outlook.com",
    "microsoft365": "contoso-com.mail.protection.outlook.com",
    "yahoo": "mta5.am0.yahoodns.net",
    "apple": "mx01.mail.icloud.com",
    "comcast": "mx1.mxge.comcast.net",
    "gmx": "mx00.gmx.net",
    "orange": "smtp-in.orange.fr",
    "t-online": "mx00.t-online.de",
    "yandex": "mx.yandex.ru",
    "mailru": "mxs.mail.ru",
    "ionos": "mx00.kundenserver.de",
    "proton": "mail.protonmail.ch",
    "default": "mx.example.org",
}


@pytest.mark.parametrize(("name", "site"), SITES.items())
def test_a_site_is_its_operator_s(name: str, site: str) -> None:
    assert shipped().place(site, "customer.example").receiver.name == name


def test_all_tenants_of_microsoft_365_share_one_limit() -> None:
    one, two = (
        shipped().place(f"{name}.mail.protection.outlook.com", f"{name}.example")
        for name in ("one", "two")
    )
    assert one.key("192.0.2.1") == two.key("192.0.2.1")


def read(name: str, reply: str, phase: Phase = Phase.CONTENT) -> tuple[Rule | None, Verdict | None]:
    code = int(reply[:3])
    outcome = Outcome.LATER if code < 500 else Outcome.NEVER
    answer = read_answer(outcome, code, reply, phase)
    matches = matching(shipped().place(SITES[name], "a.example").receiver.rules, answer)
    return (matches[0] if matches else None), ruling_of(matches, answer).verdict


RETRY, FAIL, SUPPRESS = Verdict.RETRY, Verdict.FAIL, Verdict.SUPPRESS

SEEN: dict[tuple[str, str | None, Verdict], str] = {
    ("google", "unusual-rate-persists", RETRY): (
        "421-4.7.28 Gmail has detected an unusual rate of unsolicited mail originating\n"
        "421-4.7.28 from your IP address [192.0.2.1      28]. To protect our users from\n"
        "421 4.7.28 spam, mail sent from your IP address has been temporarily rate limited."
    ),
    ("google", "recipient-too-fast", RETRY): (
        "450-4.2.1 The user you are trying to contact is receiving mail at a rate that\n"
        "450 4.2.1 prevents additional messages from being delivered."
    ),
    ("google", "default/mailbox-full", RETRY): "452 4.2.2 The email account is over quota.",
    ("google", "low-reputation", RETRY): (
        "421-4.7.0 This message is suspicious due to the very low reputation of the domain"
    ),
    ("google", "not-authenticated", FAIL): "550-5.7.26 The sender is unauthenticated.",
    ("google", "default/unknown-user", SUPPRESS): "550 5.1.1 The account does not exist.",
    ("outlook", "rate-limited", RETRY): (
        "451 4.7.650 The mail server [192.0.2.2] has been temporarily rate limited"
    ),
    ("outlook", "too-many-connections", RETRY): (
        "451 4.7.652 The mail server has exceeded the maximum number of connections. (S3115)"
    ),
    ("outlook", "blocked", FAIL): (
        "550 5.7.1 Unfortunately, messages from [192.0.2.2] weren't sent, since part of their "
        "network is on our block list (S3150)."
    ),
    ("microsoft365", "server-busy", RETRY): "451 4.7.500 Server busy. Please try again later.",
    ("microsoft365", "banned", FAIL): "550 5.7.606 Access denied, banned sending IP [192.0.2.1].",
    ("microsoft365", "access-denied", FAIL): "550 5.4.1 Recipient address rejected: Access denied.",
    ("yahoo", "volume-or-complaints", RETRY): (
        "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume"
    ),
    ("yahoo", "permanently-deferred", RETRY): (
        "421 4.7.1 [TS03] All messages from 192.0.2.1 will be permanently deferred;"
    ),
    ("yahoo", "no-such-user", SUPPRESS): (
        "554 delivery error: dd This user doesn't have a yahoo.com account (a@yahoo.com) [0]"
    ),
    ("apple", "recipient-volume", RETRY): (
        "421 4.7.1 Messages to a@icloud.com deferred due to excessive volume. Try again later"
    ),
    ("apple", "local-policy", FAIL): "550 5.7.1 [CS01] Message rejected due to local policy.",
    ("comcast", "rate", RETRY): "421 4.1.0 192.0.2.1 Throttled - try again later. RL000003",
    ("comcast", "throttled", RETRY): "421 Too many sessions opened",
    ("gmx", "slow-down", RETRY): "421 Rate limit reached. Please try again later",
    ("orange", "too-many-connections", RETRY): (
        "421 mwinf5c04 ME Trop de connexions, veuillez verifier votre configuration. OFR004_104"
    ),
    ("orange", "service-refused", RETRY): "421 mwinf5c04 ME Service refuse. OFR_999 [999]",
    ("mailru", "spam", FAIL): "550 spam message rejected. Please visit the page",
    ("default", "too-many-connections", RETRY): (
        "421 4.7.0 mx.example.org Error: too many connections from 192.0.2.1"
    ),
    ("default", "greylisted", RETRY): "450 4.2.0 Recipient address rejected: Greylisted",
    ("default", "too-many-recipients", RETRY): "452 4.5.3 Too many recipients",
    ("default", "blocklisted", FAIL): "554 5.7.1 Client host blocked using zen.spamhaus.org",
    ("default", None, FAIL): "550 No such user here",
    ("default", None, RETRY): "451 4.3.0 Temporary lookup failure",
}


@pytest.mark.parametrize(
    ("site", "rule", "verdict", "reply"), [(*meant, reply) for meant, reply in SEEN.items()]
)
def test_an_answer_that_is_seen_is_read(
    site: str, rule: str | None, verdict: Verdict, reply: str
) -> None:
    found, meant = read(site, reply)
    assert (found.name if found else None, meant) == (rule, verdict)


def test_gmx_says_at_the_greeting_that_it_does_not_talk_to_us() -> None:
    reply = (
        "554-gmx.net (mxgmx104) Nemesis ESMTP Service not available\n"
        "554-No SMTP service\n554-IP address is block listed."
    )
    rule, verdict = read("gmx", reply, Phase.CONNECT)
    assert rule is not None and rule.name == "block-listed" and rule.pause_s is not None
    assert verdict is Verdict.RETRY


def test_a_full_mailbox_and_greylisting_say_nothing_about_a_site_anywhere() -> None:
    for site in SITES:
        for reply in ("452 4.2.2 mailbox full", "450 greylisted, come again"):
            rule, verdict = read(site, reply, Phase.RCPT)
            assert rule is not None and rule.recipient_only, (site, reply)
            assert verdict is Verdict.RETRY


def test_no_shipped_rule_suppresses_for_a_policy_rejection() -> None:
    """5.7.x is about the sender, whatever else the text says."""
    for receiver in shipped().receivers.values():
        for rule in receiver.rules:
            for phase in Phase:
                text = " ".join(pattern.source for pattern in rule.patterns)
                answer = read_answer(Outcome.NEVER, 550, f"5.7.1 {text}", phase)
                verdict = ruling_of([rule], answer).verdict
                assert verdict is not Verdict.SUPPRESS, (receiver.name, rule.name)


def test_an_accepted_and_an_unknown_mail_have_no_verdict() -> None:
    rules = shipped().receivers["default"].rules
    for outcome in (Outcome.ACCEPTED, Outcome.UNKNOWN):
        answer = read_answer(outcome, 550, "5.1.1 no such user", Phase.CONTENT)
        assert ruling_of(matching(rules, answer), answer).verdict is None
