"""Random filters and contacts, and what a filter means of a contact, said plainly in Python."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from mailyard.campaigns.filter.tree import (
    OF_TEXT,
    ORDERED,
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
    Own,
    Value,
)

NAMES = ("plan", "score", "born", "vip", "favourite colour", "not", "größe", "o'name\"; --")
TEXTS = ("pro", "free", "PRO", "", "42", "3.5", "true", "2026-01-31", "2025-07-01T10:00:00Z",
         "it's", 'a "quote"', "back\\slash", "%_", "ünïcode", "$1", "1e3", "x\ny")  # fmt: skip
KINDS = ("opened", "clicked", "bought")
LISTS = ("churned", "friends")
TOPICS = ("news", "offers")
CAMPAIGN = "cmp_01h455vb4pex5vsknk084sn02q"

_PRINTED_TEXTS = [text for text in TEXTS if "\n" not in text]


@dataclass(frozen=True)
class Event:
    kind: str
    at: datetime
    properties: Mapping[str, Any] = field(default_factory=dict)
    of_campaign: bool = False


@dataclass(frozen=True)
class Person:
    """A contact, with all that a filter can ask of it."""

    address: str
    name: str
    attributes: Mapping[str, Any]
    added: datetime
    lists: frozenset[str] = frozenset()
    topics: Mapping[str, bool] = field(default_factory=dict)
    events: Sequence[Event] = ()


# Filters ----------------------------------------------------------------------------------------

_days = st.dates(date(2024, 1, 1), date(2027, 12, 31)) | st.builds(
    DaysFromNow, st.integers(-400, 400)
)
_numbers = st.sampled_from(
    [Decimal(text) for text in ("0", "42", "3.5", "-1", "1000", "0.001", "42.0")]
)
_texts = st.sampled_from(_PRINTED_TEXTS)
_values: st.SearchStrategy[Value] = _texts | _numbers | st.booleans() | _days
_several = st.lists(_values, min_size=1, max_size=4).map(tuple)
_attributes = st.sampled_from(NAMES).map(Attribute)


def _compares(fields: st.SearchStrategy[Attribute]) -> st.SearchStrategy[Compare]:
    one = st.tuples(_values)
    return st.one_of(
        st.builds(Compare, fields, st.sampled_from([Operator.EQUAL, Operator.UNEQUAL]), one),
        st.builds(Compare, fields, st.sampled_from(ORDERED), st.tuples(_numbers | _days)),
        st.builds(Compare, fields, st.sampled_from(OF_TEXT), st.tuples(_texts)),
        st.builds(
            Compare,
            fields,
            st.just(Operator.IN),
            st.lists(_values, min_size=1, max_size=4).map(tuple),
        ),
        st.builds(Compare, fields, st.just(Operator.EXISTS), st.just(())),
    )


_own_texts = st.sampled_from([Own.ADDRESS, Own.NAME])
_own = st.one_of(
    st.builds(Compare, _own_texts, st.sampled_from([Operator.EQUAL, Operator.UNEQUAL, *OF_TEXT]),
              st.tuples(_texts)),
    st.builds(Compare, st.just(Own.ADDED),
              st.sampled_from([Operator.EQUAL, Operator.UNEQUAL, *ORDERED]), st.tuples(_days)),
    st.builds(Compare, st.sampled_from(list(Own)), st.just(Operator.EXISTS), st.just(())),
)  # fmt: skip
_properties = st.sampled_from(["plan", "score", "campaign of"]).map(Attribute)
_dids = st.builds(
    Did,
    st.sampled_from(KINDS),
    st.lists(_compares(_properties), max_size=2).map(tuple),
    st.none() | st.just(CAMPAIGN),
    st.integers(1, 3),
    st.none() | st.sampled_from([1, 24, 36, 720, 8760]),
)  # fmt: skip
_leaves = st.one_of(
    _compares(_attributes),
    _own,
    _dids,
    st.sampled_from(LISTS).map(InList),
    st.sampled_from(TOPICS).map(InTopic),
)
trees: st.SearchStrategy[Node] = st.recursive(
    _leaves,
    lambda below: st.one_of(
        below.map(Not),
        st.lists(below, min_size=2, max_size=4).map(lambda parts: And(tuple(parts))),
        st.lists(below, min_size=2, max_size=4).map(lambda parts: Or(tuple(parts))),
    ),
    max_leaves=8,
)

# What it means ----------------------------------------------------------------------------------


def holds(node: Node, person: Person, now: datetime) -> bool:
    """Whether the filter is true of the person."""
    match node:
        case And(parts):
            return all(holds(part, person, now) for part in parts)
        case Or(parts):
            return any(holds(part, person, now) for part in parts)
        case Not(part):
            return not holds(part, person, now)
        case InList(name):
            return name in person.lists
        case InTopic(name):
            return person.topics.get(name, name != "offers")  # which is on request
        case Did():
            return sum(_fits(event, node, now) for event in person.events) >= node.times
        case Compare(own) if isinstance(own, Own):
            value = {
                Own.ADDRESS: person.address,
                Own.NAME: person.name,
                Own.ADDED: person.added.date().isoformat(),
            }[own]
            if node.operator is Operator.EXISTS:
                return value != ""
            return compares(value, node, now)
        case Compare():
            return compares(person.attributes.get(node.field.name), node, now)


def _fits(event: Event, did: Did, now: datetime) -> bool:
    return (
        event.kind == did.kind
        and (did.within_hours is None or event.at >= now - timedelta(hours=did.within_hours))
        and (did.campaign is None or event.of_campaign)
        and all(
            compares(event.properties.get(compare.field.name), compare, now)
            for compare in did.properties
            if isinstance(compare.field, Attribute)
        )
    )


def compares(given: Any, node: Compare, now: datetime) -> bool:
    """What a comparison says of a JSON value; None is what is not there."""
    operator, values = node.operator, node.values
    if operator is Operator.EXISTS:
        return given is not None
    if operator is Operator.UNEQUAL:
        return not _equals(given, values[0], now)
    if operator in (Operator.EQUAL, Operator.IN):
        return any(_equals(given, value, now) for value in values)
    if operator in OF_TEXT:
        wanted = str(values[0])
        ways = {
            Operator.CONTAINS: lambda text: wanted in text,
            Operator.STARTS: lambda text: text.startswith(wanted),
            Operator.ENDS: lambda text: text.endswith(wanted),
        }
        return isinstance(given, str) and ways[operator](given)
    left, right = _alike(given, values[0], now)
    if left is None:
        return False
    return {
        Operator.BELOW: left < right,
        Operator.AT_MOST: left <= right,
        Operator.ABOVE: left > right,
        Operator.AT_LEAST: left >= right,
    }[operator]


def _equals(given: Any, value: Value, now: datetime) -> bool:
    if isinstance(value, bool):
        word = "true" if value else "false"
        return given is value or given in (word, word.title(), word.upper())
    if isinstance(value, str):
        return isinstance(given, str) and given == value
    left, right = _alike(given, value, now)
    return left is not None and left == right


def _alike(given: Any, value: Value, now: datetime) -> tuple[Any, Any]:
    """Both as numbers, or both as days; (None, …) when what is given is neither."""
    if isinstance(value, Decimal):
        return _number(given), value
    day = now.date() + timedelta(days=value.days) if isinstance(value, DaysFromNow) else value
    assert isinstance(day, date)
    is_day = isinstance(given, str) and re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ]|\Z)", given)
    return (given[:10] if is_day else None), day.isoformat()


def _number(given: Any) -> Decimal | None:
    if isinstance(given, bool) or given is None:
        return None
    if isinstance(given, int | float):
        return Decimal(repr(given))
    plain = re.fullmatch(r"-?[0-9]{1,15}([.][0-9]{1,15})?", given)
    return Decimal(given) if plain else None
