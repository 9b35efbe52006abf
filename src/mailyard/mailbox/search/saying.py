"""Reading a search by meaning: a text as people write it, in which `and`, `or` and `not` are words.

`before:` and `after:` may stand in it. Other fields are refused: they say words, not meaning.
"""

import re
from datetime import datetime
from itertools import islice
from typing import NamedTuple

from mailyard.core import limits
from mailyard.mailbox.search.parse import FIELDS, parse
from mailyard.mailbox.search.tokens import SearchError
from mailyard.mailbox.search.tree import And, Node, Or, Word

_TIMES = ("before", "after")
_FIELD = re.compile(rf"(?<!\w)({'|'.join(FIELDS)}):\s*(\"[^\"]*\"|\S+)", re.IGNORECASE)
_WORD = re.compile(r"\w+")


class Saying(NamedTuple):
    """`text`: what mail should say. `node`: between which times, and the words that may be marked
    in what was found."""

    text: str
    node: Node


def read(source: str, now: datetime) -> Saying:
    """Raises SearchError with the column."""
    times = []
    for field in _FIELD.finditer(source):
        if field[1].lower() not in _TIMES:
            raise SearchError(
                field.start(),
                f"a search by meaning is said in words, beside before: and after:, not {field[1]}:",
            )
        times.append(field[0])
    text = " ".join(_FIELD.sub(" ", source).split())
    words = [Word(one[0]) for one in islice(_WORD.finditer(text), limits.SEARCH_TERMS)]
    if not words:
        raise SearchError(len(source), "a search by meaning needs at least one word")
    bounds = [parse(" ".join(times), now)] if times else []
    received = [part for one in bounds for part in (one.parts if isinstance(one, And) else (one,))]
    return Saying(text, And((Or(tuple(words)), *received)))
