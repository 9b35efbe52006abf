"""The filter language: what is written reads back, and what is wrong is said with its place."""

from decimal import Decimal

import pytest
from filter_trees import trees
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.campaigns.filter.parse import CONDITIONS, DEPTH, parse
from mailyard.campaigns.filter.sql import Named, TopicId, condition
from mailyard.campaigns.filter.tokens import FilterError
from mailyard.campaigns.filter.tree import (
    And,
    Attribute,
    Compare,
    DaysFromNow,
    Did,
    InList,
    InTopic,
    Node,
    Not,
    Operator,
    Or,
)
from mailyard.campaigns.filter.write import write
from mailyard.core.clock import SystemClock
from mailyard.core.ids import uuid7

_WORDS = [
    "and",
    "or",
    "not",
    "(",
    ")",
    ",",
    "=",
    "!=",
    "<=",
    '"x"',
    '"y\\',
    "5",
    "-2.5",
    "2026-01-31",
    "30",
    "days",
    "ago",
    "within",
    "plan",
    "list",
    "topic",
    "in",
    "contains",
    "starts",
    "with",
    "exists",
    "at",
    "least",
    "times",
    "`a`b`",
    "opened",
    "`",
    "'",
    "today",
]


@settings(max_examples=300, deadline=None)
@given(trees)
def test_what_is_written_reads_back_as_the_same_tree(tree: Node) -> None:
    assert parse(write(tree)) == tree


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=60)
    | st.lists(
        st.sampled_from(_WORDS),
        max_size=14,
    ).map(" ".join)
)
def test_any_text_is_a_filter_or_is_refused_with_a_place_in_it(source: str) -> None:
    try:
        tree = parse(source)
    except FilterError as error:
        lines = source.split("\n")
        assert 1 <= error.line <= len(lines)
        assert 1 <= error.column <= len(lines[error.line - 1]) + 1
    else:
        assert parse(write(tree)) == tree


@settings(max_examples=200, deadline=None)
@given(trees, st.booleans())
def test_nothing_of_a_filter_stands_in_its_sql(tree: Node, sliced: bool) -> None:
    """Whatever is said, it is a parameter: the text has our words and the numbers of parameters."""
    named = Named(
        {name: uuid7() for name in ("churned", "friends")},
        {name: TopicId(uuid7(), False) for name in ("news", "offers")},
    )
    found = condition(tree, named, SystemClock().now(), sliced=sliced)
    for word in ("favourite", "größe", "o'name", "pro", "quote", "slash", "churned", "bought"):
        assert word not in found.text.replace("properties", "")
    numbers = {f"${place + 4}" for place in range(len(found.arguments))}
    assert all(number in found.text for number in numbers)


def test_the_example_of_the_documentation() -> None:
    tree = parse(
        'country = "DE" and plan in ("pro", "team") and not list "churned"\n'
        'and opened within 30 days and bought(category = "shoes", total > 50) within 90 days\n'
        'and topic "news"'
    )
    assert tree == And(
        (
            Compare(Attribute("country"), Operator.EQUAL, ("DE",)),
            Compare(Attribute("plan"), Operator.IN, ("pro", "team")),
            Not(InList("churned")),
            Did("opened", within_hours=720),
            Did(
                "bought",
                (
                    Compare(Attribute("category"), Operator.EQUAL, ("shoes",)),
                    Compare(Attribute("total"), Operator.ABOVE, (Decimal(50),)),
                ),
                within_hours=2160,
            ),
            InTopic("news"),
        )
    )


def test_and_binds_closer_than_or_and_not_closer_than_both() -> None:
    a, b, c = (Did(kind) for kind in "abc")
    assert parse("not a and b or c") == Or((And((Not(a), b)), c))
    assert parse("not (a and (b or c))") == Not(And((a, Or((b, c)))))
    assert parse("A = 1 AND NOT b") == And(
        (Compare(Attribute("A"), Operator.EQUAL, (Decimal(1),)), Not(b))
    )


def test_forms_that_mean_the_same_are_one_tree() -> None:
    same = (
        ('x not in ("a")', 'not x in ("a")'),
        ("opened within 2 weeks", "opened within 14 days"),
        ("opened within 48 hours", "opened within 2 days"),
        ("x = 'a'", 'x = "a"'),
        ("opened at least 1 times", "opened"),
    )
    for one, other in same:
        assert parse(one) == parse(other), one
    assert parse("x < 3 days from now") == Compare(
        Attribute("x"), Operator.BELOW, (DaysFromNow(3),)
    )


WRONG = (
    ("", "line 1, column 1: expected a condition"),
    ('country = "DE" and', "line 1, column 19: expected a condition"),
    ('country = "DE"\n  plan = 1', "line 2, column 3: expected and, or, or the end, found 'plan'"),
    ("country = DE", "line 1, column 11: expected a value: text in quotes"),
    ('country = "DE', "line 1, column 11: this text is not closed"),
    ('age > "x"', "line 1, column 7: expected a number, or a date"),
    ("(opened", 'line 1, column 8: expected and, or, or ")", found the end'),
    ("opened)", "line 1, column 7: expected and, or, or the end"),
    ("x in ()", "line 1, column 7: expected a value"),
    ('x in ("a" "b")', 'line 1, column 11: expected "," or ")"'),
    ("list churned", "line 1, column 6: expected the list's name in quotes"),
    ("born = 2026-02-30", "line 1, column 8: there is no day 2026-02-30"),
    ("born = 2026-2-3", "line 1, column 8: this is neither a number nor a date"),
    ("opened within 30", "line 1, column 17: expected hours, days or weeks"),
    ("opened within 0 days", "line 1, column 15: from an hour to 3,650 days"),
    ("opened at least many times", "line 1, column 17: expected a number"),
    ("x > 30 days", 'line 1, column 12: expected "ago" or "from now"'),
    ("x == 1", "line 1, column 4: expected a value"),
    ("x ! 1", "line 1, column 3: write !="),
    ("Größe", "line 1, column 6: expected =, !="),
    ("added contains \"x\"", "line 1, column 7: added is a date"),
    ("address > 3", "line 1, column 9: address is text"),
    ("bought(x not in (1))", "line 1, column 8: an event's properties cannot be negated"),
    ('opened(campaign = "x")', "line 1, column 19: expected an id like cmp_"),
    ("x = 1; DROP TABLE contact", "line 1, column 6: nothing begins with ';'"),
    ("x = 1234567890123456", "line 1, column 5: a number has at most 15 digits"),
    ("x = \"a\0b\"", "line 1, column 7: a filter cannot contain NUL"),
)  # fmt: skip


@pytest.mark.parametrize(("source", "said"), WRONG)
def test_an_error_says_where_and_what_was_expected(source: str, said: str) -> None:
    with pytest.raises(FilterError) as refused:
        parse(source)
    assert refused.value.message.startswith(said), refused.value.message
    assert refused.value.field == "filter"


def test_size_and_depth_are_bounded() -> None:
    parse(" and ".join(["opened"] * CONDITIONS))
    parse("not " * DEPTH + "opened")
    for source in (
        " and ".join(["opened"] * (CONDITIONS + 1)),
        "not " * (DEPTH + 1) + "opened",
        "(" * 5_000 + "opened" + ")" * 5_000,
        "x" * 10_001,
        f"x in ({', '.join(['1'] * 201)})",
        f'x = "{"y" * 501}"',
    ):
        with pytest.raises(FilterError):
            parse(source)
