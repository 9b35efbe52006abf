"""Limits by name: the shipped ones, files over them, and that no window holds more."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.core.clock import ManualClock
from mailyard.core.errors import ConfigurationError, InvalidInput, NotFound, RateLimited
from mailyard.ratelimit.adapters.memory import MemoryRateLimit
from mailyard.ratelimit.policy import Policies, Policy, read_policies, shipped


def policies(clock: ManualClock, book: dict[str, Policy] | None = None) -> Policies:
    return Policies(book=book or shipped(), limits=MemoryRateLimit(clock=clock))


def test_the_shipped_policies_are_what_is_documented() -> None:
    book = shipped()
    said = {name: (one.units, one.window_s) for name, one in book.items()}
    assert said == {
        "gmail": (6_000, 60),
        "gmail-project": (1_200_000, 60),
        "graph": (10_000, 600),
        "general": (1_000, 3_600),
    }
    assert book["gmail"].units_of("messages.send") == 100
    assert book["graph"].concurrent == 4


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 20), max_size=150), st.integers(1, 9))
async def test_no_window_holds_more_than_the_units(pauses: list[float], count: int) -> None:
    clock = ManualClock()
    one = policies(clock, {"p": Policy(units=30, window_s=60, burst=9)})
    times: list[tuple[float, int]] = []
    for pause in pauses:
        clock.advance(pause)
        if await one.take("p", "s", count=count) == 0.0:
            times.append((clock.monotonic(), count))
    for began, _ in times:
        window = [amount for at, amount in times if began <= at < began + 60]
        assert sum(window) <= 30 + 1e-6


async def test_a_subject_has_a_bucket_of_his_own_and_all_share_the_one_around() -> None:
    clock = ManualClock()
    book = {
        "user": Policy(units=10, window_s=60, burst=5, within="all"),
        "all": Policy(units=20, window_s=60, burst=8),
    }
    one = policies(clock, book)
    assert await one.take("user", "ada", count=5) == 0.0
    assert await one.take("user", "ada") > 0.0
    assert await one.take("user", "bob", count=2) == 0.0
    assert await one.take("user", "eve", count=3) > 0.0  # its own is full, the one of all is not


async def test_who_has_used_all_is_told_when_to_come_again_and_may_be_given_more() -> None:
    clock = ManualClock()
    one = policies(clock)
    for _ in range(200):
        await one.admit("general", "ada@example.org")
    with pytest.raises(RateLimited, match="1000 in 3600 s is what a person may") as refused:
        await one.admit("general", "ada@example.org")
    assert refused.value.retry_after_s == pytest.approx(4.5)
    assert await one.reset("ada@example.org") == ["general", "gmail", "gmail-project", "graph"]
    await one.admit("general", "ada@example.org")
    with pytest.raises(InvalidInput):
        await one.reset("")
    with pytest.raises(NotFound):
        one.known("nobody")


def test_a_file_stands_over_the_shipped_policies() -> None:
    text = "[policy.gmail]\nunits = 15000\nwindow_s = 60\nburst = 1000\nwithin = 'gmail-project'\n"
    book = read_policies("mine.toml", text, shipped())
    assert (book["gmail"].units, book["graph"].units) == (15_000, 10_000)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x", "not TOML"),
        ("[policy.a]\nunits = 5\nwindow_s = 1\nburst = 5\n", "burst is 5"),
        ("[policy.a]\nunits = 5\nwindow_s = 1\nburst = 1\nwithin = 'b'\n", "within is 'b'"),
        ("[policy.a]\nunits = 5\nwindow_s = 1\nburst = 1\nspeed = 3\n", "speed"),
        ("[policy.A]\nunits = 5\nwindow_s = 1\nburst = 1\n", "matching regex"),
    ],
)
def test_a_file_that_makes_no_sense_says_where(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        read_policies("mine.toml", text, shipped())
