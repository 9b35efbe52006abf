"""Evidence to verdict. What the refusing server said is asked first, then what is said of it.

Each piece of evidence goes through the rules on its own, so that a word in the reporting server's
boilerplate never outweighs the answer that it quotes. A weak rule ("blocked for policy") decides
only when no later piece says more.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from mailyard.protocol.report import Kind, Recipient, Report, Stage
from mailyard.protocol.report.codes import find_stage
from mailyard.protocol.report.phrase import words_of
from mailyard.sending.bounce.reason import Reason, is_hard
from mailyard.sending.bounce.rules import Rule, Rules, Said, shipped

# The codes at the start of each line of a long answer, in the midst of its sentences.
_CODES = re.compile(
    r"(?<![\d.])[245]\d\d[ -]#?[245]\.[0-7]\.\d{1,3}(?![\d.]*\d)|\b[45]\d\d-(?=[A-Za-z])"
)
_TEXT_CHARACTERS = 4_000  # of a piece of evidence
_EVIDENCE_CHARACTERS = 500
# Feedback types by which nobody asked for less mail (RFC 5965 section 7.3, RFC 6591).
NOT_OF_A_PERSON = frozenset(("auth-failure", "dmarc", "not-spam", "virus"))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a refusal means. `evidence` is the line that decided, `rule` its rule's number or 0.

    `suppresses`: nothing should be sent to this address again. A refusal for policy (5.7.x) is
    never about the recipient, whatever its words are.
    """

    reason: Reason
    hard: bool
    suppresses: bool
    evidence: str
    rule: int
    status: str = ""
    reply_code: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """A recipient of a report and what befell him."""

    recipient: Recipient
    verdict: Verdict


def classify_reply(
    code: int | str, enhanced: str, text: str, stage: Stage | None = None
) -> Verdict:
    """What a server's answer means: three-digit `code`, `enhanced` status or "", its text.

    `stage` is the step that was answered; when not given, what the text says of it, else RCPT.
    """
    text = text[:_TEXT_CHARACTERS]
    words = _words(text)
    step = stage or find_stage(text, words) or Stage.RCPT
    said = Said(words, str(code), enhanced, step)
    rule = shipped().first(said)
    return _verdict(rule, said, text)


def classify(report: Report) -> list[Judged]:
    """What befell each recipient of a bounce, a delay or a complaint; nothing of other mail."""
    if report.kind is Kind.COMPLAINT:
        kind = report.feedback.type if report.feedback is not None else ""
        of_a_person = kind not in NOT_OF_A_PERSON
        verdict = Verdict(Reason.COMPLAINT, False, of_a_person, f"{report.reason}: {kind}", 0)
        return [Judged(recipient, verdict) for recipient in report.recipients]
    if report.kind not in (Kind.BOUNCE, Kind.DELAY):
        return []
    rules = shipped()
    return [
        Judged(recipient, _final(_judge(rules, recipient, report), recipient))
        for recipient in report.recipients
        if recipient.action in ("", "failed", "delayed")
    ]


def _final(verdict: Verdict, recipient: Recipient) -> Verdict:
    """`verdict`, which suppresses nobody whose mail is still being tried."""
    if verdict.suppresses and recipient.action == "delayed":
        return replace(verdict, suppresses=False)
    return verdict


def _judge(rules: Rules, recipient: Recipient, report: Report) -> Verdict:
    fallback: tuple[Rule, Said, str] | None = None
    said = Said("", recipient.reply_code, recipient.status, recipient.stage)
    quoted = recipient.diagnostic[:_TEXT_CHARACTERS]
    for text, of_him in _evidence(recipient, report):
        if fallback is not None and fallback[0].says and not of_him:
            break
        said = said._replace(words=_words(text), quoted=text == quoted)
        rule = rules.first(said)
        if rule is None:
            continue
        if not rule.weak:
            return _verdict(rule, said, _line(rules, rule, text))
        if fallback is None or (rule.says and not fallback[0].says):
            fallback = (rule, said, text)
    if fallback is None:
        return _verdict(None, said, recipient.diagnostic or report.subject)
    rule, said, text = fallback
    return _verdict(rule, said, _line(rules, rule, text))


def _evidence(recipient: Recipient, report: Report) -> Iterator[tuple[str, bool]]:
    """(text, whether it is about this recipient), the nearest to the refusing server first."""
    yield recipient.diagnostic[:_TEXT_CHARACTERS], True
    if recipient.notice and recipient.notice != recipient.diagnostic:
        yield recipient.notice[:_TEXT_CHARACTERS], True
    if report.notice and report.notice[:_TEXT_CHARACTERS] != recipient.notice:
        yield report.notice[:_TEXT_CHARACTERS], False
    yield report.subject, False


def _words(text: str) -> str:
    return words_of(_CODES.sub(" ", text))


def _line(rules: Rules, rule: Rule, text: str) -> str:
    """The line of `text` by which `rule` holds; the first when it is spread or only a code."""
    lines = [line for line in text.split("\n") if line.strip()]
    if rule.says and len(lines) > 1:
        for line in lines[:50]:
            if rules.speaks(rule, _words(line)):
                return line.strip()
    return lines[0].strip() if lines else ""


def _verdict(rule: Rule | None, said: Said, evidence: str) -> Verdict:
    reason = rule.reason if rule is not None else Reason.UNDEFINED
    hard = is_hard(reason, temporary=said.temporary)
    return Verdict(
        reason=reason,
        hard=hard,
        suppresses=hard and not said.temporary and said.status[1:4] != ".7.",
        evidence=evidence[:_EVIDENCE_CHARACTERS],
        rule=rule.number if rule is not None else 0,
        status=said.status,
        reply_code=said.code,
    )
