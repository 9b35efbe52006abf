"""A tree as a condition in SQL about the contact `c`.

The text is put together from the named conditions of `storage/sql/filter.sql`; everything that a
filter says, names of attributes included, is a parameter. $1 is the workspace.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

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
    Own,
    Value,
)
from mailyard.core import ids
from mailyard.storage.queries import load

_SQL = load("filter")

_ATTRIBUTES, _PROPERTIES = "c.attributes", "e.properties"
_COLUMNS = {Own.ADDRESS: "c.address", Own.NAME: "c.name"}
_TRUE, _FALSE = (True, "true", "True", "TRUE"), (False, "false", "False", "FALSE")
_FIRST_ID = UUID(int=0)
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class TopicId:
    """A topic; `on_request`: only who has asked for it gets it."""

    id: UUID
    on_request: bool


@dataclass(frozen=True, slots=True)
class Named:
    """What the names of lists and topics in a filter mean."""

    lists: Mapping[str, UUID] = field(default_factory=dict)
    topics: Mapping[str, TopicId] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Condition:
    """`text`, and `arguments` for its parameters."""

    text: str
    arguments: tuple[Any, ...]


FIRST_PARAMETER = 4


def condition(node: Node, named: Named, now: datetime, *, sliced: bool) -> Condition:
    """The condition of `node` at `now`, its parameters numbered from FIRST_PARAMETER on.

    `sliced`: for contacts ($2, $3]; else for contacts that were drawn. Raises KeyError when `named`
    lacks a list or topic of the tree.
    """
    writer = _Writer(named, now.astimezone(UTC), sliced)
    text = writer.node(node)
    return Condition(text, tuple(writer.arguments))


class _Writer:
    def __init__(self, named: Named, now: datetime, sliced: bool) -> None:
        self._named = named
        self._now = now
        self._sliced = sliced
        self.arguments: list[Any] = []

    def node(self, node: Node) -> str:
        match node:
            case And(parts):
                # Of a contact that was drawn, conditions are asked in this order.
                return _joined(" AND ", map(self.node, sorted(parts, key=_cost)))
            case Or(parts):
                return _joined(" OR ", map(self.node, parts))
            case Not(part):
                return _opposite(self.node(part))
            case InList(name):
                text = _SQL.in_list if self._sliced else _SQL.in_list_one
                return self._filled(text, list=self._named.lists[name])
            case InTopic(name):
                return self._topic(self._named.topics[name])
            case Did():
                return self._did(node)
            case Compare():
                return self._compare(node, _ATTRIBUTES)

    def _filled(self, text: str, *, source: str = "", **values: Any) -> str:
        """A named condition with the numbers of new parameters in place of its words."""
        text = text.replace("{source}", source)
        for name, value in values.items():
            text = text.replace(f"{{{name}}}", self._parameter(value))
        return text

    def _parameter(self, value: Any) -> str:
        self.arguments.append(value)
        return f"${FIRST_PARAMETER + len(self.arguments) - 1}"

    def _topic(self, topic: TopicId) -> str:
        if topic.on_request:
            text = _SQL.asked_for_topic if self._sliced else _SQL.asked_for_topic_one
        else:
            text = _SQL.takes_topic if self._sliced else _SQL.takes_topic_one
        return self._filled(text, topic=topic.id)

    # Events -----------------------------------------------------------------------------------

    def _did(self, node: Did) -> str:
        since = _FIRST_ID
        if node.within_hours is not None:
            since = ids.lowest_at(self._now - timedelta(hours=node.within_hours))
        more = [self._compare(compare, _PROPERTIES) for compare in node.properties]
        if node.campaign is not None:
            campaign_id = ids.parse_type_id(ids.CAMPAIGN, node.campaign)
            more.append(f"e.campaign_id = {self._parameter(campaign_id)}::uuid")
        values: dict[str, Any] = {"kind": node.kind, "since": since}
        text = _SQL.did if self._sliced else _SQL.did_one
        if node.times > 1:
            text = _SQL.did_often if self._sliced else _SQL.did_often_one
            values["times"] = node.times
        together = _joined(" AND ", more) if more else "true"
        return self._filled(text.replace("{more}", together), **values)

    # Comparisons ------------------------------------------------------------------------------

    def _compare(self, node: Compare, source: str) -> str:
        if node.operator is Operator.UNEQUAL:
            equal = Compare(node.field, Operator.EQUAL, node.values)
            return _opposite(self._compare(equal, source))
        if isinstance(node.field, Attribute):
            return self._attribute(node.field.name, node.operator, node.values, source)
        if node.operator is Operator.EXISTS:
            return f"{_COLUMNS[node.field]} <> ''" if node.field in _COLUMNS else "true"
        if node.field is Own.ADDED:
            return _joined(" OR ", (self._added(node.operator, value) for value in node.values))
        return self._text(_COLUMNS[node.field], node.operator, node.values)

    def _attribute(
        self, name: str, operator: Operator, values: Sequence[Value], source: str
    ) -> str:
        if operator is Operator.EXISTS:
            return self._filled(_SQL.exists, source=source, name=name)
        if operator in (Operator.EQUAL, Operator.IN):
            return self._among(name, values, source)
        if isinstance(values[0], str):
            text = self._filled(_SQL.string, source=source, name=name)
            return self._text(f"({text})", operator, values)
        if isinstance(values[0], Decimal):
            number = self._filled(_SQL.number, source=source, name=name)
            return f"({number}) {operator.value} {self._parameter(values[0])}::numeric"
        day = self._filled(_SQL.day, source=source, name=name)
        shown = self._date(values[0]).isoformat()
        return f"({day}) {operator.value} {self._parameter(shown)}::text"

    def _among(self, name: str, values: Sequence[Value], source: str) -> str:
        """Equal to one of `values`, each compared by its kind."""
        as_json: list[str] = []
        numbers: list[Decimal] = []
        days: list[str] = []
        for value in values:
            match value:
                case bool():
                    as_json.extend(map(_json, _TRUE if value else _FALSE))
                case str():
                    as_json.append(_json(value))
                case Decimal():
                    numbers.append(value)
                case _:
                    days.append(self._date(value).isoformat())
        found = []
        if as_json:
            found.append(self._filled(_SQL.equal, source=source, name=name, values=as_json))
        if numbers:
            number = self._filled(_SQL.number, source=source, name=name)
            found.append(f"({number}) = ANY ({self._parameter(numbers)}::numeric[])")
        if days:
            day = self._filled(_SQL.day, source=source, name=name)
            found.append(f"({day}) = ANY ({self._parameter(days)}::text[])")
        return _joined(" OR ", found)

    def _text(self, text: str, operator: Operator, values: Sequence[Value]) -> str:
        match operator:
            case Operator.EQUAL | Operator.IN:
                return f"{text} = ANY ({self._parameter(list(values))}::text[])"
            case Operator.CONTAINS:
                return f"strpos({text}, {self._parameter(values[0])}::text) > 0"
            case Operator.STARTS:
                return f"starts_with({text}, {self._parameter(values[0])}::text)"
            case _:
                end = f"{self._parameter(values[0])}::text"
                return f"right({text}, length({end})) = {end}"

    def _added(self, operator: Operator, value: Value) -> str:
        """The contact was added on, before or after a day (UTC)."""
        start = datetime.combine(self._date(value), time(), UTC)

        def since(moment: datetime) -> str:
            return f"c.created_at >= {self._parameter(moment)}::timestamptz"

        match operator:
            case Operator.BELOW:
                return f"NOT {since(start)}"
            case Operator.AT_MOST:
                return f"NOT {since(start + _DAY)}"
            case Operator.ABOVE:
                return since(start + _DAY)
            case Operator.AT_LEAST:
                return since(start)
            case _:
                return f"({since(start)} AND NOT {since(start + _DAY)})"

    def _date(self, value: Value) -> date:
        if isinstance(value, DaysFromNow):
            return self._now.date() + timedelta(days=value.days)
        assert isinstance(value, date), "the parser lets nothing else come here"
        return value


def _cost(node: Node) -> int:
    """How dear a condition is to be asked of one contact."""
    match node:
        case And(parts) | Or(parts):
            return max(map(_cost, parts))
        case Not(part):
            return _cost(part)
        case InList() | InTopic():
            return 1
        case Did():
            return 3 if node.properties else 2
        case _:
            return 0


def _joined(word: str, parts: Iterable[str]) -> str:
    found = list(parts)
    return f"({word.join(found)})" if len(found) > 1 else found[0]


def _opposite(text: str) -> str:
    """True where `text` is false or null."""
    return f"(({text}) IS NOT TRUE)"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
