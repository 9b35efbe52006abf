"""Durations, rates and thresholds as people write them: "10 min", "100/s", "3 in 1 min"."""

import re
from dataclasses import dataclass

DURATION_S_MAX = 7 * 86_400.0  # a pause of more than a week is a decision for people
RATE_PER_S_MAX = 100_000.0
THRESHOLD_COUNT_MAX = 100  # hits that one rule remembers of one site
THRESHOLD_WINDOW_S_MAX = 86_400.0

DURATION_ALLOWED = 'a number with s, min, h or d ("90 s", "10 min"), above 0 and at most "7 d"'
RATE_ALLOWED = 'a number per s, min, h or d ("100/s", "3600/h"), above 0 and at most "100000/s"'
THRESHOLD_ALLOWED = 'a count in a time ("3 in 1 min"): 1 to 100, in at most "1 d"'

_UNIT_S = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"([0-9]{1,7}(?:\.[0-9]{1,3})?) ?(s|min|h|d)")
_RATE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?/ ?(s|min|h|d)")
_THRESHOLD = re.compile(r"([0-9]{1,4}) in (.{1,20})")


@dataclass(frozen=True, slots=True)
class Rate:
    """`amount` in `period_s` seconds."""

    amount: float
    period_s: float

    @property
    def per_s(self) -> float:
        return self.amount / self.period_s


@dataclass(frozen=True, slots=True)
class Threshold:
    """`count` hits within `window_s` seconds."""

    count: int
    window_s: float


def duration_s(text: str) -> float:
    """Seconds of "10 min". Raises ValueError on what DURATION_ALLOWED does not allow."""
    match = _DURATION.fullmatch(text)
    seconds = float(match[1]) * _UNIT_S[match[2]] if match else 0.0
    if not 0.0 < seconds <= DURATION_S_MAX:
        raise ValueError(DURATION_ALLOWED)
    return seconds


def rate(text: str) -> Rate:
    """The rate of "100/s". Raises ValueError on what RATE_ALLOWED does not allow."""
    match = _RATE.fullmatch(text)
    if match is not None:
        found = Rate(float(match[1]), _UNIT_S[match[2]])
        if 0.0 < found.per_s <= RATE_PER_S_MAX:
            return found
    raise ValueError(RATE_ALLOWED)


def threshold(text: str) -> Threshold:
    """The threshold of "3 in 1 min". Raises ValueError on what THRESHOLD_ALLOWED does not allow."""
    match = _THRESHOLD.fullmatch(text)
    if match is not None:
        try:
            found = Threshold(int(match[1]), duration_s(match[2]))
        except ValueError:
            raise ValueError(THRESHOLD_ALLOWED) from None
        if 1 <= found.count <= THRESHOLD_COUNT_MAX and found.window_s <= THRESHOLD_WINDOW_S_MAX:
            return found
    raise ValueError(THRESHOLD_ALLOWED)
