"""The rules of `rules.toml`, read once and ready to be asked."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

from mailyard.core.errors import ConfigurationError
from mailyard.protocol.report.phrase import Phrases
from mailyard.protocol.report.values import Stage
from mailyard.sending.bounce.reason import Reason

_KEYS = frozenset(("class", "says", "status", "stage", "temporary", "weak", "quoted"))
_NO_STATUS = "none"
_NAME = re.compile(r"\{\$(\w+)\}")


class Said(NamedTuple):
    """One refusal, as rules look at it: `words` as `words_of` gives them."""

    words: str
    code: str = ""
    status: str = ""
    stage: Stage = Stage.UNKNOWN
    quoted: bool = True  # these are the words that came with the code

    @property
    def temporary(self) -> bool:
        """Whether the server asked to come again; its reply code decides before the other one."""
        return (self.code or self.status)[:1] == "4"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; a condition that is None is none. `number` counts from 1, as in the file."""

    number: int
    reason: Reason
    says: bool
    status: frozenset[str] | None
    stage: frozenset[Stage] | None
    temporary: bool | None
    quoted: bool
    weak: bool

    def holds(self, said: Said) -> bool:
        """Whether each condition but the words holds."""
        if self.temporary is not None and self.temporary is not said.temporary:
            return False
        if self.quoted and not (said.quoted and said.code):
            return False
        if self.stage is not None and said.stage not in self.stage:
            return False
        if self.status is None:
            return True
        status = said.status or _NO_STATUS
        return status in self.status or f"x{status[1:]}" in self.status


class Rules:
    """All rules in order. `first` is the one that decides."""

    __slots__ = ("_of_one", "_of_rule", "_phrases", "all")

    def __init__(self, rules: list[Rule], phrases: list[tuple[str, int]]) -> None:
        self.all = tuple(rules)
        self._phrases = Phrases(phrases)
        self._of_rule: dict[int, list[tuple[str, bool]]] = {}
        for phrase, number in phrases:
            self._of_rule.setdefault(number, []).append((phrase, True))
        self._of_one: dict[int, Phrases[bool]] = {}  # made when a rule has decided for once

    def first(self, said: Said) -> Rule | None:
        """The first rule that holds, or None."""
        spoken = set(self._phrases.found_in(said.words)) if len(said.words) > 2 else ()
        for rule in self.all:
            if (not rule.says or rule.number in spoken) and rule.holds(said):
                return rule
        return None

    def speaks(self, rule: Rule, words: str) -> bool:
        """Whether `words` has one of the phrases of `rule`."""
        own = self._of_one.get(rule.number)
        if own is None:
            own = self._of_one[rule.number] = Phrases(self._of_rule.get(rule.number, ()))
        return own.any_in(words)


@lru_cache(maxsize=1)
def shipped() -> Rules:
    """The rules that come with the program. Raises ConfigurationError when the file is broken."""
    text = files("mailyard.sending.bounce").joinpath("rules.toml").read_text("utf-8")
    return compile_rules(tomllib.loads(text))


def compile_rules(document: dict[str, Any]) -> Rules:
    """Rules of a parsed file. Raises ConfigurationError naming the rule that is wrong."""
    words: dict[str, str] = document.get("words", {})
    rules: list[Rule] = []
    phrases: list[tuple[str, int]] = []
    for number, entry in enumerate(document.get("rule", ()), 1):
        rules.append(_rule(number, entry))
        for phrase in entry.get("says", ()):
            phrases.append((_filled_in(phrase, words, number), number))
    return Rules(rules, phrases)


def _filled_in(phrase: str, words: dict[str, str], number: int) -> str:
    """`phrase` with `{$name}` replaced by the alternatives of that name."""

    def alternatives(found: re.Match[str]) -> str:
        if found[1] not in words:
            raise ConfigurationError(f"bounce rule {number} uses {found[0]}, which [words] lacks")
        return "{" + words[found[1]] + "}"

    return _NAME.sub(alternatives, phrase)


def _rule(number: int, entry: dict[str, Any]) -> Rule:
    unknown = entry.keys() - _KEYS
    if unknown:
        raise ConfigurationError(f"bounce rule {number} has an unknown key {sorted(unknown)[0]!r}")
    if not entry.keys() & {"says", "status", "stage"}:
        raise ConfigurationError(f"bounce rule {number} has no condition")
    try:
        return Rule(
            number=number,
            reason=Reason(entry["class"]),
            says=bool(entry.get("says")),
            status=frozenset(entry["status"]) if "status" in entry else None,
            stage=frozenset(_stages(entry["stage"])) if "stage" in entry else None,
            temporary=entry.get("temporary"),
            quoted=entry.get("quoted", False),
            weak=entry.get("weak", False),
        )
    except (KeyError, ValueError) as error:
        raise ConfigurationError(f"bounce rule {number} cannot be used: {error}") from None


def _stages(names: list[str]) -> Iterator[Stage]:
    for name in names:
        yield Stage("" if name == "unknown" else name)
