"""Rules on answers: what is matched, and what follows for the mail and for the site."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from mailyard.sending.shape.answer import Answer, Phase
from mailyard.sending.shape.measure import Threshold
from mailyard.sending.shape.pattern import Pattern
from mailyard.sending.transport import Outcome


class Verdict(StrEnum):
    """What becomes of the mail that was answered so."""

    RETRY = "retry"  # try again later, whatever the code says
    FAIL = "fail"  # not again, whatever the code says
    SUPPRESS = "suppress"  # not again, and nothing else to this recipient


@dataclass(frozen=True, slots=True)
class Rule:
    """All conditions that are given must hold; an empty one holds always.

    `codes`: beginnings of reply codes ("421", "4"). `enhanced`: an enhanced code, or the beginning
    of one with a dot behind it ("4.7."). `patterns`: all are found in the text. Of what follows,
    `pause_s`, `slow` and `alert` wait for `after`; the verdict does not. `recipient_only`: the
    answer says nothing of the site (a full mailbox, greylisting). `source`: where the rule is from.
    """

    name: str
    codes: tuple[str, ...] = ()
    enhanced: tuple[str, ...] = ()
    patterns: tuple[Pattern, ...] = ()
    phases: frozenset[Phase] = frozenset()
    after: Threshold | None = None
    pause_s: float | None = None
    slow: float | None = None
    alert: str = ""
    verdict: Verdict | None = None
    retry_s: float | None = None
    recipient_only: bool = False
    source: str = ""

    def matches(self, answer: Answer) -> bool:
        """Whether this rule is about `answer`."""
        if self.codes and not str(answer.code or "").startswith(self.codes):
            return False
        if self.phases and answer.phase not in self.phases:
            return False
        if self.enhanced and not any(_covers(one, answer.enhanced) for one in self.enhanced):
            return False
        return all(pattern.found_in(answer.text) for pattern in self.patterns)


def _covers(wanted: str, enhanced: str) -> bool:
    return enhanced.startswith(wanted) if wanted.endswith(".") else enhanced == wanted


def matching(rules: tuple[Rule, ...], answer: Answer) -> list[Rule]:
    """The rules about `answer`, in order. Rules are about refusals: what was accepted needs none.

    The first that has a verdict says what becomes of the mail; the first whose threshold is reached
    acts on the site.
    """
    if answer.outcome is Outcome.ACCEPTED:
        return []
    return [rule for rule in rules if rule.matches(answer)]


@dataclass(frozen=True, slots=True)
class Ruling:
    """What becomes of a mail. `retry_s`: not before that many seconds; None: as usual.

    No verdict: it was accepted, or nobody knows whether it was (and no rule may say).
    """

    verdict: Verdict | None
    retry_s: float | None = None


def ruling_of(matches: Sequence[Rule], answer: Answer) -> Ruling:
    """What the rules that match say of the mail, else what its outcome says.

    A policy rejection (5.7.x) never suppresses a recipient: it is about the sender.
    """
    if answer.outcome in (Outcome.ACCEPTED, Outcome.UNKNOWN):
        return Ruling(None)
    rule = next((one for one in matches if one.verdict is not None), None)
    if rule is None:
        return Ruling(Verdict.RETRY if answer.outcome is Outcome.LATER else Verdict.FAIL)
    if rule.verdict is Verdict.SUPPRESS and answer.enhanced.startswith("5.7."):
        return Ruling(Verdict.FAIL)
    return Ruling(rule.verdict, rule.retry_s)


def is_about_us(receiver_rules: Sequence[Rule], answer: Answer, rule_name: str) -> bool:
    """Whether a refusal speaks of our reputation or policy, not of the recipient or of load: what
    a source address is judged by."""
    if answer.outcome in (Outcome.ACCEPTED, Outcome.UNKNOWN):
        return False
    if answer.enhanced.startswith(("4.7.", "5.7.")):
        return True
    return any(rule.name == rule_name and bool(rule.alert) for rule in receiver_rules)
