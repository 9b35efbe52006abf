"""A tree as the text that reads back as the same tree."""

from datetime import date
from decimal import Decimal

from mailyard.campaigns.behaviour import KIND_PATTERN
from mailyard.campaigns.filter.parse import WORDS
from mailyard.campaigns.filter.tree import (
    And,
    Compare,
    DaysFromNow,
    Did,
    Field,
    InList,
    InTopic,
    Node,
    Not,
    Operator,
    Or,
    Own,
    Value,
)

_OWN = frozenset(own.value for own in Own)


def write(node: Node) -> str:
    """The tree's text, on one line."""
    match node:
        case Or(parts):
            return " or ".join(f"({write(p)})" if isinstance(p, Or) else write(p) for p in parts)
        case And(parts):
            return " and ".join(_tight(part) for part in parts)
        case Not(part):
            return f"not {_tight(part)}"
        case InList(name):
            return f"list {_text(name)}"
        case InTopic(name):
            return f"topic {_text(name)}"
        case Did():
            return _did(node)
        case Compare():
            return _compare(node)


def _tight(node: Node) -> str:
    """With parentheses where `and` and `not` would take it apart."""
    return f"({write(node)})" if isinstance(node, And | Or) else write(node)


def _compare(node: Compare) -> str:
    field = _field(node.field)
    if node.operator is Operator.EXISTS:
        return f"{field} exists"
    values = ", ".join(map(_value, node.values))
    if node.operator is Operator.IN:
        return f"{field} in ({values})"
    return f"{field} {node.operator.value} {values}"


def _did(node: Did) -> str:
    text = node.kind
    inner = [_compare(compare) for compare in node.properties]
    if node.campaign is not None:
        inner.append(f"campaign = {_text(node.campaign)}")
    if inner:
        text += f"({', '.join(inner)})"
    if node.times > 1:
        text += f" at least {node.times} times"
    hours = node.within_hours
    if hours is not None:
        text += f" within {hours} hours" if hours % 24 else f" within {hours // 24} days"
    return text


def _field(field: Field) -> str:
    if isinstance(field, Own):
        return field.value
    plain = KIND_PATTERN.fullmatch(field.name) and field.name not in WORDS | _OWN | {"campaign"}
    return field.name if plain else f"`{field.name}`"


def _value(value: Value) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case Decimal():
            return f"{value:f}"
        case DaysFromNow(days):
            return "today" if days == 0 else f"{abs(days)} days {'ago' if days < 0 else 'from now'}"
        case date():
            return value.isoformat()
        case str():
            return _text(value)


def _text(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
