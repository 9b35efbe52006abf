"""A template of nothing but variables is written without the engine, to the same letter."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.core.errors import InvalidInput
from mailyard.sending.render import Compiled

NAMES = ("name", "city", "_x1")
PIECES = st.sampled_from(
    (
        "Hello ",
        "{{ name }}",
        "{{city}}",
        "{{\n_x1\t}}",
        "%",
        "%s",
        "{",
        "}}",
        "\n",
        "\r\n",
        "é",
        "'",
    )
)
SOURCES = st.lists(PIECES, max_size=8).map("".join)
TEXTS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(("<b>&\"'/\\", "%s {0}", "{{ name }}", "half \ud800", "a\0b", "two\r\nlines")),
)
VALUES = st.one_of(TEXTS, TEXTS, st.integers(), st.none(), st.booleans(), st.lists(TEXTS))


def compiled(subject: str, html: str, text: str) -> Compiled | None:
    try:
        return Compiled(subject, html, text)
    except InvalidInput:
        return None


def outcome(template: Compiled, data: dict[str, Any]) -> object:
    try:
        return template.render(data)
    except InvalidInput as error:
        return error.message, error.field


@settings(max_examples=300, deadline=None)
@given(
    sources=st.tuples(SOURCES, SOURCES, SOURCES),
    data=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3),
)
def test_it_comes_to_what_the_engine_writes(
    sources: tuple[str, str, str], data: dict[str, Any]
) -> None:
    template = compiled(*sources)
    if template is None:
        return
    ours = outcome(template, data)
    template._straight = None
    assert outcome(template, data) == ours


def test_words_are_escaped_in_html_alone() -> None:
    template = Compiled("{{ a }}", "<b>{{ a }}</b>", "{{ a }}")
    assert template._straight is not None
    assert template.render({"a": "<x/> & 'y'"}) == (
        "<x/> & 'y'",
        "<b>&lt;x&#x2f;&gt; &amp; &#x27;y&#x27;</b>",
        "<x/> & 'y'",
    )


@pytest.mark.parametrize("number", [0, -1, 10**12, 2**63 - 1, 1 - 2**63, 2**63, 10**40])
def test_whole_numbers_are_written_as_the_engine_has_them(number: int) -> None:
    template = Compiled("{{ a }}", "<b>{{ a }} & {{ b }}</b>", "{{ b }}")
    data = {"a": number, "b": "x"}
    ours = outcome(template, data)
    template._straight = None
    assert outcome(template, data) == ours


def test_a_number_beside_text_does_not_need_the_engine() -> None:
    template = Compiled("{{ a }}", "<b>{{ a }} & {{ b }}</b>", "{{ b }}")
    assert template._straight is not None
    assert template._straight.write({"a": 7, "b": "x"}, 1) == ("7", "<b>7 & x</b>", "x")
    assert template._straight.write({"a": True, "b": "x"}, 1) is None


@pytest.mark.parametrize(
    "source",
    [
        "{{ name|upper }}", "{{ order.id }}", "{{- name }}", "{# to #}{{ name }}", "{{ true }}",
        "{% if name %}{{ name }}{% endif %}", "{{ 'x' }}", "{{ range }}",
    ],
)  # fmt: skip
def test_anything_more_than_variables_is_the_engines(source: str) -> None:
    template = compiled("s", source, "t")
    assert template is None or template._straight is None
