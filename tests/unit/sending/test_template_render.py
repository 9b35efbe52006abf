"""Templates: plain data in, a mail out, and no template can make the process work without end."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minijinja import Environment, TemplateError

from mailyard.core import limits
from mailyard.core.errors import InvalidInput, TooLarge
from mailyard.sending.language import FILTERS, TOKENS_PER_TAG, examine
from mailyard.sending.render import Compiled, TooMuch


def rendered(source: str, **data: Any) -> str:
    return Compiled("s", "", source).render(data).text


def refusal(source: str, **data: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as refused:
        rendered(source, **data)
    return refused.value


def test_subject_html_and_text_are_rendered_from_one_set_of_data() -> None:
    compiled = Compiled("Hi {{ name }}", "<p>{{ name }}</p>", "Hello {{ name }}\n")
    mail = compiled.render({"name": "Ann"})
    assert mail == ("Hi Ann", "<p>Ann</p>", "Hello Ann\n")
    assert compiled.variables == ("name",)


def test_html_is_escaped_and_text_is_not() -> None:
    mail = Compiled("{{ x }}", "{{ x }}", "{{ x }}").render({"x": "<b>&\"'"})
    assert mail.subject == mail.text == "<b>&\"'"
    assert "<" not in mail.html
    assert "&lt;b&gt;&amp;" in mail.html


def test_the_usual_language_works() -> None:
    source = (
        "{# a comment #}{% set total = price|times(count) %}"
        "{% for line in lines if line.shown %}{{ loop.index }}. {{ line.name|upper }}"
        "{% if not loop.last %}, {% endif %}{% else %}none{% endfor %}; "
        "{{ total|round(2) }} {{ city|default('nowhere') }} "
        "{{ tags|join(', ') }} {{ lines|map(attribute='name')|join('/') }} "
        "{% if (plan == 'gold' or count > 3) and name is defined %}yes{% elif name %}a{% endif %} "
        "{{ 'big' if count >= 2 else 'small' }} {{ name|replace('n', 'm') }} {{ name[0] }}"
    )
    text = rendered(
        source, price=2.5, count=2, plan="gold", name="Ann", tags=["a", "b"],
        lines=[
            {"name": "tea", "shown": True}, {"name": "x", "shown": False},
            {"name": "cup", "shown": True},
        ],
    )  # fmt: skip
    assert text == "1. TEA, 2. CUP; 5.0 nowhere a, b tea/x/cup yes big Amm A"


def test_null_is_written_as_nothing() -> None:
    assert rendered("[{{ a }}]{{ b }}", a=None, b=1) == "[]1"


def test_a_subject_is_one_line() -> None:
    mail = Compiled("\n Hi {{ name }}\n", "x", "").render({"name": "A\r\nBcc: x@y.z"})
    assert mail.subject == "Hi A Bcc: x@y.z"
    with pytest.raises(InvalidInput) as refused:
        Compiled("{{ name }}", "x", "").render({"name": "x" * 2000})
    assert refused.value.field == "subject"


def test_a_missing_variable_is_an_error_with_its_name_source_and_line() -> None:
    for source, name, column in (
        ("one\n{{ city }}", "city", 4),
        ("one\n{{ order.id }}", "order", 4),
        ("one\n{{ known.id }}", "known.id", 4),
        ("one\n{{ city|upper }}", "city", 9),
        ("one\n{% if city %}x{% endif %}", "city", 7),
        ("one\n{% for x in city %}x{% endfor %}", "city", 13),
        ("one\nżółć {{ 'a' ~ city }}", "city", 9),
    ):
        error = refusal(source, known={})
        assert error.field == f"data.{name}"
        assert error.message == f"text, line 2, column {column}: `{name}` is undefined"


@pytest.mark.parametrize("name", ["items", "keys", "pop", "get", "copy"])
def test_a_missing_key_is_missing_even_when_python_has_a_method_of_that_name(name: str) -> None:
    assert refusal(f"{{{{ order.{name} }}}}", order={"x": 1}).field == f"data.order.{name}"
    assert rendered(f"{{{{ order.{name} }}}}", order={name: "mine"}) == "mine"
    variable = "{% set k = '" + name + "' %}{{ order[k] }}"
    assert "built-in" not in refusal(variable, order={"x": 1}).message


@pytest.mark.parametrize(
    ("source", "line", "reason"),
    [
        ("a\n{% if %}", 2, "unexpected end of block"),
        ("a\n\n{% if x %}", 3, ""),
        ("a\n{{ x|nofilter }}", 2, "unknown filter 'nofilter'"),
        ("a\n{{ x is notest }}", 2, "unknown test 'notest'"),
        ("a\n{{ x", 2, "not closed"),
        ("a\n{{ 'x }}", 2, "string"),
        ("a\n{# x", 2, "not closed"),
        ("a\n{{ }}", 2, "empty"),
        ("a\n{{ x y }}", 2, ""),
        ("a\n{% endfor %}", 2, ""),
    ],
)
def test_a_mistake_is_reported_with_its_line(source: str, line: int, reason: str) -> None:
    error = refusal(source)
    assert error.field == "text"
    assert error.message.startswith(f"text, line {line}, column ")
    assert reason in error.message


@pytest.mark.parametrize(
    "source",
    [
        "{{ x.upper() }}", "{{ x.evil() }}", "{{ x['evil']() }}", "{{ d.pop('a') }}",
        "{{ d.items() }}", "{{ (x.evil)() }}", "{{ l.append(1) }}", "{{ x.__class__ }}",
        "{{ d|attr('pop') }}", "{% set f = d.pop %}{{ f('a') }}", "{{ 'x'.upper() }}",
    ],
)  # fmt: skip
def test_no_method_of_a_python_object_can_be_called(source: str) -> None:
    data = {"x": "abc", "d": {"a": 1}, "l": [1]}
    refusal(source, **data)
    assert data == {"x": "abc", "d": {"a": 1}, "l": [1]}


class Evil(str):
    called = False

    def evil(self) -> str:
        Evil.called = True
        return "evil"

    def __html__(self) -> str:
        Evil.called = True
        return "<script>"


class EvilDict(dict[str, Any]):
    pass


@pytest.mark.parametrize(
    "value", [Evil("x"), EvilDict(a=1), object(), b"x", {1, 2}, (1,), {"a": [Evil("x")]}, {1: "a"}]
)
def test_data_that_is_not_plain_json_is_refused(value: Any) -> None:
    error = refusal("{{ x }}", x=value)
    assert (error.field or "").startswith("data.x")
    assert not Evil.called


def test_data_nested_without_end_is_refused() -> None:
    value: Any = "x"
    for _ in range(200):
        value = [value]
    assert "nested" in refusal("{{ x }}", x=value).message


DOUBLED = "{% set x = 'ab' %}" + "{% set x = x ~ x %}" * 40 + "{{ x }}"
WRITTEN_TWICE = "{% set a %}xx{% endset %}" + "{% set a %}{{ a }}{{ a }}{% endset %}" * 40


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 1000000 }}",
        "{{ 'a' ** 9 }}",
        DOUBLED,
        DOUBLED.replace("~", "+"),
        "{% set x = [1] %}" + "{% set x = [x, x] %}" * 40 + "{{ x }}",
        WRITTEN_TWICE,
        "{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}",
        "{% for x in y recursive %}{{ loop(x) }}{% endfor %}",
        "{% set ns = namespace(s='a') %}{{ ns.s }}",
        "{{ '%1000000s'|format('a') }}",
        "{{ x|indent(1000000) }}",
        "{{ [1]|tojson(indent=1000000) }}",
        "{{ [1]|batch(1000000, 'x')|list }}",
        "{{ [1]|slice(1000000, 'x')|list }}",
        "{{ range(100000)|map(attribute='x', default=y)|join }}",
        "{{ range(100000)|map('default', y)|join }}",
        "{{ x" + "|tojson" * 30 + " }}",
        "{{ x|wordwrap(1, y) }}",
        "{% include 'x' %}",
        "{% extends 'html' %}",
        "{% block a %}{% endblock %}",
        "{% filter upper %}x{% endfilter %}",
        "{% raw %}{{ x }}{% endraw %}",
        "{{ {'a': 1} }}",
        "{{ debug() }}",
        "{{ '{{' }}",
        "{#}{{ x }}#}",
        "{{ " + "not " * 50_000 + "x }}",
        "{{ " + "(" * 300 + "1" + ")" * 300 + " }}",
        "{{ x" + ".a" * 100_000 + " }}",
        "{{ x" + "|upper" * 100_000 + " }}",
        "{{ x.y.z() }}",
        "{% set range = 1 %}",
        "{{ 99999999999999999999 }}",
    ],
)
def test_what_multiplies_or_hides_is_not_in_the_language(source: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Compiled("s", "", source)
    assert refused.value.field == "text"
    assert "line 1" in refused.value.message


def test_a_tag_has_a_length() -> None:
    Compiled("s", "", "{{ " + "1 + " * (TOKENS_PER_TAG // 2 - 1) + "1 }}")
    with pytest.raises(InvalidInput):
        Compiled("s", "", "{{ " + "1 + " * TOKENS_PER_TAG + "1 }}")


def test_a_source_has_a_size() -> None:
    with pytest.raises(TooLarge) as refused:
        Compiled("s", "x" * (limits.TEMPLATE_SOURCE_BYTES + 1), "")
    assert refused.value.field == "html"


SORTING = "{% for i in range(1000) %}" * 2 + "{% if xs|sort %}{% endif %}" + "{% endfor %}" * 2
NESTED_LOOPS = "{% for i in range(100000) %}" * 4 + "x" + "{% endfor %}" * 4


@pytest.mark.parametrize(
    ("source", "data"),
    [
        (NESTED_LOOPS, {}),
        (NESTED_LOOPS.replace("100000", "1000"), {}),
        (SORTING, {"xs": ["y"] * 2_000}),
        (SORTING.replace("xs", "range(1000)"), {}),
        ("{% if xs|sort %}{% endif %}" * 10_000, {"xs": ["y"] * 5_000}),
        ("{% for i in range(1000) %}" + "x" * 100_000 + "{% endfor %}", {}),
        ("{% for i in range(1000) %}{{ x }}{% endfor %}", {"x": "y" * 100_000}),
        ("{% for i in range(1000) %}{{ xs }}{% endfor %}", {"xs": ["y" * 1000] * 100}),
        ("{% for i in range(1000) %}{% if x == y %}{% endif %}{% endfor %}",
         {"x": "y" * 1_000_000, "y": "y" * 1_000_000}),
        ("{% for a in xs %}{% for b in xs %}{% for c in xs %}{{ a }}{% endfor %}{% endfor %}"
         "{% endfor %}", {"xs": ["z" * 100] * 1000}),
        ("{{ xs|join(x) }}", {"xs": ["a"] * 10_000, "x": "y" * 10_000}),
        ("{{ x|replace('a', x) }}", {"x": "a" * 10_000}),
        ("{{ x }}" * 100, {"x": "y" * 1_000_000}),
        ("{{ x ~ x ~ x ~ x ~ x ~ x }}", {"x": "y" * 1_000_000}),
    ],
)  # fmt: skip
def test_what_data_makes_large_stops_at_the_limit(source: str, data: dict[str, Any]) -> None:
    with pytest.raises(TooMuch) as refused:
        rendered(source, **data)
    assert refused.value.field == "text"


def test_large_honest_mail_is_rendered() -> None:
    lines = [{"name": f"thing {number}", "price": number} for number in range(2_000)]
    row = "<tr><td>{{ line.name }}</td><td>{{ line.price }}</td></tr>\n"
    source = "{% for line in lines %}" + row + "{% endfor %}"
    assert rendered(source, lines=lines).count("<tr>") == 2_000
    body = "w " * 250_000
    assert rendered("{{ body }}", body=body) == body


@pytest.mark.parametrize(
    "source", ["{{ x|times('a') }}", "{{ 'a'|times(2) }}", "{{ 5|join(',') }}", "{{ 1/0 }}",
               "{{ 1 + 'a' }}", "{{ 5 is divisibleby(0) }}", "{{ 9|times(1e300) }}",
               "{{ 'abc'|replace('b') }}", "{{ 1|times(2, 3) }}"]
)  # fmt: skip
def test_a_wrong_use_of_a_filter_is_an_error_of_the_template(source: str) -> None:
    assert refusal(source, x=2).field == "text"


def test_every_filter_of_the_language_exists_in_the_engine() -> None:
    for name in sorted(FILTERS):
        call = "map('upper')" if name == "map" else name
        try:
            rendered("{{ x|" + call + " }}", x=["a"])
        except InvalidInput as error:
            assert "unknown filter" not in error.message, name


@pytest.mark.parametrize(
    "source",
    ["plain {text} } {", "{{-1-}}", "{{ x -}} y", "a {%- if x -%} b {%- endif -%} c", "{{+ x +}}",
     "{{ \"it's\" }}", "{{ 'a\\'b' }}", "{#- note -#}x", "100% { {x} }",
     "@media{a{b}}{% if x %}{% endif %}"],
)  # fmt: skip
def test_the_lexer_reads_what_the_engine_reads(source: str) -> None:
    Compiled("s", "", source).render({"x": "v"})


CODE = st.sampled_from(
    ["{{", "}}", "{%", "%}", "{#", "#}", "-", "+", "{", "}", "%", "#", " ", "\n", "'", '"', "\\",
     "zed", "yak", "if ", "for ", " in ", "set ", "=", "raw", "endraw", "endif", "endfor", "|upper",
     "'a'", "1", "(", ")", "[", "]", ".", ",", "~", "{{ zed }}", "{% if yak %}", "{% endif %}"]
)  # fmt: skip


@settings(max_examples=1500, deadline=None)
@given(st.lists(CODE, max_size=14).map("".join))
def test_the_engine_never_sees_code_where_the_examination_saw_none(source: str) -> None:
    try:
        examined = examine(source, "text")
    except InvalidInput:
        return
    engine = Environment()
    try:
        engine.add_template("text", source)
    except TemplateError:
        return
    assert engine.undeclared_variables_in_template("text") <= examined.names | {"loop", "range"}
