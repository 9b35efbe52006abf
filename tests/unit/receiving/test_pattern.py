"""Patterns of names: what they match, and that matching is bounded."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailyard.core.errors import InvalidInput
from mailyard.receiving.pattern import checked, is_wild, matches


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("sales", "sales", True),
        ("sales", "sales2", False),
        ("*", "", True),
        ("*", "anything", True),
        ("support-*", "support-", True),
        ("support-*", "support-a-b", True),
        ("support-*", "xsupport-a", False),
        ("*-in-*", "mail-in-box", True),
        ("a*b*c", "aXbXbc", True),
        ("a*b*c", "aXbXb", False),
        ("order-????", "order-1234", True),
        ("order-????", "order-123", False),
        ("*.log", "a.b.log", True),
        ("ä*", "äöü", True),
    ],
)
def test_what_a_pattern_matches(pattern: str, text: str, found: bool) -> None:
    assert matches(pattern, text) is found
    assert is_wild(pattern) is ("*" in pattern or "?" in pattern)


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=10))
def test_it_agrees_with_the_regular_expression_that_it_never_is(pattern: str, text: str) -> None:
    expression = "".join({"*": ".*", "?": "."}.get(one, one) for one in pattern)
    assert matches(pattern, text) is (re.fullmatch(expression, text) is not None)


@pytest.mark.parametrize(
    "text", ["", " ", "a@b", "a b", "(x)", "a\0b", "x" * 65, "*a" * 9, 'q"uote', "[a]", "a\\b"]
)
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        checked(text)


def test_patterns_are_compared_as_addresses_are() -> None:
    assert checked(" Support-** ") == "support-*"


def test_a_hostile_pattern_ends_after_pattern_times_text_steps() -> None:
    """What takes a backtracking matcher ages: every star could end anywhere."""

    class Counted(str):
        steps = 0

        def __getitem__(self, at: object) -> str:
            Counted.steps += 1
            return str.__getitem__(self, at)  # type: ignore[index]

    pattern, text = "*a*a*a*a*a*a*a*b", Counted("a" * 64)
    assert not matches(pattern, text)
    assert Counted.steps <= len(pattern) * 64
