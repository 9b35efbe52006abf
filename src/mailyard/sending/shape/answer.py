"""What a destination said, in the form that rules are matched against."""

import re
from dataclasses import dataclass
from enum import StrEnum

from mailyard.sending.transport import HANDOFF_REPLY_CHARACTERS, Outcome

ANSWER_CHARACTERS = HANDOFF_REPLY_CHARACTERS  # what a pattern is ever matched against

# RFC 3463 section 2: class "." subject "." detail, each of one to three digits.
_ENHANCED = re.compile(r"(?:[245][0-9]{2}[ -])?\s*#?([245]\.[0-9]{1,3}\.[0-9]{1,3})(?![0-9.])")
# A further line of a reply that came as one text: "\n421-" (RFC 5321 section 4.2.1).
_CONTINUED = re.compile(r"[\r\n]+[245][0-9]{2}[ -]")


class Phase(StrEnum):
    """How far the session was when the answer came."""

    CONNECT = "connect"  # nobody answered, or the greeting was no 220
    HELLO = "hello"  # EHLO or HELO
    TLS = "tls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"  # the answer to DATA itself
    CONTENT = "content"  # the answer after the final dot
    HTTP = "http"  # an HTTP API: it has one answer


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer for one recipient. `enhanced` is "" when there was none (RFC 3463).

    `text` is one line of at most ANSWER_CHARACTERS, without the codes in front.
    """

    outcome: Outcome
    code: int | None
    enhanced: str
    text: str
    phase: Phase

    @property
    def shown(self) -> str:
        """The answer as a person reads it."""
        code = "" if self.code is None else str(self.code)
        return " ".join(part for part in (code, self.enhanced, self.text) if part)


def read_answer(outcome: Outcome, code: int | None, reply: str, phase: Phase) -> Answer:
    """The answer in `reply`, as a transport reports it: any lines, with the codes or without."""
    reply = reply[: 2 * ANSWER_CHARACTERS]
    found = _ENHANCED.match(reply)
    enhanced = found[1] if found else ""
    text = _CONTINUED.sub(" ", reply)
    if code is not None and text.startswith(str(code)):
        text = text[3:].lstrip(" -")
    if enhanced:  # some repeat it on every line
        text = text.replace(enhanced + " ", "").removeprefix(enhanced)
    return Answer(outcome, code, enhanced, " ".join(text.split())[:ANSWER_CHARACTERS], phase)
