"""When a delivery is tried again, when an endpoint rests, when it is given up. Pure decisions.

Two things fail. A *delivery* fails when the endpoint answers and says no: it waits for its next try
and the others go on. An *endpoint* fails when nobody answers, or answers that it is too busy: then
everything in its line waits, and one request at a time finds out whether it is back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from random import Random

# After the n-th failure of a delivery: ten tries over three days, as Standard Webhooks suggests.
RETRY_AFTER_S = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
ATTEMPTS = len(RETRY_AFTER_S) + 1
KEPT_S = 4 * 86_400.0  # a delivery that waited so long behind an endpoint that is away is dead
REST_S = (5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0)  # of an endpoint, after each failure
LONGEST_REST_S = 3600.0
REFUSALS_IN_A_ROW = 10  # an endpoint that only refuses is treated as one that is away
DISABLED_AFTER_S = 5 * 86_400.0  # of failures without a success between
SLOW_S = 2.0  # an answer later than this makes an endpoint slow
_GONE = 410
_BUSY = frozenset({429, 502, 503, 504})
_JITTER = 0.1


class Outcome(Enum):
    """What an attempt showed."""

    TAKEN = "taken"
    REFUSED = "refused"  # this delivery
    AWAY = "away"  # the endpoint
    GONE = "gone"  # it wants nothing any more


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome and its reason; `rest_s`: for how long the endpoint asked to be left alone."""

    outcome: Outcome
    why: str = ""
    rest_s: float | None = None


def judge(status: int, headers: Mapping[str, str], now: datetime) -> Verdict:
    """What an answer means."""
    if 200 <= status < 300:
        return Verdict(Outcome.TAKEN)
    if status == _GONE:
        return Verdict(Outcome.GONE, "answered 410 Gone")
    if status in _BUSY:
        rest_s = _retry_after_s(headers.get("retry-after", ""), now)
        return Verdict(Outcome.AWAY, f"answered {status}", rest_s)
    if 300 <= status < 400:
        return Verdict(
            Outcome.REFUSED, f"answered {status}: redirects are not followed, change the address"
        )
    return Verdict(Outcome.REFUSED, f"answered {status}")


def retry_after_s(attempts: int, random: Random) -> float | None:
    """How long a delivery waits after its `attempts`-th failure; None: it is dead."""
    if attempts >= ATTEMPTS:
        return None
    return _spread(RETRY_AFTER_S[attempts - 1], random)


def rest_s(failures: int, asked_s: float | None, random: Random) -> float:
    """How long an endpoint rests after `failures` in a row."""
    own_s = _spread(REST_S[min(failures, len(REST_S)) - 1], random)
    return max(own_s, asked_s or 0.0)


def _spread(seconds: float, random: Random) -> float:
    return seconds * (1.0 - _JITTER + 2 * _JITTER * random.random())


def _retry_after_s(text: str, now: datetime) -> float | None:
    """Retry-After (RFC 9110 section 10.2.3), bounded; None when it says nothing."""
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), LONGEST_REST_S)
    try:
        seconds = (parsedate_to_datetime(text) - now).total_seconds()
    except (TypeError, ValueError, OverflowError):  # the last: a year or a zone of twenty digits
        return None
    return min(max(seconds, 0.0), LONGEST_REST_S)
