"""Patterns in a file of receivers: a small language whose worst case is known before it is used."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.sending.shape.answer import ANSWER_CHARACTERS
from mailyard.sending.shape.pattern import (
    PATTERN_CHARACTERS,
    PATTERN_STEPS_MAX,
    compile_pattern,
)


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("rate limit", "Message RATE LIMITED, slow down", True),
        (r"\[TSS?0?4\]", "[TSS04] Messages from 192.0.2.1 temporarily deferred", True),
        (r"\[TSS?0?4\]", "TSS04", False),
        ("^try again", "please try again", False),
        ("too many (open |smtp )?connections", "Too many SMTP connections", True),
        ("blocked.{0,40}list", "blocked by a public list", True),
        (r"BL0{4}\d{2}\b", "BL000010 see the page", True),
        ("a.*b", "a" + "x" * 400 + "b", True),
        ("gr[ae]y-?list", "greylisted for five minutes", True),
    ],
)
def test_what_a_pattern_finds(pattern: str, text: str, found: bool) -> None:
    assert compile_pattern(pattern).found_in(text) is found


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+b",
        "(a*)*",
        "(a|a)*b",
        "(a?){50}b",
        "(.*)(.*)x",
        "a.*b.*c",
        r"(\w+\s?)+$",
        "(([a-z])+.)+[A-Z]([a-z])+",
        "(x{1,9}){1,9}y",
        "((a{0,9}){0,9}){0,9}",
        "(.*a){12}",
    ],
)
def test_what_could_take_long_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="worst case"):
        compile_pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "allowed"),
    [
        ("", "1 to 200"),
        ("x" * (PATTERN_CHARACTERS + 1), "1 to 200"),
        (r"(a)\1", "before a mark"),
        ("(?=a)b", "groups"),
        ("(?P<n>a)", "groups"),
        ("(?i)a", "groups"),
        ("a**", "only one"),
        ("a++", "only one"),
        ("*a", "only one"),
        ("(a", r'"\)"'),
        ("a)", r'"\)"'),
        ("[a", "class"),
        ("a{3,2}", "m at most n"),
        ("a{", "only one"),
        ("trailing\\", "before a mark"),
        ("(" * 9 + "a" + ")" * 9, "groups in one another"),
    ],
)
def test_what_is_not_of_the_language_is_refused_with_what_is(pattern: str, allowed: str) -> None:
    with pytest.raises(ValueError, match=allowed):
        compile_pattern(pattern)


ATOMS = st.sampled_from(["a", "b", ".", r"\d", "[ab]", "(a|b)", "(ab)", "^", "$", r"\b"])
COUNTS = st.sampled_from(["", "", "", "?", "*", "+", "{2}", "{0,3}", "{2,}", "*?"])
PIECES = st.builds(
    lambda atom, count: atom + (count if atom[0] not in "^$\\" else ""), ATOMS, COUNTS
)
SEQUENCES = st.lists(PIECES, min_size=1, max_size=4).map("".join)
NESTED = st.recursive(
    SEQUENCES,
    lambda inner: (
        st.builds(lambda body, count: f"({body}){count}", inner, COUNTS)
        | st.builds("{}|{}".format, inner, inner)
    ),
    max_leaves=4,
)


def steps_of(pattern: str, text: str) -> int:
    """What a backtracking engine does at most, counted by brute force on small texts."""
    count = 0

    def run(node: tuple, at: int, then) -> bool:  # type: ignore[no-untyped-def, type-arg]
        nonlocal count
        kind = node[0]
        if kind == "set":
            count += 1
            return at < len(text) and text[at] in node[1] and then(at + 1)
        if kind == "sequence":

            def each(index: int, place: int) -> bool:
                if index == len(node[1]):
                    return bool(then(place))
                return run(node[1][index], place, lambda after: each(index + 1, after))

            return each(0, at)
        if kind == "either":
            return sum(run(one, at, then) for one in node[1]) > 0
        _, body, least, most = node

        def again(done: int, place: int) -> bool:
            found = done < most and run(
                body, place, lambda after: after > place and again(done + 1, after)
            )
            return (done >= least and bool(then(place))) or found

        return again(0, at)

    for start in range(len(text) + 1):
        run(parsed(pattern), start, lambda _: False)
    return count


def parsed(pattern: str) -> tuple:  # type: ignore[type-arg]
    """The tree of a pattern made of a, b, groups, "|" and counts."""
    position = 0

    def either() -> tuple:  # type: ignore[type-arg]
        nonlocal position
        options = [sequence()]
        while position < len(pattern) and pattern[position] == "|":
            position += 1
            options.append(sequence())
        return ("either", options)

    def sequence() -> tuple:  # type: ignore[type-arg]
        nonlocal position
        items = []
        while position < len(pattern) and pattern[position] not in "|)":
            if pattern[position] == "(":
                position += 1
                item = either()
                position += 1
            else:
                item = ("set", "ab" if pattern[position] == "." else pattern[position])
                position += 1
            match = re.compile(r"\?|\{(\d),(\d)\}").match(pattern, position)
            if match:
                position = match.end()
                low, high = (0, 1) if match[0] == "?" else (int(match[1]), int(match[2]))
                item = ("repeat", item, low, high)
            items.append(item)
        return ("sequence", items)

    return either()


SMALL = st.recursive(
    st.sampled_from(["a", "b", "."]),
    lambda inner: (
        st.builds(
            lambda body, count: f"({body}){count}", inner, st.sampled_from(["?", "{0,2}", "{1,3}"])
        )
        | st.builds("{}{}".format, inner, inner)
        | st.builds("({}|{})".format, inner, inner)
    ),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(SMALL, st.text("ab", max_size=7))
def test_an_engine_that_tries_everything_stays_below_the_cost(pattern: str, text: str) -> None:
    """The bound is about the number of steps, so it is compared with a count of them."""
    try:
        compiled = compile_pattern(pattern)
    except ValueError:
        return
    starts = ANSWER_CHARACTERS + 1
    assert steps_of(pattern, text) <= compiled.steps // starts * (len(text) + 1)


@settings(max_examples=200, deadline=None)
@given(NESTED, st.text("ab1 ", max_size=60))
def test_every_pattern_is_refused_or_bounded_and_means_what_python_says(
    pattern: str, text: str
) -> None:
    try:
        compiled = compile_pattern(pattern)
    except ValueError:
        return
    assert compiled.steps <= PATTERN_STEPS_MAX
    assert compiled.found_in(text) == bool(re.search(pattern, text, re.IGNORECASE))


@settings(max_examples=300, deadline=None)
@given(st.text(min_size=1, max_size=30))
def test_any_text_at_all_is_refused_by_value_error_or_compiled(pattern: str) -> None:
    try:
        assert compile_pattern(pattern).steps <= PATTERN_STEPS_MAX
    except ValueError:
        pass
