"""Phrases in the words of servers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.core.errors import ConfigurationError
from mailyard.protocol.report.phrase import GAP_WORDS, Phrases, words_of


def test_words_are_compared_without_case_marks_and_addresses() -> None:
    assert words_of("550 <Ada@Example.COM>... User UNKNOWN!") == " 550 addr user unknown "
    assert words_of("This user doesn't exist") == " this user doesnt exist "


@pytest.mark.parametrize(
    ("phrase", "text", "holds"),
    [
        ("user unknown", "550 User unknown", True),
        ("user unknown", "550 superuser unknowns", False),
        ("{mailbox|mail box} full", "your Mail-Box: full", True),
        ("{mailbox|mail box} full", "your mail is full", False),
        ("over {the|} quota", "over quota", True),
        ("over {the|} quota", "over the quota", True),
        ("over {the|} quota", "over a quota", False),
        ("account * disabled", "the account of addr has been disabled", True),
        ("account * disabled", "account " + "word " * (GAP_WORDS + 1) + "disabled", False),
        ("{no|} such user", "such user", True),
        ("メールボックスが{一杯|満杯}", "受信者のメールボックスが満杯です", True),
    ],
)
def test_a_phrase_stands_in_a_text(phrase: str, text: str, holds: bool) -> None:
    assert Phrases([(phrase, 1)]).any_in(words_of(text)) is holds


def test_what_was_found_is_told() -> None:
    phrases = Phrases([("user unknown", "address"), ("try later", "time")])
    assert set(phrases.found_in(words_of("User unknown, try later"))) == {"address", "time"}


@pytest.mark.parametrize("phrase", ["", "* full", "mailbox *", "mailbox * {full|}", "{mailbox|}"])
def test_a_phrase_that_would_be_found_everywhere_is_refused(phrase: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be found"):
        Phrases([(phrase, 1)])


@settings(max_examples=100)
@given(st.text(max_size=300))
def test_any_text_can_be_searched(text: str) -> None:
    words = words_of(text)
    assert "  " not in words
    Phrases([("a * {b|c d} {e|}", 1), ("不存在", 2)]).any_in(words)
