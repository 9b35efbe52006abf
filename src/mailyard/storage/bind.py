"""Queries with their arguments written into them.

Arguments travel apart from a query's text, one query a message. Only where several statements must
go in one message, to be one transaction, is there no other way than this: the text still comes from
`storage/sql`, and each argument is written so that it can be nothing but a value.
"""

import re
from collections.abc import Sequence
from datetime import datetime

from mailyard.storage.queries import Query

Value = None | int | float | str | bytes | datetime | Sequence["Value"]

_PARAMETER = re.compile(r"\$(\d+)")


def bound(query: Query, *args: Value) -> str:
    """`query` with `args` in the place of its $1, $2, …

    What type an argument has is for the query to say (`$1::text[]`), arrays above all. Raises
    ValueError for a text with NUL, which PostgreSQL does not store.
    """
    values = [_literal(value) for value in args]
    return _PARAMETER.sub(lambda parameter: values[int(parameter[1]) - 1], query)


def _literal(value: Value) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool | int | float):
        return str(value)
    if isinstance(value, bytes):
        return rf"E'\\x{value.hex()}'"
    if isinstance(value, datetime):
        return f"'{value.isoformat()}'"
    if isinstance(value, str):
        return _text(value)
    return f"ARRAY[{','.join(map(_literal, value))}]"


def _text(value: str) -> str:
    """With both ways out of a text closed, so whatever the server's settings are."""
    if "\0" in value:
        raise ValueError("a text for PostgreSQL holds no NUL")
    return "E'" + value.replace("\\", r"\\").replace("'", "''") + "'"
