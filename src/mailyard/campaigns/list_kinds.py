"""Whether the mail can be written for everybody: tried on one contact of each kind in the audience.

Two contacts are of one kind when a template cannot tell them apart in whether it can be filled:
what it reads is there for both and of the same type, and what it decides by is the same. So a
variable that is asked of some only (`{% if plan == "pro" %}{{ company }}{% endif %}`) is found
lacking where it is asked, and nobody is told of where it is not.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from mailyard.campaigns.preflight import Lack
from mailyard.sending.language import Lexer
from mailyard.sending.personal import CONTACT, PREFERENCES
from mailyard.sending.position import Positions
from mailyard.sending.render import Compiled
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("preflight")

KINDS_TRIED = 1_000
_YIELD_EVERY = 25  # mails written before other work of the loop gets its turn
# What every mail has, and what is looked up for each of its readers.
GIVEN = frozenset(
    ["name", "address", "unsubscribe_url", "preferences_url", "physical_address", "footer"]
)
_DECIDE = frozenset(("if", "elif", "else", "or", "and", "set"))  # words of a tag that chooses

Tries = Callable[[Sequence[asyncpg.Record]], Awaitable[list[str]]]
"""Why the mail for each of some contacts cannot be written; empty where it can."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The attributes that a template reads, and those of them that it decides by."""

    fields: tuple[str, ...] = ()
    deciding: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Kind:
    """So many contacts, and one of them."""

    contacts: int
    example: UUID


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of it. `untried`: contacts of kinds that were not tried."""

    lacks: tuple[Lack, ...]
    untried: int


def asked_by(template: Compiled) -> Asked:
    """What `template` asks of a contact. Attributes are read by their own names, or as
    `contact.city`."""
    fields = set()
    for path in template.paths:
        name, _, rest = path.partition(".")
        if name == CONTACT:
            name = rest.partition(".")[0]
        if name and name != PREFERENCES and name not in GIVEN:
            fields.add(name)
    deciding = fields & set(_names_in_choices(template))
    return Asked(tuple(sorted(fields)), tuple(sorted(deciding)))


def _names_in_choices(template: Compiled) -> Iterable[str]:
    for field, source in template.sources.items():
        for _, _, tokens in Lexer(source, field, Positions(source, field)).tags():
            words = {text for kind, text in tokens if kind == "name"}
            if words & _DECIDE:
                yield from words


async def try_kinds(
    database: Database,
    workspace_id: UUID,
    asked: Asked,
    kinds: Sequence[Kind],
    lacking: Sequence[tuple[str, int]],
    members: int,
    tries: Tries,
) -> Tried:
    """Try the mail on an example of each of `kinds`, the most frequent of which come first, of an
    audience of `members`. `lacking`: names, and how many of them do without."""
    kinds = kinds[:KINDS_TRIED]
    rows = await database.fetch(
        _SQL.contacts_to_try, workspace_id, [kind.example for kind in kinds]
    )
    whys = dict(zip([row["id"] for row in rows], await tries(rows), strict=True))
    by_id = {row["id"]: row for row in rows}
    failing: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    for kind in kinds:
        if why := whys.get(kind.example):
            row = by_id[kind.example]
            said = _lacking(asked, row), why
            failing[said] += kind.contacts
            examples.setdefault(said, row["address"])
    lacks = tuple(
        Lack(variable, contacts, examples[variable, why], why)
        for (variable, why), contacts in failing.most_common()
    )
    seen = {name for variable, _ in failing for name in variable.split(", ")}
    fine = tuple(Lack(name, count, "", "") for name, count in lacking if name not in seen)
    return Tried((*lacks, *fine), max(0, members - sum(kind.contacts for kind in kinds)))


def _lacking(asked: Asked, row: asyncpg.Record) -> str:
    """The names of what a contact lacks, for people."""
    attributes: dict[str, Any] = msgspec.json.decode(row["attributes"])
    return ", ".join(one for one in asked.fields if one not in attributes) or "what it is made of"


async def written_in_turns(
    write: Callable[[asyncpg.Record], str], rows: Sequence[asyncpg.Record]
) -> list[str]:
    """`write` for each, with pauses for other work."""
    whys = []
    for index, row in enumerate(rows):
        whys.append(write(row))
        if index % _YIELD_EVERY == _YIELD_EVERY - 1:
            await asyncio.sleep(0)
    return whys
