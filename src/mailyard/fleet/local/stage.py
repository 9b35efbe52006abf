"""What one machine starts of a stage, from `stages.toml` under a file of the operator's own."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mailyard.core.errors import ConfigurationError, InvalidInput
from mailyard.fleet.packed import packed_tables
from mailyard.fleet.stage import Stage, parse_stage

SERVICES = ("replica", "pooler", "redis", "kafka", "objects", "balancer")
COUNTS = {"redis_servers": (1, 5), "sentinels": (0, 5), "kafka_brokers": (1, 5)}


@dataclass(frozen=True, slots=True)
class LocalStage:
    """What is started of `stage`.

    `settings` are texts by the names of settings; they stand under those of the operator. `needs`
    are settings without which it is not started, for the reason `why`.
    """

    stage: Stage
    services: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    why: str = ""


def read_stages(own: str = "", name: str = "the file") -> dict[Stage, LocalStage]:
    """All stages under the text of `own`, TOML. Raises ConfigurationError naming `name`."""
    tables = packed_tables("mailyard.fleet.local", "stages.toml", own, name, "remove")
    found = [_stage(key, table, f"{name}: [{key}]") for key, table in tables.items()]
    return {one.stage: one for one in found}


def read_stage(
    stage: Stage, given: Collection[str], own: str = "", name: str = "the file"
) -> LocalStage:
    """The stage, for an operator who has made the settings `given`. Raises ConfigurationError when
    it is not to be started with them."""
    found = read_stages(own, name).get(stage)
    if found is None or not set(found.needs) <= set(given):
        why = f"{name} has removed it" if found is None else found.why
        raise ConfigurationError(f"stage {stage.value} ({stage.word}) is not started so: {why}")
    return found


def _stage(key: str, table: Mapping[str, Any], where: str) -> LocalStage:
    known = {one.name for one in fields(LocalStage)} - {"stage"}
    for word in table:
        if word not in known:
            raise ConfigurationError(f"{where}: no {word!r}; known are {', '.join(sorted(known))}")
    try:
        stage = LocalStage(
            stage=parse_stage(key),
            services=tuple(table.get("services", ())),
            settings={word: str(text) for word, text in dict(table.get("settings", {})).items()},
            counts={word: int(count) for word, count in dict(table.get("counts", {})).items()},
            needs=tuple(table.get("needs", ())),
            why=str(table.get("why", "")),
        )
    except (InvalidInput, TypeError, ValueError) as error:
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
