"""The lists and topics that a filter names, and what they are."""

from mailyard.campaigns.filter.sql import Named
from mailyard.campaigns.filter.tokens import FilterError, Kind, tokens
from mailyard.campaigns.filter.tree import And, InList, InTopic, Node, Not, Or
from mailyard.core import ids


def names_in(tree: Node, kind: type[InList] | type[InTopic]) -> list[str]:
    """The names that conditions of `kind` use, each once."""
    found: dict[str, None] = {}
    below: list[Node] = [tree]
    while below:
        match below.pop():
            case And(parts) | Or(parts):
                below.extend(parts)
            case Not(part):
                below.append(part)
            case InList(name) if kind is InList:
                found[name] = None
            case InTopic(name) if kind is InTopic:
                found[name] = None
    return list(found)


def with_ids(tree: Node, named: Named) -> Node:
    """The filter with ids in the place of names."""
    match tree:
        case And(parts):
            return And(tuple(with_ids(part, named) for part in parts))
        case Or(parts):
            return Or(tuple(with_ids(part, named) for part in parts))
        case Not(part):
            return Not(with_ids(part, named))
        case InList(name):
            return InList(ids.type_id(ids.LIST, named.lists[name]))
        case InTopic(name):
            return InTopic(ids.type_id(ids.TOPIC, named.topics[name].id))
        case _:
            return tree


def nothing_named(source: str, what: str, name: str) -> FilterError:
    """The error for a name that nothing has, at its place in the source."""
    place, before = 0, ""
    for token in tokens(source):
        if token.kind is Kind.TEXT and token.text == name and before == what:
            place = token.place
            break
        before = token.text.lower()
    return FilterError(source, place, f"there is no {what} named {name!r}")
