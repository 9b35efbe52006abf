"""Which events a filter wants."""

import pytest

from mailyard.bus.filter import EVERYTHING, make_filter, parse_where
from mailyard.core.errors import InvalidInput
from mailyard.core.ids import INBOX, type_id, uuid7

ADA, BEN = type_id(INBOX, uuid7()), type_id(INBOX, uuid7())
ITEM = {"inbox_id": ADA, "subject": "Your Invoice 4711", "state": "bounced", "n": 3, "ok": True}


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        (["subject:your invoice 4711"], True),
        (["subject:Your Invoice"], False),
        (["subject:*invoice*"], True),
        (["subject:*INVOICE*4711"], True),
        (["subject:*4711*invoice*"], False),
        (["subject:your*4711"], True),
        (["subject:your invoice 4711*4711"], False),  # no character is used twice
        (["subject:*"], True),
        (["state:accepted", "state:bounced"], True),
        (["state:bounced", "subject:*code*"], False),
        (["n:3", "ok:true"], True),
        (["absent:*"], False),
    ],
)
def test_conditions_of_one_field_are_alternatives_and_all_fields_must_fit(
    texts: list[str], wanted: bool
) -> None:
    assert make_filter(where=parse_where(texts)).wants("x.y", ITEM) is wanted


def test_kinds_and_inboxes_select() -> None:
    assert EVERYTHING.wants("anything.at", {"all": None})
    assert make_filter(["a.b", "c.d"]).wants("c.d", ITEM)
    assert not make_filter(["a.b"]).wants("c.d", ITEM)
    assert make_filter(inboxes=[ADA, BEN]).wants("a.b", ITEM)
    assert not make_filter(inboxes=[BEN]).wants("a.b", ITEM)
    assert not make_filter(inboxes=[ADA]).wants("a.b", {"n": 1})


def test_a_pattern_of_stars_costs_no_more_than_its_length() -> None:
    """Nothing is tried twice: a regular expression would take for ever here."""
    text = "*a" * 90 + "*b"
    assert not make_filter(where={"subject": [text]}).wants("x.y", {"subject": "a" * 20_000})


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: make_filter(["Not A Kind"]), "kinds"),
        (lambda: make_filter(["a.b"] * 21), "kinds"),
        (lambda: make_filter(inboxes=["ibx_nonsense"]), "inboxes"),
        (lambda: make_filter(where={"subject": []}), "where"),
        (lambda: make_filter(where={"no field": ["x"]}), "where"),
        (lambda: make_filter(where={"a": ["x"] * 11}), "where"),
        (lambda: parse_where(["nothing"]), "where"),
    ],
)
def test_what_is_no_filter_is_refused(make, field: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidInput) as caught:
        make()
    assert caught.value.field == field
