"""Time as a port, so that tests and simulations move it by hand.

Wall-clock instants are timezone-aware UTC datetimes; durations are float seconds.
"""

from datetime import UTC, datetime, timedelta
from time import monotonic, time
from typing import Protocol


class Clock(Protocol):
    """What reads time. `now` is wall-clock UTC; `monotonic` never goes back."""

    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        return datetime.fromtimestamp(time(), UTC)

    def monotonic(self) -> float:
        return monotonic()


class ManualClock:
    """A clock that stands still until it is told to advance."""

    def __init__(self, start: datetime | None = None) -> None:
        self._now = start or datetime(2026, 1, 1, tzinfo=UTC)
        self._monotonic = 0.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError("time only goes forward")
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds
