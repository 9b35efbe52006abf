"""The program's SQL: named queries in `storage/sql/<area>.sql`, loaded once, never built in Python.

A file is a row of queries, each opened by two comment lines:

    -- name: lease_ready
    -- Takes up to $2 jobs of the queues $1 that are due, oldest first.
    SELECT …;
"""

import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import NewType

from mailyard.core.errors import ConfigurationError

_HEADER = re.compile(r"^-- name: ([a-z][a-z0-9_]*)[ \t]*$", re.MULTILINE)


Query = NewType("Query", str)  # plain text at run time: the driver takes nothing but `str`

_NAMES: dict[str, str] = {}


def name_of(query: str) -> str:
    """`area.name` of a loaded query, under which its time is measured."""
    return _NAMES.get(query, "unnamed")


class Queries:
    """The queries of one area, as attributes: `QUERIES.lease_ready`."""

    def __init__(self, area: str, queries: dict[str, Query]) -> None:
        self.area = area
        self._queries = queries

    def __getattr__(self, name: str) -> Query:
        try:
            return self._queries[name]
        except KeyError:
            raise AttributeError(
                f"storage/sql/{self.area}.sql has no query named {name!r}"
            ) from None

    def __iter__(self) -> Iterator[Query]:
        return iter(self._queries.values())


@cache
def load(area: str) -> Queries:
    """Read `storage/sql/<area>.sql`. Raises ConfigurationError when a name stands twice."""
    text = files("mailyard.storage").joinpath("sql", f"{area}.sql").read_text("utf-8")
    pieces = _HEADER.split(text)
    queries: dict[str, Query] = {}
    for name, body in zip(pieces[1::2], pieces[2::2], strict=True):
        if name in queries:
            raise ConfigurationError(f"storage/sql/{area}.sql names {name!r} twice")
        queries[name] = Query(body.strip().rstrip(";"))
        _NAMES[queries[name]] = f"{area}.{name}"
    return Queries(area, queries)
