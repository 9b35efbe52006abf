"""A stage as a value, read from `stages.toml` under a file of the operator's own."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mailyard.core.errors import ConfigurationError
from mailyard.fleet.packed import packed_tables

SERVICES = ("replica", "pooler", "redis", "kafka", "objects", "balancer")
COUNTS = {"redis_servers": (1, 5), "sentinels": (0, 5), "kafka_brokers": (1, 5)}


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage. `elsewhere`: why it is not started here, and what is done instead; empty: it is.

    `settings` are texts by the names of settings; they stand under those of the operator.
    """

    name: str
    number: int
    about: str
    services: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    elsewhere: str = ""


def read_stages(own: str = "", name: str = "the file") -> tuple[Stage, ...]:
    """All stages, by number, under the text of `own`, TOML. Raises ConfigurationError naming
    `name`."""
    tables = packed_tables("mailyard.fleet.stage", "stages.toml", own, name, "remove")
    stages = (_stage(key, table, f"{name}: [{key}]") for key, table in tables.items())
    return tuple(sorted(stages, key=lambda stage: stage.number))


def read_stage(number: int, own: str = "", name: str = "the file") -> Stage:
    """The stage `number`. Raises ConfigurationError when there is none, or when it is none that one
    machine runs."""
    stages = {stage.number: stage for stage in read_stages(own, name)}
    if number not in stages:
        known = ", ".join(map(str, stages))
        raise ConfigurationError(f"there is no stage {number}; there are {known}")
    stage = stages[number]
    if stage.elsewhere:
        raise ConfigurationError(f"stage {number} ({stage.name}): {stage.elsewhere}")
    return stage


def _stage(key: str, table: Mapping[str, Any], where: str) -> Stage:
    known = {one.name for one in fields(Stage)} - {"name"}
    for word in table:
        if word not in known:
            raise ConfigurationError(f"{where}: no {word!r}; known are {', '.join(sorted(known))}")
    try:
        stage = Stage(
            name=key,
            number=int(table["number"]),
            about=str(table["about"]),
            services=tuple(table.get("services", ())),
            settings={word: str(text) for word, text in dict(table.get("settings", {})).items()},
            counts={word: int(count) for word, count in dict(table.get("counts", {})).items()},
            elsewhere=str(table.get("elsewhere", "")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{where}: {error}") from None
    for service in stage.services:
        if service not in SERVICES:
            raise ConfigurationError(
                f"{where}: no service {service!r}; known are {', '.join(SERVICES)}"
            )
    for word, count in stage.counts.items():
        low, high = COUNTS.get(word, (0, -1))
        if not low <= count <= high:
            allowed = ", ".join(f"{name} ({low} to {high})" for name, (low, high) in COUNTS.items())
            raise ConfigurationError(f"{where}: counts: {word} = {count}; allowed are {allowed}")
    return stage
