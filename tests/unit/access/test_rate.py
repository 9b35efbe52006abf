"""The API's own rate limit, under a clock that stands still."""

import pytest

from mailyard.core.clock import ManualClock
from mailyard.core.errors import RateLimited
from mailyard.web.api.rate import RateLimiter


def test_a_burst_passes_and_the_next_one_is_told_when_to_come() -> None:
    clock = ManualClock()
    limiter = RateLimiter(per_s=10, burst=5, clock=clock.monotonic)
    left = [limiter.take("key").remaining for _ in range(5)]
    assert left == [4, 3, 2, 1, 0]
    with pytest.raises(RateLimited) as caught:
        limiter.take("key")
    assert caught.value.retry_after_s == pytest.approx(0.1)
    clock.advance(0.1)
    assert limiter.take("key").remaining == 0


def test_callers_do_not_share() -> None:
    limiter = RateLimiter(per_s=1, burst=1, clock=ManualClock().monotonic)
    limiter.take("a")
    limiter.take("b")


def test_over_a_long_time_the_rate_holds() -> None:
    clock = ManualClock()
    limiter = RateLimiter(per_s=10, burst=5, clock=clock.monotonic)
    passed = 0
    for _ in range(1000):
        clock.advance(0.01)
        try:
            limiter.take("key")
            passed += 1
        except RateLimited:
            pass
    assert 100 <= passed <= 105
