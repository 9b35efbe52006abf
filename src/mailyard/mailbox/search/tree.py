"""What a search asks for, as a tree."""

from dataclasses import dataclass
from enum import Enum


class Field(Enum):
    """Where words are looked for. The value is how a search names it."""

    TEXT = ""
    FROM = "from"
    TO = "to"
    SUBJECT = "subject"
    FILE = "filename"
    LIST = "list"


class State(Enum):
    """How a mail stands in its mailbox. The value is how a search names it."""

    UNREAD = "unread"
    READ = "read"
    STARRED = "starred"
    MUTED = "muted"
    SNOOZED = "snoozed"


@dataclass(frozen=True, slots=True)
class Word:
    """A word; `prefix`: any word that begins so. `place` counts characters of the search."""

    text: str
    prefix: bool = False
    field: Field = Field.TEXT
    place: int = 0


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words behind one another."""

    text: str
    field: Field = Field.TEXT
    place: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a word, wherever it stands in it."""

    text: str
    field: Field = Field.TEXT
    place: int = 0


@dataclass(frozen=True, slots=True)
class HasAttachment:
    """With at least one file."""


@dataclass(frozen=True, slots=True)
class Received:
    """Received since `since` and before `until`: milliseconds since 1970, None without end."""

    since_ms: int | None = None
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """Carries this label."""

    name: str


@dataclass(frozen=True, slots=True)
class InFolder:
    """Lies in this folder."""

    name: str


@dataclass(frozen=True, slots=True)
class Is:
    """Stands so in its mailbox."""

    state: State


@dataclass(frozen=True, slots=True)
class Size:
    """Larger than, or smaller than, so many bytes."""

    larger: bool
    size_bytes: int


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Not:
    part: "Node"


Match = Word | Phrase | Part
Node = Match | HasAttachment | Received | Label | InFolder | Is | Size | And | Or | Not


def matches(node: Node) -> list[Match]:
    """The words, phrases and parts that a found mail may show; not those behind a not."""
    match node:
        case And(parts) | Or(parts):
            return [one for part in parts for one in matches(part)]
        case Word() | Phrase() | Part():
            return [node]
        case _:
            return []
