"""The program's SQL: named queries in `storage/sql/<area>.sql`, loaded once, never built in Python.

A file is a row of queries, each opened by two comment lines:

    -- name: lease_ready
    -- Takes up to $2 jobs of the queues $1 that are due, oldest first.
    SELECT …;

What several queries of a file begin with is written once, as a part, and used by its name:

    -- part: held
    -- What it is.
    valid AS (…),

    -- name: complete
    -- What it is for.
    WITH
    -- use: held
    gone AS (…) …;
"""

import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import NewType

from mailyard.core.errors import ConfigurationError

_HEADER = re.compile(r"^-- (name|part): ([a-z][a-z0-9_]*)[ \t]*$", re.MULTILINE)
_USE = re.compile(r"^-- use: ([a-z][a-z0-9_]*)[ \t]*$", re.MULTILINE)


Query = NewType("Query", str)  # plain text at run time: the driver takes nothing but `str`

_NAMES: dict[str, str] = {}
_PUT_TOGETHER: dict[str, None] = {}
_PUT_TOGETHER_MOST = 1_000


def name_of(query: str) -> str:
    """`area.name` of a loaded query, under which its time is measured."""
    return _NAMES.get(query, "unnamed")


def timed_as(text: str, name: str) -> Query:
    """A statement put together from named queries; its time is measured under `name`."""
    if len(_PUT_TOGETHER) >= _PUT_TOGETHER_MOST:
        for old in _PUT_TOGETHER:
            _NAMES.pop(old, None)
        _PUT_TOGETHER.clear()
    _NAMES[text] = name
    _PUT_TOGETHER[text] = None
    return Query(text)


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
    """Read `storage/sql/<area>.sql`. Raises ConfigurationError when a name stands twice, or a part
    that is used does not stand above.
    """
    text = files("mailyard.storage").joinpath("sql", f"{area}.sql").read_text("utf-8")
    pieces = _HEADER.split(text)
    queries: dict[str, Query] = {}
    parts: dict[str, str] = {}
    for kind, name, body in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        if name in queries or name in parts:
            raise ConfigurationError(f"storage/sql/{area}.sql names {name!r} twice")
        missing = set(_USE.findall(body)) - parts.keys()
        if missing:
            raise ConfigurationError(f"storage/sql/{area}.sql has no parts {sorted(missing)}")
        whole = _USE.sub(lambda use: parts[use[1]], body)
        if kind == "part":
            parts[name] = whole.strip()
            continue
        queries[name] = Query(whole.strip().rstrip(";"))
        _NAMES[queries[name]] = f"{area}.{name}"
    return Queries(area, queries)
