"""The rules are data: every reason can be reached, and a broken file says what is wrong."""

import pytest

from mailyard.core.errors import ConfigurationError
from mailyard.protocol.report.phrase import words_of
from mailyard.sending.bounce.reason import Reason
from mailyard.sending.bounce.rules import Said, compile_rules, shipped

NOT_BY_RULE = {Reason.COMPLAINT, Reason.UNDEFINED}


def test_every_reason_has_a_rule() -> None:
    assert {rule.reason for rule in shipped().all} == set(Reason) - NOT_BY_RULE


def test_the_rules_are_few_enough_to_read() -> None:
    assert len(shipped().all) < 80


def test_the_first_rule_that_holds_decides() -> None:
    rules = compile_rules(
        {
            "words": {"box": "mailbox|inbox"},
            "rule": [
                {"class": "mailbox_full", "says": ["{$box} full"], "temporary": False},
                {"class": "spam", "says": ["full"]},
                {"class": "policy", "status": ["x.7.1"]},
                {"class": "filtered", "stage": ["unknown"], "quoted": True},
            ],
        }
    )

    def reason(text: str, code: str = "", status: str = "") -> Reason | None:
        rule = rules.first(Said(words_of(text), code, status))
        return None if rule is None else rule.reason

    assert reason("Inbox full", "550") is Reason.MAILBOX_FULL
    assert reason("Inbox full", "450") is Reason.SPAM
    assert reason("", status="4.7.1") is Reason.POLICY
    assert reason("", "550") is Reason.FILTERED
    assert reason("hello") is None


@pytest.mark.parametrize(
    "rule",
    [
        {"class": "no_such_reason", "says": ["x"]},
        {"class": "spam"},
        {"says": ["x"]},
        {"class": "spam", "sais": ["x"]},
        {"class": "spam", "says": ["{$missing} x"]},
        {"class": "spam", "stage": ["lunch"]},
    ],
)
def test_a_rule_that_cannot_be_used_is_named(rule: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="bounce rule 1"):
        compile_rules({"rule": [rule]})
