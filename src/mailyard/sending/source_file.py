"""Pools of source addresses as an operator writes them down.

    [plan.gentle]                      # mails a day, by receiver; `steady` is there already
    default = [50, 100, 200, 400]
    google = [20, 40, 80, 160]

    [pool.default]
    overflow = true                    # what none may send another provider of the route may

    [[pool.default.address]]
    ipv4 = "192.0.2.1"                 # and ipv6, or one of them
    hello = "mx1.example.org"          # what its reverse name leads to
    weight = 10
    plan = "gentle"                    # while it is new; without one it is warm
    started = 2026-11-01
    region = "eu"                      # where it is; in other regions it is left out

Whatever is not understood stops with the file, the line, the key, the value and what is allowed.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from mailyard.core.errors import ConfigurationError, InvalidInput
from mailyard.sending import warmup
from mailyard.sending.shape import fields
from mailyard.sending.shape.fields import Reader, Spot
from mailyard.sending.shape.locate import line_of
from mailyard.sending.transports.mx.source import Source

FILE_BYTES_MAX = 1024 * 1024
DEFAULT_POOL = "default"
OVERFLOW = "another provider"


@dataclass(frozen=True, slots=True)
class SourceList:
    """A pool: what warming-up knows of its addresses, and what sockets need, by name."""

    pool: warmup.Pool
    hosts: Mapping[str, Source]


def alone(hello: str) -> SourceList:
    """No file: one warm address, whatever the system picks."""
    pool = warmup.Pool(DEFAULT_POOL, (warmup.Source(""),))
    return SourceList(pool, {"": Source("", hello)})


def read_sources(file: str, text: str, hello: str, region: str = "") -> dict[str, SourceList]:
    """The pools of a file by name, with the addresses of `region` and those of every region.

    `hello`: for addresses without one. Raises ConfigurationError naming the file, the line and the
    key.
    """
    try:
        return _read(file, text, hello, region)
    except ConfigurationError as error:
        line = line_of(text, error.field) if error.field else None
        if line is None:
            raise
        message = error.message.removeprefix(f"{file}: ")
        raise ConfigurationError(f"{file}, line {line}: {message}", field=error.field) from None


def _read(file: str, text: str, hello: str, region: str) -> dict[str, SourceList]:
    if len(text.encode()) > FILE_BYTES_MAX:
        raise ConfigurationError(f"{file} is longer than {FILE_BYTES_MAX} bytes")
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{file} is not TOML: {error}") from error
    readers = {"plan": fields.table_of_tables, "pool": fields.table_of_tables}
    top = fields.read_table(Spot(file, ""), table, readers)
    plans = {"steady": warmup.STEADY}
    for name, value in top.get("plan", {}).items():
        plans[name] = _plan(Spot(file, f"plan.{name}"), name, value)
    pools = {
        name: _pool(Spot(file, f"pool.{name}"), name, value, plans, hello, region)
        for name, value in top.get("pool", {}).items()
    }
    if DEFAULT_POOL not in pools:
        raise ConfigurationError(f"{file} has no [pool.{DEFAULT_POOL}]", field="pool")
    return pools


def _plan(spot: Spot, name: str, value: Any) -> warmup.Plan:
    fields.check_name(spot, name)
    if not isinstance(value, Mapping):
        raise spot.wrong(value, "lists of mails a day, one a receiver")
    for group, days in value.items():
        if not isinstance(days, list) or not all(type(day) is int for day in days):
            raise spot.within(group).wrong(days, "a list of whole numbers, one a day")
    try:
        return warmup.Plan(name, {group: tuple(days) for group, days in value.items()})
    except InvalidInput as error:
        where = spot.within(error.field) if error.field else spot
        raise ConfigurationError(
            f"{spot.file}: {where.path}: {error.message}", field=where.path
        ) from None


def _pool(
    spot: Spot,
    name: str,
    value: Any,
    plans: Mapping[str, warmup.Plan],
    hello: str,
    region: str,
) -> SourceList:
    fields.check_name(spot, name)
    table = fields.read_table(spot, value, {"overflow": fields.flag, "address": fields.tables})
    sources: list[warmup.Source] = []
    hosts: dict[str, Source] = {}
    for number, entry in enumerate(table.get("address", []), 1):
        where = spot.within(f"address[{number}]")
        source, host, there = _address(where, entry, plans, hello)
        if there not in ("", region):
            continue
        sources.append(source)
        hosts[source.name] = host
    if table.get("address") and not sources:
        raise ConfigurationError(
            f"{spot.file}: {spot.path}: none of its addresses is of the region "
            f"{region or '(MAILYARD_REGION is empty)'}",
            field=spot.path,
        )
    overflow = OVERFLOW if table.get("overflow", False) else None
    try:
        return SourceList(warmup.Pool(name, tuple(sources), overflow), hosts)
    except InvalidInput as error:
        where = spot.within("address")
        raise ConfigurationError(
            f"{spot.file}: {where.path}: {error.message}", field=where.path
        ) from None


def _address(
    spot: Spot, value: Any, plans: Mapping[str, warmup.Plan], hello: str
) -> tuple[warmup.Source, Source, str]:
    """What warming-up and sockets know of an address, and its region."""
    readers: dict[str, Reader] = {
        "ipv4": _ip(IPv4Address, "an IPv4 address"),
        "ipv6": _ip(IPv6Address, "an IPv6 address"),
        "hello": fields.text,
        "weight": fields.whole(1, warmup.WEIGHT_MAX),
        "plan": fields.text,
        "started": fields.day,
        "region": fields.text,
    }
    table = fields.read_table(spot, value, readers)
    four, six = table.get("ipv4"), table.get("ipv6")
    if four is None and six is None:
        raise spot.within("ipv4").wrong(None, "an IPv4 address here, or an IPv6 address in ipv6")
    plan_name, started = table.get("plan"), table.get("started")
    if plan_name is not None and plan_name not in plans:
        raise spot.within("plan").wrong(plan_name, f"one of {', '.join(plans)}")
    if (plan_name is None) != (started is None):
        missing = "plan" if plan_name is None else "started"
        raise spot.within(missing).wrong(None, "both a plan and its first day, or neither")
    first: date | None = started
    name = str(four if four is not None else six)
    plan = None if plan_name is None else plans[plan_name]
    source = warmup.Source(name, table.get("weight", 1), plan, first)
    host = Source(name, table.get("hello", hello), four, six)
    return source, host, table.get("region", "")


def _ip(kind: type[IPv4Address] | type[IPv6Address], allowed: str) -> Reader:
    def read(spot: Spot, value: Any) -> Any:
        try:
            return kind(value if isinstance(value, str) else "")
        except ValueError:
            raise spot.wrong(value, allowed) from None

    return read
