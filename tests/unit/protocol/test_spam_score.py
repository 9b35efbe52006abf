"""The spam score: what fires, and that it says why."""

from importlib.resources import files

import pytest

from mailyard.core.errors import ConfigurationError
from mailyard.protocol.spam.feature import FEATURES
from mailyard.protocol.spam.score import TAG_AT, read_rules, score, shipped

HEAD = b"From: Ada <ada@a.example>\r\nTo: bob@b.example\r\nDate: Mon, 1 Jun 2026 10:00:00 +0000\r\n"
HEAD += b"Message-ID: <1@a.example>\r\n"


def fired(mail: bytes) -> set[str]:
    return {name for name, _ in score(mail).fired}


def html(body: bytes) -> bytes:
    return HEAD + b"Subject: Hi\r\nContent-Type: text/html\r\n\r\n" + body + b"\r\n"


def test_an_ordinary_mail_has_no_points() -> None:
    assert score(HEAD + b"Subject: Lunch on Friday\r\n\r\nAt one? Ada\r\n").points == 0.0


@pytest.mark.parametrize(
    ("mail", "rule"),
    [
        (html(b'<a href="http://evil.example/x">https://bank.example/login</a>'),
         "link_shows_another_domain"),
        (html(b'<a href="http://192.0.2.7/x">here</a>'), "LINK_TO_NUMBER"),
        (html(b'<a href="http://bank.example@evil.example/">here</a>'), "LINK_WITH_USER"),
        (html(b'<span style="font-size:0px;">noise</span>'), "INVISIBLE_TEXT"),
        (HEAD + b"Subject: YOUR INVOICE IS OVERDUE\r\n\r\nx\r\n", "subject_shouts"),
        (HEAD + b"Subject: Cheap V-i-a-g-r-a\r\n\r\nx\r\n", "MEDICINE_SUBJECT"),
        (b"From: \"pay@bank.example\" <x@evil.example>\r\n\r\nx\r\n", "name_is_another_address"),
        (HEAD + b"Reply-To: c@freemail.example\r\n\r\nx\r\n", "answers_go_elsewhere"),
        (b"Subject: x\r\n\r\nx\r\n", "no_from"),
        (b"Date: Mon, 1 Jun 2026 10:00:00\r\n\r\nx\r\n", "date_without_zone"),
        (b"Received: by a; Mon, 1 Jun 2026 10:00:00 +0000\r\n"
         b"Date: Wed, 3 Jun 2026 10:00:01 +0000\r\n\r\nx\r\n", "date_to_come"),
        (b"To: " + b", ".join(b"a%d@b.example" % n for n in range(20)) + b"\r\n\r\nx\r\n",
         "many_recipients"),
        (html(b"<p>Hello there</p>"), "html_alone"),
        (html(b"<img src='https://a.example/x.png'>"), "image_alone"),
        (HEAD + b"Content-Transfer-Encoding: base64\r\n\r\nSGVsbG8=\r\n", "plain_in_base64"),
        (HEAD + b"Reply-To: ada.l@gmail.com\r\n\r\nx\r\n", "answers_to_freemail"),
        (b"From: PayPal Support <x@evil.example>\r\n\r\nx\r\n", "name_of_a_brand"),
        (HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nPassword: 1234"
         b"\r\n--b\r\nContent-Type: application/zip; name=a.zip\r\n\r\nx\r\n--b--\r\n",
         "locked_archive"),
        (HEAD + b"Subject: Cheap now!       48213\r\n\r\nx\r\n", "SUBJECT_SERIAL"),
        (HEAD + b"Subject: ADV: a new house\r\n\r\nx\r\n", "SUBJECT_ADVERTISES"),
        (html(b'<a href="https://%65vil.example/">here</a>'), "LINK_TO_DISGUISE"),
    ],
)  # fmt: skip
def test_what_fires(mail: bytes, rule: str) -> None:
    assert rule in fired(mail)


def test_a_link_to_the_same_domain_shows_no_other() -> None:
    assert "link_shows_another_domain" not in fired(
        html(b'<a href="https://mail.bank.example/x">www.bank.example</a>')
    )


def test_a_list_may_have_its_answers_elsewhere() -> None:
    listed = HEAD + b"Reply-To: l@list.example\r\nList-Id: <l.list.example>\r\n\r\nx\r\n"
    assert "answers_go_elsewhere" not in fired(listed)


@pytest.mark.parametrize(
    ("mail", "rule"),
    [
        (b"Date: Mon, 1 Jun 2026 10:00:00 GMT\r\n\r\nx\r\n", "date_without_zone"),
        (b"Date: Mon, 1 Jun 2026 10:00:00 +0200 (CEST)\r\n\r\nx\r\n", "date_without_zone"),
        (b"Received: by a; Mon, 1 Jun 2026 10:00:00 +0000\r\n"
         b"Date: Mon, 1 Jun 2026 20:00:00 +0000\r\n\r\nx\r\n", "date_to_come"),
        (b"Received: nonsense\r\nDate: Mon, 1 Jun 2026 20:00:00\r\n\r\nx\r\n", "date_to_come"),
        (b"From: PayPal <service@paypal.com>\r\n\r\nx\r\n", "name_of_a_brand"),
        (b"From: Fiona Apple <fiona@music.example>\r\n\r\nx\r\n", "name_of_a_brand"),
        (HEAD + b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n"
         b"\r\nR3LDvMOfZQ==\r\n", "plain_in_base64"),
        (b"From: a@gmail.com\r\nReply-To: b@gmail.com\r\n\r\nx\r\n", "answers_to_freemail"),
        (HEAD + b"Subject: Minutes of the meeting on 4 June\r\n\r\nx\r\n", "SUBJECT_SERIAL"),
        (HEAD + b"Subject: Advice: read this\r\n\r\nx\r\n", "SUBJECT_ADVERTISES"),
    ],
)  # fmt: skip
def test_what_does_not_fire(mail: bytes, rule: str) -> None:
    assert rule not in fired(mail)


def test_signs_of_one_thing_count_together_to_a_bound() -> None:
    missing = {"no_from", "no_date", "no_message_id", "nobody_named"}
    found = score(b"Subject: x\r\n\r\nx\r\n")
    assert {name for name, _ in found.fired} <= missing
    assert found.points == 2.5 == round(sum(points for _, points in found.fired), 2)


def test_no_rule_alone_makes_a_mail_spam_but_the_one_for_trying() -> None:
    assert [rule.name for rule in shipped() if rule.points >= TAG_AT] == ["GTUBE"]
    assert {rule.name for rule in shipped() if rule.pattern is None} == FEATURES.keys()


def test_a_rule_that_cannot_work_is_named() -> None:
    text = files("mailyard.protocol.spam").joinpath("rules.toml").read_text("utf-8")
    read_rules(text)
    for wrong in (
        "[[rule]]\nname='x'\npoints=1",
        "[[rule]]\nname='x'\npoints=1\nin='moon'\npattern='a'",
        "[[rule]]\nname='x'\npoints=1\nin='text'\npattern='('",
    ):
        with pytest.raises(ConfigurationError, match="rule x"):
            read_rules(wrong)
