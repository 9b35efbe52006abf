"""The spam score: rules are data (`rules.toml`), what fired says why."""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from mailyard.core.errors import ConfigurationError
from mailyard.protocol.mime.message import Message, parse
from mailyard.protocol.spam.feature import FEATURES, Seen

TAG_AT = 5.0  # where points come from: rules.toml
_PLACES = {"subject": "subject", "text": "text", "from": "from_", "html": "html",
           "links": "links", "files": "files"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule. `place` and `pattern` for what a pattern says; neither for a feature. Rules of one
    `group` are signs of one thing: together they give `most` points."""

    name: str
    points: float
    place: str = ""
    pattern: re.Pattern[str] | None = None
    group: str = ""
    most: float = 0.0

    def fires(self, mail: Seen) -> bool:
        if self.pattern is None:
            return FEATURES[self.name](mail)
        return self.pattern.search(getattr(mail, self.place)) is not None


@dataclass(frozen=True, slots=True)
class SpamScore:
    """Points, and the rules that gave them (name, points), the heaviest first."""

    points: float
    fired: tuple[tuple[str, float], ...]


def score(raw: bytes) -> SpamScore:
    """How much the mail `raw` looks like spam. Never raises; what a mail costs is bounded by the
    parser's limits and `feature.CHARACTERS`."""
    return score_of(parse(raw))


def score_of(message: Message) -> SpamScore:
    """The same of a mail that has been read already."""
    mail = Seen(message)
    fired, left = [], {rule.group: rule.most for rule in shipped()}
    for rule in shipped():
        points = min(rule.points, left[rule.group]) if rule.group else rule.points
        if points and rule.fires(mail):
            fired.append((rule.name, round(points, 2)))
            left[rule.group] -= points
    fired.sort(key=lambda one: -abs(one[1]))
    return SpamScore(round(sum(points for _, points in fired), 2), tuple(fired))


@cache
def shipped() -> tuple[Rule, ...]:
    """The rules of this version."""
    text = files("mailyard.protocol.spam").joinpath("rules.toml").read_text("utf-8")
    return read_rules(text)


def read_rules(text: str) -> tuple[Rule, ...]:
    """Rules from TOML. Raises ConfigurationError naming the rule."""
    rules = []
    whole = tomllib.loads(text)
    for one in whole["rule"]:
        name, points, group = one["name"], float(one["points"]), one.get("group", "")
        if group and group not in whole.get("most", {}):
            raise ConfigurationError(f"rule {name}: [most] has no {group}")
        most = float(whole["most"][group]) if group else 0.0
        if "pattern" not in one:
            if name not in FEATURES:
                raise ConfigurationError(f"rule {name}: there is no such feature")
            rules.append(Rule(name, points, group=group, most=most))
            continue
        if one.get("in") not in _PLACES:
            raise ConfigurationError(f"rule {name}: in is one of {', '.join(_PLACES)}")
        flags = re.IGNORECASE | re.MULTILINE
        try:
            pattern = re.compile(one["pattern"], flags)
        except re.error as error:
            raise ConfigurationError(f"rule {name}: {error}") from None
        rules.append(Rule(name, points, _PLACES[one["in"]], pattern, group, most))
    return tuple(rules)
