"""Regular expressions whose worst case is known before they are used.

Python's engine backtracks: a pattern may need a time that is exponential in what a stranger's
server answers. So a rule may use a small part of the language, and what the pattern can cost at
worst on ANSWER_CHARACTERS is computed from its syntax and bounded.

    pattern  = sequence { "|" sequence }
    sequence = { "^" | "$" | "\\b" | item [ quantifier ] }
    item     = character | "." | "\\d" "\\s" "\\w" (or upper case) | "\\" mark | class | group
    group    = "(" pattern ")" | "(?:" pattern ")"
    quantifier = "?" | "*" | "+" | "{m}" | "{m,}" | "{m,n}", each with "?" behind it or not

The cost of an expression has two numbers: how often what follows it may be tried from one start
(`ways`), and how many single steps finding all of those takes (`steps`).

    character          ways 1                    steps 1
    a then b           ways(a) * ways(b)         steps(a) + ways(a) * steps(b)
    a or b             ways(a) + ways(b)         steps(a) + steps(b)
    a, m to n times    sum of ways(a)^i, m..n    steps(a) * sum of ways(a)^i, 0..n-1

So `(a+)+` has 500^500 ways and is refused, and `.*` twice is refused unless the first is bounded.
"""

import re
from dataclasses import dataclass

from mailyard.sending.shape.answer import ANSWER_CHARACTERS

PATTERN_CHARACTERS = 200
PATTERN_GROUPS_DEEP = 8
PATTERN_STEPS_MAX = 5_000_000  # tens of milliseconds at the very worst

_MARKS = frozenset(".^$*+?{}[]\\|()-/'\"#:;,<>@!%&=~_ ")
_SETS = frozenset("dDsSwW")
_COUNTS = re.compile(r"\{([0-9]{1,3})(,?)([0-9]{0,3})\}")
_CLASS = re.compile(r"\[\^?(?:[^\]\[\\]|\\[dswDSW.^$*+?{}\[\]\\|()/-])+\]")


@dataclass(frozen=True, slots=True)
class Cost:
    """See above. `anchored`: it can only begin where the text begins."""

    ways: int
    steps: int
    anchored: bool = False


@dataclass(frozen=True, slots=True)
class Pattern:
    """A checked pattern. Case does not matter; it may match anywhere in the text."""

    source: str
    compiled: re.Pattern[str]
    steps: int

    def found_in(self, text: str) -> bool:
        return self.compiled.search(text[:ANSWER_CHARACTERS]) is not None


def compile_pattern(source: str) -> Pattern:
    """Check and compile. Raises ValueError that says what is wrong and what to write instead."""
    if not 0 < len(source) <= PATTERN_CHARACTERS:
        raise ValueError(f"a pattern of 1 to {PATTERN_CHARACTERS} characters")
    cost = _Reader(source).read()
    steps = cost.steps * (1 if cost.anchored else ANSWER_CHARACTERS + 1)
    if steps > PATTERN_STEPS_MAX:
        raise ValueError(
            'a pattern whose worst case is bounded; write ".{0,40}" for ".*", leave out '
            "repetitions of repetitions, or give several patterns that must all match"
        )
    try:
        return Pattern(source, re.compile(source, re.IGNORECASE), steps)
    except re.error as error:
        raise ValueError(f"a regular expression ({error})") from None


class _Reader:
    """Recursive descent over the grammar above; the answer is the cost."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._at = 0

    def read(self) -> Cost:
        cost = self._alternatives(0)
        if self._at < len(self._source):
            raise self._error('no ")" that nothing opened')
        return cost

    def _alternatives(self, deep: int) -> Cost:
        costs = [self._sequence(deep)]
        while self._next("|"):
            costs.append(self._sequence(deep))
        return Cost(
            sum(cost.ways for cost in costs),
            sum(cost.steps for cost in costs),
            all(cost.anchored for cost in costs),
        )

    def _sequence(self, deep: int) -> Cost:
        total = Cost(1, 0)
        first = True
        while self._at < len(self._source) and self._source[self._at] not in "|)":
            item = self._item(deep)
            total = Cost(
                _capped(total.ways * item.ways),
                _capped(total.steps + total.ways * item.steps),
                item.anchored if first else total.anchored,
            )
            first = False
        return total

    def _item(self, deep: int) -> Cost:
        if self._next("^"):
            return Cost(1, 1, anchored=True)
        if self._next("$") or self._next("\\b"):
            return Cost(1, 1)
        item = self._group(deep) if self._next("(") else self._character()
        least, most = self._quantifier()
        if (least, most) == (1, 1):
            return item
        return _repeated(item, least, most)

    def _group(self, deep: int) -> Cost:
        if deep >= PATTERN_GROUPS_DEEP:
            raise self._error(f"at most {PATTERN_GROUPS_DEEP} groups in one another")
        if self._next("?") and not self._next(":"):
            raise self._error('groups "(…)" and "(?:…)" only')
        cost = self._alternatives(deep + 1)
        if not self._next(")"):
            raise self._error('a ")" for every "("')
        return cost

    def _character(self) -> Cost:
        character = self._source[self._at]
        if character in "*+?{":
            raise self._error("a repetition behind a character, class or group, and only one")
        if character == "[":
            match = _CLASS.match(self._source, self._at)
            if match is None:
                raise self._error('a class like "[0-9a-f]"')
            self._at = match.end()
        elif character == "\\":
            escaped = self._source[self._at + 1 : self._at + 2]
            if not escaped or escaped not in _SETS | _MARKS:
                raise self._error('"\\b", "\\d", "\\s", "\\w" or "\\" before a mark')
            self._at += 2
        else:
            self._at += 1
        return Cost(1, 1)

    def _quantifier(self) -> tuple[int, int]:
        counts = _COUNTS.match(self._source, self._at)
        if counts is not None:
            self._at = counts.end()
            least = int(counts[1])
            most = int(counts[3]) if counts[3] else (ANSWER_CHARACTERS if counts[2] else least)
        elif self._next("*"):
            least, most = 0, ANSWER_CHARACTERS
        elif self._next("+"):
            least, most = 1, ANSWER_CHARACTERS
        elif self._next("?"):
            return 0, 1  # "??" is refused as a second repetition: it says nothing new here
        else:
            return 1, 1
        self._next("?")  # lazy or greedy: the worst case is the same
        if most < least:
            raise self._error('"{m,n}" with m at most n')
        return least, min(most, ANSWER_CHARACTERS)

    def _next(self, wanted: str) -> bool:
        if self._source.startswith(wanted, self._at):
            self._at += len(wanted)
            return True
        return False

    def _error(self, allowed: str) -> ValueError:
        return ValueError(f"{allowed} (at character {self._at + 1})")


def _repeated(item: Cost, least: int, most: int) -> Cost:
    power, steps, ways = 1, 1, 0
    for count in range(most + 1):
        if count >= least:
            ways = _capped(ways + power)
        if count < most:
            steps = _capped(steps + item.steps * power)
        power = _capped(power * item.ways)
    return Cost(ways, steps, item.anchored and least > 0)


def _capped(number: int) -> int:
    return min(number, PATTERN_STEPS_MAX + 1)
