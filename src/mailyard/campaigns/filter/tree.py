"""What a filter says, as a tree of values.

Each condition is true or false of a contact, never unknown: what a contact lacks is equal to
nothing, above nothing and contains nothing. `not` and `!=` are the exact opposite.
"""

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum


class Operator(StrEnum):
    """How a field is compared, as it is written."""

    EQUAL = "="
    UNEQUAL = "!="
    BELOW = "<"
    AT_MOST = "<="
    ABOVE = ">"
    AT_LEAST = ">="
    IN = "in"
    CONTAINS = "contains"
    STARTS = "starts with"
    ENDS = "ends with"
    EXISTS = "exists"


ORDERED = (Operator.BELOW, Operator.AT_MOST, Operator.ABOVE, Operator.AT_LEAST)
OF_TEXT = (Operator.CONTAINS, Operator.STARTS, Operator.ENDS)


class Own(StrEnum):
    """What every contact has beside its attributes."""

    ADDRESS = "address"
    NAME = "name"
    ADDED = "added"  # the day on which it was added


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute of the contact, or a property of an event."""

    name: str


@dataclass(frozen=True, slots=True)
class DaysFromNow:
    """A day so many days from today (UTC); days that are gone are below 0."""

    days: int


Value = str | Decimal | bool | date | DaysFromNow
Field = Attribute | Own


@dataclass(frozen=True, slots=True)
class Compare:
    """`values`: one for most operators, several for `in`, none for `exists`."""

    field: Field
    operator: Operator
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Did:
    """Whether an event of `kind` with all `properties` was there `times` at least.

    `within_hours` None: ever. `campaign`: the campaign whose mail it was about (a TypeID), or None.
    """

    kind: str
    properties: tuple[Compare, ...] = ()
    campaign: str | None = None
    times: int = 1
    within_hours: int | None = None


@dataclass(frozen=True, slots=True)
class InList:
    """Whether the contact stands in a list: its name or its id (`lst_…`)."""

    list: str


@dataclass(frozen=True, slots=True)
class InTopic:
    """Whether the contact gets mail of a topic: its name or its id."""

    topic: str


@dataclass(frozen=True, slots=True)
class Not:
    part: "Node"


@dataclass(frozen=True, slots=True)
class And:
    parts: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Or:
    parts: "tuple[Node, ...]"


Node = Compare | Did | InList | InTopic | Not | And | Or
