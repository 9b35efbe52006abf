"""What may be done with a mail after a provider has answered: the rule that nothing goes twice.

Another provider is tried only when it is certain that this one has not taken the mail, and only
when another one could do better. The whole rule is the table NEXT; nothing else decides it.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from mailyard.sending.shape.answer import Answer, Phase
from mailyard.sending.transport import Outcome

TRIES_MAX = 4  # providers for one mail in one attempt; then it waits like any deferred mail


class Fault(StrEnum):
    """Whose matter a refusal is."""

    PROVIDER = "provider"  # its limits, its outage, our account with it
    RECIPIENT = "recipient"  # the mailbox does not exist, is full, refuses
    CONTENT = "content"  # this mail: too large, malformed, taken for spam
    UNSURE = "unsure"


class Next(StrEnum):
    """What follows for the mail."""

    DONE = "done"
    ELSEWHERE = "elsewhere"  # not taken for certain: the next candidate may have it now
    LATER = "later"  # deferred; another attempt chooses anew
    FAIL = "fail"
    UNKNOWN = "unknown"  # it may have been taken: nobody else gets it


NEXT: dict[tuple[Outcome, Fault], Next] = {
    **dict.fromkeys([(Outcome.ACCEPTED, fault) for fault in Fault], Next.DONE),
    **dict.fromkeys([(Outcome.UNKNOWN, fault) for fault in Fault], Next.UNKNOWN),
    (Outcome.LATER, Fault.PROVIDER): Next.ELSEWHERE,
    (Outcome.LATER, Fault.RECIPIENT): Next.LATER,
    (Outcome.LATER, Fault.CONTENT): Next.LATER,
    (Outcome.LATER, Fault.UNSURE): Next.LATER,
    (Outcome.NEVER, Fault.PROVIDER): Next.ELSEWHERE,
    (Outcome.NEVER, Fault.RECIPIENT): Next.FAIL,
    (Outcome.NEVER, Fault.CONTENT): Next.FAIL,
    (Outcome.NEVER, Fault.UNSURE): Next.FAIL,
}


@dataclass(frozen=True, slots=True)
class Journey:
    """One mail in one attempt: whom it was given to, and how that ended. None: not yet.

    `only`: an earlier attempt ended `unknown` at this provider. Whoever tries such a mail again
    (transactional mail is) gives it to nobody else, for that one may have it.
    """

    tried: tuple[str, ...] = ()
    ended: Next | None = None
    only: str | None = None


def candidate(journey: Journey, candidates: tuple[str, ...]) -> str | None:
    """Who gets the mail now. None: it has ended, or nobody is left and it waits (`settled`).

    `candidates`: of the choice, without those whose breaker has given no ticket since.
    """
    if journey.ended is not None or len(journey.tried) >= TRIES_MAX:
        return None
    left = (one for one in candidates if one not in journey.tried)
    return next((one for one in left if journey.only in (None, one)), None)


def handed(journey: Journey, provider: str) -> Journey:
    """`provider` is about to get the mail. Until it has answered, it may have taken it."""
    allowed = journey.only in (None, provider) and provider not in journey.tried
    if journey.ended is not None or not allowed:
        raise AssertionError(f"{provider} must not get this mail: {journey}")
    return replace(journey, tried=(*journey.tried, provider), ended=Next.UNKNOWN)


def answered(journey: Journey, outcome: Outcome, fault: Fault) -> Journey:
    """The provider has answered."""
    following = NEXT[outcome, fault]
    return replace(journey, ended=None if following is Next.ELSEWHERE else following)


def settled(journey: Journey, candidates: tuple[str, ...]) -> Next | None:
    """How the attempt ended; None while a candidate is left. Nobody left: it comes again later."""
    if journey.ended is not None:
        return journey.ended
    return Next.LATER if candidate(journey, candidates) is None else None


def is_failure(outcome: Outcome, fault: Fault) -> bool:
    """Whether this counts against the provider in its breaker."""
    return outcome is Outcome.UNKNOWN or (
        fault is Fault.PROVIDER and outcome is not Outcome.ACCEPTED
    )


_ACCOUNT_CODES = frozenset({432, 454, 530, 534, 535, 538})  # RFC 4954 6, RFC 3207
_BEFORE_RECIPIENT = frozenset({Phase.CONNECT, Phase.HELLO, Phase.TLS, Phase.AUTH, Phase.MAIL})
_OF_RECIPIENT = ("1.", "2.")  # RFC 3463 3.2 and 3.3: addressing, mailbox
_OF_SYSTEM = "3."  # RFC 3463 3.4: the mail system itself, full or out of order


def fault_of(answer: Answer) -> Fault:
    """Whose matter an answer of an SMTP relay is. (An HTTP adapter knows its API's words itself.)

    421 is the server's own trouble in any phase (RFC 5321 3.8); before RCPT nothing has been said
    about a recipient. A relay that answers 4xx to the content has not taken it. Without a code the
    session ended before there was an answer.
    """
    later = answer.outcome is Outcome.LATER
    if answer.code in _ACCOUNT_CODES or answer.code == 421 or answer.phase in _BEFORE_RECIPIENT:
        return Fault.PROVIDER
    if later and (answer.code is None or answer.enhanced[2:].startswith(_OF_SYSTEM)):
        return Fault.PROVIDER
    if answer.phase is Phase.RCPT or answer.enhanced[2:].startswith(_OF_RECIPIENT):
        return Fault.RECIPIENT
    if answer.phase in (Phase.DATA, Phase.CONTENT):
        return Fault.PROVIDER if later else Fault.CONTENT
    return Fault.UNSURE
