"""Dates, numbers and money in the reader's locale."""

from typing import Any

import pytest

from mailyard.core.errors import InvalidInput
from mailyard.sending.render import Compiled, TooMuch
from mailyard.sending.tongue import CALLS


def said(source: str, locale: str = "en", **data: Any) -> str:
    return Compiled("s", "", source, locale=locale).render(data).text.replace("\u202f", " ")


@pytest.mark.parametrize(
    ("source", "locale", "text"),
    [
        ('{{ 1234.5|money("EUR") }}', "de-AT", "€\u00a01.234,50"),
        ('{{ 12345.5|money("EUR") }}', "pl_PL", "12\u00a0345,50\u00a0€"),
        ('{{ "1234.50"|money("JPY") }}', "ja", "￥1,234"),
        ("{{ 1234567|number }}", "hi", "12,34,567"),
        ("{{ 1234.5|number(2) }}", "fr", "1 234,50"),
        ("{{ 0.256|percent }} {{ 0.256|percent(1) }}", "en-US", "26% 25.6%"),
        ("{{ '2026-01-31'|date }}", "en-GB", "31 Jan 2026"),
        ("{{ '2026-01-31'|date('full') }}", "es", "sábado, 31 de enero de 2026"),
        ("{{ '2026-01-31T23:30:00Z'|datetime('short') }}", "de", "01.02.26, 00:30"),
        ("{{ 0|time }}", "en", "1:00 AM"),
        ("{{ 0|time('short', 'Asia/Tokyo') }}", "de", "09:00"),
        ("{{ none|money('EUR') }}{{ none|date }}", "en", ""),
    ],
)
def test_values_are_written_as_the_locale_writes_them(source: str, locale: str, text: str) -> None:
    made = Compiled("s", "", source).render({"locale": locale, "timezone": "Europe/Rome"})
    assert made.text.replace("\u202f", " ") == text


def test_the_contacts_locale_goes_before_the_workspaces_and_unknown_ones_do_not_count() -> None:
    source = "{{ 1.5|number }}"
    assert said(source, "de") == "1,5"
    template = Compiled("s", "", source, locale="de")
    for locale, text in (
        ("en", "1.5"), ("de-XX", "1,5"), ("tlh", "1,5"), ("../../etc", "1,5"), (None, "1,5"),
        ("x" * 500, "1,5"), (7, "1,5"),
    ):  # fmt: skip
        assert template.render({"locale": locale}).text == text, locale
    assert Compiled("s", "", "{{ 0|time }}").render({"timezone": "No/Where"}).text[:5] == "12:00"


@pytest.mark.parametrize(
    "source",
    [
        "{{ 1|money }}", "{{ 1|money('euro') }}", "{{ 'x'|number }}", "{{ 1|number(99) }}",
        "{{ 1|number('2') }}", "{{ true|number }}", "{{ 'NaN'|number }}", "{{ [1]|number }}",
        "{{ 'tomorrow'|date }}", "{{ '2026-01-31'|date('tiny') }}", "{{ 99999999999999|date }}",
        "{{ '2026-13-01'|date }}", "{{ ('9' ~ '9')|date }}",
    ],
)  # fmt: skip
def test_what_is_no_number_or_moment_is_an_error_of_the_template(source: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        said(source)
    assert refused.value.field == "text"


def test_a_loop_cannot_format_without_end() -> None:
    loop = "{% for a in range(1000) %}{% for b in range(1000) %}{{ b|number }}"
    source = loop + "{% endfor %}{% endfor %}"
    with pytest.raises(TooMuch):
        said(source)
    assert CALLS <= 20_000
