"""Alert rules as data. `rules.toml` is packed with the program; the operator's own file replaces
values of it, rule by rule. Prometheus rules and the Grafana dashboard are made from the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mailyard.core.errors import ConfigurationError
from mailyard.fleet.packed import packed_tables

WARNING = "warning"
CRITICAL = "critical"
_NUMBERS = ("warning", "critical", "warning_for_s", "critical_for_s", "resolve_for_s")
_TEXTS = ("metric", "about", "do")
_LISTS = ("only", "but")


@dataclass(frozen=True, slots=True)
class Rule:
    """A figure of the installation and from where on it is not as it should be.

    Beyond `warning` for `warning_for_s`, or `critical` for `critical_for_s` (None: no such level),
    an alert is raised; back before both for `resolve_for_s`, it is over. `below`: beyond is less.
    `only`, `but`: subjects of the figure (queues, roles) that count, or do not. `do`: what helps.
    """

    name: str
    metric: str
    about: str
    do: str = ""
    warning: float | None = None
    critical: float | None = None
    warning_for_s: float = 60.0
    critical_for_s: float = 60.0
    resolve_for_s: float = 60.0
    below: bool = False
    only: tuple[str, ...] = ()
    but: tuple[str, ...] = ()

    def concerns(self, subject: str) -> bool:
        return (not self.only or subject in self.only) and subject not in self.but

    def level_of(self, value: float) -> str | None:
        """The level that a value has, were it to last."""
        for level, limit in ((CRITICAL, self.critical), (WARNING, self.warning)):
            if limit is not None and (value < limit if self.below else value > limit):
                return level
        return None


def read_rules(own: str = "", name: str = "the file") -> tuple[Rule, ...]:
    """The packed rules under the text of `own`, TOML; `off = true` removes one.

    Raises ConfigurationError naming `name` and the rule.
    """
    tables = packed_tables("mailyard.fleet.alerts", "rules.toml", own, name, "off")
    return tuple(_rule(rule, table, f"{name}: [{rule}]") for rule, table in tables.items())


def _rule(rule: str, table: Mapping[str, Any], where: str) -> Rule:
    values: dict[str, Any] = {"name": rule}
    for key, value in table.items():
        if key in _NUMBERS and isinstance(value, (int, float)) and not isinstance(value, bool):
            values[key] = float(value)
        elif key in _TEXTS and isinstance(value, str):
            values[key] = value
        elif key in _LISTS and isinstance(value, list):
            values[key] = tuple(map(str, value))
        elif key == "below" and isinstance(value, bool):
            values[key] = value
        else:
            raise ConfigurationError(
                f"{where}: {key} = {value!r} is not known here, or is of the wrong kind; known "
                f"are {', '.join((*_TEXTS, *_NUMBERS, *_LISTS, 'below', 'off'))}"
            )
    if "metric" not in values or "about" not in values:
        raise ConfigurationError(f"{where}: a rule has a metric and an about")
    made = Rule(**values)
    if made.warning is None and made.critical is None:
        raise ConfigurationError(f"{where}: a rule has a warning, a critical level, or both")
    if made.warning is not None and made.critical is not None:
        ordered = made.critical < made.warning if made.below else made.critical > made.warning
        if not ordered:
            raise ConfigurationError(f"{where}: critical must lie beyond warning")
    return made
