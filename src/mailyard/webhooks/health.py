"""How an endpoint fares, from what its attempts showed. Pure."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from random import Random

import msgspec

from mailyard.webhooks.call import Attempt
from mailyard.webhooks.policy import DISABLED_AFTER_S, REFUSALS_IN_A_ROW, SLOW_S, Outcome, rest_s


class Health(msgspec.Struct, frozen=True):
    """`failures` in a row since `failing_since`; `rest_s`: leave it alone for so long; `gone`: it
    said that it wants nothing any more; `away`: the last attempt found nobody."""

    failures: int = 0
    failing_since: datetime | None = None
    slow: bool = False
    away: bool = False
    gone: bool = False
    rest_s: float | None = None
    told_at: datetime | None = None

    @property
    def probing(self) -> bool:
        """Whether one request at a time finds out if it is back."""
        return self.failures >= 1

    @property
    def stops(self) -> bool:
        """Whether its line waits now."""
        return self.gone or self.rest_s is not None

    @property
    def in_slow_lane(self) -> bool:
        return self.slow or self.failures > 0

    def rests_until(self, now: datetime) -> datetime | None:
        return None if self.rest_s is None else now + timedelta(seconds=self.rest_s)

    def given_up(self, now: datetime) -> str:
        """Why the endpoint is disabled; empty when it is not."""
        if self.gone:
            return "it answered 410 Gone"
        since = self.failing_since
        if since is not None and (now - since).total_seconds() > DISABLED_AFTER_S:
            return f"it has failed since {since:%Y-%m-%d %H:%M} UTC, {self.failures} times in a row"
        return ""


def after(health: Health, attempts: Sequence[Attempt], random: Random) -> Health:
    """How the endpoint fares after `attempts`, in the order in which they ended."""
    for attempt in attempts:
        health = _after_one(health, attempt, random)
    return health


def _after_one(health: Health, attempt: Attempt, random: Random) -> Health:
    verdict = attempt.verdict
    slow = attempt.took_ms > SLOW_S * 1000
    if verdict.outcome is Outcome.TAKEN:
        return Health(slow=slow, told_at=attempt.at)
    failures = health.failures + 1
    away = verdict.outcome is Outcome.AWAY or failures >= REFUSALS_IN_A_ROW
    return Health(
        failures=failures,
        failing_since=health.failing_since or attempt.at,
        slow=slow,
        away=away,
        gone=verdict.outcome is Outcome.GONE,
        rest_s=rest_s(failures, verdict.rest_s, random) if away else None,
        told_at=health.told_at,
    )
