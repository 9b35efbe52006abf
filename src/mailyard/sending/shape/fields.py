"""The keys of a file of receivers, one reader a kind: a value of TOML in, what is meant out.

A reader raises through `Spot.wrong`, so that every refusal names the file, the key, the value and
what is allowed.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from mailyard.core.errors import ConfigurationError
from mailyard.sending.shape import measure
from mailyard.sending.shape.answer import Phase
from mailyard.sending.shape.pattern import Pattern, compile_pattern
from mailyard.sending.shape.rule import Rule, Verdict

TEXT_CHARACTERS = 500
LIST_ITEMS_MAX = 500
PATTERNS_MAX = 5  # of one rule
_SHOWN_CHARACTERS = 200

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_DNS_NAME = re.compile(
    r"(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9-]{2,63}"
)
_CODE = re.compile(r"[45](?:[0-9]{2}|xx)")
_ENHANCED = re.compile(r"[45]\.[0-9]{1,3}\.(?:[0-9]{1,3}|x)")


@dataclass(frozen=True, slots=True)
class Spot:
    """A place in a file, as a person finds it: "receiver.google.rule[2].text"."""

    file: str
    path: str

    def within(self, key: str) -> "Spot":
        return Spot(self.file, f"{self.path}.{key}" if self.path else key)

    def wrong(self, value: object, allowed: str) -> ConfigurationError:
        """What is raised about `value` here. None: it is missing."""
        shown = "missing" if value is None else repr(value)[:_SHOWN_CHARACTERS]
        return ConfigurationError(
            f"{self.file}: {self.path} is {shown}; allowed is {allowed}", field=self.path
        )


Reader = Callable[[Spot, Any], Any]


def read_table(spot: Spot, value: Any, readers: Mapping[str, Reader]) -> dict[str, Any]:
    """The keys of a table, each by its reader. Unknown keys are refused."""
    if not isinstance(value, Mapping):
        raise spot.wrong(value, "a table")
    read = {}
    for key, one in value.items():
        if key not in readers:
            near = difflib.get_close_matches(key, readers, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]!r}? " if near else ""
            where = f"{spot.file}: {spot.path or 'the file'} has an unknown key {key!r}"
            raise ConfigurationError(
                f"{where}; {hint}allowed are {', '.join(sorted(readers))}",
                field=spot.within(key).path,
            )
        read[key] = readers[key](spot.within(key), one)
    return read


def check_name(spot: Spot, name: str) -> None:
    """Names of receivers and rules stand in events, keys and metrics."""
    if _NAME.fullmatch(name) is None:
        raise spot.wrong(name, "a name of up to 40 of a-z, 0-9 and -")


def text(spot: Spot, value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > TEXT_CHARACTERS:
        raise spot.wrong(value, f"a text of 1 to {TEXT_CHARACTERS} characters")
    return value


def flag(spot: Spot, value: Any) -> bool:
    if not isinstance(value, bool):
        raise spot.wrong(value, "true or false")
    return value


def whole(least: int, most: int) -> Reader:
    """A whole number within bounds."""

    def read(spot: Spot, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise spot.wrong(value, f"a whole number from {least} to {most}")
        return value

    return read


def share(spot: Spot, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.01 <= value < 1:
        raise spot.wrong(value, "a share from 0.01 to below 1")
    return float(value)


def duration(spot: Spot, value: Any) -> float:
    return float(_measured(spot, value, measure.duration_s, measure.DURATION_ALLOWED))


def rate(spot: Spot, value: Any) -> measure.Rate:
    found: measure.Rate = _measured(spot, value, measure.rate, measure.RATE_ALLOWED)
    return found


def after(spot: Spot, value: Any) -> measure.Threshold:
    found: measure.Threshold = _measured(spot, value, measure.threshold, measure.THRESHOLD_ALLOWED)
    return found


def day(spot: Spot, value: Any) -> date:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise spot.wrong(value, "a date (2026-01-31, without quotes)")
    return value


def names(spot: Spot, value: Any) -> tuple[str, ...]:
    """Names of domains or MX sites; what ends with them fits."""
    return _listed(spot, value, _DNS_NAME, 'names in lower case ("google.com")')


def rule_names(spot: Spot, value: Any) -> tuple[str, ...]:
    return _listed(spot, value, _NAME, "names of rules")


def tables(spot: Spot, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise spot.wrong(value, f"tables, each opened by [[{spot.path}]]")
    return value


def table_of_tables(spot: Spot, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise spot.wrong(value, f"tables, each opened by [{spot.path}.NAME]")
    return value


def read_rule(spot: Spot, value: Any) -> Rule:
    """One rule. What it says must be possible: a match, and something that follows from it."""
    read = read_table(spot, value, _RULE)
    if "name" not in read:
        raise spot.within("name").wrong(None, "a name, by which it is shown and overridden")
    if not {"code", "enhanced", "text", "phase"} & read.keys():
        raise spot.within("code").wrong(None, "at least one of code, enhanced, text, phase")
    rule = Rule(
        name=read["name"],
        codes=read.get("code", ()),
        enhanced=read.get("enhanced", ()),
        patterns=read.get("text", ()),
        phases=read.get("phase", frozenset()),
        after=read.get("after"),
        pause_s=read.get("pause"),
        slow=read.get("slow"),
        alert=read.get("alert", ""),
        verdict=_verdict(spot, read),
        retry_s=read.get("retry"),
        recipient_only=read.get("recipient_only", False),
        source=read.get("source", ""),
    )
    _check_rule(spot, rule)
    return rule


def _verdict(spot: Spot, read: Mapping[str, Any]) -> Verdict | None:
    given = [verdict for verdict in Verdict if read.get(verdict.value) not in (None, False)]
    if len(given) > 1:
        raise spot.within(given[1].value).wrong(
            read[given[1].value], f"nothing beside {given[0].value}: a mail has one end"
        )
    return given[0] if given else None


def _check_rule(spot: Spot, rule: Rule) -> None:
    acts = rule.pause_s is not None or rule.slow is not None or bool(rule.alert)
    if not acts and rule.verdict is None and not rule.recipient_only:
        allowed = "at least one of pause, slow, retry, fail, suppress, alert, recipient_only"
        raise spot.within("pause").wrong(None, allowed)
    if rule.after is not None and not acts:
        raise spot.within("after").wrong(
            f"{rule.after.count} in {rule.after.window_s:g} s",
            "nothing without pause, slow or alert: a verdict waits for no threshold",
        )
    if rule.alert and rule.after is None and rule.slow is None and rule.pause_s is None:
        raise spot.within("alert").wrong(
            rule.alert, 'only with after ("3 in 5 min"), slow or pause'
        )
    if rule.verdict is Verdict.SUPPRESS:
        if not rule.codes or any(not code.startswith("5") for code in rule.codes):
            raise spot.within("suppress").wrong(True, "only with code = 5xx: 4xx may pass")
        if any(one.startswith("5.7.") for one in rule.enhanced):
            allowed = "not with 5.7.x: a policy rejection is about the sender"
            raise spot.within("suppress").wrong(True, allowed)


def _name(spot: Spot, value: Any) -> str:
    check_name(spot, text(spot, value))
    return str(value)


def _codes(spot: Spot, value: Any) -> tuple[str, ...]:
    listed = _listed(spot, value, _CODE, 'codes like "421" or "4xx"')
    return tuple(one.removesuffix("xx") for one in listed)


def _enhanced(spot: Spot, value: Any) -> tuple[str, ...]:
    listed = _listed(spot, value, _ENHANCED, 'enhanced codes like "4.7.28" or "4.7.x"')
    return tuple(one.removesuffix("x") for one in listed)


def _patterns(spot: Spot, value: Any) -> tuple[Pattern, ...]:
    sources = [value] if isinstance(value, str) else value
    allowed = f"a regular expression, or up to {PATTERNS_MAX} that must all match"
    if not isinstance(sources, list) or not 0 < len(sources) <= PATTERNS_MAX:
        raise spot.wrong(value, allowed)
    patterns = []
    for source in sources:
        if not isinstance(source, str):
            raise spot.wrong(source, allowed)
        try:
            patterns.append(compile_pattern(source))
        except ValueError as error:
            raise spot.wrong(source, str(error)) from None
    return tuple(patterns)


def _phases(spot: Spot, value: Any) -> frozenset[Phase]:
    allowed = ", ".join(phase.value for phase in Phase)
    if not isinstance(value, list) or not value:
        raise spot.wrong(value, f"a list of {allowed}")
    for one in value:
        if one not in set(Phase):
            raise spot.wrong(one, allowed)
    return frozenset(Phase(one) for one in value)


def _measured(spot: Spot, value: Any, read: Callable[[str], Any], allowed: str) -> Any:
    try:
        if isinstance(value, str):
            return read(value)
    except ValueError:
        pass
    raise spot.wrong(value, allowed)


def _listed(spot: Spot, value: Any, form: re.Pattern[str], allowed: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= LIST_ITEMS_MAX:
        raise spot.wrong(value, f"a list of 1 to {LIST_ITEMS_MAX} {allowed}")
    for one in value:
        if not isinstance(one, str) or form.fullmatch(one) is None:
            raise spot.wrong(one, allowed)
    if len(set(value)) != len(value):
        raise spot.wrong(value, f"each once: {allowed}")
    return tuple(value)


_RULE: dict[str, Reader] = {
    "name": _name,
    "code": _codes,
    "enhanced": _enhanced,
    "text": _patterns,
    "phase": _phases,
    "after": after,
    "pause": duration,
    "slow": share,
    "retry": duration,
    "fail": flag,
    "suppress": flag,
    "alert": text,
    "recipient_only": flag,
    "source": text,
}
