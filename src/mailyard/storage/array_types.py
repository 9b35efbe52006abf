"""Arrays of PostgreSQL's own types, known without asking the server.

The driver knows the types themselves and asks the catalogue about arrays of them: on each new
connection, at the first statement that takes one, again for each other type. Nearly every statement
here takes arrays, and an answer costs the server 3 to 4 ms. What it says never changes: the numbers
are part of PostgreSQL (src/include/catalog/pg_type.dat).
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import asyncpg

# number of the array: name of its elements' type, number of that
KNOWN = {
    199: ("json", 114),
    1000: ("bool", 16),
    1001: ("bytea", 17),
    1005: ("int2", 21),
    1007: ("int4", 23),
    1009: ("text", 25),
    1015: ("varchar", 1043),
    1016: ("int8", 20),
    1021: ("float4", 700),
    1022: ("float8", 701),
    1041: ("inet", 869),
    1115: ("timestamp", 1114),
    1182: ("date", 1082),
    1185: ("timestamptz", 1184),
    1187: ("interval", 1186),
    1231: ("numeric", 1700),
    2951: ("uuid", 2950),
    3807: ("jsonb", 3802),
}


class _Statement(NamedTuple):
    """None was run; a name tells the driver that its own is still prepared."""

    name: str


def _row(oid: int) -> Mapping[str, object]:
    """As the catalogue would answer (asyncpg.introspection)."""
    element, element_oid = KNOWN[oid]
    return {
        "oid": oid,
        "ns": "pg_catalog",
        "name": f"_{element}",
        "kind": b"b",
        "basetype": None,
        "elemtype": element_oid,
        "elemdelim": ",",
        "range_subtype": None,
        "attrtypoids": None,
        "attrnames": None,
        "elemtype_name": element,
    }


_ROWS = {oid: _row(oid) for oid in KNOWN}


class Connection(asyncpg.Connection):
    """asyncpg's, which asks about such arrays only as are not in the table."""

    __slots__ = ()

    async def _introspect_types(self, typeoids: Iterable[int], timeout: float | None) -> Any:
        oids = list(typeoids)
        if all(oid in _ROWS for oid in oids):
            return [_ROWS[oid] for oid in oids], _Statement("known")
        return await super()._introspect_types(oids, timeout)  # type: ignore[misc]
